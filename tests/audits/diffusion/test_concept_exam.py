"""The exam of text-to-image models, on a model that draws squares (see `concepts`)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audits.diffusion.concepts import PROMPTS, Exact, squares
from unweave.audits.diffusion import local_models
from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.clip_score import ClipScore
from unweave.audits.diffusion.concept_exam import ConceptExam
from unweave.audits.diffusion.concept_prompts import Prompt
from unweave.audits.diffusion.concept_verdict import EVERY
from unweave.audits.diffusion.local_models import LocalModels
from unweave.audits.diffusion.real_images import RealImages
from unweave.audits.verdict import Verdict
from unweave.data.captions import FILE, TEXT, CaptionedImages
from unweave.tasks.diffusion.sampler import Sampler

ASKED = (1, 1, 1, 1, 0, 2, 0, 2)
"""The object of each prompt."""
FIRST_BLUE = 6


@dataclass
class Squares(nn.Module):
    """Draws squares: the object of the prompt, or with some probability another; each by its seed.

    Args:
        turns: The probability of each object under prompts of the concept.
        wrong: The probability of another object under prompts to keep.
        model_seed: Two models with different numbers draw different images.
    """

    turns: Sequence[float] = (0.0, 1.0, 0.0)
    wrong: float = 0.02
    model_seed: int = 0
    encoder: Any = field(default=None)

    def __post_init__(self) -> None:
        super().__init__()

    def drawing(self, how: Sampler):
        return self.draw

    def draw(self, condition: int, seeds: Sequence[int], guidance: float) -> Tensor:
        rng = np.random.default_rng([self.model_seed, *seeds])
        label = ASKED[condition]
        odds = self.turns if label == 1 else np.where(np.arange(3) == label, 1 - self.wrong, self.wrong / 2)
        objects = torch.from_numpy(rng.choice(3, size=len(seeds), p=odds))
        blue = torch.full((len(seeds),), int(condition >= FIRST_BLUE))
        return squares(objects, blue, seed=int(rng.integers(2**31)))


@dataclass
class Notes(Squares):
    """Notes what it was asked."""

    drawn: list[tuple[int, list[int], float]] = field(default_factory=list)

    def draw(self, condition: int, seeds: Sequence[int], guidance: float) -> Tensor:
        self.drawn.append((condition, list(seeds), guidance))
        return super().draw(condition, seeds, guidance)


def caption_images(n: int, seed: int, objects: Sequence[int] = (0, 1, 2)) -> CaptionedImages:
    labels = torch.tensor([each for each in objects for _ in range(n)])
    colours = torch.arange(len(labels)) % 2
    names = ("two", "three", "four"), ("red", "blue")
    rows = tuple(
        {FILE: f"{i}.png", TEXT: "", "object": names[0][label], "colour": names[1][colour]}
        for i, (label, colour) in enumerate(zip(labels.tolist(), colours.tolist(), strict=True))
    )
    return CaptionedImages(squares(labels, colours, seed), rows, Path("images"))


def exam(count: int = 20, **changes: Any) -> ConceptExam:
    real = RealImages(caption_images(12, 1), caption_images(30, 2))
    defaults = {"prompts": PROMPTS, "recogniser": Exact(), "real": real, "sampler": Sampler(steps=2)}
    return ConceptExam(**{**defaults, "count": count, **changes})


def test_an_image_belongs_to_its_prompt_and_number():
    draws = []
    answers = exam(3).answers(Notes(drawn=draws))
    assert [len(each) for each in answers.values()] == [3] * 8
    assert draws[2][:2] == (2, [200_000, 200_001, 200_002])


def test_a_prompt_is_drawn_with_the_seed_and_the_guidance_that_it_brings():
    draws = []
    prompts = replace(PROMPTS, paraphrased=(Prompt("two plus one", {}, 77, 9.5),))
    seeded_exam = exam(3, prompts=prompts, sampler=Sampler(steps=2, guidance=3.0))
    seeded_exam.answers(Notes(drawn=draws))
    assert draws[2] == (2, [77, 78, 79], 9.5) and {each[2] for each in draws} == {3.0, 9.5}
    key = "prompts with a seed or guidance of their own"
    assert seeded_exam.facts[key] == [{"prompt": "two plus one", "seed": 77, "guidance": 9.5}]
    assert key not in exam(3).facts and seeded_exam.digest != exam(3).digest


def test_prompts_that_share_words_are_drawn_apart():
    draws = []
    prompts = tuple(Prompt("two plus one", {}, seed) for seed in (7, 90))
    prompt_exam = exam(20, prompts=replace(PROMPTS, paraphrased=prompts))
    answers = prompt_exam.answers(Notes(drawn=draws))
    first_seeds = [(condition, seeds[0]) for condition, seeds, _ in draws[2:5]]
    assert first_seeds == [(2, 7), (2, 90), (3, 400_000)] and len(answers) == 9
    assert prompt_exam.sizes["paraphrased"] == 40 and prompt_exam.samples(answers).kinds["paraphrased"] == (
        2,
        3,
    )
    with pytest.raises(ValueError, match="has the seeds 7 and 90, and 84 images from each seed on"):
        exam(84, prompts=prompt_exam.prompts)


def test_an_overlap_with_the_seeds_or_the_guidance_of_the_audit_is_found():
    def share(*rows: Prompt) -> ConceptExam:
        return exam(20, prompts=replace(PROMPTS, paraphrased=rows), sampler=Sampler(steps=2, guidance=3.0))

    share(Prompt("two plus one"), Prompt("two plus one", {}, 200_020))
    share(Prompt("two plus one", {}, 7), Prompt("two plus one", {}, 8, 2.0))
    with pytest.raises(ValueError, match="'two plus one' has the seeds 200000 and 200019, and 20 images"):
        share(Prompt("two plus one"), Prompt("two plus one", {}, 200_019))
    with pytest.raises(ValueError, match="'two plus one' has the seeds 7 and 8, and 20 images from each"):
        share(Prompt("two plus one", {}, 7), Prompt("two plus one", {}, 8, 3.0))


def test_clip_scores_are_of_each_prompt_with_its_own_images():
    class Alike(ClipScore):
        def scores(self, text: str, images: Tensor) -> np.ndarray:
            return np.full(len(images), len(text))

    answers = exam().answers(Squares())
    assert "clip" not in exam().measure(answers)
    clip = Alike(lambda _: torch.zeros(1, 1), lambda images: torch.zeros(len(images), 1), "abc")
    clip_exam = exam(models=LocalModels(clip=clip))
    values, texts = clip_exam.measure(answers), [each.text for each in PROMPTS.all_prompts]
    assert values["clip_forget"] == np.mean([len(text) for text in texts[:4]])
    assert values["clip"] == np.mean([len(text) for text in texts[4:]])
    assert clip_exam.facts["CLIP"] == {"sha256": "abc"} and values.keys() <= EVERY.keys()


def test_an_fid_is_between_images_to_keep_and_real_ones_of_what_they_show(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    image_counts: list[int] = []
    monkeypatch.setattr(local_models, "refuse_no_fid", lambda place, images: image_counts.append(images))
    monkeypatch.setattr(local_models, "fid", lambda fake, real, *, weights: float(len(fake) - len(real)))
    fid_exam = exam(models=LocalModels(inception=weights))
    assert image_counts == [60]  # of each of two objects to keep 30 real images; 80 are drawn
    assert fid_exam.measure(fid_exam.answers(Squares()))["fid"] == 20
    assert fid_exam.facts["Inception"] == {"sha256": hashlib.sha256(b"weights").hexdigest()}
    assert "Inception" not in exam().facts
    monkeypatch.undo()
    with pytest.raises(ValueError, match="an FID needs"):
        exam(models=LocalModels(inception=weights))
    assert "fid" not in exam().measure(exam().answers(Squares()))


def test_answers_are_stored_and_what_they_depend_on_is_in_the_digest(tmp_path):
    answers = exam().answers(Squares())
    exam().save(answers, tmp_path / "found.npz")
    loaded_answers = exam().load(tmp_path / "found.npz")
    assert exam().fingerprint(loaded_answers) == exam().fingerprint(answers)
    prompts = replace(PROMPTS, others=PROMPTS.others[:1])
    other_exams = [exam(21), exam(prompts=prompts), exam(sampler=Sampler(steps=3)), exam(budget=Budget())]
    other_exams += [exam(real=RealImages(caption_images(12, 1), caption_images(30, 3)))]
    assert len({exam().digest, *(each.digest for each in other_exams)}) == 6


def test_measures_name_every_figure_and_real_images_are_near():
    model, edited_answers = exam().answers(Squares()), exam().answers(Squares((0.7, 0.0, 0.3), model_seed=1))
    values = exam().measure(edited_answers, model)
    assert set(values) <= set(EVERY) and values["ua"] == 100 and values["class_tv"] == 1
    assert values["ra"] > 90 and values["agreement"] > 95
    assert exam().drift(edited_answers, model).keys() == {"drift_pixel", "drift_feature"}
    assert exam().drift(model, model) == {"drift_pixel": 0, "drift_feature": 0}
    assert exam().measure(model)["ua_trained"] == 0


def test_facts_state_the_errors_of_the_recogniser_by_its_digest():
    facts = exam().facts
    assert facts["recogniser"]["digest"] == Exact().digest
    assert facts["recogniser"]["wrong about held-out images, %"]["colour"]["value"] == 1
    assert facts["prompts"]["paraphrased"] == ["two plus one"] and facts["concept"] == {"object": "three"}


def judge_models(
    turns: Sequence[float], *, wrong: float = 0.02, original=(0.0, 1.0, 0.0), n: int = 10, retrained: int = 12
):
    judging_exam = exam(50, budget=Budget(images=25))
    rates = (0.5, 0.1, 0.4)
    references = [judging_exam.answers(Squares(rates, model_seed=10 + i)) for i in range(n)]
    margins = judging_exam.calibrate(
        [judging_exam.answers(Squares(rates, model_seed=50 + i)) for i in range(retrained)],
        [{"asked": 10.0}] * retrained,
    )
    original_answers = judging_exam.answers(Squares(original, model_seed=1))
    answers = judging_exam.answers(Squares(turns, wrong, model_seed=2))
    return judging_exam.judge(
        [{**judging_exam.measure(answers, each), "asked": 10.0} for each in references],
        [{**judging_exam.measure(each), "asked": 10.0} for each in references],
        margins,
        [{**judging_exam.measure(original_answers, each), "asked": 100.0} for each in references],
        lambda: [original_answers],
    )


def test_a_model_like_retrained_ones_passes():
    judgement = judge_models((0.5, 0.1, 0.4))
    assert judgement.verdict == Verdict.PASS, judgement.reason


def test_a_model_that_still_draws_the_concept_or_lost_what_is_kept_fails():
    judgement = judge_models((0.3, 0.5, 0.2))
    assert judgement.verdict == Verdict.FAIL and "under-forgetting" in judgement.reason
    judgement = judge_models((0.5, 0.1, 0.4), wrong=0.4)
    assert judgement.verdict == Verdict.FAIL and "damage" in judgement.reason


def test_a_concept_that_the_original_never_draws_is_inconclusive():
    judgement = judge_models((0.5, 0.1, 0.4), original=(0.5, 0.1, 0.4))
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert (
        "nothing to forget: the original draws the concept object = three no more often" in judgement.reason
    )


def test_without_attacks_or_retrained_models_nothing_passes():
    base = exam(50)
    answers = base.answers(Squares((0.5, 0.1, 0.4)))
    judgement = base.judge([base.measure(answers)], [], None, [], lambda: [base.answers(Squares())])
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert "no retrained model" in judgement.reason and "no attacks ran" in judgement.reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"real": RealImages(caption_images(12, 1), caption_images(19, 2))},
            "a KID needs 20 held-out images of what prompts to keep name, found 19 of object = two in images",
        ),
        (
            {"real": RealImages(caption_images(9, 1), caption_images(30, 2)), "budget": Budget()},
            "attacks need 10 training images of the concept, found 9 of object = three in images",
        ),
        (
            {"real": RealImages(caption_images(9, 1, (0, 2)), caption_images(30, 2))},
            "an audit needs a training image of the concept, found none of object = three in images",
        ),
    ],
)
def test_too_few_real_images_are_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        exam(**changes)


def test_a_model_that_draws_no_prompts_is_refused():
    with pytest.raises(ValueError, match="needs a PromptedPipeline, found Linear"):
        exam().answers(nn.Linear(1, 1))


def test_columns_that_every_image_has_are_its_factors():
    real = RealImages(caption_images(2, 1), caption_images(2, 2))
    assert real.names == {"object": ("two", "three", "four"), "colour": ("red", "blue")}
    text_images = replace(real.train, rows=tuple({FILE: row[FILE], TEXT: "a two"} for row in real.train.rows))
    with pytest.raises(ValueError, match="must have a column for each factor .* found only file_name, text"):
        assert RealImages(text_images, text_images).names
    rows = tuple(row | {"id": str(i)} for i, row in enumerate(real.train.rows))
    numbered_images = replace(real.train, rows=rows)
    with pytest.raises(ValueError, match=r"the column 'id' of .* must be a factor with few values, found"):
        assert RealImages(numbered_images, numbered_images.part(torch.arange(1))).names
