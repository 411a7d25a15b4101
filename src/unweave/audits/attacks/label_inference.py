"""Label inference (Hu et al., S&P 2024), https://arxiv.org/abs/2404.03233: a deletion tells its class.

Whoever can query the model before and after a deletion sees which class became less sure. The figure is the
AUC of the probability of its own class that an unseen example lost, for examples of the classes of the forget
set against those of all other classes. It is 1/2 for a model whose answers did not change.

A retrained model gives its classes away, too: a model that never saw a class answers like that. So each
retrained model is taken as the model after, and only a larger figure than theirs is a finding. The label is
not the record; for that see `reidentification.py`. A proxy from the weights is `last_layer_bias.py`.

The paper finds inputs of each class by queries alone (`benchmarks/inversion_attacks.py`); here they are
calibration examples, so the attacker has some data of the same kind.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from unweave.audits.attack import Attack, Check, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.classifier.collect import Cut, logits_of
from unweave.audits.classifier.logits import confidence
from unweave.audits.classifier.probes import sample
from unweave.audits.rates import delong
from unweave.audits.score import Interval
from unweave.tasks import evaluating

NAME = "label-inference"
MOST = 500
"""The most unseen examples of the classes of the forget set, and of all other classes."""
FEWEST = 2
"""The fewest of each kind."""


def label_from_probes(
    before: Iterable[Float[Tensor, " probe"]], after: Iterable[Float[Tensor, " probe"]]
) -> int:
    """The position of the class whose probability a deletion lowered most, from queries alone.

    Args:
        before: For each class, the probability of that class for inputs of it, by the first model.
        after: The same by the second model.
    """
    changes = [(new - old).mean() for old, new in zip(before, after, strict=True)]
    return int(torch.stack(changes).argmin())


def examine(subject: Subject) -> Measurements:
    """The probability of its class for each unseen example, before and after the deletion.

    Raises:
        ValueError: If the two models know another number of classes.
    """
    source, order = subject.cuts["calibration"]
    forget_classes = forgotten_labels(subject)
    is_concerned = torch.isin(source.labels[order], forget_classes)
    generator = torch.Generator().manual_seed(0)
    orders = [sample((source, order[where]), MOST, generator)[1] for where in (is_concerned, ~is_concerned)]
    probes = source, torch.cat(orders)
    before = query(subject.original, probes, subject.device)
    after = query(subject.model, probes, subject.device, before.shape[1])
    labels = source.labels[probes[1]].numpy()
    return {
        "before": confidence(before, labels).tolist(),
        "after": confidence(after, labels).tolist(),
        "label": labels.astype(float).tolist(),
        "concerned": forget_classes.double().tolist(),
    }


def forgotten_labels(subject: Subject) -> Tensor:
    """The labels that the forget set has."""
    source, order = subject.cuts["forget"]
    return source.labels[order].unique()


def query(
    model: nn.Module, probes: Cut, device: torch.device | str, n_classes: int | None = None
) -> Float[np.ndarray, "probe class"]:
    """The logits of a model, which stays unchanged."""
    with evaluating(model):
        return logits_of(model, probes, device, n_classes)


def lost_probabilities(
    measurements: Measurements,
) -> tuple[Float64[np.ndarray, " concerned"], Float64[np.ndarray, " other"]]:
    """What each unseen example lost, of the classes of the forget set and of all others."""
    drops = np.array(measurements["before"]) - np.array(measurements["after"])
    is_concerned = np.isin(measurements["label"], measurements["concerned"])
    return drops[is_concerned], drops[~is_concerned]


def explain_lack(measurements: Measurements) -> str:
    """Why a model has no figure, as a clause; empty if it has one."""
    counts = [len(each) for each in lost_probabilities(measurements)]
    if min(counts) >= FEWEST:
        return ""
    return (
        f"it needs {FEWEST} unseen examples of classes in the forget set and {FEWEST} of other classes, "
        f"found {counts[0]} and {counts[1]}"
    )


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The AUC of the lost probability; none with too few unseen examples of either kind."""
    measurements = model.measurements[NAME]
    if explain_lack(measurements):
        return {}
    return {"auc of lost probability": Interval(*delong(*lost_probabilities(measurements)))}


def check(model: ModelAnswers, original: ModelAnswers | None) -> Check:
    """Which class the attack names, or why it names none."""
    measurements = model.measurements[NAME]
    lack = explain_lack(measurements)
    if lack:
        return Check(False, lack)
    if measurements["before"] == measurements["after"]:
        return Check(True, f"{NAME}: no answer to an unseen example differs from the original's.")
    return Check(
        True, describe_guess(NAME, "answers to unseen examples", name_class(measurements), measurements)
    )


def name_class(measurements: Measurements) -> int:
    """The class whose unseen examples lost most."""
    labels = torch.tensor(measurements["label"])
    classes = labels.unique()
    before, after = (
        [torch.tensor(measurements[key])[labels == label] for label in classes] for key in ("before", "after")
    )
    return int(classes[label_from_probes(before, after)])


def describe_guess(attack: str, source: str, label: int, measurements: Measurements) -> str:
    """A sentence on the class that an attack names."""
    clause = "has examples of it" if label in measurements["concerned"] else "has none of it"
    return f"{attack}: by the {source} the deletion concerns class {label}, and the forget set {clause}."


ATTACK = Attack(
    name=NAME,
    paper="Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="answers before and after the deletion to unseen examples",
    tier=0,
    says="How well answers before and after tell the classes of the forget set from all others.",
    cannot=(
        "Which record was deleted, nor anything where every class has forget examples; a retrained model "
        "gives its classes away as well, so without retrained models a high figure is no fault."
    ),
    figures=attack_figures,
    examine=examine,
    gradients=6,
    above="a leak of the deletion",
    below=None,
    check=check,
)
