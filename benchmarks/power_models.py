"""The models of `power.py`: their stages, what was tried for these, and what the models answer."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.exam import Exam
from unweave.audits.metrics import Values
from unweave.bench.recipe import load, parse
from unweave.bench.stage import Stage

Change = Mapping[str, Mapping[str, Any]]
"""Tables of a recipe, with the keys that are other than in it."""

FIRST_SEED = 3000
BIAS = -15.0
"""The bias of a class that the last layer hides: nobody is ever assigned to it."""

CUTS = (7, 8)
"""Seeds of the data on which a stage was chosen; the recipe reports another."""

DIGIT = 5
"""The digit to forget on which a stage was chosen; the recipe forgets another."""

GARMENT = 2
"""The garment to forget on which a stage was chosen, pullovers; the recipe forgets another."""

BEFORE = {"weight_decay": 5e-4, "epochs": 30}
"""How digits-clean was trained before."""

CANDIDATES: Mapping[str, Sequence[Change]] = {
    "digits-clean": [
        *({"data": {"seed": cut}} for cut in CUTS),
        *(
            {"data": {"seed": cut, "fraction": share}, "train": BEFORE}
            for share in (0.1, 0.3, 0.4)
            for cut in CUTS
        ),
        {"data": {"fraction": 0.3}, "train": BEFORE},  # looked good on both cuts
    ],
    "digits-class": [
        {"data": {"label": DIGIT}, "model": {"settings": width}}
        for width in ({"hidden": 12}, {"bottleneck": 16}, {"bottleneck": 32}, {"bottleneck": 64}, {})
    ],
    "fashion-mnist-class": [
        {"data": {"label": GARMENT}, "model": {"settings": width}}
        for width in ({"bottleneck": 8}, {"bottleneck": 16}, {})
    ],
}


@dataclass(frozen=True)
class Models:
    """What was measured of the models of a stage, by kind: "retrained", "original" and perhaps "hidden".

    Args:
        exam: The questions to the models.
        models: The models.
        answers: Their answers.
        alone: Per model, the metrics of one model.
        beside: The metrics of two models, per model and retrained model.
    """

    exam: Exam[Any]
    models: Mapping[str, Sequence[nn.Module]]
    answers: Mapping[str, Sequence[Evidence]]
    alone: Mapping[str, Sequence[Values]]
    beside: Mapping[str, Sequence[Sequence[Values]]]


def stage_of(name: str, change: Change, folder: Path, data: str | None) -> Stage:
    """A recipe with some keys changed; its models are kept in the folder."""
    table = load(name).table()
    tables = {key: {**table[key], **change.get(key, {})} for key in ("data", "model", "train")}
    tables["data"]["folder"] = data or tables["data"]["folder"]
    return Stage(parse({**table, **tables, "methods": {}}), folder)


def models_of(stage: Stage, retrains: int, originals: int) -> Models:
    """Trains the models of a stage, or reads them, and measures them."""
    exam, forgotten_classes = stage.exam(), stage.split().forgotten_classes
    models = {
        "retrained": [stage.load_or_train("retain", FIRST_SEED + i).model for i in range(retrains)],
        "original": [stage.load_or_train("mixed", FIRST_SEED + i).model for i in range(originals)],
    }
    if forgotten_classes:
        models["hidden"] = [hide(model, forgotten_classes) for model in models["original"]]
    answers = {kind: [exam.answers(model) for model in group] for kind, group in models.items()}
    own_values = {
        kind: [
            {**exam.measure(outputs), **exam.probes(model)}
            for outputs, model in zip(answers[kind], group, strict=True)
        ]
        for kind, group in models.items()
    }
    pair_values = {
        kind: [[exam.measure_pair(outputs, other) for other in answers["retrained"]] for outputs in group]
        for kind, group in answers.items()
    }
    return Models(exam, models, answers, own_values, pair_values)


def hide(model: nn.Module, classes: Sequence[int]) -> nn.Module:
    """A copy that never answers with some classes, while its features are as before."""
    hidden = copy.deepcopy(model)
    *_, head = (module for module in hidden.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        head.weight[list(classes)] = 0
        head.bias[list(classes)] = BIAS
    return hidden
