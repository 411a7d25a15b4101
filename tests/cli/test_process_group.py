"""`torchrun -m unweave forget`: the same model as one process makes, printed and written once."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import load_file

import launched
import projects

SHORT = ("--set", "how.steps=6", "--set", "how.batch=21", "--set", "how.forget_batch=7", "--seed", 1)
DOUBLE = "def load():\n    torch.manual_seed(0)\n    return given(model=Net(torch.float64))\n"
ONE_FAILS = """
import os


def load():
    torch.manual_seed(0)
    if os.environ.get("RANK") == "1":
        raise KeyError("no such file")
    return given()
"""
OTHER_WEIGHTS = """
import os


def load():
    torch.manual_seed(int(os.environ["RANK"]))
    return given()
"""
LATE = """
import os
import traceback


class Late(Records):
    def __getitem__(self, i):
        if os.environ.get("RANK") == "1" and any("read_batches" in str(f) for f in traceback.extract_stack()):
            raise OSError("the disk is gone")
        return super().__getitem__(i)


def load():
    torch.manual_seed(0)
    return given(train=Late(90, 0))
"""
NO_MEMORY = """
import os
from datetime import timedelta

from unweave.cli.checks import rounds

rounds.AGREEMENT = timedelta(seconds=2)


class Full(Net):
    passes = 0

    def forward(self, x, scale):
        Full.passes += torch.is_grad_enabled()
        if os.environ.get("RANK") == "1" and Full.passes > PASSES:
            raise torch.OutOfMemoryError("no memory is left")
        return super().forward(x, scale)


def load():
    torch.manual_seed(0)
    return given(model=Full())
"""
FULL = """
import os

from torch.distributed.checkpoint import FileSystemWriter


def refuse(*arguments):
    raise OSError(28, "No space left on device")


def load():
    torch.manual_seed(0)
    if os.environ.get("RANK") == "1":
        FileSystemWriter.write_data = refuse
    return given(model=Net(torch.float64))
