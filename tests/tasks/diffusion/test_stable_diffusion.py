import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402  # after diffusers is known to be there

from folders import contents  # noqa: E402
from stable_diffusion import tokenizer, write_dit, write_pipeline  # noqa: E402
from unweave.tasks.copies import own_trainable  # noqa: E402
from unweave.tasks.diffusion import folder  # noqa: E402
from unweave.tasks.diffusion.autoencoder import decode  # noqa: E402
from unweave.tasks.diffusion.low_rank_file import save_low_rank  # noqa: E402
from unweave.tasks.diffusion.prompts import Prompted  # noqa: E402
from unweave.tasks.diffusion.sample import sample  # noqa: E402
from unweave.tasks.diffusion.sampler import Sampler  # noqa: E402
from unweave.tasks.diffusion.scopes import PATTERNS, Scope, merge_low_rank  # noqa: E402
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load, save  # noqa: E402
from unweave.tasks.diffusion.text_to_image import make_task, number_prompts  # noqa: E402
from unweave.tasks.low_rank import find_additions  # noqa: E402

PROMPTS = number_prompts(["a red three", "a blue two"], concepts=["a three"], forgotten=["a red three"])
HOW = Sampler("ddim", 4, guidance=3.0, spacing="leading")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A pipeline that no test writes to."""
    return write_pipeline(tmp_path_factory.mktemp("source") / "sd")


@pytest.fixture
def sd(source: Path, tmp_path: Path) -> Path:
    """A pipeline of the test's own."""
    return Path(shutil.copytree(source, tmp_path / "sd"))


