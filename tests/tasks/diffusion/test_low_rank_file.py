from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import text_to_image  # needs diffusers
from unweave.tasks.diffusion.low_rank_file import FILE, add_from_file, save_low_rank
from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.scopes import drop_low_rank
from unweave.tasks.low_rank import find_additions


def fresh(scope: str = "all", rank: int = 2) -> Prompted:
    return text_to_image.pipeline().model(text_to_image.prompts(), scope, rank=rank)


def predict(model: torch.nn.Module) -> torch.Tensor:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(noise, torch.tensor([10, 500]), torch.tensor([0, 1]))


@pytest.fixture
def edited() -> Prompted:
    model = fresh("lora")
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return model


def test_additions_are_read_back_bit_for_bit(edited: Prompted, tmp_path: Path):
    model = fresh()
    add_from_file(model, save_low_rank(edited, tmp_path / "lora"))
    assert find_additions(model) and torch.equal(predict(model), predict(edited))
    assert torch.equal(predict(drop_low_rank(model)), predict(fresh()))
    assert not torch.equal(predict(model), predict(fresh()))


def test_files_that_do_not_fit_are_refused(edited: Prompted, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match="expected low-rank additions in .*, found no such file"):
        add_from_file(fresh(), tmp_path)
    path = save_low_rank(edited, tmp_path / "lora") / FILE
    weights = load_file(path)
    first = next(iter(weights))
    save_file({name: value for name, value in weights.items() if name != first}, path)
    with pytest.raises(ValueError, match="are of another model"):
        add_from_file(fresh(), tmp_path / "lora")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="truncated or not safetensors"):
        add_from_file(fresh(), tmp_path / "lora")
