"""A run that needs more memory than there is ends with a sentence, and `check` prices the other methods."""

import json
import sys

import pytest
import torch

import projects
from unweave.bench.peak_memory import read_status
from unweave.cli.memory import explain_no_memory, limit_memory, memory_of_machine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="only Linux limits memory, and only on a CPU"
)
MIB = 2**20
GREEDY = """
class Greedy(Net):
    def forward(self, x, scale):
        if torch.is_grad_enabled():
            torch.empty(2**44)
        return super().forward(x, scale)


def load():
    torch.manual_seed(0)
    return given(model=Greedy())
"""


def test_within_the_limit_memory_is_refused_and_after_it_given():
    with limit_memory(read_status()["RssAnon"] + 256 * MIB):
        assert len(torch.empty(64 * MIB, dtype=torch.uint8)) == 64 * MIB
        with pytest.raises(RuntimeError) as caught:
            torch.empty(512 * MIB, dtype=torch.uint8)
    assert len(torch.empty(512 * MIB, dtype=torch.uint8)) == 512 * MIB
    assert "is too small: use smaller batches" in explain_no_memory(caught.value)


def test_the_limit_is_the_memory_of_the_machine_and_a_smaller_one_stays():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limit_memory():
        (whole, _) = resource.getrlimit(resource.RLIMIT_DATA)
        assert whole >= memory_of_machine() > 64 * MIB
        with limit_memory(2 * whole):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == whole
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_other_errors_are_not_explained():
    assert not explain_no_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert explain_no_memory(MemoryError())
    assert explain_no_memory(torch.OutOfMemoryError("CUDA out of memory.")).startswith("the device is out of")


def test_forget_ends_with_a_sentence_and_check_names_the_method(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", GREEDY)
    failed = run("forget", place, "--random", 0.3, "--quiet")
    assert failed.code == 3 and "is too small: use smaller batches" in failed.error
    assert "Traceback" not in failed.error and not list(here.glob("forgotten/*.safetensors"))
    found = json.loads(run("check", place, "--methods", "finetune", "--json").out)
    assert "is too small: use smaller batches" in found["costs"]["finetune"]["refused"]
