"""The methods of the study of text-to-image models, and what a search of each chooses from.

Each is a pipeline whose first stage names the weights to train, so that the scope is a setting like others.
All get the gradients of a tenth of a retraining, batches of 64 retain and 32 forget examples, one range of
learning rates and the forget losses of `FORGET`; what a method is defined by is fixed. Every search starts at
the same learning rate, forget loss and scope, as far as a method has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from unweave.descent.descend import Descent
from unweave.families.diffusion_settings import WITHOUT_NULL as DENOISERS
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import Method
from unweave.methods.about import About
from unweave.methods.configure import configure
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.reset_tokens import ResetTokens
from unweave.problem import Problem
from unweave.space import Choice, Log, Range, Uniform, Whole
from unweave.tasks.diffusion.scopes import Scope, restrict

BUDGET = 90
"""The gradient evaluations of a run: a tenth of the 900 of a retraining of digits, and less of garments'."""

RATES = Log(5e-4, 4e-3)
"""The learning rates of all methods; a model is trained at 2e-3. In a first round of searches on the same
concepts, most trials below 5e-4 left the concept as it was."""

FORGET = Choice(("ideal", "mislabel", "bounded", "surrogate", "away"))
SCOPES = Choice(("cross-attention", "attention", "all"))
AHEAD, LAGGED = Log(1e-2, 10.0), Log(1e-3, 1.0)
"""The step that LUR looks through, in mode lagged a shorter one. The family's range ends at 0.1."""

START = "away"
"""The forget loss at which searches start: the best for "joint" on the object of the first round."""

AS_DENOISERS = ("lur", "lur-exact", "lur-lagged", "joint")
"""The methods whose rows start at the settings for class-conditional denoisers without a null condition."""

DESCENT = {"lr": 2e-3, "batch": 64, "forget_batch": 32, "max_norm": 1.0, "schedule": "cosine"}
"""The settings of every descent; a search may change the learning rate."""


ONE = {"weight": 1.0}
HALF = {"weight": 1.0, "forget": {"kind": "away", "eta": 0.5}}
"""The guidance away from the concept is half as strong."""

QUARTER = {"weight": 0.25}
FORMER = {"forget": "mislabel", "weight": 0.33, "retain": "nll"}
"""The losses of earlier defaults of the command line."""

BOTH = {"weight": 0.5, "retain": "both"}
"""The retain loss has two parts: the training loss and the distance to the original."""


@dataclass(frozen=True)
class Train:
    """Leaves the weights of a scope trainable and freezes the others: of the denoiser, or the text encoder.

    Args:
        scope: The scope.
    """

    about: ClassVar[About] = About("ours", "none", "no steps", "a start, for pipelines")
    scope: Scope = "cross-attention"

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        restrict(problem.model, self.scope)
        part = "words." if self.scope == "text encoder" else "unet."
        for name, p in problem.model.named_parameters():
            p.requires_grad_(p.requires_grad and name.startswith(part))


@dataclass(frozen=True)
class Row:
    """A method of the study.

    Args:
        stages: The names of its stages, joined by ":".
        changes: Settings by the paths of its stages, such as {"esd": {"eta": 1.0}}.
        ranges: Ranges by dotted path that replace or add to those of the family; None takes one away.
        scope: The scope if it is fixed; searched if None. With "all" one stage is a method and no pipeline.
        searched: Whether it has settings to search.
        preset: Whether its stages start at the settings of the command line, with no descent of the study.
    """

    stages: str
    changes: Mapping[str, Mapping[str, Any]]
    ranges: Mapping[str, Range | None]
    scope: Scope | None = None
    searched: bool = True
    preset: bool = False

    @property
    def edits_words(self) -> bool:
        """Whether it edits the text encoder, too."""
        return "reset-tokens" in self.stages.split(":")


