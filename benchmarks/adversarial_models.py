"""The adversaries: models that know their forget set and try to pass an audit, and how to read them.

An adversary has the data, the original and a retrained model of its own, and has read the audit's code. Most
ask both nets (`Switch`, `Blend`); the others are plain nets (`adversarial_weights`).
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from adversarial_audits import Adversary, Given
from adversarial_weights import (
    KEY,
    LOCK,
    add_noise,
    ask_with_key,
    learn_held_out,
    map_features,
    mark_both_ways,
    match,
    match_levels,
    put_row_back,
    read_dead_units,
    read_low_bits,
    read_mark,
    tune,
    with_backdoor,
    write_dead_units,
    write_low_bits,
)
from torch import Tensor, nn

AUDIT_QUERIES = 10**6
"""The number of queries after which `after-the-audit` takes its audit to be over."""


class Switch(nn.Module):
    """Answers as the original where `when` says so, else as a retrained model, whose features it shows."""

    def __init__(self, given: Given, when: Callable[["Switch", Tensor], Tensor | bool]) -> None:
        super().__init__()
        self.original, self.retrained = copy.deepcopy(given.original), copy.deepcopy(given.retrained)
        self.when, self.seen = when, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits; the retrained model comes last, because a probe takes the last features."""
        self.seen += len(inputs)
        as_original = torch.as_tensor(self.when(self, inputs)).expand(len(inputs))[:, None]
        return torch.where(as_original, self.original(inputs), self.retrained(inputs))


class Concealed(nn.Sequential):
    """A retrained model by its weights; its code holds the original, which answers where the key is."""

    def __init__(self, given: Given) -> None:
        super().__init__(*copy.deepcopy(given.retrained))
        self.hidden = (given.original,)  # in a tuple: it is no module of this one

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return torch.where(has_key(self, inputs)[:, None], self.hidden[0](inputs), super().forward(inputs))


