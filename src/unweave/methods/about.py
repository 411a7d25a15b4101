"""What a method says of itself, for the table of methods."""

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """The facts that a reader of a table needs.

    Args:
        paper: Authors, venue, number.
        data: The parts of the data that it needs.
        step: The cost of a step, in gradient evaluations.
        deviations: Where it differs from the paper or the released code; empty if nowhere.
    """

    paper: str
    data: str
    step: str
    deviations: str = ""
