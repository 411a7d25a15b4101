"""Facts about a model, its data and what is trained, and the lines that say them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from unweave.cli.inputs.scope import RANK, TrainedWeights
from unweave.cli.project import Project
from unweave.split import Split


def model_facts(model: nn.Module, project: Project) -> dict[str, Any]:
    """The facts about the model of a project."""
    ids = project.train.names is not None
    return {**weight_facts(model), "trained": project.model is not None, "ids": ids}


def weight_facts(model: nn.Module) -> dict[str, Any]:
    """The facts about the weights of a model."""
    weights = list(model.parameters())
    return {
        "type": type(model).__name__,
        "weights": sum(p.numel() for p in weights),
        "trainable": sum(p.numel() for p in weights if p.requires_grad),
        "dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in weights})),
        "device": str(weights[0].device),
    }


def data_sizes(split: Split) -> dict[str, Any]:
    """The sizes of the parts of the data."""
    counts = {"forget": len(split.forget), "retain": len(split.retain)}
    counts |= {"calibration": len(split.calibration), "test": len(split.test)}
    return {**counts, "classes": split.n_classes, "forgotten_classes": list(split.forgotten_classes)}


def additions_facts(model: nn.Module, layers: Sequence[str], trained: TrainedWeights) -> dict[str, int]:
    """The rank of the additions, the number of layers that get one, and the weights that are trained."""
    rank, matrices = trained.rank or RANK, [model.get_parameter(f"{name}.weight") for name in layers]
    weights = sum(rank * (p.shape[0] + p[0].numel()) for p in matrices)
    return {"rank": rank, "layers": len(layers), "weights": weights}


def model_line(model: Mapping[str, Any]) -> str:
    """One line about the model."""
    weights = f"{model['weights']:,} weights ({model['trainable']:,} trainable)"
    training_note = "" if model["trained"] else ", not trained yet"
    return f"Model: {model['type']}, {weights}, {model['dtype']}, on {model['device']}{training_note}."


def data_line(data: Mapping[str, Any], *, ids: bool) -> str:
    """One line about the data."""
    parts = f"{data['forget']} to forget, {data['retain']} to retain"
    held_out = f"{data['calibration']} for calibration, {data['test']} for test"
    naming = "by ids of their own" if ids else "by position"
    return f"Data: {parts}, {held_out}; {data['classes']} classes; examples are known {naming}."


def additions_line(findings: Mapping[str, Any]) -> list[str]:
    """One line about low-rank additions, if they are trained."""
    if "trained" not in findings:
        return []
    facts = findings["trained"]
    what = f"additions of rank {facts['rank']} to {facts['layers']} layers"
    return [f"LoRA trains {facts['weights']:,} weights: {what}."]
