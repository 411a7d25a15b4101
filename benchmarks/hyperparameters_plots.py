"""The figures of `hyperparameters.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def drawn(record: Row) -> dict[str, Figure]:
    """A figure by the name of its file."""
    found, stages = record["summary"], list(record["stages"])
    return {
        "hyperparameters-importance": bars({stage: found["random"][stage]["importance"] for stage in stages}),
        "hyperparameters-effects": curves({stage: found["random"][stage]["curves"] for stage in stages}),
    }


def bars(importance: Mapping[str, Mapping[str, float]]) -> Figure:
    """The importance of each factor on each stage."""
    stages = list(importance)
    names = sorted(importance[stages[0]], key=lambda n: sum(importance[s][n] for s in stages))
    figure = Figure(figsize=(7, 5), layout="constrained", facecolor="white")
    panel = figure.subplots()
    height = 0.8 / len(stages)
    for i, (stage, colour) in enumerate(zip(stages, COLOURS, strict=False)):
        places = np.arange(len(names)) + (len(stages) - 1 - 2 * i) / 2 * height
        panel.barh(places, [importance[stage][n] for n in names], height, color=colour, label=stage)
    panel.set_yticks(np.arange(len(names)), names, fontsize=8)
    panel.set_xlabel("explained variance that is lost when the setting is shuffled", fontsize=9)
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def curves(marginals: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> Figure:
    """The value against each factor, relative to its mean on the stage, the mean over all others."""
    stages = list(marginals)
    names = list(marginals[stages[0]])
    figure = Figure(figsize=(11, 7), layout="constrained", facecolor="white")
    panels = figure.subplots(3, -(-len(names) // 3), sharey=True).ravel()
    for panel, name in zip(panels, names, strict=False):
        for stage, colour in zip(stages, COLOURS, strict=False):
            line(panel, marginals[stage][name], colour, stage)
        panel.set_title(name, fontsize=9)
        panel.set_yscale("log")
        panel.set_yticks([0.5, 1, 2], ["0.5", "1", "2"])
        panel.minorticks_off()
        panel.tick_params(labelsize=7)
        panel.axhline(1, color="#888888", linewidth=0.6)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    panels[0].legend(frameon=False, fontsize=7)
    figure.supylabel("predicted value, relative to the stage's mean", fontsize=9)
    return figure


def line(panel: Axes, levels: Sequence[Sequence[Any]], colour: str, label: str) -> None:
    """One factor on one stage: a line over numbers, points over names."""
    values = np.array([value for _, value in levels])
    values /= np.exp(np.log(values).mean())
    places = [level for level, _ in levels]
    if all(isinstance(level, float) for level in places):
        positive = min(level for level in places if level > 0)
        panel.plot([max(level, positive / 2) for level in places], values, color=colour, label=label, lw=1.2)
        panel.set_xscale("log")
        return
    panel.plot(range(len(places)), values, "o", color=colour, label=label, markersize=3)
    panel.set_xticks(range(len(places)), [str(level) for level in places], rotation=30)
