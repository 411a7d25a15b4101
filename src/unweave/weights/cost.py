"""The cost of a run."""

from dataclasses import dataclass


@dataclass
class Cost:
    """The cost of a method, so far.

    Args:
        gradients: Gradient evaluations: one forward and one backward over one batch.
        examples: Examples in those batches.
        seconds: Wall time.
    """

    gradients: int = 0
    examples: int = 0
    seconds: float = 0.0

    def __iadd__(self, other: "Cost") -> "Cost":
        self.gradients += other.gradients
        self.examples += other.examples
        self.seconds += other.seconds
        return self
