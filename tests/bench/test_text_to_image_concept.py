"""A concept of a text-to-image model: its prompts, its request, and how its exam sees edits of a pipeline."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from audits.diffusion.concepts import PROMPTS, Exact, squares
from stable_diffusion import write_pipeline
from text_to_image import pipeline, prompts, request
from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.concept_exam import ConceptExam
from unweave.audits.diffusion.latent_drawing import PromptedPipeline
from unweave.audits.diffusion.real_images import RealImages
from unweave.bench.text_to_image_concept import (
    ConceptCase,
    EditExam,
    PracticeExam,
    PromptCounts,
    concept_prompts,
)
from unweave.data.captioned_drawings import HELD_OUT_TEMPLATES, Drawings
from unweave.data.captions import FILE, TEXT, CaptionedImages
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.concept_request import ConceptRequest
from unweave.tasks.diffusion.prompts import Encoded, Prompted
from unweave.tasks.diffusion.sample import Sampler
from unweave.tasks.diffusion.stable_diffusion import load, save


@pytest.mark.parametrize(("factor", "value"), [("object", "three"), ("colour", "red")])
def test_prompts_are_of_the_kinds_that_they_are_said_to_be(factor: str, value: str):
    drawings, counts = Drawings(), PromptCounts(trained=4, paraphrased=3, combined=1, neighbours=2, others=1)
    found = concept_prompts(drawings, factor, value, counts)
    others = len(drawings.names[factor]) - 1
    sizes = [len(getattr(found, kind)) for kind in ("trained", "paraphrased", "combined")]
    assert sizes == [4, 3, 1]
    assert [len(found.neighbours), len(found.others)] == [2 * others, others]
    trained = {row[TEXT] for row in drawings.prompts()}
    reworded = {row[TEXT] for row in drawings.prompts(HELD_OUT_TEMPLATES)}
    pairs = {row[TEXT] for row in drawings.prompts(held_out=True)}
    assert {each.text for each in (*found.trained, *found.neighbours)} <= trained
    assert {each.text for each in (*found.paraphrased, *found.others)} <= reworded
    assert {each.text for each in found.combined} <= pairs and not pairs & trained
    assert all(each.shows[factor] == value for each in found.forget_prompts)
    assert {each.shows[factor] for each in found.retain_prompts} == set(drawings.names[factor]) - {value}
    assert len({each.text for each in found.all_prompts}) == len(found.all_prompts)


def images(n: int, seed: int) -> CaptionedImages:
    labels = torch.arange(n) % 3
    colours = torch.arange(n) % 2
    names = ("two", "three", "four"), ("red", "blue")
    rows = tuple(
        {FILE: f"{i}.png", TEXT: "", "object": names[0][label], "colour": names[1][colour]}
        for i, (label, colour) in enumerate(zip(labels.tolist(), colours.tolist(), strict=True))
    )
    large = squares(labels, colours, seed).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return CaptionedImages(large, rows, Path("images"))


def exam(**changes: Any) -> EditExam:
    real = RealImages(images(36, 1), images(90, 2))
    given = {
        "prompts": PROMPTS,
        "recogniser": Exact(),
        "real": real,
        "sampler": Sampler(steps=2),
        "count": 20,
    }
    return EditExam(**{"pipeline": pipeline(), **given, **changes})


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)


def plain(of: EditExam) -> ConceptExam:
    """The same exam of whole pipelines."""
    names = ("prompts", "recogniser", "real", "sampler", "count", "budget")
    return ConceptExam(**{name: getattr(of, name) for name in names})


@pytest.mark.parametrize("scope", ["cross-attention", "text encoder"])
def test_an_edit_is_drawn_as_the_pipeline_that_it_is_saved_as(scope, tmp_path: Path):
    source = load(write_pipeline(tmp_path / "sd"))
    of, edited = exam(pipeline=source), source.model(prompts(), scope)
    before = of.answers(edited)
    assert same(before, plain(of).answers(PromptedPipeline(source, PROMPTS.conditions)))
    with torch.no_grad():
        for p in edited.parameters():
            if p.requires_grad:
                p.mul_(1.5)
    save(source, edited, tmp_path / "edited", {})
    again = PromptedPipeline(load(tmp_path / "edited"), PROMPTS.conditions)
    found = of.answers(edited)
    assert same(found, plain(of).answers(again)) and same(found, of.answers(again))
    assert not same(found, before)


def test_the_course_of_relearning_is_what_the_attack_goes_by():
    attacker = Budget(images=4, relearning=Descent(lr=1e-3, steps=3, batch=4), looks=(1,))
    of, model = exam(budget=attacker), request().model
    course = of.relearn(model)
    assert list(course) == ["relearn_10", *(f"relearned_10_at_{step}" for step in (0, 1, 3))]
    assert all(0 <= share <= 100 for share in course.values()) and course["relearn_10"] in (0, 1, 3)
    with pytest.raises(ValueError, match="needs the budget of an attacker"):
        exam().relearn(model)


def test_a_model_with_its_own_words_is_also_relearned_behind_the_original_ones():
    attacker = Budget(images=4, relearning=Descent(lr=1e-3, steps=3, batch=4), looks=(1,))
    of, model = exam(budget=attacker), request("text encoder").model
    with torch.no_grad():
        for p in model.words.parameters():
            p.normal_()
    course, plain_course = of.relearn(model), of.relearn(request().model)
    behind = {name.replace("_old_words", ""): each for name, each in course.items() if "_old_words" in name}
    assert behind == plain_course and len(course) == 2 * len(behind)


def test_a_search_sees_how_much_sooner_a_concept_is_relearned():
    known = {name: getattr(exam(), name) for name in ("prompts", "recogniser", "real", "sampler", "count")}
    practice = PracticeExam(pipeline=pipeline(), **known)
    wanted = {"ua": 90.0, "ra": 90.0, "class_tv": 0.0, "kid_retain": 0.0}
    wanted |= {"relearned_10_at_5": 10.0, "relearned_10_at_20": 40.0}
    sooner = {**wanted, "relearned_10_at_5": 30.0, "relearned_10_at_20": 20.0}
    assert practice.score_trial(wanted, wanted, 0.0)["value"] == 0
    found = practice.score_trial(sooner, wanted, 0.0)
    assert found["sooner"] == 10 and found["value"] == 10 / 4, "a fourth part; later is no better"
    hidden = {**wanted, "relearned_10_old_words_at_5": 90.0, "relearned_10_old_words_at_20": 100.0}
    assert practice.score_trial(hidden, wanted, 0.0)["sooner"] == 70
    assert "sooner" not in exam().score_trial(sooner, wanted, 0.0)
    assert practice.probes(request().model) == {}


def test_attacks_see_the_whole_pipeline():
    attacker = Budget(
        images=1,
        guidances=(1.0,),
        seeds=10,
        draws=2,
        vector_steps=1,
        relearning=Descent(lr=1e-3, steps=1, batch=2),
        looks=(),
    )
    of, model = exam(budget=attacker), request().model
    whole = PromptedPipeline(pipeline(), PROMPTS.conditions)
    found = of.probes(model)
    assert found == plain(of).probes(whole) and len(found) > 10
    assert found["relearn_10"] == of.relearn(model)["relearn_10"]


def test_a_case_poses_the_request_on_a_copy():
    given = request("all")
    case = ConceptCase(pipeline(), ConceptRequest(given.task.prompts, given.task, given.split), exam())
    original = case.original()
    of = case.problem(original, 3, {})
    assert {name.partition(".")[0] for name in of.params} == {"unet"}
    whole = case.problem(case.original(text_encoder=True), 3, {})
    assert list(whole.params) == list(of.params) and isinstance(whole.model, Prompted)
    assert isinstance(whole.model.words, Encoded)
    with torch.no_grad():
        next(iter(of.params.values())).add_(1.0)
    assert of.split is given.split and of.generator.initial_seed() == 3
    assert all(
        torch.equal(p, q) for p, q in zip(original.parameters(), case.original().parameters(), strict=True)
    )
    fresh = of.fresh_model()
    assert type(fresh) is type(original) and case.exam() is case.questions
    changed = replace(case, questions=exam(count=21))
    assert changed.facts() != case.facts() == replace(case).facts()
