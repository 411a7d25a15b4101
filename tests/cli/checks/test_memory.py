"""`check` refuses a method that needs more memory than is free, and prices the others."""

import json
import sys

import pytest
import torch

import projects
from unweave.bench.peak_memory import STATUS, read_sizes
from unweave.cli.checks import memory
from unweave.cli.checks.memory import explain_no_memory, limit_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="only Linux limits memory, and only on a CPU"
)
MIB = 2**20
GREEDY = """
class Greedy(Net):
    def forward(self, x, scale):
        if torch.is_grad_enabled():
            torch.empty(512 * 2**20, dtype=torch.uint8)
        return super().forward(x, scale)


def load():
    torch.manual_seed(0)
    return given(model=Greedy())
"""


@pytest.fixture
def free(tmp_path, monkeypatch):
    """Makes this many MiB the memory that is free."""

    def set_free(mib: int) -> None:
        place = tmp_path / "meminfo"
        place.write_text(f"MemTotal: 99999999 kB\nMemAvailable: {1024 * mib} kB\nHugePages_Total: 0\n")
        monkeypatch.setattr(memory, "MACHINE", place)

    return set_free


def test_within_the_limit_memory_is_refused_and_after_it_given(free):
    free(256)
    with limit_memory():
        assert len(torch.empty(64 * MIB, dtype=torch.uint8)) == 64 * MIB
        with pytest.raises(RuntimeError) as error:
            torch.empty(512 * MIB, dtype=torch.uint8)
    assert len(torch.empty(512 * MIB, dtype=torch.uint8)) == 512 * MIB
    assert "needs more memory than is free: use smaller batches" in explain_no_memory(error.value)
    assert f"tried to allocate {512 * MIB} bytes" in explain_no_memory(error.value)


def test_a_smaller_limit_stays(free):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_DATA)
    free(256)
    with limit_memory():
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        free(4096)
        with limit_memory():
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == limit
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_without_figures_of_the_kernel_there_is_no_limit(tmp_path, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "absent")
    with limit_memory():
        assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    assert read_sizes(STATUS)["VmData"] > MIB


def test_other_errors_are_not_explained():
    assert not explain_no_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not explain_no_memory(torch.OutOfMemoryError("CUDA out of memory."))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_other_forms_of_the_error_are_explained(error: Exception):
    assert explain_no_memory(error).startswith("it needs more memory than is free")


def test_check_names_the_method_that_does_not_fit(run, here, tmp_path, free):
    place = projects.project(tmp_path / "mine", GREEDY)
    fits = json.loads(run("check", place, "--methods", "finetune", "--json").out)
    assert fits["costs"]["finetune"]["refused"] is None
    free(256)
    content = json.loads(run("check", place, "--methods", "finetune", "--json").out)
    assert "needs more memory than is free" in content["costs"]["finetune"]["refused"]
