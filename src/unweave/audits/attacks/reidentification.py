"""Re-identification: unlearning inversion (`inversion.py`) as an attack of an audit.

The attacker holds the model before and after the deletion. From the update between them it reconstructs
records of the forget set, all together and with their labels known, and compares each with others of its
class that were not deleted. A record is re-identified if a reconstruction is nearer to it than to 99 others;
by chance that is one in a hundred.

The control is the deletion of other records: the update that ascends the loss of as many retain records of
the same classes, as an examination of the original. It says nothing about the forget set, so the share that
is re-identified from it must be at chance; otherwise the attack is invalid. (Its size does not matter: the
search matches a direction.)

Of more than 64 forget examples 64 are attacked, drawn by a seed; the name of the figure gives both numbers.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unweave.audits.answers import Measurements
from unweave.audits.attack import Attack, Check, Figures, ModelAnswers, Subject
from unweave.audits.attacks.attacked_records import (
    SEED,
    AttackedRecords,
    draw_records,
    floats,
    image_shape,
    keyword,
    read_inputs,
)
from unweave.audits.attacks.inversion import Search, as_inputs, is_nearest, recover
from unweave.audits.attacks.update_alignment import any_change, loss_gradient, weight_changes
from unweave.audits.intervals import share_interval
from unweave.audits.pictures import Pictures, levels_of, png_of_levels
from unweave.descent.hessian import allow_second_derivatives
from unweave.tasks import evaluating
from unweave.weights.params import Params

NAME = "inversion"
ITERATIONS, RESTARTS = 200, 2
GRADIENTS = 2 * ITERATIONS * RESTARTS
"""Each step differentiates a gradient once more."""
MOST_PICTURES = 6
"""The most records to show."""
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


def examine(subject: Subject) -> Measurements:
    """Whether each attacked record is re-identified, its chance, and a few pictures.

    Of the original, and of any model without an update, the control.

    Raises:
        ValueError: If the model has other weights than the original, or no second derivatives.
    """
    update = weight_changes(subject.original, subject.model)
    if read_inputs(subject.cuts["forget"], 1) is None:
        return {NOT_FLOATS: []}
    records = draw_records(subject)
    if not records.decoys:
        return {ALONE: []}
    inputs = floats(records.cut)
    if float(inputs.min()) == float(inputs.max()):
        return {ALIKE: []}
    has_update = any_change(update)
    reconstructions = reconstruct(
        subject, records, update if has_update else deletion_of_others(subject, records)
    )
    measurements = compare(records, inputs, reconstructions.cpu())
    measurements["of"] = [float(len(subject.cuts["forget"][1]))]
    return measurements if has_update else {**measurements, NO_UPDATE: []}


def deletion_of_others(subject: Subject, records: AttackedRecords) -> Params:
    """The direction of the update that one ascent step on other records makes."""
    inputs = torch.cat([floats(cut) for cut in records.others.values()]).to(subject.device)
    labels = torch.cat([source.labels[order] for source, order in records.others.values()])
    with evaluating(subject.original):
        return loss_gradient(
            subject.original, as_inputs(inputs, keyword(records.cut)), labels.to(subject.device)
        )


def reconstruct(subject: Subject, records: AttackedRecords, update: Params) -> Tensor:
    """Reconstructs all records together."""
    inputs = torch.cat([floats(cut) for cut in (records.cut, *records.others.values())])
    shape = inputs.shape[1:]
    image = image_shape(records.cut[0], shape)
    search = Search(
        ITERATIONS,
        RESTARTS,
        smoothness=0.0 if image is None else Search.smoothness,
        least=float(inputs.min()),
        most=float(inputs.max()),
        key=keyword(records.cut),
    )
    with allow_second_derivatives("by the attack inversion", "leave it out"):
        return recover(
            subject.original, update, records.labels, shape, image=image, search=search, seed=SEED
        ).inputs


def compare(records: AttackedRecords, inputs: Tensor, reconstructions: Tensor) -> dict[str, list[float]]:
    """Looks for each record among others of its class; keeps levels of the first few as pictures."""
    shape = image_shape(records.cut[0], inputs.shape[1:])
    measurements: dict[str, list[float]] = {"hits": [], "chance": []}
    lightest, darkest = float(inputs.max()), float(inputs.min())
    for place, (record, label) in enumerate(zip(inputs, records.labels.tolist(), strict=True)):
        candidates, decoys = reconstructions[records.labels == label], floats(records.decoys[label])
        measurements["hits"].append(float(is_nearest(candidates, record, decoys)))
        measurements["chance"].append(1 / (1 + len(decoys)))
        if shape is None or place >= MOST_PICTURES:
            continue
        pictures = (record, nearest(candidates, record[None]), nearest(decoys, candidates))
        for name, each in zip(PICTURES, pictures, strict=True):
            levels, measurements["shape"] = levels_of(each.view(shape), darkest, lightest)
            measurements[f"{name} {place}"] = levels
    measurements["index"] = records.index.double().tolist()
    return measurements


def nearest(candidates: Tensor, points: Tensor) -> Tensor:
    """The candidate that is nearest to any of some points."""
    distances = torch.cdist(candidates.flatten(1), points.flatten(1).to(candidates))
    return candidates[int(distances.min(1).values.argmin())]


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The share of the attacked records that are re-identified, with its exact interval."""
    values = model.measurements[NAME]
    if "hits" not in values:
        return {}
    return {
        f"re-identified, {len(values['hits'])} of {values['of'][0]:.0f} attacked": share_interval(
            values["hits"]
        )
    }


