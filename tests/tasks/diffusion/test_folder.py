import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from denoisers import DIT, UNET, inputs

diffusers = pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file  # noqa: E402  # after diffusers is known to be there

from folders import contents  # noqa: E402
from unweave.tasks.diffusion.folder import MANIFEST, WEIGHTS, load, save  # noqa: E402
from unweave.tasks.diffusion.schedule import Schedule  # noqa: E402
from unweave.tasks.diffusion.scopes import restrict  # noqa: E402

COSINE = Schedule("squaredcos_cap_v2", prediction="v_prediction", clip=1.0)


def scheduler():
    return diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    """A pipeline, with a file of the user's own."""
    diffusers.DDPMPipeline(diffusers.UNet2DModel.from_config(UNET), scheduler()).save_pretrained(
        tmp_path / "unet"
    )
    (tmp_path / "unet" / "README.md").write_text("mine")
    return tmp_path / "unet"


@pytest.fixture
def dit(tmp_path: Path) -> Path:
    """One model, its scheduler beside it."""
    model = diffusers.DiTTransformer2DModel.from_config(DIT)
    model.save_pretrained(tmp_path / "dit" / "transformer")
    scheduler().save_pretrained(tmp_path / "dit" / "scheduler")
    return tmp_path / "dit" / "transformer"


