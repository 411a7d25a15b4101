"""Re-identification: unlearning inversion (`inversion.py`) as an attack of an audit.

The attacker holds the model before and after the deletion. From the update between them it reconstructs
records of the forget set, all together and with their labels known, and compares each with others of its
class that were not deleted. A record is re-identified if a reconstruction is nearer to it than to 99 others;
by chance that is one in a hundred.

The control is the deletion of other records: the update that ascends the loss of as many retain records of
the same classes, as an examination of the original. It says nothing about the forget set, so the share that
is re-identified from it must be at chance; otherwise the attack is invalid. (Its size does not matter: the
search matches a direction.)

Others of a class are from the retain set, or held out if the class is forgotten whole. Of more than 64 forget
examples 64 are attacked, drawn by a seed, and the name of the figure gives both numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from unweave.audits.answers import Measurements
from unweave.audits.attack import Attack, Check, Figures, ModelAnswers, Subject
from unweave.audits.attacks.inversion import (
    Search,
    any_change,
    as_inputs,
    is_nearest,
    loss_gradient,
    recover,
    weight_changes,
)
from unweave.audits.classifier.collect import Cut
from unweave.audits.intervals import share_interval
from unweave.audits.pictures import Pictures, png_of_levels
from unweave.data.image_shape import image_shape
from unweave.descent.hessian import allow_second_derivatives
from unweave.tasks import evaluating
from unweave.weights.params import Params

NAME = "inversion"
MOST = 64
"""The most forget examples to attack."""
DECOYS = 99
SEED = 0
ITERATIONS, RESTARTS = 200, 2
GRADIENTS = 2 * ITERATIONS * RESTARTS
"""Each step differentiates a gradient once more."""
SHOWN, SIDE = 6, 32
"""The most records to show, and the largest side of their pictures in pixels."""
SURELY = 0.01
"""The level at which a control is above chance."""
PICTURES = ("record", "reconstruction", "nearest other")

NO_UPDATE, NOT_FLOATS, ALIKE, ALONE = "no update", "not floats", "all alike", "no others"
WHY_NOT: Mapping[str, str] = {
    NO_UPDATE: "no weight differs from the original's, so there is no update to invert",
    NOT_FLOATS: "it reconstructs inputs that are one tensor of floats, and these are not",
    ALIKE: "the inputs of the forget set all have one value",
    ALONE: "no class of a forget example has two others to compare it with",
}
"""Why a model has no figure, by the name of the measurement that says so."""


@dataclass(frozen=True)
class Targets:
    """The records to attack, and others of their classes.

    Args:
        index: Their positions in the forget set.
        cut: Their source and positions in it.
        decoys: Others that each is compared with, by class.
        others: Others that the control deletes, by class.
    """

    index: Int64[Tensor, " record"]
    cut: Cut
    decoys: Mapping[int, Cut]
    others: Mapping[int, Cut]

    @property
    def labels(self) -> Int64[Tensor, " record"]:
        """The label of each record."""
        source, order = self.cut
        return source.labels[order]


def examine(subject: Subject) -> Measurements:
    """Whether each attacked record is re-identified, its chance, and a few pictures.

    Of the original, and of any model without an update, the control.

    Raises:
        ValueError: If the model has other weights than the original, or no second derivatives.
    """
    update = weight_changes(subject.original, subject.model)
    if read_inputs(subject.cuts["forget"], 1) is None:
        return {NOT_FLOATS: []}
    targets = draw_targets(subject)
    if not targets.decoys:
        return {ALONE: []}
    inputs = floats(targets.cut)
    if float(inputs.min()) == float(inputs.max()):
        return {ALIKE: []}
    moved = any_change(update)
    reconstructions = reconstruct(subject, targets, update if moved else deletion_of_others(subject, targets))
    found = compare(targets, inputs, reconstructions.cpu())
    found["of"] = [float(len(subject.cuts["forget"][1]))]
    return found if moved else {**found, NO_UPDATE: []}


def read_inputs(cut: Cut, most: int) -> Tensor | None:
    """The inputs of the first examples; None if they are not one tensor of floats."""
    (raw,) = cut[0].stream([cut[1][:most]])
    fields = [*(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)]
    return fields[0].cpu() if len(fields) == 1 and fields[0].is_floating_point() else None


def keyword(cut: Cut) -> str | None:
    """The keyword by which a model takes its one input; None if by position."""
    (raw,) = cut[0].stream([cut[1][:1]])
    return next(iter(raw.inputs)) if isinstance(raw.inputs, dict) else None


def floats(cut: Cut) -> Tensor:
    """The inputs of examples that are known to be floats."""
    inputs = read_inputs(cut, len(cut[1]))
    assert inputs is not None
    return inputs


def draw_targets(subject: Subject) -> Targets:
    """Draws records of the forget set whose class has others."""
    generator = torch.Generator().manual_seed(SEED)
    source, order = subject.cuts["forget"]
    drawn = torch.randperm(len(order), generator=generator)[:MOST]
    decoys, others = {}, {}
    for label, count in zip(*source.labels[order[drawn]].unique(return_counts=True), strict=True):
        pool, same = others_of(subject, int(label), generator)
        cut = min(int(count), len(same) // 2)
        if cut:
            others[int(label)] = pool, same[:cut]
            decoys[int(label)] = pool, same[cut : cut + DECOYS]
    usable = torch.tensor([int(label) in decoys for label in source.labels[order[drawn]]], dtype=torch.bool)
    return Targets(drawn[usable], (source, order[drawn[usable]]), decoys, others)


def others_of(subject: Subject, label: int, generator: torch.Generator) -> Cut:
    """Records of a class that were not deleted, shuffled: of the retain set, or held out if it has none."""
    for part in ("retain", "calibration"):
        source, order = subject.cuts[part]
        same = order[source.labels[order] == label]
        if len(same):
            break
    return source, same[torch.randperm(len(same), generator=generator)]


def deletion_of_others(subject: Subject, targets: Targets) -> Params:
    """The direction of the update that one ascent step on other records makes."""
    inputs = torch.cat([floats(cut) for cut in targets.others.values()]).to(subject.device)
    labels = torch.cat([source.labels[order] for source, order in targets.others.values()])
    with evaluating(subject.original):
        return loss_gradient(
            subject.original, as_inputs(inputs, keyword(targets.cut)), labels.to(subject.device)
        )


def reconstruct(subject: Subject, targets: Targets, update: Params) -> Tensor:
    """Reconstructs all records together."""
    inputs = torch.cat([floats(cut) for cut in (targets.cut, *targets.others.values())])
    shape = inputs.shape[1:]
    image = image_shape(targets.cut[0], shape)
    search = Search(
        ITERATIONS,
        RESTARTS,
        smoothness=0.0 if image is None else Search.smoothness,
        least=float(inputs.min()),
        most=float(inputs.max()),
        key=keyword(targets.cut),
    )
    with allow_second_derivatives("by the attack inversion", "leave it out"):
        return recover(
            subject.original, update, targets.labels, shape, image=image, search=search, seed=SEED
        ).inputs


def compare(targets: Targets, inputs: Tensor, reconstructions: Tensor) -> dict[str, list[float]]:
    """Looks for each record among others of its class; keeps levels of the first few as pictures."""
    shape = image_shape(targets.cut[0], inputs.shape[1:])
    found: dict[str, list[float]] = {"hits": [], "chance": []}
    lightest, darkest = float(inputs.max()), float(inputs.min())
    for place, (record, label) in enumerate(zip(inputs, targets.labels.tolist(), strict=True)):
        ours, decoys = reconstructions[targets.labels == label], floats(targets.decoys[label])
        found["hits"].append(float(is_nearest(ours, record, decoys)))
        found["chance"].append(1 / (1 + len(decoys)))
        if shape is None or place >= SHOWN:
            continue
        shown = (record, nearest(ours, record[None]), nearest(decoys, ours))
        for name, each in zip(PICTURES, shown, strict=True):
            levels, found["shape"] = to_levels(each.view(shape), darkest, lightest)
            found[f"{name} {place}"] = levels
    found["index"] = targets.index.double().tolist()
    return found


def nearest(candidates: Tensor, points: Tensor) -> Tensor:
    """The candidate that is nearest to any of some points."""
    distances = torch.cdist(candidates.flatten(1), points.flatten(1).to(candidates))
    return candidates[int(distances.min(1).values.argmin())]


def to_levels(image: Tensor, darkest: float, lightest: float) -> tuple[list[float], list[float]]:
    """The levels of an image from 0 to 255, made small, and its shape."""
    height, width = (min(side, SIDE) for side in image.shape[1:])
    small = functional.adaptive_avg_pool2d(image[None].float(), (height, width))[0]
    levels = ((small - darkest) / (lightest - darkest)).clamp(0, 1).mul(255).round()
    return levels.flatten().tolist(), [float(side) for side in small.shape]


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The share of the attacked records that are re-identified, with its exact interval."""
    kept = model.measurements[NAME]
    if "hits" not in kept:
        return {}
    return {
        f"re-identified, {len(kept['hits'])} of {kept['of'][0]:.0f} attacked": share_interval(kept["hits"])
    }


