"""Draws SVG without a display or global state, with the colours and typeface of the page.

Colours are CSS variables with Okabe and Ito's colour-blind-safe palette as fallback. Text stays text, so that
it can be read aloud, searched, and set in the page's typeface. The same figure gives the same bytes.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

INK, FAINT, PAPER = "#1d1d1f", "#b9b9bf", "#fdfdfd"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
_VARIABLES = {INK: "ink", FAINT: "faint", PAPER: "bg"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES)
}


@contextmanager
def axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches, outside of any window or global list, and its axes, in one style."""
    settings = matplotlib.RcParams(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "unweave",
            # A method's name may hold dollar signs.
            "text.parse_math": False,
            "font.size": 8.5,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            **dict.fromkeys(
                ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK
            ),
        }
    )
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def ticks(axis: Axis, at: Sequence[float]) -> None:
    """Sets the major ticks to these values."""
    axis.set_major_locator(FixedLocator(at))
    axis.set_minor_locator(NullLocator())


def svg(figure: Figure, label: str) -> str:
    """The figure as one `<svg>` element of a page, which sets its size; its ids are unique.

    Args:
        figure: A figure drawn inside the block of `axes`.
        label: The text for screen readers.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    source = file.getvalue()
    box = re.search(r'viewBox="([^"]+)"', source)
    assert box is not None
    # matplotlib numbers its groups from one in every figure, and nothing refers to them.
    content = re.sub(r'<g id="[^"]*">', "<g>", source[source.index("<defs>") :])
    prefix = hashlib.sha256((label + content).encode()).hexdigest()[:8]
    content = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", content)
    # `href` alone needs no namespace, whose declaration looks like a link out of the page.
    content = content.replace("xlink:href", "href")
    for colour, name in _VARIABLES.items():
        content = content.replace(colour, f"var(--{name}, {colour})")
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{content.strip()}'