def move(model: Prompted, seed: int = 0) -> Prompted:
    """The model with all trainable weights changed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def noise(pipeline: StableDiffusion, n: int) -> Tensor:
    return torch.stack(
        [torch.randn(pipeline.shape, generator=torch.Generator().manual_seed(i)) for i in range(n)]
    )


def pipeline_of(place: Path):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(place, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_diffusers(pipeline, start: Tensor, prompts: list[str], output: str) -> Tensor:
    images = pipeline(
        prompts, latents=start, num_inference_steps=4, guidance_scale=3.0, output_type=output
    ).images
    return images if output == "latent" else 2 * images - 1


def drawn_by_us(pipeline: StableDiffusion, model: Prompted, prompts: list[str]) -> Tensor:
    numbers = torch.tensor([PROMPTS.number(each) for each in prompts])
    task = make_task(PROMPTS, pipeline.schedule)
    return sample(model, task, numbers, shape=pipeline.shape, how=HOW, rounded=False)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_our_sampler_draws_as_diffusers_does(prediction: str, tmp_path: Path):
    place = write_pipeline(tmp_path / "sd", prediction=prediction)
    original, prompts = load(place), ["a three", "a blue two", ""]
    assert original.schedule.prediction == prediction
    ours, pipeline = drawn_by_us(original, original.model(PROMPTS), prompts), pipeline_of(place)
    latents = drawn_by_diffusers(pipeline, noise(original, 3), prompts, "latent")
    torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-4)
    images = drawn_by_diffusers(pipeline, noise(original, 3), prompts, "pt")
    pixels = decode(original.autoencoder, ours, rounded=False).clamp(-1, 1)
    torch.testing.assert_close(pixels, images, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("scope", "file_name"),
    [
        ("cross-attention", "unet/diffusion_pytorch_model.safetensors"),
        ("lora", "unet/diffusion_pytorch_model.safetensors"),
        ("text encoder", "text_encoder/model.safetensors"),
    ],
)
def test_a_copy_differs_in_one_file_and_diffusers_draws_the_same_from_it(
    scope, file_name: str, sd: Path, tmp_path: Path
):
    (sd / "safety_checker").mkdir()
    (sd / "safety_checker" / "model.safetensors").write_bytes(b"kept as found")
    index = sd / "model_index.json"
    components = json.loads(index.read_text())
    components["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(components))
    before, original = contents(sd), load(sd)
    weights = original.digest()
    model = move(original.model(PROMPTS, scope))
    place = save(original, model, tmp_path / "out", {"forgotten_concepts": ["a three"]})
    assert contents(sd) == before and original.digest() == weights, "the source"
    after = contents(place)
    assert after.keys() == before.keys() | {folder.MANIFEST}
    assert [name for name in before if after[name] != before[name]] == [file_name]
    copy_pipeline = load(place)
    assert copy_pipeline.forgotten_concepts == ("a three",) and copy_pipeline.schedule == original.schedule
    shutil.rmtree(place / "safety_checker")
    components["safety_checker"] = [None, None]
    (place / "model_index.json").write_text(json.dumps(components))
    theirs = drawn_by_diffusers(pipeline_of(place), noise(original, 1), ["a three"], "latent")
    torch.testing.assert_close(drawn_by_us(original, model, ["a three"]), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, drawn_by_us(original, original.model(PROMPTS), ["a three"]), atol=1e-2)


def test_a_file_of_low_rank_is_read_by_diffusers_bit_for_bit(sd: Path, tmp_path: Path):
    original = load(sd)
    model = move(original.model(PROMPTS, "lora", rank=2))
    place = save_low_rank(model, tmp_path / "lora")
    pipeline = pipeline_of(sd)
    pipeline.load_lora_weights(place)
    ours, theirs = model.unet.state_dict(), pipeline.unet.state_dict()
    assert any("lora_B" in name for name in ours)
    assert all(
        torch.equal(value, theirs[name.replace("default", "default_0")]) for name, value in ours.items()
    )
    words = model.words(torch.tensor([PROMPTS.number("a three")]))
    x, t = noise(original, 1), torch.tensor([500])
    with torch.no_grad():
        prediction = pipeline.unet(x, t, encoder_hidden_states=words, return_dict=False)[0]
        torch.testing.assert_close(model(x, t, words), prediction, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merge_low_rank(model)(x, t, words), prediction, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(prediction, original.model(PROMPTS)(x, t, words), atol=1e-3)


@pytest.mark.parametrize("scope", [each for each in PATTERNS if each not in ("attention", "class embedding")])
def test_a_scope_is_what_its_name_says(scope, source: Path):
    model = load(source).model(PROMPTS, scope)
    names = {name for name, _ in model.named_parameters()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {
        "all": names,
        "cross-attention": {n for n in names if ".attn2." in n},
        "cross-attention keys and values": {n for n in names if ".attn2.to_k." in n or ".attn2.to_v." in n},
        "self-attention": {n for n in names if ".attn1." in n},
        "all but cross-attention": {
            n
            for n in names
            if ".attn2." not in n
            and not n.startswith(("unet.time_embedding.", "unet.conv_norm_out.", "unet.conv_out."))
        },
        "text encoder": {n for n in names if n.startswith("words.text_encoder.")},
    }
    assert trainable == expected[scope] != set()
    assert any(name.startswith("words.") for name in names) == (scope == "text encoder")


@pytest.mark.parametrize("scope", ["all", "cross-attention", "lora", "text encoder"])
def test_only_the_weights_of_a_scope_take_memory_of_their_own(source: Path, scope: Scope):
    pipeline = load(source)
    models = pipeline.unet, pipeline.text_encoder
    addresses = {p.data_ptr() for each in models for p in each.parameters()}
    model = pipeline.model(PROMPTS, scope)
    for weight, copy_weight in zip(model.parameters(), model.editable_copy().parameters(), strict=True):
        assert (
            (weight.data_ptr() in addresses)
            == (copy_weight.data_ptr() == weight.data_ptr())
            == (not weight.requires_grad)
        )
        assert copy_weight.requires_grad == weight.requires_grad
    assert {p.data_ptr() for p in pipeline.drawing_model(PROMPTS).parameters()} <= addresses
    shared_model = pipeline.shared_model(PROMPTS, scope)
    assert [p.requires_grad for p in shared_model.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    own_addresses = {p.data_ptr() for p in shared_model.parameters()} - addresses
    assert (
        own_addresses
        == {p.data_ptr() for _, each in find_additions(shared_model) for p in each.parameters()} - addresses
    )
    assert bool(own_addresses) == (scope == "lora")


def test_the_teacher_of_additions_of_low_rank_is_the_model_without_them(source: Path):
    pipeline = load(source)
    model = pipeline.model(PROMPTS, "lora")
    x, t, condition = noise(pipeline, 2), torch.tensor([10, 900]), torch.tensor([0, PROMPTS.null])
    with torch.no_grad():
        first = model(x, t, condition)
        for _, addition in find_additions(model):
            addition.enable_adapters(False)
        assert torch.equal(first, model(x, t, condition))
        torch.testing.assert_close(first, pipeline.model(PROMPTS)(x, t, condition), rtol=1e-4, atol=1e-5)


def test_a_result_that_is_no_edit_of_one_component_is_refused(source: Path, tmp_path: Path):
    pipeline = load(source)
    with pytest.raises(ValueError, match="one component must have changed, found none"):
        save(pipeline, pipeline.model(PROMPTS), tmp_path / "out", {})
    model = pipeline.model(PROMPTS, "text encoder")
    model.requires_grad_(True)
    own_trainable(model)  # or the pipeline would change with it
    with pytest.raises(ValueError, match="must have changed, found unet and text_encoder"):
        save(pipeline, move(model), tmp_path / "out", {})
    with pytest.raises(ValueError, match="must lie outside of the source folder"):
        save(pipeline, move(pipeline.model(PROMPTS)), source / "out", {})
    with pytest.raises(ValueError, match="has no low-rank additions: load it with scope 'lora'"):
        save_low_rank(pipeline.model(PROMPTS), tmp_path / "lora")
    assert not (tmp_path / "out").exists()


def index(**changes: object) -> Callable[[Path], None]:
    def harm(place: Path) -> None:
        path = place / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return harm


def config(name: str, **changes: object) -> Callable[[Path], None]:
    def harm(place: Path) -> None:
        path = place / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return harm


def shard(place: Path) -> None:
    path = place / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    path.with_suffix(".safetensors.index.json").write_text("{}")


def not_finite(place: Path) -> None:
    path = place / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shutil.rmtree, "expected a folder, found none"),
        (lambda place: (place / "model_index.json").unlink(), "has no model_index.json"),
        (index(_class_name="StableDiffusionXLPipeline"), "found 'StableDiffusionXLPipeline'"),
        (index(_class_name="FluxPipeline"), "must be a StableDiffusionPipeline .*, found 'FluxPipeline'"),
        (index(vae=["diffusers", "AutoencoderTiny"]), "vae in .* AutoencoderKL, found 'AutoencoderTiny'"),
        (index(scheduler=["diffusers", "FooScheduler"]), "must be one of diffusers', found 'FooScheduler'"),
        (index(text_encoder=[None, None]), "text_encoder in .* must be a CLIPTextModel, found None"),
        (lambda place: shutil.rmtree(place / "text_encoder"), "text_encoder has no config.json"),
        (
            lambda place: shutil.rmtree(place / "tokenizer"),
            "model_index.json names tokenizer, but there is no such folder",
        ),
        (
            lambda place: (place / "tokenizer" / "tokenizer.json").unlink(),
            "tokenizer must hold tokenizer.json, or vocab.json and merges.txt",
        ),
        (shard, "vae are sharded: save them as one diffusion_pytorch_model.safetensors"),
        (not_finite, "must be finite, found NaN or infinity"),
        (config("unet", addition_embed_type="text_time"), "addition_embed_type must be null"),
        (config("unet", in_channels=9), "expected shape"),
        (
            config("unet", sample_size=None),
            "config.json must have the sample_size of the latents, found none",
        ),
        (lambda place: shutil.rmtree(place / "scheduler"), "has no scheduler_config.json"),
        (
            index(safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]),
            "model_index.json names safety_checker, but there is no such folder",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(sd: Path, harm, message: str):
    harm(sd)
    with pytest.raises(ValueError, match=message):
        load(sd)


def test_parts_of_different_pipelines_are_refused(sd: Path, tmp_path: Path):
    other = write_pipeline(tmp_path / "other", cross_attention_dim=16)
    with pytest.raises(ValueError, match="must take the 32 features of its text encoder, found 16"):
        load(other)
    place = write_pipeline(tmp_path / "listed", cross_attention_dim=(32, 32))
    assert load(place).shape == load(sd).shape  # a width for each block
    words = tokenizer()
    words.add_tokens(["<new>"])
    words.save_pretrained(sd / "tokenizer")
    with pytest.raises(
        ValueError, match="must know all tokens of its tokenizer, found 514 and the token 514"
    ):
        load(sd)


def test_a_changed_copy_is_refused(sd: Path, tmp_path: Path):
    pipeline = load(sd)
    place = save(pipeline, move(pipeline.model(PROMPTS, "text encoder")), tmp_path / "out", {})
    shutil.copy(sd / "text_encoder" / "model.safetensors", place / "text_encoder" / "model.safetensors")
    with pytest.raises(ValueError, match="is not the file that .* describes"):
        load(place)


def test_files_of_earlier_versions_are_read_and_written_under_their_own_names(sd: Path, tmp_path: Path):
    words, latent = sd / "text_encoder" / "model.safetensors", sd / "vae" / folder.WEIGHTS
    old = {f"text_model.{name}": value for name, value in load_file(words).items()}
    old["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(old, words)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old_weights = {}
    for name, value in load_file(latent).items():
        for new, before in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        old_weights[name] = value
    assert any("proj_attn" in name for name in old_weights)
    save_file(old_weights, latent)
    pipeline = load(sd)
    place = save(pipeline, move(pipeline.model(PROMPTS, "text encoder")), tmp_path / "out", {})
    assert load_file(place / "text_encoder" / "model.safetensors").keys() == old.keys()
    assert load(place).text_encoder.state_dict().keys() == pipeline.text_encoder.state_dict().keys()


def test_a_latent_transformer_draws_as_diffusers_does(tmp_path: Path):
    place = write_dit(tmp_path / "dit")
    original = folder.load(place)
    assert original.autoencoder is not None and original.task.space == "latents"
    pipeline = diffusers.DiTPipeline.from_pretrained(place, local_files_only=True)
    classes, x = torch.tensor([0, 3]), noise(original, 2)
    ours = sample(original.model, original.task, classes, shape=original.shape, how=HOW, rounded=False)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(4)
    none = torch.full_like(classes, 4)  # their own call guides with class 1000 alone
    with torch.no_grad():
        for time in scheduler.timesteps:
            answers = [
                pipeline.transformer.eval()(x, time.expand(2), each).sample[:, :4] for each in (classes, none)
            ]
            x = scheduler.step(answers[1] + 3.0 * (answers[0] - answers[1]), time, x).prev_sample
        theirs = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        decode(original.autoencoder, ours, rounded=False), theirs, rtol=1e-4, atol=1e-4
    )
    with torch.no_grad():
        next(original.model.parameters()).add_(0.1)
    before, target = contents(place), folder.save(folder.load(place), original.model, tmp_path / "out", {})
    after = contents(target)
    changed = f"transformer/{folder.WEIGHTS}"
    assert [name for name in before if after[name] != before[name]] == [changed]
    copy_weights = diffusers.DiTPipeline.from_pretrained(
        target, local_files_only=True
    ).transformer.state_dict()
    assert all(torch.equal(value, copy_weights[name]) for name, value in original.model.state_dict().items())
