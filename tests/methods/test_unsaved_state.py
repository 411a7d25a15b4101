"""Methods of which no state is saved say so before they run."""

from pathlib import Path

import pytest

import every_family
from every_family import DENOISERS
from for_each import for_each
from test_methods import shorten_method
from unweave.descent.descend import Descent
from unweave.methods import METHODS, Method, method_named
from unweave.methods.lur import LUR
from unweave.methods.scrub import SCRUB
from unweave.methods.simple import Original
from unweave.methods.unsaved_state import refuse_unsaved_state
from unweave.targets import Level
from unweave.weights.state_folder import States

RUNNING = {
    name: method
    for name, method in METHODS.items()
    if method.about.families != ("text-to-image",) and not isinstance(method, Original)
} | {"scrub that rewinds": SCRUB(rewind=True)}


def refused(method: Method) -> bool:
    try:
        refuse_unsaved_state(method, "this")
    except ValueError:
        return True
    return False


def saves_all(method: Method, folder: Path) -> bool:
    """Whether each descent of a short run leaves a state, and there is one."""
    family = DENOISERS[0] if method.about.families[:1] == ("diffusion",) else "batchnorm"
    of = every_family.request(method, family)
    of.states = States(folder, 1)
    shorten_method(method)(of)
    assert len(list(folder.glob("*"))) <= of.states.descents
    return 0 < of.states.descents == len(list(folder.glob("*")))


@for_each("name", RUNNING)
def test_a_method_is_refused_if_and_only_if_some_descent_leaves_no_state(name: str, tmp_path: Path):
    assert saves_all(RUNNING[name], tmp_path / name.replace(":", "-")) != refused(RUNNING[name])


@for_each(
    ("method", "reason"),
    [
        (method_named("sfron"), "saves no state of a second optimizer, found in this: leave"),
        (method_named("lur:sfron"), "a second optimizer, found in sfron of this: leave"),
        (LUR(forget=Level()), "saves no state of the target level, found in forget of this: leave"),
        (method_named("lur-match:recover"), "the target level, found in lur-match.forget of this: leave"),
        (SCRUB(rewind=True), "the models to rewind to, found in this: leave"),
        (SCRUB(how=Descent(steps=1, optimizer="adamw8bit")), "optimizer=adamw8bit, found in how of this: "),
        (method_named("ssd"), "and this has none: leave"),
    ],
)
def test_the_reason(method: Method, reason: str):
    with pytest.raises(ValueError, match=f"^--save-every .*{reason}"):
        refuse_unsaved_state(method, "this")


def test_a_pipeline_with_steps_is_saved():
    refuse_unsaved_state(method_named("ssd:recover"), "this")