def test_a_pipeline_is_read_with_its_noise_and_conditions(unet: Path):
    before = torch.get_rng_state()
    pipeline = load(unet, n_classes=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert (pipeline.n_classes, pipeline.null, pipeline.shape, pipeline.component) == (
        4,
        4,
        (1, 4, 4),
        "unet",
    )
    assert pipeline.schedule == COSINE and pipeline.task.drop == 0.1 and pipeline.task.schedule == COSINE
    assert load(unet, n_classes=5).task.null is None and load(unet, n_classes=5).task.drop == 0
    theirs = diffusers.UNet2DModel.from_pretrained(unet / "unet").eval()
    x, t, condition = inputs(pipeline.model)
    assert torch.equal(pipeline.model(x, t, condition), theirs(x, t, class_labels=condition).sample)
    assert not pipeline.model.training and all(p.requires_grad for p in pipeline.model.parameters())


def test_one_model_is_read_with_the_noise_beside_it(dit: Path):
    pipeline = load(dit)
    assert (pipeline.n_classes, pipeline.null, pipeline.shape, pipeline.component) == (4, 4, (2, 4, 4), ".")
    assert pipeline.schedule == COSINE
    shutil.rmtree(dit.parent / "scheduler")
    with pytest.raises(ValueError, match="its noise is not known: put that of its training there"):
        load(dit)
    assert load(dit, schedule=Schedule()).schedule == Schedule()


@pytest.mark.parametrize("scope", ["all", "lora"])
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_copy_differs_in_the_weights_alone_and_diffusers_reads_it(
    kind: str, scope, request, tmp_path: Path
):
    folder = request.getfixturevalue(kind)
    before, source = contents(folder), load(folder, n_classes=4)
    edited = load(folder, n_classes=4).model
    restrict(edited, scope)
    with torch.no_grad():
        for p in edited.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    target = save(source, edited, tmp_path / "out" / "forgotten", {"method": "LUR()", "split": "abc"})
    assert contents(folder) == before, "the source"
    weights_file = str(Path(source.component) / WEIGHTS)
    after = contents(target)
    assert after.keys() == before.keys() | {MANIFEST}
    assert [name for name in before if after[name] != before[name]] == [weights_file]
    copy_pipeline = load(target)
    assert (copy_pipeline.schedule, copy_pipeline.n_classes, copy_pipeline.null) == (source.schedule, 4, 4)
    x, t, condition = inputs(edited)
    torch.testing.assert_close(copy_pipeline.model(x, t, condition), edited.eval()(x, t, condition))
    name = type(copy_pipeline.model).__name__
    theirs = getattr(diffusers, name).from_pretrained(target / source.component)
    assert all(torch.equal(p, copy_pipeline.model.state_dict()[n]) for n, p in theirs.state_dict().items())
    manifest = json.loads((target / MANIFEST).read_text())
    assert (
        manifest["method"] == "LUR()"
        and manifest["split"] == "abc"
        and manifest["component"] == source.component
    )
    assert (manifest["weights_before"], manifest["weights_after"]) == (
        before[weights_file],
        after[weights_file],
    )
    assert str(tmp_path) not in (target / MANIFEST).read_text()


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_no_other_weights_of_the_source_are_copied(kind: str, request, tmp_path: Path):
    place = request.getfixturevalue(kind)
    component_folder = place / "unet" if kind == "unet" else place
    content = (component_folder / WEIGHTS).read_bytes()
    extra = ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "model.pkl", "x.onnx"]
    extra += ["diffusion_pytorch_model-00001-of-00002.safetensors", f"{WEIGHTS}.index.json"]
    folders = [place / "unet_ema", place / "checkpoint-500" / "unet", place / ".git" / "objects"]
    for path in [*(component_folder / name for name in extra), *(folder / WEIGHTS for folder in folders)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    source = load(place, n_classes=4)
    edited = load(place, n_classes=4).model
    with torch.no_grad():
        next(edited.parameters()).add_(1)
    target = save(source, edited, tmp_path / "out", {})
    assert hashlib.sha256(content).hexdigest() not in contents(target).values()
    assert [path.name for path in target.rglob("*") if "model" in path.name and path.suffix != ".json"] == [
        WEIGHTS
    ]
    left_out = json.loads((target / MANIFEST).read_text())["left_out"]
    prefix = "unet/" if kind == "unet" else ""
    assert left_out == sorted([".git", "checkpoint-500", "unet_ema", *(prefix + name for name in extra)])


def test_other_components_are_copied_whole(unet: Path, tmp_path: Path):
    index = unet / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text": ["transformers", "Encoder"]}))
    (unet / "text" / "inner").mkdir(parents=True)
    (unet / "text" / "inner" / "model.bin").write_bytes(b"words")
    pipeline = load(unet, n_classes=4)
    assert (save(pipeline, pipeline.model, tmp_path / "out", {}) / "text" / "inner" / "model.bin").exists()


def test_a_pipeline_of_two_denoisers_is_refused(unet: Path):
    index = unet / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"ema": ["diffusers", "UNet2DModel"]}))
    with pytest.raises(ValueError, match="has 2 denoisers, .*ema.* and only one can be edited"):
        load(unet, n_classes=4)


def test_the_source_is_never_written_to(unet: Path, tmp_path: Path):
    pipeline, before = load(unet, n_classes=4), contents(unet)
    for place in (unet, unet / "forgotten", unet / "unet", tmp_path):
        with pytest.raises(ValueError, match="must lie outside of the source folder"):
            save(pipeline, pipeline.model, place, {})
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="taken exists: name a new folder"):
        save(pipeline, pipeline.model, tmp_path / "taken", {})
    assert contents(unet) == before


