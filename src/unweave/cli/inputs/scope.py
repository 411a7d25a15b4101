"""`--scope`: which weights a method trains, or low-rank additions to them (LoRA)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cyclopts import Parameter
from torch import nn

from unweave.methods import Method
from unweave.methods.lora import LoRA
from unweave.tasks.diffusion.scopes import Scope
from unweave.tasks.low_rank import require_peft
from unweave.tasks.low_rank_layers import find_layers

RANK = 8
TEXT_TO_IMAGE: Scope = "all"
"""The default scope of a text-to-image model: an edit of cross-attention alone hides a concept."""


@Parameter(name="*")
@dataclass(frozen=True)
class TrainedWeights:
    """The weights that a method trains.

    Args:
        scope: The weights to train; by default all, of a text-to-image model all of the denoiser. lora trains
            low-rank additions to the weights of layers, by peft; forget also writes them to the folder lora.
            The others are for text-to-image models.
        rank: With --scope lora, the rank of the additions; by default 8.
        layers: With --scope lora, a pattern for the names of the layers that get an addition; by default
            all linear and convolutional layers; for a text-to-image model, the projections of attention.
    """

    scope: Scope | None = None
    rank: int | None = None
    layers: str | None = None

    def __post_init__(self) -> None:
        flags = {"--rank": self.rank, "--layers": self.layers}
        lone_flags = [flag for flag, value in flags.items() if value is not None and self.scope != "lora"]
        if lone_flags:
            raise ValueError(f"{lone_flags[0]} goes with --scope lora, found it alone: add --scope lora")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"--rank must be at least 1, found {self.rank}")

    @property
    def is_lora(self) -> bool:
        """Whether low-rank additions are trained."""
        return self.scope == "lora"

    def facts(self) -> Mapping[str, Any]:
        """The facts that a run depends on; none by default."""
        return {} if self == ALL else {"trained": asdict(self)}

    def wrap(self, method: Method) -> Method:
        """The method, with LoRA if that is the scope.

        Raises:
            ValueError: If the scope is for other models, or LoRA can't train by this method.
        """
        if self.scope not in (None, "lora"):
            raise ValueError(
                f"--scope {self.scope} is for text-to-image models: leave it out, use --scope lora, or give "
                "the method's own pattern with --set, such as where=head"
            )
        return LoRA(method, self.rank or RANK, self.layers) if self.is_lora else method

    def find_layers(self, model: nn.Module) -> list[str]:
        """The layers of a model that get an addition; none without LoRA.

        Raises:
            ImportError: If peft is missing.
            ValueError: If no layer can have one.
        """
        if not self.is_lora:
            return []
        require_peft()
        return find_layers(model, self.layers)


ALL = TrainedWeights()


def read_trained_weights(facts: Mapping[str, Any]) -> TrainedWeights:
    """The weights that an earlier run trained, from its facts."""
    return TrainedWeights(**facts["trained"]) if "trained" in facts else ALL


def refuse_layers_of_pipeline(trained: TrainedWeights) -> None:
    """Raises if layers of a text-to-image model are named."""
    if trained.layers is not None:
        raise ValueError(
            "--layers is for other models: of a text-to-image model, --scope lora adds to the projections of "
            "attention"
        )
