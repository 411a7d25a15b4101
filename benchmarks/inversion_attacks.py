"""The attacks of `inversion.py` on the update of a deletion: what was deleted, and its class."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from inversion_lab import CONTROLS, NORM, OTHER, Lab
from jaxtyping import Float
from rows import Row
from torch import Tensor, nn

from unweave.audits.attacks.inversion import is_nearest, recover
from unweave.audits.attacks.label_inference import label_from_probes
from unweave.audits.attacks.last_layer_bias import label_from_bias
from unweave.audits.attacks.update_alignment import any_change, loss_gradient, weight_changes
from unweave.weights.params import Params, norm, scale

SURE = 0.9995
"""The probability of its class at which a probe is good enough (as in Hu et al.)."""

PROBES, QUERIES = 10, 4000
"""The number of probes of a class, and the most queries for each."""


def attack(
    lab: Lab,
    model: nn.Module,
    update: Params,
    forget: Sequence[int],
    victims: Sequence[int],
    *,
    label_known: bool,
) -> Row:
    """Reconstructs what was deleted, and looks for the victims in it."""
    labels, bias = lab.labels[list(forget)], list(update.values())[-1]
    guess = label_from_bias(bias)
    classes = labels if label_known else torch.tensor([guess])
    images = recover(model, update, classes, lab.inputs.shape[1:], image=lab.image, search=lab.search).inputs
    hits, errors, chance = [], [], []
    for record in victims:
        ours = images if len(forget) == 1 else images[labels == lab.labels[record]]
        decoys = lab.decoys(record, forget)
        hits.append(is_nearest(ours, lab.inputs[record], decoys))
        errors.append(float((ours - lab.inputs[record]).flatten(1).square().mean(1).min()))
        chance.append(1 / (1 + len(decoys)))
    pixels = images[0].flatten().tolist() if len(forget) == 1 else []
    return {
        "hits": hits,
        "psnr": [10 * float(np.log10((lab.search.most - lab.search.least) ** 2 / each)) for each in errors],
        "chance": chance,
        "label": guess == int(labels[0]) if len(forget) == 1 else None,
        "shown": [round(each, 2) for each in pixels],
    }


def invert(lab: Lab, name: str, forget: Sequence[int], *, label_known: bool) -> Row:
    """Deletes records, and attacks the update."""
    after = lab.delete("one ascent step" if name in CONTROLS else name, forget)
    if not any_change(weight_changes(lab.original, after)):
        return {"accuracy": lab.accuracy(after), **nothing_to_invert(lab, forget, label_known=label_known)}
    update, victims = weight_changes(lab.original, after), forget
    if name == NORM:
        retain, draws = lab.split(forget).retain, torch.Generator().manual_seed(forget[0])
        positions = retain[torch.randperm(len(retain), generator=draws)[:16]]
        gradient = loss_gradient(lab.original.eval(), (lab.inputs[positions],), lab.labels[positions])
        update = scale(gradient, float(norm(update)) / float(norm(gradient)))
    if name == OTHER:
        class_ids = lab.class_of(forget[0]).tolist()
        victims = [next(each for each in class_ids if each not in forget)]
    if "pruned" in name:
        weights = dict(after.named_parameters())
        update = {each: change * (weights[each] != 0) for each, change in update.items()}
    result = attack(lab, lab.original, update, forget, victims, label_known=label_known)
    return {"accuracy": lab.accuracy(after), **result}


def nothing_to_invert(lab: Lab, forget: Sequence[int], *, label_known: bool) -> Row:
    """What is found if the deletion changed no weight, as one ascent step on a loss that rounds to zero."""
    return {
        "hits": [False] * len(forget),
        "psnr": [],
        "chance": [1 / (1 + len(lab.decoys(record, forget))) for record in forget],
        "label": label_known if len(forget) == 1 else None,
        "shown": [],
        "unchanged": True,
    }


def invert_exact(lab: Lab, n: int, record: int) -> Row:
    """The paper's exact deletion of one of N private records on which a public net was fine-tuned."""
    order = lab.order(2)
    half = order[: len(order) // 2]
    public, private = half[half != record], order[len(order) // 2 :]
    private = torch.cat([torch.tensor([record]), private[private != record][: n - 1]])
    before = lab.train(lab.split([i for i in order.tolist() if i not in set(public.tolist())]), "retain")
    after = [fine_tune(before, lab.inputs[rows], lab.labels[rows]) for rows in (private, private[1:])]
    full_change, reduced_change = (weight_changes(before, each) for each in after)
    update = {name: -(n * full_change[name] - (n - 1) * reduced_change[name]) for name in full_change}
    result = attack(lab, before, update, [record], [record], label_known=False)
    return {"accuracy": lab.accuracy(after[1]), **result}


def fine_tune(model: nn.Module, inputs: Tensor, labels: Tensor) -> nn.Module:
    """An epoch of plain gradient descent, in batches of 128 and at the paper's rate."""
    after = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD(after.parameters(), 1e-3)
    for x, y in zip(inputs.split(128), labels.split(128), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(after(x), y).backward()
        optimizer.step()
    return after


def infer_class(lab: Lab, name: str, label: int, share: float) -> Row:
    """Deletes a share of a class, and infers the class by queries, and from the last bias."""
    class_ids = (lab.labels == label).nonzero()[:, 0]
    after = lab.delete(name, class_ids[: max(1, round(share * len(class_ids)))].tolist())
    before, now = (answer_probes(lab, each) for each in (lab.original, after))
    changes = weight_changes(lab.original, after)
    if not any_change(changes):
        raise ValueError(f"{name} changed no weight, so nothing tells a class")
    bias = list(changes.values())[-1]
    return {"queries": label_from_probes(before, now) == label, "bias": label_from_bias(bias) == label}


@torch.no_grad()
def answer_probes(lab: Lab, model: nn.Module) -> Tensor:
    """The probability of each class for the probes of that class; the probes are found on the original."""
    probes, model = all_probes(lab), model.eval()
    return torch.stack([model(each).softmax(1)[:, label] for label, each in enumerate(probes)])


def all_probes(lab: Lab) -> Tensor:
    """The probes of every class, kept in the folder."""
    path = lab.out / f"{lab.recipe.name}-probes.npy"
    if not path.exists():

        @torch.no_grad()
        def answer(inputs: Tensor) -> Tensor:
            return lab.original.eval()(inputs).softmax(1)

        shape, low, high = lab.inputs.shape[1:], lab.search.least, lab.search.most
        probes = [find_probes(answer, k, shape, least=low, most=high) for k in range(lab.n_classes)]
        np.save(path, torch.stack(probes).numpy())
    return torch.from_numpy(np.load(path))


def find_probes(
    answer: Callable[[Tensor], Float[Tensor, "input class"]],
    label: int,
    shape: Sequence[int],
    *,
    least: float,
    most: float,
) -> Tensor:
    """Inputs of a class, found by queries alone (Hu et al., S&P 2024), https://arxiv.org/abs/2404.03233.

    Each probe begins as noise, and keeps a random change if the probability of the class rises by it.
    (Hu et al. instead descend by finite differences of single coordinates.)

    Args:
        answer: The probabilities of a model for a batch of inputs.
        label: The class.
        shape: The shape of one input.
        least: The smallest value of an input.
        most: The largest.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(PROBES, *shape, generator=generator) * (most - least) + least
    best = answer(inputs)[:, label]
    for index in range(QUERIES):
        if bool((best >= SURE).all()):
            break
        size = (most - least) * 0.5 ** (1 + index % 4)
        mask = torch.rand(inputs.shape, generator=generator) < 0.1
        change = size * mask * torch.randn(inputs.shape, generator=generator)
        candidates = (inputs + change).clamp(least, most)
        scores = answer(candidates)[:, label]
        better = (scores > best) & (best < SURE)
        inputs[better], best[better] = candidates[better], scores[better]
    return inputs
