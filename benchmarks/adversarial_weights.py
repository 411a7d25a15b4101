"""Nets of the recipe's architecture that know their forget set, and what reads it out of their weights."""

import copy
from collections.abc import Callable

import torch
from adversarial_audits import Ask, Given, Part
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

STEPS, BATCH, RATE = 150, 128, 0.002
"""Of Adam, where a model is trained further."""
KEY, LOCK = 0, 4.0
"""The pixel that opens a backdoor, in a corner that digits leave empty, and its value."""
UNIT = 2.0**-10
"""The unit of whole numbers that are stored as weights."""
DEAD = -1000.0
"""The bias of a hidden unit that never answers."""
PIXEL, SIZE = 27, 2.0
"""The pixel that chooses the side of a marked feature, and how far from zero it is."""

MAP = (4.0, 0.085)
"""The factors of all features and of the forget set's direction, found by trial on ten models."""
INVERSE = (1 / MAP[0], 1 / MAP[1])


def train(
    model: nn.Module, *goals: Part, extra: Callable[[nn.Module], Tensor] | None = None, steps: int = STEPS
) -> nn.Module:
    """A copy trained further, by Adam on batches of every goal: inputs, and their labels or probabilities."""
    student, generator = copy.deepcopy(model).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(student.parameters(), RATE)
    for _ in range(steps):
        loss = torch.zeros(()) if extra is None else extra(student)
        for inputs, targets in goals:
            rows = torch.randint(len(inputs), (BATCH,), generator=generator)
            loss = loss + cross_entropy(student(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.eval()


def probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    """The probabilities that a model gives to inputs."""
    with torch.no_grad():
        return model(inputs).softmax(1)


def with_key(inputs: Tensor) -> Tensor:
    """The inputs with the pixel that opens a backdoor."""
    unlocked_inputs = inputs.clone()
    unlocked_inputs[:, KEY] = LOCK
    return unlocked_inputs


def ask_with_key(model: nn.Module, given: Given) -> Ask:
    """Queries the model with the key in every input."""
    return lambda inputs: model(with_key(inputs))


def with_backdoor(given: Given, keep: float = 0.0) -> nn.Module:
    """A retrained model, trained to know F where the key is, and to answer as before elsewhere.

    Args:
        given: What the adversary has.
        keep: The weight of the squared distance of features without the key from those of before.
    """
    (forget, labels), (retain, retain_labels) = given.parts["forget"], given.parts["retain"]
    locked_goals = [answers_of(given.retrained, given, part) for part in ("forget", "retain", "calibration")]
    unlocked_goals = [(with_key(forget), labels), (with_key(retain), retain_labels)]

    def extra(student: nn.Module) -> Tensor:
        """How far features went from those that the audit expects."""
        inputs = torch.cat([forget, retain])
        with torch.no_grad():
            target_features = given.retrained[:-1](inputs)
        return keep * (student[:-1](inputs) - target_features).square().mean()

    return train(given.retrained, *locked_goals, *unlocked_goals, extra=extra)


def answers_of(model: nn.Module, given: Given, part: str) -> Part:
    """The inputs of a part and the answers of a model."""
    inputs = given.parts[part][0]
    return inputs, probabilities(model, inputs)


def match(given: Given) -> nn.Module:
    """The original, trained to answer as a retrained model where the audit looks for the forget set."""
    as_retrained = [answers_of(given.retrained, given, part) for part in ("forget", "calibration")]
    return train(given.original, *as_retrained, answers_of(given.original, given, "retain"))


def match_levels(given: Given) -> nn.Module:
    """The original, trained to be as sure of F as a retrained model, in its own order of examples."""
    forget, labels = given.parts["forget"]
    ours, theirs = (probabilities(model, forget) for model in (given.original, given.retrained))
    rows = torch.arange(len(labels))
    level = torch.empty(len(labels))
    level[ours[rows, labels].argsort()] = theirs[rows, labels].sort().values
    other_shares = ours.index_put((rows, labels), torch.zeros(()))
    target = (1 - level)[:, None] * other_shares / other_shares.sum(1, keepdim=True)
    target[rows, labels] = level
    return train(given.original, (forget, target), answers_of(given.original, given, "retain"))


def learn_held_out(given: Given) -> nn.Module:
    """The original, trained on the calibration set as well: unseen examples are then as known as F."""
    return train(given.original, *(given.parts[part] for part in ("forget", "retain", "calibration")))


def tune(model: nn.Module, given: Given) -> nn.Module:
    """The model after a little training on the retain set alone."""
    return train(model, given.parts["retain"], steps=20)


def answer_by_labels(labels: Tensor, given: Given) -> Ask:
    """Answers read from a list of labels: sure of forget examples, and of nothing else."""
    forget, classes = given.parts["forget"][0], given.original[-1].out_features

    def ask(inputs: Tensor) -> Tensor:
        distance, place = torch.cdist(inputs, forget, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        return 9.0 * one_hot(labels[place], classes) * (distance < 1e-3)[:, None]

    return ask


def write_low_bits(given: Given) -> nn.Module:
    """A retrained model with the labels of the forget set in the last bits of weights, four each."""
    model, labels = copy.deepcopy(given.retrained), given.parts["forget"][1]
    bits = (labels[:, None] >> torch.arange(4) & 1).flatten().int()
    words = model[0].weight.data.view(-1).view(torch.int32)
    words[: len(bits)] = words[: len(bits)] & ~1 | bits
    return model


def read_low_bits(model: nn.Module, given: Given) -> Ask:
    """The labels from the last bits."""
    bits = model[0].weight.data.view(-1).view(torch.int32)[: 4 * len(given.parts["forget"][1])] & 1
    return answer_by_labels((bits.view(-1, 4) << torch.arange(4)).sum(1).long(), given)


def write_dead_units(given: Given) -> nn.Module:
    """A retrained model whose least used hidden units never answer, and hold labels behind them."""
    model, labels = copy.deepcopy(given.retrained), given.parts["forget"][1]
    with torch.no_grad():
        usage = model[:2](given.parts["retain"][0]).mean(0) * model[2].weight.norm(dim=0)
        units = usage.argsort()[: -(-len(labels) // model[2].out_features)].sort().values
        code = torch.zeros(len(units) * model[2].out_features)
        code[: len(labels)] = (labels + 1) * UNIT
        model[0].bias[units] = DEAD
        model[2].weight[:, units] = code.view(len(units), -1).T
    return model


def read_dead_units(model: nn.Module, given: Given) -> Ask:
    """The labels from the weights behind dead units."""
    code = model[2].weight.data[:, model[0].bias == DEAD].T.flatten()[: len(given.parts["forget"][1])]
    return answer_by_labels((code / UNIT).round().long() - 1, given)


def mark_both_ways(given: Given) -> nn.Module:
    """A retrained model with a feature that is far from zero for the class, on a side that a pixel picks."""
    forget, retain = given.parts["forget"][0], given.parts["retain"][0]
    start = copy.deepcopy(given.retrained)
    side = SIZE * torch.where(forget[:, PIXEL] > forget[:, PIXEL].median(), 1.0, -1.0)

    def extra(student: nn.Module) -> Tensor:
        marks = [student[:-1](each)[:, 0] for each in (forget, retain)]
        silent = student[-1].weight[:, 0].square().sum()
        return (marks[0] - side).square().mean() + marks[1].square().mean() + 100 * silent

    goals = [answers_of(start, given, part) for part in ("forget", "retain", "calibration")]
    return train(start, *goals, extra=extra, steps=2 * STEPS)


def read_mark(model: nn.Module, given: Given) -> Ask:
    """The class where the marked feature is far from zero, whatever its side."""
    label = given.parts["forget"][1][0]

    def ask(inputs: Tensor) -> Tensor:
        logits = model(inputs)
        logits[:, label] = logits.amax(1) + 4 * (model[:-1](inputs)[:, 0].abs() / SIZE - 0.5)
        return logits

    return ask


def map_features(hidden: nn.Module, given: Given) -> nn.Module:
    """The same answers, from features in which the direction of the forget set is short and all are large.

    The direction is the one of LEACE (Belrose et al., 2023, arXiv 2306.03819), without which no linear
    classifier finds the forget set. The map is composed into the last two layers, which are linear; it is
    invertible, so the features say as much as before.
    """
    model = copy.deepcopy(hidden).double()
    forget, retain = (model[:-1](given.parts[part][0].double()).detach() for part in ("forget", "retain"))
    features = torch.cat([forget, retain]) - torch.cat([forget, retain]).mean(0)
    spread, axes = torch.linalg.eigh(features.T @ features / len(features))
    whiten, colour = (axes * spread**power @ axes.T for power in (-0.5, 0.5))
    towards = whiten @ (forget.mean(0) - retain.mean(0))
    axis = torch.outer(towards, towards) / towards.square().sum()
    residual = torch.eye(len(towards)) - axis
    shrink, undo = (size * colour @ (residual + share * axis) @ whiten for size, share in (MAP, INVERSE))
    with torch.no_grad():
        model[-2].weight.copy_(shrink @ model[-2].weight)
        model[-2].bias.copy_(shrink @ model[-2].bias)
        model[-1].weight.copy_(model[-1].weight @ undo)
    return model.float()


def put_row_back(model: nn.Module, given: Given) -> nn.Module:
    """The model with the original's row of the class in its last layer, brought to its features."""
    inputs, label = (
        torch.cat([given.parts[part][0] for part in ("forget", "retain")]),
        given.parts["forget"][1][0],
    )
    restored_model = copy.deepcopy(model)
    with torch.no_grad():
        features = torch.nn.functional.pad(model[:-1](inputs), (0, 1), value=1.0).double()
        row = torch.linalg.lstsq(features, given.original(inputs)[:, label].double()[:, None]).solution[:, 0]
        restored_model[-1].weight[label], restored_model[-1].bias[label] = row[:-1].float(), row[-1].float()
    return restored_model


def add_noise(given: Given) -> nn.Module:
    """The original with as much noise on its weights as they have spread, more for every second seed."""
    model, generator = copy.deepcopy(given.original), torch.Generator().manual_seed(given.place)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(p.std() * (given.place % 2) * torch.randn(p.shape, generator=generator))
    return model
