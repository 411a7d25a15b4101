"""`--scope lora`: a classifier forgets by additions of low rank, merged and in peft's own files."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import launched
import projects
from cli.written import MODEL, names
from projects import TRAINED

pytest.importorskip("peft")

IDS = ("--ids", "r0/3,r0/5,r0/8")
LORA = ("--scope", "lora", "--rank", 2, "--quiet")
SHORT = ("--set", "lur.how.steps=3", "--set", "recover.how.epochs=1")
ONE = ("--method", "lur", "--set", "how.steps=3")

VIT = """
from transformers import ViTConfig, ViTForImageClassification

SMALL = ViTConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    image_size=8, patch_size=4,
)


class Images(Dataset):
    def __init__(self, n, seed):
        self.labels = torch.arange(n) % 2
        noise = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.pixels = noise + self.labels[:, None, None, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"id": f"image-{i}", "pixel_values": self.pixels[i], "label": int(self.labels[i])}


def load():
    torch.manual_seed(0)
    model, images = ViTForImageClassification(SMALL), Images(40, 0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.pixels).logits, images.labels).backward()
        optimizer.step()
    return {"model": model, "train": images, "test": Images(20, 1)}
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A project whose model is trained."""
    return projects.project(tmp_path / "mine", TRAINED)


def original(place: str) -> torch.nn.Module:
    from unweave.cli.project import load

    model = load(place).model
    assert model is not None
    return model


def test_the_model_is_merged_and_its_additions_are_written_too(run, here, place):
    from peft import PeftModel

    result = run("forget", place, *IDS, *SHORT, *LORA)
    assert result.code == 0 and names(here) == ["forgotten"], result
    assert names(here / "forgotten") == sorted([*MODEL, "lora"])
    base, weights = original(place), load_file("forgotten/model.safetensors")
    keys = {name for name, value in base.state_dict().items() if not torch.equal(value, weights[name])}
    assert keys == {"first.weight", "last.weight"} and weights.keys() == base.state_dict().keys()
    merged_weights = PeftModel.from_pretrained(base, "forgotten/lora").merge_and_unload().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in merged_weights.items())
    record = json.loads(Path("forgotten/record.json").read_text())
    (row,) = (row for stage in record["stages"].values() for row in stage["methods"].values())
    assert row["repr"].startswith("LoRA(method=Pipeline(LUR(") and row["repr"].endswith(
        "rank=2, layers=None)"
    )


def test_a_finished_run_is_done_and_another_rank_is_another_run(run, here, place):
    assert run("forget", place, *IDS, *ONE, *LORA).code == 0
    assert "Done already: forgotten" in run("forget", place, *IDS, *ONE, *LORA).out
    for number, other in enumerate([("--scope", "lora", "--rank", 3), ("--scope", "lora"), ()], 2):
        facts = json.loads(run("forget", place, *IDS, *ONE, *other, "--quiet", "--json").out)
        assert (facts["out"], facts["done_before"]) == (f"forgotten-{number}", False)
    (here / "forgotten" / "lora" / "adapter_config.json").unlink()
    (here / "forgotten" / "lora" / "adapter_model.safetensors").unlink()
    (here / "forgotten" / "lora").rmdir()
    assert json.loads(run("forget", place, *IDS, *ONE, *LORA, "--json").out)["done_before"] is False


def test_a_dry_run_says_what_is_trained_and_an_audit_knows_it(run, here, place):
    result = run("forget", place, *IDS, *ONE, *LORA, "--layers", "^last$", "--dry-run")
    assert "Method: lur, --rank=" in result.out and '--layers="^last$"' in result.out and names(here) == []
    assert run("forget", place, *IDS, *ONE, *LORA, "--layers", "^last$").code == 0
    base, weights = original(place).state_dict(), load_file("forgotten/model.safetensors")
    assert [name for name in base if not torch.equal(base[name], weights[name])] == ["last.weight"]
    assert run("audit", "forgotten", "--references", 1, "--quiet").code == 1
    assert "LoRA(method=LUR(" in Path("forgotten/audit/record.json").read_text()


def test_an_image_classifier_of_transformers_forgets(run, here, tmp_path):
    from transformers import ViTForImageClassification

    place = projects.project(tmp_path / "vit", VIT)
    result = run("forget", place, "--random", 0.2, *ONE, *LORA)
    assert result.code == 0, result.error
    base = original(place).state_dict()
    pretrained_weights = ViTForImageClassification.from_pretrained("forgotten/pretrained").state_dict()
    weights = load_file("forgotten/model.safetensors")
    assert all(torch.equal(pretrained_weights[name], weights[name]) for name in base)
    layers = json.loads(Path("forgotten/lora/adapter_config.json").read_text())["target_modules"].split("|")
    keys = {name for name in base if not torch.equal(base[name], weights[name])}
    assert keys == {f"{layer}.weight".replace("\\", "") for layer in layers} and len(keys) == 2 * 6 + 2


def test_what_cannot_be_is_refused_before_anything_runs(refused, place, monkeypatch):
    flags = ("forget", place, *IDS)
    refused("--rank must be at least 1, found 0", *flags, "--scope", "lora", "--rank", 0)
    refused("--rank goes with --scope lora, found it alone", *flags, "--rank", 4)
    refused("--layers goes with --scope lora", *flags, "--layers", "last", "--scope", "attention")
    refused("--scope attention is for text-to-image models", *flags, "--scope", "attention")
    refused(
        "whose name matches 'head', found none in Net: there are first, last",
        *flags,
        *LORA,
        "--layers",
        "head",
    )
    refused("SelectiveSynapticDampening dampens the weights", *flags, *LORA, "--method", "ssd")
    refused("shrink-perturb:lur shrinks the weights", *flags, *LORA, "--method", "shrink-perturb:lur")
    refused("method retrain trains all weights", *flags, *LORA, "--method", "retrain")
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(r"\(LoRA\) need the extra: pip install 'unweave\[lora\]'", *flags, *LORA)


def test_check_prices_methods_with_additions(run, here, place):
    flags = ("--methods", "lur,ssd,finetune", "--quiet", "--json")
    full_check = json.loads(run("check", place, *IDS, *flags).out)
    lora_check = json.loads(run("check", place, *IDS, *flags, "--scope", "lora", "--rank", 2).out)
    assert lora_check["trained"] == {"rank": 2, "layers": 2, "weights": 2 * (8 + 32) + 2 * (32 + 3)}
    assert "trained" not in full_check and full_check["costs"]["ssd"]["refused"] is None
    assert "dampens the weights" in lora_check["costs"]["ssd"]["refused"]
    for name in ("lur", "finetune"):
        assert lora_check["costs"][name]["gradients"] == pytest.approx(full_check["costs"][name]["gradients"])
        assert lora_check["costs"][name]["seconds"] > 0 and lora_check["costs"][name]["peak_mib"] > 0
    result = run("check", place, *IDS, "--methods", "finetune", "--quiet", "--scope", "lora", "--rank", 2)
    assert "LoRA trains 150 weights: additions of rank 2 to 2 layers." in result.out


DOUBLE = "def load():\n    torch.manual_seed(0)\n    return given(model=Net(torch.float64))\n"


def test_sharded_processes_write_what_one_writes_and_check_prices_them(run, tmp_path):
    place = projects.project(tmp_path / "mine", DOUBLE)
    request, flags = ["--random", "0.3", *map(str, LORA)], ["--shard", "--blocks", "first"]
    forget = ["forget", place, *request, "--method", "lur", "--set", "how.steps=3"]
    check = ["check", place, *request, "--methods", "lur,finetune", "--json"]
    single_folder, sharded_folder = tmp_path / "alone", tmp_path / "shared"
    runs, checks = launched.run_shared(
        [
            [*forget, "--out", str(sharded_folder), *flags],
            [*check, *flags, "--out", str(tmp_path / "check")],
        ],
        tmp_path,
    )
    assert [each.code for each in (*runs, *checks)] == [0, 0, 0, 0], runs + checks
    assert run(*forget, "--out", single_folder).code == 0
    for file in ("model.safetensors", "lora/adapter_model.safetensors"):
        single_weights, sharded_weights = load_file(single_folder / file), load_file(sharded_folder / file)
        assert single_weights.keys() == sharded_weights.keys()
        for name, value in single_weights.items():
            torch.testing.assert_close(sharded_weights[name], value, rtol=0, atol=1e-10)
    sharded_check, single_check = json.loads(checks[0].out), json.loads(run(*check).out)
    assert json.loads((tmp_path / "check" / "check.json").read_text()).keys() == sharded_check.keys()
    assert sharded_check["trained"] == single_check["trained"] and list(sharded_check["costs"]) == [
        "lur",
        "finetune",
    ]
    for name, each in sharded_check["costs"].items():
        assert each["gradients"] == pytest.approx(single_check["costs"][name]["gradients"])
        assert each["refused"] is None and each["seconds"] > 0 and each["peak_mib"] > 0


def test_check_with_shard_needs_several_processes(refused, place):
    refused("--shard cuts the model over several processes, found one", "check", place, "--shard")
    refused("--blocks goes with --shard", "check", place, "--blocks", "first")