"""


SHARDED = ("--shard", "--blocks", "first")
SAVED = ("--method", "lur", "--save-every", 2)


def forget(place: object, out: Path, *more: object, settings: tuple[object, ...] = SHORT) -> list[str]:
    return [str(each) for each in ("forget", place, "--random", 0.3, *settings, "--out", out, *more)]


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[str, list[str]]:
    place = tmp_path_factory.mktemp("shared")
    single_project, double_project = (
        projects.project(place / "single"),
        projects.project(place / "double", DOUBLE),
    )
    return {
        "single": forget(single_project, place / "out" / "single", "--method", "lur"),
        "again": forget(single_project, place / "out" / "single", "--method", "lur"),
        "double": forget(double_project, place / "out" / "double", "--method", "salun"),
        "sharded": forget(double_project, place / "out" / "sharded", "--method", "lur", *SHARDED),
        "pieces": forget(
            double_project, place / "out" / "sharded", "--method", "lur", *SHARDED, "--save-sharded", "--json"
        ),
        "pieces again": forget(
            double_project, place / "out" / "sharded", "--method", "lur", *SHARDED, "--save-sharded"
        ),
        "check": [
            "check",
            double_project,
            "--random",
            "0.3",
            "--methods",
            "finetune,fisher-forgetting",
            *SHARDED,
        ],
        "not for shards": forget(
            double_project, place / "out" / "fisher", "--method", "fisher-forgetting", *SHARDED, settings=()
        ),
        "recipe not for shards": [
            *("forget", projects.recipe(place / "recipe"), "--random", "0.3", "--shard"),
            *("--method", "fisher-forgetting", "--out", str(place / "out" / "recipe")),
        ],
        "no block": forget(single_project, place / "out" / "block", "--method", "lur", "--shard"),
        "bad input": forget(single_project, place / "out" / "bad", "--method", "lurr"),
        "one fails": forget(
            projects.project(place / "one", ONE_FAILS), place / "out" / "one", "--method", "lur"
        ),
        "fails late": forget(
            projects.project(place / "late", LATE), place / "out" / "late", "--method", "lur"
        ),
        "other weights": forget(
            projects.project(place / "other", OTHER_WEIGHTS), place / "out" / "other", "--method", "lur"
        ),
        **{
            f"check fails {when}": [
                "check",
                str(projects.project(place / when, NO_MEMORY.replace("PASSES", passes))),
                *("--random", "0.3", "--methods", "finetune", "--out", str(place / "out" / when)),
            ]
            for when, passes in (("at once", "0"), ("after the warm-up", "14"))
        },
        "bench": ["bench", "digits-clean", "--out", str(place / "out" / "bench")],
        "full disk": forget(projects.project(place / "full", FULL), place / "out" / "full", *SHARDED, *SAVED),
    }


@pytest.fixture(scope="module")
def outputs(commands, tmp_path_factory) -> dict[str, list[launched.Output]]:
    outputs_by_command = launched.run_shared(list(commands.values()), tmp_path_factory.mktemp("outputs"))
    return dict(zip(commands, outputs_by_command, strict=True))


@pytest.mark.parametrize(("name", "tolerance"), [("single", 1e-6), ("double", 1e-12), ("sharded", 1e-12)])
def test_two_processes_end_where_one_does(run, commands, outputs, tmp_path, name, tolerance):
    assert [each.code for each in outputs[name]] == [0, 0], outputs[name]
    words = commands[name]
    place = Path(words[words.index("--out") + 1])
    words = [str(tmp_path / "alone") if word == str(place) else word for word in words]
    words = words[: words.index("--shard")] if "--shard" in words else words
    assert run(*words).code == 0
    two, one = (load_file(folder / "model.safetensors") for folder in (place, tmp_path / "alone"))
    for key, value in one.items():
        assert float((two[key] - value).norm() / value.norm()) < tolerance, key


def test_each_process_may_write_its_rows_into_a_folder_of_their_own(commands, outputs):
    assert [each.code for each in outputs["pieces"]] == [0, 0], outputs["pieces"]
    whole_folder = Path(commands["sharded"][commands["sharded"].index("--out") + 1])
    folder, content = whole_folder.with_name("sharded-2"), json.loads(outputs["pieces"][0].out)
    assert content["edited_in_place"] is True and Path(content["out"]) == folder
    assert not (folder / "model.safetensors").exists()
    expected = load_file(whole_folder / "model.safetensors")
    state = {name: torch.empty_like(each) for name, each in expected.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        torch.distributed.checkpoint.load(state, checkpoint_id=folder / "sharded")
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    first, second = outputs["pieces again"]
    assert [first.code, second.code] == [0, 0] and first.out.startswith("Done already")
    assert f"Model: {folder / 'sharded'}" in first.out and "Next:" not in first.out


def test_it_says_that_a_sharded_model_is_edited_in_place(outputs):
    assert "so it was edited in place" in " ".join(outputs["sharded"][0].out.split())
    assert outputs["check"][0].code == 0, outputs["check"]
    assert "forget edits the model in place" in " ".join(outputs["check"][0].out.split())
    assert "need whole weights, found sharded ones" in " ".join(outputs["check"][0].out.split())
    assert "edited in place" not in outputs["single"][0].out


@pytest.mark.slow
def test_accelerate_launches_it(tmp_path, run):
    pytest.importorskip("accelerate")
    command = forget(projects.project(tmp_path / "mine", DOUBLE), tmp_path / "both", "--method", "salun")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    subprocess.run([*launcher, "-m", "unweave", *command], check=True, timeout=launched.TIMEOUT)
    words = [str(tmp_path / "alone") if word == str(tmp_path / "both") else word for word in command]
    assert run(*words).code == 0
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("both", "alone"))
    for key, value in one.items():
        assert float((two[key] - value).norm() / value.norm()) < 1e-12, key


def test_the_first_process_alone_prints(outputs):
    first, second = outputs["single"]
    assert "Forgot 27 of 90 examples with lur" in first.out and "1/2  the original" in first.error
    assert (second.out, second.error) == ("", "")


def test_the_same_request_is_done_already_on_all(outputs):
    first, second = outputs["again"]
    assert [first.code, second.code] == [0, 0] and first.out.startswith("Done already") and second.out == ""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bad input", "lurr"),
        (
            "no block",
            "a sharded model needs blocks, two or more in one nn.ModuleList or nn.Sequential, found",
        ),
        ("not for shards", "gradients of single examples need whole weights, found sharded ones"),
        ("recipe not for shards", "gradients of single examples need whole weights, found sharded ones"),
        ("one fails", "KeyError: 'no such file'"),
        ("fails late", "the disk is gone"),
        ("check fails at once", "no memory is left"),
        ("check fails after the warm-up", "no memory is left"),
        ("other weights", "all processes must load the same model and data, found another 'original' on"),
        ("bench", "bench runs in one process, found 2: start it without torchrun"),
    ],
)
def test_an_error_is_printed_once_ends_all_and_leaves_nothing(commands, outputs, name, sentence):
    errors = [
        line for each in outputs[name] for line in each.error.splitlines() if line.startswith("unweave: ")
    ]
    assert len(errors) == 1 and sentence in errors[0], outputs[name]
    assert all(each.code in (2, 3) for each in outputs[name])
    words = commands[name]
    assert not Path(words[words.index("--out") + 1]).exists()


def test_a_method_is_refused_before_an_original_is_trained(outputs):
    assert not any("the original" in each.error for each in outputs["recipe not for shards"])


def test_a_state_that_can_not_be_written_ends_all_and_is_said_once(commands, outputs):
    errors = [
        line for each in outputs["full disk"] for line in each.error.splitlines() if "unweave: " in line
    ]
    assert len(errors) == 1 and "writing failed: [Errno 28] No space left on device" in errors[0]
    assert [each.code for each in outputs["full disk"]] == [3, 3]
    words = commands["full disk"]
    assert not (Path(words[words.index("--out") + 1]) / "model.safetensors").exists()


def test_shards_need_processes(refused, tmp_path):
    place = projects.project(tmp_path / "mine")
    refused(
        "--shard cuts the model over several processes, found one: start it with torchrun",
        *forget(place, tmp_path / "out", "--shard"),
    )
    refused(
        "--save-every needs one step or more, found 0", *forget(place, tmp_path / "out", "--save-every", 0)
    )
    refused(
        "--save-sharded goes with --shard, found it alone", *forget(place, tmp_path / "out", "--save-sharded")
    )
    refused("--blocks goes with --shard, found it alone", *forget(place, tmp_path / "out", "--blocks", "x"))