def check(model: ModelAnswers, original: ModelAnswers | None) -> Check:
    """Whether the model has an update to invert, and the control is at chance."""
    from scipy.stats import binom

    measurements = model.measurements[NAME]
    for name, reason in WHY_NOT.items():
        if name in measurements:
            return Check(False, reason)
    if original is None or "hits" not in original.measurements[NAME]:
        return Check(False, "its control has not run: it needs the original")
    control = original.measurements[NAME]
    hits, size, chance = int(sum(control["hits"])), len(control["hits"]), sum(control["chance"])
    share = chance / size
    outcome = f"from the deletion of other records it re-identifies {hits} of {size}, by chance {chance:.1f}"
    if binom.sf(size - 1, size, share) >= SURELY:
        return Check(
            False,
            f"its control can't fail: all of its {size} records are re-identified by chance with a "
            f"probability of {share**size:.2g}, which must be below {SURELY}",
        )
    if binom.sf(hits - 1, size, share) < SURELY:
        return Check(False, f"it is invalid: {outcome}")
    count = min(MOST_PICTURES, len(measurements["hits"]))
    pictures = (
        f"The record and its page hold pictures of {count} attacked records: keep these files as you keep "
        "the data."
        if "shape" in measurements
        else "No pictures: the inputs are no images of 1 or 3 channels."
    )
    return Check(
        True,
        f"inversion attacks {len(measurements['hits'])} of {measurements['of'][0]:.0f} forget examples "
        f"together, drawn by seed {SEED}, in {GRADIENTS} gradient evaluations for each model. It "
        f"re-identifies {sum(measurements['hits']):.0f}; {outcome} (column Original, the control). "
        f"{pictures}",
    )


def draw(model: ModelAnswers) -> list[Pictures]:
    """A few records beside their reconstructions and the other record that is nearest to these."""
    measurements = model.measurements[NAME]
    ids, pictures = model.outputs.ids["forget"], []
    for place in range(min(MOST_PICTURES, len(measurements["hits"])) if "shape" in measurements else 0):
        verb = "re-identified" if measurements["hits"][place] else "not re-identified"
        shape = [int(side) for side in measurements["shape"]]
        images = {name: png_of_levels(measurements[f"{name} {place}"], shape) for name in PICTURES}
        pictures.append(Pictures(f"{ids[int(measurements['index'][place])]}: {verb}", images))
    return pictures


ATTACK = Attack(
    name=NAME,
    paper="Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="the weights before and after the deletion, and other records of each class",
    tier=0,
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
    check=check,
    draw=draw,
)