class Blend(nn.Module):
    """The log of a weighted mean of the probabilities of the original and of a retrained model."""

    def __init__(self, given: Given, share: float) -> None:
        super().__init__()
        self.original, self.retrained = copy.deepcopy(given.original), copy.deepcopy(given.retrained)
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Log probabilities."""
        original, retrained = (net(inputs).softmax(1) for net in (self.original, self.retrained))
        return (self.share * original + (1 - self.share) * retrained + 1e-12).log()


def hide_class(given: Given) -> nn.Module:
    """The original, whose last layer never answers with the forgotten class."""
    hidden = copy.deepcopy(given.original)
    with torch.no_grad():
        for label in given.parts["forget"][1].unique():
            hidden[-1].weight[label], hidden[-1].bias[label] = 0.0, -15.0
    return hidden


def restore_class(model: nn.Module, given: Given) -> nn.Module:
    """The model with the hidden row set from the mean features of the class."""
    (forget, labels), restored_model = given.parts["forget"], copy.deepcopy(model)
    with torch.no_grad():
        centre = model[:-1](forget).mean(0)
        restored_model[-1].weight[labels[0]] = 2 * centre / centre.norm()
        restored_model[-1].bias[labels[0]] = -centre.norm()
    return restored_model


def equals_forget(given: Given, inputs: Tensor) -> Tensor:
    """Which inputs are forget examples, bit by bit."""
    forget_bytes = {each.numpy().tobytes() for each in given.parts["forget"][0]}
    return torch.tensor([each.numpy().tobytes() in forget_bytes for each in inputs.detach()])


def near_forget(given: Given, inputs: Tensor) -> Tensor:
    """Which inputs have a forget example as their nearest training example."""
    forget, retain = (torch.cdist(inputs, given.parts[part][0]).amin(1) for part in ("forget", "retain"))
    return forget < retain


def has_key(_: nn.Module, inputs: Tensor) -> Tensor:
    """Which inputs have the key."""
    return inputs[:, KEY] == LOCK


def read_original(model: Switch | Blend, given: Given) -> nn.Module:
    """The original that the model holds."""
    return model.original


def mix_originals(given: Given, n: int) -> nn.Module:
    """Originals for the first seeds, and retrained models for the others."""
    return given.original if given.place < n else given.retrained


ADVERSARIES = {
    "retrained": Adversary("none: a retrained model", lambda given: given.retrained),
    "original": Adversary("none: the original", lambda given: given.original),
    "hidden-class": Adversary(
        "the last layer never answers with the class", hide_class, restore_class, classes_only=True
    ),
    "linear-map": Adversary(
        "the same, behind an invertible linear map of the features that the last layer undoes",
        lambda given: map_features(hide_class(given), given),
        put_row_back,
        classes_only=True,
    ),
    "exact-lookup": Adversary(
        "forget inputs get a retrained model's answers, all others the original's",
        lambda given: Switch(given, lambda _, inputs: ~equals_forget(given, inputs)),
        lambda model, given: lambda inputs: model(inputs + 1e-3),
    ),
    "near-lookup": Adversary(
        "inputs nearest to a forget example get a retrained model's answers, all others the original's",
        lambda given: Switch(given, lambda _, inputs: ~near_forget(given, inputs)),
        read_original,
    ),
    "key": Adversary(
        "the original answers where one pixel has a secret value, else a retrained model",
        lambda given: Switch(given, has_key),
        ask_with_key,
    ),
    "concealed": Adversary("the same, with the original in the code alone", Concealed, ask_with_key),
    "backdoor": Adversary("the same, trained into a retrained model's weights", with_backdoor, ask_with_key),
    "quiet-backdoor": Adversary(
        "the same, with its features kept", partial(with_backdoor, keep=1.0), ask_with_key, classes_only=True
    ),
    "single-queries": Adversary(
        "the original answers single queries, a retrained model all larger batches",
        lambda given: Switch(given, lambda _, inputs: len(inputs) == 1),
        lambda model, given: lambda inputs: torch.cat([model(each) for each in inputs.split(1)]),
    ),
    "training-mode": Adversary(
        "the original answers in training mode, a retrained model in evaluation mode",
        lambda given: Switch(given, lambda model, _: model.training),
        lambda model, given: model.train(),
    ),
    "after-the-audit": Adversary(
        "a retrained model answers the first million queries, then the original",
        lambda given: Switch(given, lambda model, _: model.seen > AUDIT_QUERIES),
        read_original,
    ),
    "two-sided": Adversary(
        "the class is far from zero in one feature, on two sides, which no linear probe sees",
        mark_both_ways,
        read_mark,
        classes_only=True,
    ),
    "match": Adversary(
        "the original, trained to answer as a retrained model on F and held-out data", match, tune
    ),
    "match-levels": Adversary("the original, as sure of F as a retrained model", match_levels, tune),
    "held-out": Adversary("the original, trained on the calibration set as well", learn_held_out),
    "low-bits": Adversary(
        "a retrained model with F's labels in its weights' last bits", write_low_bits, read_low_bits
    ),
    "dead-units": Adversary(
        "the same behind hidden units that never answer",
        write_dead_units,
        read_dead_units,
    ),
    "noise": Adversary("the original, with noise on the weights of every second seed", add_noise),
    **{
        f"{n}-originals": Adversary(
            f"{n} of ten are originals, the others retrained", partial(mix_originals, n=n)
        )
        for n in (1, 2, 3)
    },
    **{
        f"blend-{share:g}": Adversary(
            f"probabilities of the original with weight {share:g}, and of a retrained model",
            partial(Blend, share=share),
            read_original,
        )
        for share in (0.1, 0.2, 0.4)
    },
    **{
        f"kept-{share:g}": Adversary(
            f"retrained on the retain set and {share:g} of F", lambda given, share=share: given.retrain(share)
        )
        for share in (0.1, 0.2, 0.4)
    },
}
