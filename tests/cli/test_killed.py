"""A shared run of `forget` of which a process is killed resumes with the same command, by torchrun too."""

import random
from pathlib import Path

import pytest
import torch

import killed
import launched
import unweave
from for_each import for_each

STEPS, EVERY = 8, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def died(place: Path) -> dict[str, list[launched.Output | None]]:
    """Kills one process of each way, in the middle of the run."""
    outputs = {}
    for rank, way in enumerate(killed.WAYS):
        (place / way).mkdir()
        words = killed.command(place, f"{way} out", way, STEPS, EVERY)
        outputs[way] = killed.run_and_kill(words, place / way, rank, 14, 0)
    return outputs


@pytest.fixture(scope="module")
def resumed(place: Path, died: object) -> list[launched.Output | None]:
    """Gives the first command again, by the launcher itself: its store and variables are not `launched`'s."""
    (place / "resumed").mkdir()
    words = killed.command(place, "replicated out", "replicated", STEPS, EVERY)
    return launched.run_by_launcher(words, place / "resumed")


@pytest.fixture(scope="module")
def ended(place: Path, died: object) -> dict[str, list[launched.Output | None]]:
    """Gives the other command again, and each undisturbed."""
    ends = (("sharded", "out"), ("sharded", "whole"), ("replicated", "whole"))
    commands = {f"{way} {end}": killed.command(place, f"{way} {end}", way, STEPS, EVERY) for way, end in ends}
    (place / "ended").mkdir()
    return dict(zip(commands, launched.run_shared(list(commands.values()), place / "ended"), strict=True))


@for_each("way", killed.WAYS)
def test_the_others_end_and_one_says_why(way, died, place):
    killed_output, other_output = sorted(died[way], key=bool)
    assert killed_output is None and other_output.code == 3
    assert other_output.error.splitlines()[-1].startswith("unweave: another process has ended")
    assert not (place / f"{way} out" / "model.safetensors").exists()
    assert killed.state_of(place / f"{way} out") < "000-end"


def test_torchrun_takes_the_module_by_its_name(tmp_path):
    code, output = launched.run_torchrun(["-m", "unweave", "--version"], tmp_path / "printed")
    assert code == 0 and output.splitlines()[-1:] == [unweave.__version__], output


def test_the_launcher_of_torchrun_starts_it_and_it_prints_once(resumed):
    assert all(each is not None and each.code == 0 for each in resumed), resumed
    assert "".join(each.out for each in resumed).count("Forgot 27 of 90") == 1


@for_each("way", killed.WAYS)
@pytest.mark.usefixtures("resumed")
def test_the_same_command_resumes_in_the_same_folder_and_ends_in_the_same_bits(way, ended, place):
    assert all(each.code == 0 for end in ended.values() for each in end), ended
    weights, reference = (killed.weights(place / f"{way} {end}") for end in ("out", "whole"))
    assert all(torch.equal(weights[key], value) for key, value in reference.items())
    assert not (place / f"{way} out" / "states").exists()


def test_a_run_with_other_settings_starts_in_a_folder_of_its_own(run, place, died):
    words = killed.command(place, "sharded out", "replicated", STEPS + 1, EVERY)
    assert run(*words).code == 0
    assert (place / "sharded out-2" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", killed.WAYS)
def test_it_survives_ten_kills_at_random_points(way, tmp_path):
    points, words = random.Random(0), killed.command(tmp_path, "out", way, 400, 1)
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        outputs = killed.run_and_kill(words, folder, *killed.draw(points, 15))
        assert None in outputs, outputs
    (tmp_path / "end").mkdir()
    uninterrupted_command = killed.command(tmp_path, "whole", way, 400, 1)
    outputs = launched.run_shared([words, uninterrupted_command], tmp_path / "end")
    assert [each.code for processes in outputs for each in processes] == [0] * 4, outputs
    resumed_weights, uninterrupted_weights = (killed.weights(tmp_path / end) for end in ("out", "whole"))
    assert all(torch.equal(resumed_weights[key], value) for key, value in uninterrupted_weights.items())
