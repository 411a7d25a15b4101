"""The settings that `mechanism.py` compares modes and alphas in: on two stages of digits."""

from dataclasses import dataclass, replace

from unweave.descent.descend import Descent
from unweave.methods.lur import LUR
from unweave.methods.starts import Redraw
from unweave.targets import Bounded, Match
from unweave.targets.estimators import Proxy


@dataclass(frozen=True)
class Setting:
    """All of a comparison but mode and alpha.

    Args:
        stage: The recipe.
        lur: The method.
        source: Where its numbers come from.
        start: What comes before it, if anything.
    """

    stage: str
    lur: LUR
    source: str
    start: Redraw | None = None


TRACE_HOW = Descent(lr=0.088, steps=50, batch=128, forget_batch=32, max_norm=1.0, schedule="cosine")
PLAIN = LUR(weight=0.36, forget=Bounded(), how=TRACE_HOW)
START = Redraw(0.03)
CLEAN_MATCH = LUR(
    forget=Match(
        Proxy(how=Descent(lr=0.1, epochs=3, schedule="cosine", warmup=0.15, weight_decay=5e-4)), sharpen=0.7
    ),
    weight=0.033,
    how=Descent(lr=0.106, steps=100, batch=128, forget_batch=64, max_norm=1.0, weight_decay=5e-4),
)
TRACE_MATCH = LUR(
    forget=Match(
        Proxy("reinitialized", 0.3, Descent(lr=0.2, epochs=18, schedule="cosine", warmup=0.15)), sharpen=0.7
    ),
    weight=0.073,
    how=Descent(lr=0.24, steps=200, batch=128, forget_batch=32, max_norm=1.0, schedule="cosine"),
)
SETTINGS = {
    "clean, bounded": Setting(
        "digits-clean",
        replace(PLAIN, weight=0.09, how=replace(TRACE_HOW, weight_decay=5e-4)),
        "the study's plain LUR on clean digits",
        START,
    ),
    "trace, bounded": Setting(
        "digits-trace", PLAIN, "the same; of the weights tried, joint's best on the tuning seeds", START
    ),
    "trace, bounded, twice the weight": Setting(
        "digits-trace", replace(PLAIN, weight=0.72), "the same; joint forgets too much", START
    ),
    "clean, match": Setting("digits-clean", CLEAN_MATCH, "the study's targets on clean digits"),
    "trace, match": Setting("digits-trace", TRACE_MATCH, "the study's targets on trace digits"),
}
