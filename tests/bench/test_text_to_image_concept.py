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
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import load, save


@pytest.mark.parametrize(("factor", "value"), [("object", "three"), ("colour", "red")])
def test_prompts_are_of_the_kinds_that_they_are_said_to_be(factor: str, value: str):
    drawings, counts = Drawings(), PromptCounts(trained=4, paraphrased=3, combined=1, neighbours=2, others=1)
    prompt_set = concept_prompts(drawings, factor, value, counts)
    n_others = len(drawings.names[factor]) - 1
    sizes = [len(getattr(prompt_set, kind)) for kind in ("trained", "paraphrased", "combined")]
    assert sizes == [4, 3, 1]
    assert [len(prompt_set.neighbours), len(prompt_set.others)] == [2 * n_others, n_others]
    trained_texts = {row[TEXT] for row in drawings.prompts()}
    held_out_texts = {row[TEXT] for row in drawings.prompts(HELD_OUT_TEMPLATES)}
    pairs = {row[TEXT] for row in drawings.prompts(held_out=True)}
    assert {each.text for each in (*prompt_set.trained, *prompt_set.neighbours)} <= trained_texts
    assert {each.text for each in (*prompt_set.paraphrased, *prompt_set.others)} <= held_out_texts
    assert {each.text for each in prompt_set.combined} <= pairs and not pairs & trained_texts
    assert all(each.shows[factor] == value for each in prompt_set.forget_prompts)
    assert {each.shows[factor] for each in prompt_set.retain_prompts} == set(drawings.names[factor]) - {value}
    assert len({each.text for each in prompt_set.all_prompts}) == len(prompt_set.all_prompts)


def images(n: int, seed: int) -> CaptionedImages:
    labels = torch.arange(n) % 3
    colours = torch.arange(n) % 2
    names = ("two", "three", "four"), ("red", "blue")
    rows = tuple(
        {FILE: f"{i}.png", TEXT: "", "object": names[0][label], "colour": names[1][colour]}
        for i, (label, colour) in enumerate(zip(labels.tolist(), colours.tolist(), strict=True))
    )
    large_images = squares(labels, colours, seed).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return CaptionedImages(large_images, rows, Path("images"))


def exam(**changes: Any) -> EditExam:
    real = RealImages(images(36, 1), images(90, 2))
    defaults = {
        "prompts": PROMPTS,
        "recogniser": Exact(),
        "real": real,
        "sampler": Sampler(steps=2),
        "count": 20,
    }
    return EditExam(**{"pipeline": pipeline(), **defaults, **changes})


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)


def plain(of: EditExam) -> ConceptExam:
    """The same exam of whole pipelines."""
    names = ("prompts", "recogniser", "real", "sampler", "count", "budget")
    return ConceptExam(**{name: getattr(of, name) for name in names})


@pytest.mark.parametrize("scope", ["cross-attention", "text encoder"])
def test_an_edit_is_drawn_as_the_pipeline_that_it_is_saved_as(scope, tmp_path: Path):
    source = load(write_pipeline(tmp_path / "sd"))
    edit_exam, edited_model = exam(pipeline=source), source.model(prompts(), scope)
    original_answers = edit_exam.answers(edited_model)
    assert same(original_answers, plain(edit_exam).answers(PromptedPipeline(source, PROMPTS.conditions)))
    with torch.no_grad():
        for p in edited_model.parameters():
            if p.requires_grad:
                p.mul_(1.5)
    save(source, edited_model, tmp_path / "edited", {})
    copy = PromptedPipeline(load(tmp_path / "edited"), PROMPTS.conditions)
    answers = edit_exam.answers(edited_model)
    assert same(answers, plain(edit_exam).answers(copy)) and same(answers, edit_exam.answers(copy))
    assert not same(answers, original_answers)


def test_the_course_of_relearning_is_what_the_attack_goes_by():
    attacker = Budget(images=4, relearning=Descent(lr=1e-3, steps=3, batch=4), looks=(1,))
    attacked_exam, model = exam(budget=attacker), request().model
    course = attacked_exam.relearn(model)
    assert list(course) == ["relearn_10", *(f"relearned_10_at_{step}" for step in (0, 1, 3))]
    assert all(0 <= share <= 100 for share in course.values()) and course["relearn_10"] in (0, 1, 3)
    with pytest.raises(ValueError, match="needs the budget of an attacker"):
        exam().relearn(model)


def test_a_model_with_its_own_words_is_also_relearned_behind_the_original_ones():
    attacker = Budget(images=4, relearning=Descent(lr=1e-3, steps=3, batch=4), looks=(1,))
    attacked_exam, model = exam(budget=attacker), request("text encoder").model
    with torch.no_grad():
        for p in model.words.parameters():
            p.normal_()
    course, plain_course = attacked_exam.relearn(model), attacked_exam.relearn(request().model)
    old_course = {
        name.replace("_old_words", ""): each for name, each in course.items() if "_old_words" in name
    }
    assert old_course == plain_course and len(course) == 2 * len(old_course)


def test_a_search_sees_how_much_sooner_a_concept_is_relearned():
    settings = {name: getattr(exam(), name) for name in ("prompts", "recogniser", "real", "sampler", "count")}
    practice = PracticeExam(pipeline=pipeline(), **settings)
    reference = {"ua": 90.0, "ra": 90.0, "class_tv": 0.0, "kid_retain": 0.0}
    reference |= {"relearned_10_at_5": 10.0, "relearned_10_at_20": 40.0}
    faster_relearning = {**reference, "relearned_10_at_5": 30.0, "relearned_10_at_20": 20.0}
    assert practice.score_trial(reference, reference, 0.0)["value"] == 0
    trial = practice.score_trial(faster_relearning, reference, 0.0)
    assert trial["sooner"] == 10 and trial["value"] == 10 / 4, "a fourth part; later is no better"
    hidden = {**reference, "relearned_10_old_words_at_5": 90.0, "relearned_10_old_words_at_20": 100.0}
    assert practice.score_trial(hidden, reference, 0.0)["sooner"] == 70
    assert "sooner" not in exam().score_trial(faster_relearning, reference, 0.0)
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
    attacked_exam, model = exam(budget=attacker), request().model
    whole_pipeline = PromptedPipeline(pipeline(), PROMPTS.conditions)
    probe_values = attacked_exam.probes(model)
    assert probe_values == plain(attacked_exam).probes(whole_pipeline) and len(probe_values) > 10
    assert probe_values["relearn_10"] == attacked_exam.relearn(model)["relearn_10"]


def test_a_case_poses_the_request_on_a_copy():
    source = request("all")
    case = ConceptCase(pipeline(), ConceptRequest(source.task.prompts, source.task, source.split), exam())
    original = case.original()
    problem = case.problem(original, 3, {})
    assert {name.partition(".")[0] for name in problem.params} == {"unet"}
    whole_problem = case.problem(case.original(text_encoder=True), 3, {})
    assert list(whole_problem.params) == list(problem.params) and isinstance(whole_problem.model, Prompted)
    assert isinstance(whole_problem.model.words, Encoded)
    with torch.no_grad():
        next(iter(problem.params.values())).add_(1.0)
    assert problem.split is source.split and problem.generator.initial_seed() == 3
    assert all(
        torch.equal(p, q) for p, q in zip(original.parameters(), case.original().parameters(), strict=True)
    )
    fresh_model = problem.fresh_model()
    assert type(fresh_model) is type(original) and case.exam() is case.questions
    other_case = replace(case, questions=exam(count=21))
    assert other_case.facts() != case.facts() == replace(case).facts()