def check(model: ModelAnswers, original: ModelAnswers | None) -> Check:
    """Whether the model has an update to invert, and the control is at chance."""
    from scipy.stats import binom

    kept = model.measurements[NAME]
    for name, why in WHY_NOT.items():
        if name in kept:
            return Check(False, why)
    if original is None or "hits" not in original.measurements[NAME]:
        return Check(False, "its control has not run: it needs the original")
    control = original.measurements[NAME]
    hits, size, chance = int(sum(control["hits"])), len(control["hits"]), sum(control["chance"])
    share = chance / size
    said = f"from the deletion of other records it re-identifies {hits} of {size}, by chance {chance:.1f}"
    if binom.sf(size - 1, size, share) >= SURELY:
        return Check(
            False,
            f"its control can't fail: all of its {size} records are re-identified by chance with a "
            f"probability of {share**size:.2g}, which must be below {SURELY}",
        )
    if binom.sf(hits - 1, size, share) < SURELY:
        return Check(False, f"it is invalid: {said}")
    shown = min(SHOWN, len(kept["hits"]))
    pictures = (
        f"The record and its page hold pictures of {shown} attacked records: keep these files as you keep "
        "the data."
        if "shape" in kept
        else "No pictures: the inputs are no images of 1 or 3 channels."
    )
    return Check(
        True,
        f"inversion attacks {len(kept['hits'])} of {kept['of'][0]:.0f} forget examples together, drawn by "
        f"seed {SEED}, in {GRADIENTS} gradient evaluations for each model. It re-identifies "
        f"{sum(kept['hits']):.0f}; {said} (column Original, the control). {pictures}",
    )


def draw(model: ModelAnswers) -> list[Pictures]:
    """A few records beside their reconstructions and the other record that is nearest to these."""
    kept = model.measurements[NAME]
    ids, drawn = model.found.ids["forget"], []
    for place in range(min(SHOWN, len(kept["hits"])) if "shape" in kept else 0):
        verb = "re-identified" if kept["hits"][place] else "not re-identified"
        shape = [int(side) for side in kept["shape"]]
        images = {name: png_of_levels(kept[f"{name} {place}"], shape) for name in PICTURES}
        drawn.append(Pictures(f"{ids[int(kept['index'][place])]}: {verb}", images))
    return drawn


ATTACK = Attack(
    name=NAME,
    paper="Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="the weights before and after the deletion, and other records of each class",
    tier=0,
    fewest=2,
    says="How often a deleted record is nearest to what its deletion lets an attacker reconstruct.",
    cannot=(
        "That a record is safe: another attack, or one that knows the method, may recover it; and it needs "
        "the weights before and after, which nobody should be given together."
    ),
    figures=attack_figures,
    examine=examine,
    gradients=GRADIENTS,
    above="a leak of the deletion",
    below=None,
    default=False,
    check=check,
    draw=draw,
)