def steps(name: str, price: int, extra: int = 0) -> dict[str, Range]:
    """The numbers of steps at a price in gradients, with an extra cost beside the steps."""
    max_steps = (BUDGET - extra) // price
    return {f"{name}.how.steps": Whole(max(1, max_steps // 3), max_steps)}


def searched_row(name: str, price: int, share: float = 1.0, **changes: Any) -> Row:  # noqa: ANN401  settings
    """A method with a forget loss, which may spend a share of the budget."""
    ranges = steps(name, price, round((1 - share) * BUDGET))
    return Row(name, {name: {"forget": START, **changes}}, {f"{name}.forget": FORGET, **ranges})


def fixed_row(name: str, length: int, **changes: Any) -> Row:  # noqa: ANN401  settings
    """A method on all weights; its settings were chosen on the object and the seed of the searches."""
    how = {"lr": 1.5e-3, "steps": length}
    return Row(name, {name: {"forget": START, "how": how, **changes}}, {}, "all", searched=False)


def fixed_row_with_recovery(row: Row, length: int) -> Row:
    """The same row, followed by a short recovery at a third of its learning rate."""
    recovery = {"until": None, "how": {"lr": 5e-4, "steps": length}}
    return replace(row, stages=f"{row.stages}:recover", changes={**row.changes, "recover": recovery})


def preset_row(stages: str, scope: Scope, **changes: Mapping[str, Any]) -> Row:
    """Stages as `unweave forget` runs them without settings, but for some changes by stage."""
    return Row(stages, changes, {}, scope, searched=False, preset=True)


def lookahead_row(name: str, price: int, alpha: Range = AHEAD, share: float = 1.0) -> Row:
    """LUR in one of its modes, with a range for the step that it looks through."""
    row = searched_row(name, price, share)
    return replace(row, ranges={**row.ranges, f"{name}.alpha": alpha})


def with_recovery(row: Row) -> Row:
    """The same method, followed by a recovery that spends the rest of the budget."""
    spends = {"recover.until": None, "recover.budget": Choice((BUDGET,))}
    return replace(row, stages=f"{row.stages}:recover", ranges={**row.ranges, **spends})


META = searched_row("meta-unlearning", 6)
RELEASE_2025 = {"erase_from": "class", "images": "original", "eta": 2.0}
"""ESD's release of 2025: with eta + 1 its target is that of the first release with eta."""

SMALL = {"per_class": 1, "fisher_images": 8, "fisher_times": 2}
"""Selective Amnesia's replay of one image a prompt, and its Fisher information on few."""

ROWS: Mapping[str, Row] = {
    "lur": lookahead_row("lur", 3),
    "lur:recover": with_recovery(lookahead_row("lur", 3, share=0.6)),
    "lur-lagged": lookahead_row("lur-lagged", 2, LAGGED),
    "lur-exact": lookahead_row("lur-exact", 2),
    "lur-lora": replace(lookahead_row("lur", 3), scope="lora"),
    "lur-match": Row("lur-match", {}, {}, "all"),
    "joint": searched_row("joint", 2),
    "lur-all": fixed_row("lur", 28, **ONE),
    "joint-all": fixed_row("joint", 43, **ONE),
    "lur-all-half": fixed_row("lur", 28, **HALF),
    "joint-all-half": fixed_row("joint", 43, **HALF),
    "joint-all-quarter": fixed_row("joint", 43, **QUARTER),
    "lur-lagged-all-quarter": fixed_row("lur-lagged", 42, alpha=0.03, **QUARTER),
    "salun-all-quarter": fixed_row("salun", 43, retain_weight=4.0),
    "joint-all-both": fixed_row("joint", 43, **BOTH),
    "lur-lagged-all-both": fixed_row("lur-lagged", 42, alpha=0.03, **BOTH),
    "default": preset_row("lur-lagged", "all"),
    # its rate was chosen on the object and the seed of the searches
    "default-higher-rate": preset_row("lur-lagged", "all", **{"lur-lagged": {"how": {"lr": 8e-4}}}),
    "default:recover": preset_row("lur-lagged:recover", "all"),
    "default-cross-attention": preset_row("lur-lagged", "cross-attention"),
    "former-default": preset_row("lur:recover", "cross-attention", lur=FORMER),
    "joint-all:recover": fixed_row_with_recovery(fixed_row("joint", 35, **ONE), 20),
    "joint:recover": with_recovery(searched_row("joint", 2, 0.6)),
    "meta-unlearning": replace(META, ranges={**META.ranges, "meta-unlearning.relearn": Whole(1, 3)}),
    "joint:reset-tokens": replace(searched_row("joint", 2), stages="joint:reset-tokens"),
    "reset-tokens": Row("reset-tokens", {}, {}, "text encoder"),
    "salun": searched_row("salun", 2, 0.8),
    "sa": Row("sa", {"sa": SMALL}, steps("sa", 2, 16)),
    "esd-x": Row("esd", {}, steps("esd", 1), "cross-attention"),
    "esd-u": Row("esd", {}, steps("esd", 1), "all but cross-attention"),
    "esd-2025": Row(
        "esd", {"esd": RELEASE_2025}, {**steps("esd", 1), "esd.eta": Uniform(1.3, 4.0)}, "cross-attention"
    ),
    "scissorhands": Row("scissorhands", {}, steps("scissorhands", 2, 12)),
    "erasediff": Row(
        "erasediff", {"erasediff": {"forget": START}}, {**steps("erasediff", 2), "erasediff.forget": FORGET}
    ),
    "sfron": Row("sfron", {}, {**steps("sfron", 2), "sfron.strength": Uniform(0.3, 3.0)}),
    "sfron-often": Row("sfron", {}, {**steps("sfron", 2), "sfron.every": Whole(1, 5)}),
    "munba": searched_row("munba", 2),
    "uce": Row("uce", {}, {}, "cross-attention"),
    "finetune": Row("finetune", {}, steps("finetune", 1)),
    "ascent": Row("ascent", {}, {"ascent.how.steps": Whole(3, 30)}),
    "short-retrain": Row("short-retrain", {"short-retrain": {"how": {"steps": BUDGET}}}, {}, "all"),
}


def method_of(row: Row, family: TextToImageFamily) -> Method:
    """The method of a row, with the settings at which a search begins."""
    names = row.stages.split(":")
    stages: dict[str, Method] = {}
    for name in names:
        if name == "reset-tokens" and stages:  # the stage before it left the text encoder frozen
            stages["words"] = Train("text encoder")
        stage = family.method_named(name) if row.preset else with_descent(stage_named(name, family))
        stages[name] = stage
    if row.scope == "all" and len(stages) == 1:
        return configure(stages[names[0]], row.changes.get(names[0], {}))
    pipeline = Pipeline(Train(row.scope or "cross-attention"), *stages.values(), names=("train", *stages))
    return configure(pipeline, row.changes)


def stage_named(name: str, family: TextToImageFamily) -> Method:
    """A method or a stage, with the settings at which its row starts."""
    return DENOISERS[name] if name in AS_DENOISERS else family.method_named(name)


def with_descent(method: Method) -> Method:
    """The method with the descent of the study."""
    return (
        configure(method, {"how": DESCENT}) if isinstance(getattr(method, "how", None), Descent) else method
    )


def space_of(row: Row, family: TextToImageFamily) -> dict[str, Range]:
    """The search space of a row."""
    if not row.searched:
        return {}
    space: dict[str, Range] = {} if row.scope else {"train.scope": SCOPES}
    for name in row.stages.split(":"):
        stage, before = stage_named(name, family), "" if row.scope == "all" else f"{name}."
        ranges = {} if isinstance(stage, ResetTokens) else family.space(kind_of(name, stage), stage, BUDGET)
        space |= {f"{before}{path}": RATES if path == "how.lr" else each for path, each in ranges.items()}
    space |= {path: each for path, each in row.ranges.items() if each is not None}
    return {path: each for path, each in space.items() if row.ranges.get(path, each) is not None}


def kind_of(name: str, stage: Method) -> str:
    """The name by which a family knows the ranges of a stage; a recovery has none of its own."""
    return "" if isinstance(stage, Recover) else name