def test_a_model_of_another_shape_leaves_nothing_behind(unet: Path, dit: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="weights must fit the configuration: of 'class_embedding.weight'"):
        save(load(unet, n_classes=4), load(dit).model, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_half_precision_is_trained_in_full(unet: Path):
    path = unet / "unet" / WEIGHTS
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    assert {p.dtype for p in load(unet, n_classes=4).model.parameters()} == {torch.float32}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def shard(path: Path) -> None:
    path.rename(path.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    path.with_suffix(".safetensors.index.json").write_text("{}")


def make_pickle(path: Path) -> None:
    path.rename(path.with_suffix(".bin"))


def other_classes(path: Path) -> None:
    config = path.parent / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_class_embeds": 4}))


def not_finite(path: Path) -> None:
    weights = load_file(path)
    weights["conv_in.bias"][0] = float("nan")
    save_file(weights, path)


def dangling(path: Path) -> None:
    (path.parent.parent / "scheduler" / "b_own.txt").symlink_to(path.parent / "nothing")


def change_json(name: str, **settings: object) -> Callable[[Path], None]:
    """Changes values of a JSON file, whose place is relative to that of the weights."""

    def harm(path: Path) -> None:
        place = path.parent / name
        place.write_text(json.dumps(json.loads(place.read_text()) | settings))

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (truncate, "is truncated or no safetensors file"),
        (lambda path: path.write_bytes(b""), "is truncated or no safetensors file"),
        (shard, "are sharded: save them as one diffusion_pytorch_model.safetensors"),
        (make_pickle, "has no diffusion_pytorch_model.safetensors, found diffusion_pytorch_model.bin"),
        (Path.unlink, "found no weights"),
        (other_classes, r"of 'class_embedding.weight' expected shape \[4, 16\], found \[5, 16\]"),
        (lambda path: (path.parent / "config.json").unlink(), "unet has no config.json"),
        (lambda path: (path.parent / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda path: (path.parent / "config.json").write_text("[]"), "must hold a JSON object, found list"),
        (not_finite, "must be finite, found NaN or infinity in 'conv_in.bias' of .*model.safetensors"),
        (change_json("config.json", sample_size=None), "config.json: sample_size must be .*found None"),
        (change_json("config.json", sample_size=["a", 4]), "config.json: sample_size must be .*found"),
        (change_json("config.json", in_channels=None), "config.json: in_channels must be .*found None"),
        (change_json("config.json", down_block_types=["Nope", "Nope"]), "config.json: Nope does not exist"),
        (change_json("../model_index.json", unet="x"), "unet in .*model_index.json must be .*found 'x'"),
        (change_json("../model_index.json", unet=5), "unet in .*model_index.json must be .*found 5"),
        (change_json("../model_index.json", unet=[None, None]), "no denoiser that is supported .*found none"),
        (
            change_json("../scheduler/scheduler_config.json", beta_start="x"),
            "r_config.json: beta_start: .*'x'",
        ),
        (dangling, "b_own.txt can't be read, so the folder can't be copied"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(unet: Path, harm, message: str):
    harm(unet / "unet" / WEIGHTS)
    with pytest.raises(ValueError, match=message):
        load(unet, n_classes=4)


def test_a_pipeline_without_a_supported_denoiser_is_refused_by_name(tmp_path: Path):
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="'StableDiffusionPipeline' .* found UNet2DConditionModel"):
        load(tmp_path)
    with pytest.raises(ValueError, match="expected a folder, found none"):
        load(tmp_path / "nowhere")
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(ValueError, match="has no config.json: expected a pipeline or a model of diffusers"):
        load(tmp_path)


@pytest.mark.parametrize("autoencoder", [("vae", "AutoencoderTiny"), ("decoder", "VQModel")])
def test_a_denoiser_of_other_latents_is_refused_by_what_makes_them(unet: Path, autoencoder: tuple[str, str]):
    index = unet / "model_index.json"
    name, kind = autoencoder
    index.write_text(json.dumps(json.loads(index.read_text()) | {name: ["diffusers", kind]}))
    for place in (unet, unet / "unet"):
        with pytest.raises(ValueError, match=rf"denoises the latents of its {name} \({kind}\)"):
            load(place, n_classes=4)


@pytest.fixture
def edited(dit: Path, tmp_path: Path) -> Path:
    """What was written of a model whose noise is nowhere but in the manifest."""
    pipeline = load(dit)
    facts = {"method": "lur", "settings": "LUR()", "seed": 1, "split": "abc", "forgotten_classes": [3]}
    return save(pipeline, move(load(dit).model), tmp_path / "edited", facts)


def move(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    return model


def test_a_manifest_keeps_what_was_forgotten_before(edited: Path, tmp_path: Path):
    first = load(edited)
    assert first.forgotten_classes == (3,) and first.schedule == COSINE
    facts = {"method": "sa", "forgotten_classes": [1]}
    target = save(first, move(load(edited).model), tmp_path / "again", facts)
    before, after = (json.loads((place / MANIFEST).read_text()) for place in (edited, target))
    assert before["history"] == [] and after["forgotten_classes"] == [1]
    (step,) = after["history"]
    keys = ("forgotten_classes", "method", "settings", "seed", "split", "weights_before", "weights_after")
    assert step == {"forgotten_concepts": [], "forgotten_captions": [], **{key: before[key] for key in keys}}
    assert after["weights_before"] == before["weights_after"]
    assert load(target).forgotten_classes == (1, 3)


def test_a_manifest_from_before_ddim_was_read_still_says_the_noise(edited: Path):
    path = edited / MANIFEST
    manifest = json.loads(path.read_text())
    for name in ("clip", "ends_clean", "offset"):
        del manifest["schedule"][name]
    path.write_text(json.dumps(manifest))
    assert load(edited).schedule == Schedule("squaredcos_cap_v2", prediction="v_prediction")


def test_what_ddim_is_set_to_is_read_and_its_file_is_copied_as_it_is(unet: Path, tmp_path: Path):
    settings = {"clip_sample_range": 0.5, "set_alpha_to_one": False, "steps_offset": 1}
    diffusers.DDIMScheduler(**settings).save_pretrained(unet / "scheduler")
    path = Path("scheduler", "scheduler_config.json")
    (unet / path).write_text((unet / path).read_text().replace(": 0.5", ":   5e-1"))
    pipeline = load(unet, n_classes=4)
    assert pipeline.schedule == pipeline.task.schedule == Schedule(clip=0.5, ends_clean=False, offset=1)
    target = save(pipeline, move(load(unet, n_classes=4).model), tmp_path / "out", {})
    assert (target / path).read_bytes() == (unet / path).read_bytes() and b":   5e-1" in (
        target / path
    ).read_bytes()
    assert load(target).schedule == pipeline.schedule


def test_a_component_alone_has_the_past_of_its_pipeline(unet: Path, tmp_path: Path):
    pipeline = load(unet, n_classes=4)
    target = save(pipeline, move(load(unet, n_classes=4).model), tmp_path / "out", {"forgotten_classes": [3]})
    assert load(target / "unet").forgotten_classes == (3,)


def test_weights_that_the_manifest_does_not_describe_are_refused(dit: Path, edited: Path):
    shutil.copy(dit / WEIGHTS, edited / WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is not the file that {MANIFEST} describes"):
        load(edited)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "x"}, "schedule must be a table, found 'x'"),
        ({"schedule": {"kind": "linear"}}, "schedule.steps is missing"),
        ({"schedule": {"foo": 1}}, "schedule.kind is missing"),
        ({"n_classes": "x"}, "n_classes: .*found 'x'"),
        ({"forgotten_classes": 3}, "forgotten_classes: .*found 3"),
        ({"history": [3]}, "history.0 must be a table, found 3"),
    ],
)
def test_a_manifest_of_no_sense_is_refused_by_name(edited: Path, change: dict, message: str):
    path = edited / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"{MANIFEST}: {message}"):
        load(edited)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foo": 1}, "unknown key 'foo' in schedule"),
        ({"end": 1.5}, r"schedule: betas must be in \(0, 1\)"),
        ({"betas": "x"}, "schedule.betas: .*found 'x'"),
        ({"steps": 1000.0}, "schedule.steps: .*found 1000.0"),
    ],
)
def test_a_schedule_of_no_sense_in_a_manifest_is_refused(edited: Path, change: dict, message: str):
    path = edited / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"schedule": manifest["schedule"] | change}))
    with pytest.raises(ValueError, match=f"{MANIFEST}: {message}"):
        load(edited)
