"""`unweave demo text-to-image`: a tiny model forgets an object and a colour, and the report shows both."""

from dataclasses import replace
from pathlib import Path

import pytest

from unweave.cli import main
from unweave.record import record

pytest.importorskip("diffusers")

from bench.test_text_to_image_models import short
from unweave.audits.diffusion.attacks import Budget
from unweave.bench import text_to_image_models
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.cli import demo_concepts
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.sample import Sampler

WHOLE = demo_concepts.digits
BUDGET = Budget(
    guidances=(1.0,),
    seeds=10,
    draws=2,
    vector_steps=1,
    relearning=Descent(lr=1e-3, steps=2, batch=4, optimizer="adam"),
    looks=(1,),
)


def tiny(quick: bool) -> demo_concepts.Demonstration:
    """The demo with a model and edits of a moment."""
    shown = WHOLE(quick)
    source = short(steps=2)
    source = replace(source, drawings=replace(source.drawings, limit=360))
    few = PromptCounts(trained=1, paraphrased=1, combined=1, neighbours=1, others=0)
    family = replace(shown.family, sampler=Sampler("dpm", steps=2, guidance=3.0), attacker=BUDGET)
    lur = shown.methods["lur"]
    methods = {
        "lur": replace(lur, how=replace(lur.how, steps=1, batch=4, forget_batch=4)),
        "uce": shown.methods["uce"],
    }
    return replace(
        shown,
        source=source,
        family=replace(family, attacks=2 if family.attacks else 0),
        counts=few,
        methods=methods,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of a tiny model."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_image_models, "RECOGNISED_COPIES", 1)
        patch.setattr(demo_concepts, "digits", tiny)
        arguments = ["--jobs", "1", "--quiet", "--out", str(folder)]
        assert main(["demo", "text-to-image", *arguments]) == 0
    return folder


def test_methods(place: Path):
    stages = record.load(place)["stages"]
    assert list(stages) == ["object-three", "colour-red"]
