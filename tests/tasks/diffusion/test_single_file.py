"""A Stable Diffusion in one file of weights."""

import json
import pickle
import shutil
import socket
from pathlib import Path

import pytest

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch  # noqa: E402  # after diffusers is known to be there
from safetensors.torch import load_file, save_file  # noqa: E402

from single_file import write_single_file  # noqa: E402
from stable_diffusion import write_pipeline as write_tiny  # noqa: E402
from unweave.tasks.diffusion.single_file import write_pipeline  # noqa: E402
from unweave.tasks.diffusion.stable_diffusion import load  # noqa: E402


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "sd")


@pytest.fixture
def config(source: Path, tmp_path: Path) -> Path:
    """The configuration of the pipeline alone."""
    return Path(shutil.copytree(source, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("open_clip", [False, True])
def test_the_weights_of_a_file_are_those_of_its_folder(source: Path, config: Path, tmp_path: Path, open_clip):
    file = write_single_file(source, tmp_path / "sd.safetensors", open_clip=open_clip)
    write_pipeline(file, config, tmp_path / "made")
    assert load(tmp_path / "made").digest() == load(source).digest()
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "made", local_files_only=True)
    assert theirs.safety_checker is None


def test_a_safety_checker_of_the_configuration_is_kept(source: Path, config: Path, tmp_path: Path):
    file, index = write_single_file(source, tmp_path / "sd.safetensors"), config / "model_index.json"
    index_table = json.loads(index.read_text()) | {"requires_safety_checker": True}
    index_table["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(index_table))
    write_pipeline(file, config, tmp_path / "without")  # its weights are nowhere
    content = json.loads((tmp_path / "without" / "model_index.json").read_text())
    assert content["safety_checker"] == [None, None] and content["requires_safety_checker"] is False
    (config / "safety_checker").mkdir()
    (config / "safety_checker" / "model.safetensors").write_bytes(b"weights")
    write_pipeline(file, config, tmp_path / "made")
    assert json.loads((tmp_path / "made" / "model_index.json").read_text()) == index_table
    assert (tmp_path / "made" / "safety_checker" / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.usefixtures("no_network")
def test_diffusers_reads_the_same_file(source: Path, config: Path, tmp_path: Path):
    file = write_single_file(source, tmp_path / "sd.safetensors")
    theirs = diffusers.StableDiffusionPipeline.from_single_file(
        str(file), config=str(config), local_files_only=True, safety_checker=None
    )
    ours = load(source)
    for part, module in (("unet", ours.unet), ("vae", ours.autoencoder), ("text_encoder", ours.text_encoder)):
        weights = getattr(theirs, part).state_dict()
        assert weights.keys() == module.state_dict().keys()
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items()), part


def test_a_half_precision_file_stays_so(source: Path, config: Path, tmp_path: Path):
    file = write_single_file(source, tmp_path / "sd.safetensors")
    save_file({name: value.half() for name, value in load_file(file).items()}, file)
    write_pipeline(file, config, tmp_path / "made")
    weights = load_file(tmp_path / "made" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert load(tmp_path / "made").unet.dtype == torch.float32


def change(file: Path, by) -> None:
    save_file(by(load_file(file)), file)


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (lambda w: w | {"conditioner.embedders.1.model.ln": torch.ones(1)}, "holds Stable Diffusion XL, as"),
        (lambda w: {"model.diffusion_model.joint_blocks.0.x": torch.ones(1)}, "holds Stable Diffusion 3, as"),
        (lambda w: {"double_blocks.0.img_attn.x": torch.ones(1)}, "holds Flux, as 'double_blocks.'"),
        (lambda w: {"lora_unet_down.alpha": torch.ones(1)}, "holds low-rank additions, as 'lora_'"),
        (lambda w: {n: v for n, v in w.items() if "cond_stage" not in n}, "found no text_encoder"),
        (lambda w: {n: v for n, v in w.items() if "first_stage" not in n}, "found no vae"),
        (
            lambda w: {n: v for n, v in w.items() if n != "model.diffusion_model.out.2.bias"},
            r"unet/config.json: weights must fit the configuration: of 'conv_out.bias' .* found None",
        ),
        (
            lambda w: w | {"model.diffusion_model.out.2.weight": torch.ones(3, 8, 3, 3)},
            r"of 'conv_out.weight' expected shape \[4, 8, 3, 3\], found \[3, 8, 3, 3\]",
        ),
    ],
)
def test_a_file_of_another_model_is_refused(by, sentence: str, source: Path, config: Path, tmp_path: Path):
    file = write_single_file(source, tmp_path / "sd.safetensors")
    change(file, by)
    with pytest.raises(ValueError, match=sentence):
        write_pipeline(file, config, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_unread(suffix: str, config: Path, tmp_path: Path):
    file = tmp_path / f"sd{suffix}"
    file.write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="may be a pickle, .*convert it to .safetensors"):
        write_pipeline(file, config, tmp_path / "made")


def test_a_configuration_that_is_absent_or_another_is_refused(source: Path, config: Path, tmp_path: Path):
    file = write_single_file(source, tmp_path / "sd.safetensors")
    with pytest.raises(ValueError, match="expected a folder, found none at"):
        write_pipeline(file, tmp_path / "runwayml", tmp_path / "made")
    (config / "vae" / "config.json").unlink()
    with pytest.raises(ValueError, match="vae has no config.json"):
        write_pipeline(file, config, tmp_path / "made")
    index = config / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ValueError, match="found 'StableDiffusionXLPipeline'"):
        write_pipeline(file, config, tmp_path / "made")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        write_pipeline(file, source, tmp_path / "made")
