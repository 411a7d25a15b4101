"""Draws the trials of the searches of text-to-image models: what they keep, and how soon the concept returns.

python benchmarks/text_to_image_figure.py records/text-to-image.json docs/text-to-image.svg
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from unweave.record.compact import read_record

STYLES: Mapping[str, tuple[str, str]] = {
    "away": ("#0072b2", "o"),
    "ideal": ("#009e73", "o"),
    "mislabel": ("#d55e00", "o"),
    "surrogate": ("#cc79a7", "o"),
    "bounded": ("#e69f00", "o"),
    "uce": ("#555555", "x"),
    "esd-x": ("#555555", "+"),
}
"""Colour and marker by forget loss, and of methods without a choice of one."""
OTHER = ("#bbbbbb", ".")
"""Colour and marker of all further methods."""
MOST_KID = 0.3
"""The right end of the figure; what lies beyond is drawn there."""


def trials(searches: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The forget loss, or the method, and the parts of each trial that did not fail."""
    for method, search in searches.items():
        for trial in search["trials"]:
            losses = [value for name, value in trial["settings"].items() if name.endswith(".forget")]
            if trial["failed"] is None:
                yield (losses or [method])[0], trial["parts"]


def draw(record: Mapping[str, Any]) -> Figure:
    """A panel per factor, a point per trial."""
    searches = record["searches"]
    figure = Figure(figsize=(5.5 * len(searches), 4), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(searches), sharey=True, squeeze=False)[0]
    for panel, (factor, by_method) in zip(panels, searches.items(), strict=True):
        results = list(trials(by_method))
        further = dict.fromkeys(method for method, _ in results if method not in STYLES)
        for name, (colour, marker) in {**STYLES, **dict.fromkeys(further, OTHER)}.items():
            points = [parts for method, parts in results if method == name]
            across = [min(MOST_KID, each["kid_retain"]) for each in points]
            sooner = [each["sooner"] for each in points]
            panel.scatter(across, sooner, s=16, color=colour, marker=marker, linewidth=0.8, label=name)
        panel.set_title(f"{factor} “{record['searching']['concepts'][factor]}”", fontsize=9)
        panel.set_xlabel("KID of images to keep", fontsize=9)
    panels[0].set_ylabel("relearned sooner than by a\nretrained model, points", fontsize=9)
    panels[0].legend(frameon=False, fontsize=8, title="forget loss or method", title_fontsize=8)
    return figure


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("figure", type=Path)
    arguments = parser.parse_args()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unweave"}):
        draw(read_record(arguments.record)).savefig(arguments.figure, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
