"""The attacks on a tiny pipeline of fresh weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import text_to_image  # noqa: E402  # needs diffusers
from audits.diffusion.concepts import PROMPTS, squares  # noqa: E402
from unweave.audits.diffusion.attacker import Budget, Target  # noqa: E402
from unweave.audits.diffusion.attacks import (  # noqa: E402
    relearning_curves,
    try_condition,
    try_relearning,
)
from unweave.audits.diffusion.clip_encoder import ClipEncoder  # noqa: E402
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS  # noqa: E402
from unweave.audits.diffusion.concept_attacks import (  # noqa: E402
    ConceptTarget,
    attack_concept,
    round_weights,
    try_concept_vector,
    try_eight_bits,
    try_paraphrases,
    try_pictures,
)
from unweave.audits.diffusion.latent_drawing import PromptedPipeline  # noqa: E402
from unweave.audits.diffusion.old_words import NAMES, try_old_words, with_text_encoder  # noqa: E402
from unweave.audits.diffusion.text_attacks import TextEncoder, choose_prefix, invert_token  # noqa: E402
from unweave.descent.descend import Descent  # noqa: E402
from unweave.tasks.diffusion.sampler import Sampler  # noqa: E402
from unweave.tasks.diffusion.scopes import restrict  # noqa: E402

BUDGET = Budget(
    images=2,
    guidances=(2.0,),
    seeds=10,
    draws=2,
    vector_steps=2,
    relearning=Descent(lr=1e-3, steps=2, batch=4, optimizer="adam"),
    looks=(1,),
)
PICTURES = squares(torch.ones(10, dtype=torch.int64), torch.arange(10) % 2).repeat_interleave(2, 2)
PICTURES = PICTURES.repeat_interleave(2, 3)


@pytest.fixture
def model() -> PromptedPipeline:
    return PromptedPipeline(text_to_image.pipeline(), PROMPTS.conditions)


def bright(images: Tensor) -> np.ndarray:
    return (images.double().mean((1, 2, 3)) > 128).numpy()


def concept(model: PromptedPipeline, hit=bright, original=None) -> ConceptTarget:
    drawing = model.drawing(Sampler("ddim", 2, guidance=2.0))
    original_drawing = None if original is None else original.drawing(drawing.how)
    words = None if original is None else original.encoder
    return ConceptTarget(
        Target(drawing, 0, hit, PICTURES, original_drawing, (10,)), PROMPTS, model.encoder, words
    )


def vector_of(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_every_attack_has_a_number_and_the_model_stays(model: PromptedPipeline):
    weights = vector_of(model)
    numbers = attack_concept(concept(model, original=model), BUDGET)
    assert list(numbers) and set(numbers) == set(CONCEPT_ATTACKS) - {"dropped", "dropped_same"}
    assert numbers["old_words"] == numbers["asked"]
    assert numbers["relearn_10_old_words"] == numbers["relearn_10"]
    assert all(each is None or 0 <= each <= 100 for each in numbers.values())
    assert torch.equal(vector_of(model), weights)


def test_an_addition_that_is_dropped_leaves_the_original(model: PromptedPipeline):
    edited_model = PromptedPipeline(text_to_image.pipeline(), PROMPTS.conditions)
    restrict(edited_model.denoiser, "lora", rank=2)
    with torch.no_grad():
        for name, p in edited_model.denoiser.named_parameters():
            if "lora_B" in name:
                p.add_(0.5)
    numbers = attack_concept(concept(edited_model, original=model), BUDGET)
    assert numbers["dropped_same"] == 100 and numbers["old_words"] == numbers["asked"]
    shares = attack_concept(concept(model), BUDGET)
    assert numbers["dropped"] == shares["asked"] and not shares.keys() & {*NAMES.values()}


def only(images: Tensor):
    """Takes these images alone for hits."""
    hit_bytes = {image.numpy().tobytes() for image in images}
    return lambda batch: np.array([image.numpy().tobytes() in hit_bytes for image in batch])


def test_eight_bits_round_the_denoiser_and_the_text_encoder(model: PromptedPipeline):
    pipeline = text_to_image.pipeline()
    for parts in ({"unet"}, {"text_encoder"}, {"unet", "text_encoder"}):
        rounded_pipeline = replace(
            pipeline, **{part: round_weights(getattr(pipeline, part)) for part in parts}
        )
        drawing = concept(PromptedPipeline(rounded_pipeline, PROMPTS.conditions)).target.drawing
        images = drawing(0, BUDGET.settings.judge, 2.0)
        share = try_eight_bits(concept(model, only(images)), BUDGET)["eight_bits"]
        assert share == (100 if len(parts) == 2 else 0), parts


def test_named_attacks_run_alone(model: PromptedPipeline):
    budget = replace(BUDGET, names=("best-prompt", "original-words"))
    numbers = attack_concept(concept(model, original=model), budget)
    assert {*numbers} == {"asked", "prompt", "old_words", "relearn_10_old_words"}


def reset_words(model: PromptedPipeline) -> PromptedPipeline:
    """The pipeline with other embeddings of tokens."""
    pipeline = text_to_image.pipeline()
    encoder = copy.deepcopy(pipeline.text_encoder)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(5)))
    return PromptedPipeline(replace(pipeline, text_encoder=encoder), PROMPTS.conditions)


def test_the_original_words_show_what_an_edit_of_words_alone_hides(model: PromptedPipeline):
    edited_model, seeds = reset_words(model), BUDGET.settings.judge
    is_original = only(concept(model).target.drawing(0, seeds, 2.0))
    target = concept(edited_model, is_original).target
    shares = try_condition(target, BUDGET) | try_relearning(target, BUDGET)
    assert shares == {"asked": 0, "relearn_10": BUDGET.longest}
    word_shares = try_old_words(target, model.encoder, BUDGET, shares)
    assert word_shares == {"old_words": 100, "relearn_10_old_words": 0}


def test_a_model_that_keeps_its_words_is_relearned_though_relearning_is_no_attack(model: PromptedPipeline):
    target = concept(model).target
    asked, relearned = try_condition(target, BUDGET), try_relearning(target, BUDGET)
    shares = try_old_words(target, model.encoder, BUDGET, asked)
    assert shares == {"old_words": asked["asked"], "relearn_10_old_words": relearned["relearn_10"]}


def test_relearning_with_the_original_words_is_that_of_the_original(model: PromptedPipeline):
    """With the words of the original put back, an edit of words alone relearns as the original does."""
    edited_model = reset_words(model)
    target = concept(edited_model, original=model).target
    target_of_words = with_text_encoder(target, model.encoder)
    curve, original_curve = (
        relearning_curves(each, BUDGET) for each in (target_of_words, concept(model).target)
    )
    assert curve == original_curve


def test_attacks_find_what_their_controls_reach(model: PromptedPipeline):
    """Each image that an attack draws is recognised as a hit only if it is the one that its control gives."""
    target = concept(model).target
    drawing, seeds = target.drawing, BUDGET.settings.judge
    all_seeds = [*BUDGET.settings.search, *seeds]
    paraphrase = concept(model, only(drawing(2, all_seeds, 2.0)))
    assert try_paraphrases(paraphrase, BUDGET) == {"prompt": 100}
    means = [torch.stack([drawing.vector(i) for i in each]).mean(0) for each in (range(4), range(4, 8))]
    start = drawing.vector(4) + 2.0 * (means[0] - means[1])
    assert try_concept_vector(concept(model, only(drawing(start, all_seeds, 2.0))), BUDGET) == {
        "concept_vector": 100
    }
    assert try_pictures(concept(model, only(drawing(0, seeds, 2.0))), BUDGET) == {"picture": 0}


def test_the_encoder_gives_the_embedding_of_a_prompt_from_its_words(model: PromptedPipeline):
    encoder = model.encoder
    assert isinstance(encoder, TextEncoder)
    for prompt in (0, 3):
        rows = encoder.table[encoder.words(prompt)]
        assert torch.equal(encoder(rows), model.denoiser.words(torch.tensor([prompt]))[0])
    assert encoder.longest == 75


def test_tokens_lower_the_loss_that_they_are_chosen_for(model: PromptedPipeline):
    encoder = model.encoder
    goal = encoder(encoder.table[encoder.words(5)]).detach()

    def loss(embedding: Tensor) -> Tensor:
        return (embedding - goal).square().mean()

    start = int(encoder.words(0)[-1])
    start_loss = loss(encoder(encoder.table[start][None]))
    assert loss(invert_token(encoder, loss, start=start, steps=20)) < start_loss
    losses: list[float] = []

    def noted(embedding: Tensor) -> Tensor:
        losses.append(float(loss(embedding).detach()))
        return loss(embedding)

    prefix = choose_prefix(encoder, noted, prompt=0, steps=10, generator=torch.Generator().manual_seed(0))
    assert float(loss(prefix)) == pytest.approx(min(losses)) and min(losses) < losses[0]


def test_a_prompt_that_leaves_no_room_is_refused(model: PromptedPipeline):
    tokens = model.encoder.tokens
    full = ClipEncoder(
        model.encoder.model,
        model.encoder.tokenizer,
        replace(tokens, lengths=torch.full_like(tokens.lengths, 77)),
    )
    with pytest.raises(ValueError, match="room for a token before it, found 75 tokens of at most 75"):
        choose_prefix(
            full, lambda _: torch.tensor(0.0), prompt=0, steps=1, generator=torch.Generator().manual_seed(0)
        )


def test_matrices_have_eight_bits_and_vectors_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2))
    original = copy.deepcopy(model)
    rounded_model = round_weights(model)
    for (name, weight), rounded_weight in zip(
        original.named_parameters(), rounded_model.parameters(), strict=True
    ):
        step = weight.abs().max() / 127
        assert (weight - rounded_weight).abs().max() <= step / 2 + 1e-6
        assert torch.equal(weight, rounded_weight) == (weight.ndim == 1), name
    assert torch.equal(vector_of(model), vector_of(original))
