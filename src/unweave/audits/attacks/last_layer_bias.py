"""Last-layer bias: label inference without a query, the cheap proxy of `label_inference.py`.

One ascent step on the cross-entropy of a record of class y moves the bias of class k by p_k - 1[k = y], so
the bias that falls most names the class (iDLG: Zhao et al., 2020, https://arxiv.org/abs/2001.02610; of
deletions Hu et al., S&P 2024, https://arxiv.org/abs/2404.03233). The figure is the share of the other classes
whose bias fell less than that of a class of the forget set, as a mean over these. It is 1 if the biases name
exactly the classes of the forget set, and 1/2 for a model whose bias did not move.

A retrained model has other biases as well, from other first weights if its seed is another. Each is taken as
the model after, and only a larger figure than theirs is a finding.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from unweave.audits.attack import Attack, Check, Figures, Measurements, ModelAnswers, Subject
from unweave.audits.attacks.label_inference import describe_guess, forgotten_labels
from unweave.audits.attacks.update_alignment import weight_changes
from unweave.audits.rates import placements
from unweave.audits.score import Interval
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device

NAME = "last-layer-bias"
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
"""The layers that may make logits and add a bias to them."""


def label_from_bias(bias_update: Float[Tensor, " class"]) -> int:
    """The label whose bias fell most: ascent on cross-entropy moves bias k by p_k - 1[k = y] (as in iDLG)."""
    return int(bias_update.argmin())


def examine(subject: Subject) -> Measurements:
    """The change of the last bias, and the classes of the forget set; nothing if there is no such bias.

    Raises:
        ValueError: If the model has other weights than the original.
    """
    update = weight_changes(subject.original, subject.model)
    bias = update.get(logits_bias(subject) or "")
    if bias is None:
        return {}
    return {"change": bias.double().tolist(), "concerned": forgotten_labels(subject).double().tolist()}


def logits_bias(subject: Subject) -> str | None:
    """The name of the bias of the last layer whose output is the logits; None without such a bias.

    Names and the order of weights do not tell it: a model may define its last layer first. A step after the
    layer that changes none of the logits of two forget examples, as ReLU may, is not seen.
    """
    model, outputs = subject.original, list[tuple[nn.Module, Tensor]]()
    (raw,) = subject.cuts["forget"][0].stream([subject.cuts["forget"][1][:2]])

    def keep(layer: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append((layer, output.clone()))  # a later step may change it in place

    hooks = [each.register_forward_hook(keep) for each in model.modules() if isinstance(each, LAYERS)]
    try:
        with evaluating(model), torch.no_grad():
            logits = call(model, to_device(raw, subject.device))
    finally:
        for hook in hooks:
            hook.remove()
    names = {id(weight): name for name, weight in model.named_parameters()}  # one of a bias of two layers
    makers = [layer for layer, output in outputs if torch.equal(output.flatten(), logits.flatten())]
    return names.get(id(makers[-1].bias)) if makers else None


def explain_lack(model: ModelAnswers) -> str:
    """Why a model has no figure, as a clause; empty if it has one."""
    measurements = model.measurements[NAME]
    if len(measurements.get("change", ())) != model.outputs.n_classes:
        return "no layer that the original trains adds a bias to each logit as its last step"
    if len(measurements["concerned"]) == model.outputs.n_classes:
        return "the forget set has examples of every class, so there is no other to compare with"
    return ""


def attack_figures(model: ModelAnswers, retrained: Sequence[ModelAnswers]) -> Figures:
    """The share of other classes whose bias fell less; none without a last bias or without other classes.

    Its interval is over the other classes and never too narrow (Hoeffding, 1963), so it is wide.
    """
    if explain_lack(model):
        return {}
    measurements = model.measurements[NAME]
    is_concerned = np.isin(np.arange(model.outputs.n_classes), measurements["concerned"])
    change = np.array(measurements["change"])
    fell_less = placements(change[~is_concerned], change[is_concerned])
    share, reach = float(fell_less.mean()), math.sqrt(math.log(2 / 0.05) / (2 * len(fell_less)))
    return {
        "other classes whose bias fell less": Interval(
            share, max(0.0, share - reach), min(1.0, share + reach)
        )
    }


def check(model: ModelAnswers, original: ModelAnswers | None) -> Check:
    """Which class the bias names, or why it names none."""
    lack = explain_lack(model)
    if lack:
        return Check(False, lack)
    change = torch.tensor(model.measurements[NAME]["change"])
    if not change.any():
        return Check(True, f"{NAME}: no number of the last bias differs from the original's.")
    return Check(
        True,
        describe_guess(NAME, "change of the last bias", label_from_bias(change), model.measurements[NAME]),
    )


ATTACK = Attack(
    name=NAME,
    paper="Zhao et al., 2020, arXiv 2001.02610; Hu et al., S&P 2024, arXiv 2404.03233",
    evidence="the weights before and after the deletion",
    tier=0,
    says="How many other classes have a last bias that fell less than that of a class of the forget set.",
    cannot=(
        "Which record was deleted, what other weights give away, and nothing where every class has forget "
        "examples; it moves in steps of one class, so with few classes it hardly ever is a finding."
    ),
    figures=attack_figures,
    examine=examine,
    gradients=1,
    above="a leak of the deletion",
    below=None,
    floor=0.25,  # with ten classes a step is a ninth: two of them may be chance
    check=check,
)
