"""Cells on a Ray cluster of two nodes: the figures of processes here, and what a lost worker costs."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

import projects
from bench.tiny import tiny
from cli.test_qualify import FEW, METHOD, QUICK
from unweave.bench.bench import bench
from unweave.bench.ray_workers import ray_workers
from unweave.bench.workers import Job
from unweave.cli import main
from unweave.errors import Failed
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.record import record
from unweave.space import Range

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
TIMED = ("seconds", "cost", "peak_mib")
NODE = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "node_ip_address": "127.0.0.2",  # loopback; Ray replaces 127.0.0.1 by the address of the machine
}


@pytest.fixture(scope="module")
def address():
    """A cluster of two nodes with a core each, on the loopback interface."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            cluster.add_node(**NODE)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            cluster.shutdown()


def node_and_folder(wait: Path) -> tuple[str, Path]:
    """The node that runs this, and its working folder, once two jobs run at the same time."""
    (wait / str(os.getpid())).touch()
    while len(list(wait.iterdir())) < 2:
        pass
    return ray.get_runtime_context().get_node_id(), Path.cwd()


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_both_nodes_work_in_the_drivers_folder(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wait").mkdir()
    with ray_workers(address) as crew:
        jobs = [Job(str(i), node_and_folder, (Path("wait"),)) for i in range(2)]
        results = {job.label: result for job, result in crew(jobs)}
    assert results.keys() == {"0", "1"} and len({node for node, _ in results.values()}) == 2
    assert {folder for _, folder in results.values()} == {tmp_path}


def test_errors_come_through_as_they_are(address):
    with ray_workers(address) as crew, pytest.raises(ZeroDivisionError) as error:
        list(crew([Job("one", divmod, (1, 0))]))
    assert "\n" not in str(error.value)


def test_a_job_that_kills_every_worker_fails(address):
    with ray_workers(address) as crew, pytest.raises(Failed, match="one lost its worker 4 times"):
        list(crew([Job("one", die, ())]))


def test_a_job_that_no_node_holds_is_refused(address):
    with pytest.raises(ValueError, match="needs 2 cores and 1 GPUs .* nodes of 1 and 0, 1 and 0"):
        ray_workers(address, cores=2, gpus=1).__enter__()
    assert not ray.is_initialized()


@dataclass(frozen=True)
class KillOnce:
    """Lists the files of a run and kills its process, if no list is there; else it moves the weights."""

    about: ClassVar[About] = About("none", "none", "0")
    folder: str = ""
    files: str = ""

    def space(self, budget: int) -> Mapping[str, Range]:
        return {}

    def __call__(self, problem: Problem) -> None:
        if not Path(self.files).exists():
            Path(self.files).write_text(json.dumps(times(Path(self.folder))))
            die()
        for weight in problem.params.values():
            weight.data.add_(0.01)


def times(folder: Path) -> dict[str, int]:
    """When each cell was written."""
    return {str(path): path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.*")}


def test_a_lost_worker_costs_its_running_cell_and_nothing_else(address, tmp_path):
    folder, files = tmp_path / "run", tmp_path / "files.json"
    recipe = tiny(seeds=[0], calibration_seeds=[])
    method = KillOnce(str(folder), str(files))
    recipe = replace(recipe, methods={**recipe.methods, "finetune": method})
    names = ["lur", "finetune"]
    with ray_workers(address) as crew:
        content = bench([recipe], folder, methods=names, crew=crew)
    file_times = json.loads(files.read_text())
    assert {Path(path).stem.partition(".")[0] for path in file_times} == {"original", "retrained", "lur"}
    assert file_times.items() <= times(folder).items(), "finished cells were kept"
    local_content = bench([recipe], tmp_path / "here", methods=names, jobs=1)
    assert figures(content["stages"]) == figures(local_content["stages"])


def test_the_record_is_that_of_processes_on_this_machine(address, tmp_path):
    recipe = projects.recipe(tmp_path)
    flags = ["bench", str(recipe), "--methods", "finetune,salun", "--quiet"]
    assert main([*flags, "--jobs", "2", "--out", str(tmp_path / "here")]) == 0
    assert main([*flags, "--ray", address, "--out", str(tmp_path / "cluster")]) == 0
    local_stages, cluster_stages = (record.load(tmp_path / name)["stages"] for name in ("here", "cluster"))
    assert figures(local_stages) == figures(cluster_stages)
    assert main([*flags, "--ray", address, "--out", str(tmp_path / "here")]) == 0, "resumes, whoever began"
    assert not (tmp_path / "here-2").exists()


def test_an_audit_retrains_on_the_cluster(address, tmp_path):
    place = projects.project(tmp_path / "mine")
    flags = ("--random", "0.1", "--method", "finetune", "--set", "how.steps=2")
    assert main(["forget", place, *flags, "--quiet", "--out", str(tmp_path / "run")]) == 0
    audit = ["audit", str(tmp_path / "run"), "--references", "2", "--quiet"]
    for name, executor in (("here", ()), ("cluster", ("--ray", address))):
        assert main([*audit, *executor, "--out", str(tmp_path / name)]) == 1
    local_stages, cluster_stages = (record.load(tmp_path / name)["stages"] for name in ("here", "cluster"))
    assert figures(local_stages) == figures(cluster_stages)


def test_a_qualification_trains_on_the_cluster(address, tmp_path):
    place = projects.project(tmp_path / "mine", QUICK)
    qualify = ["qualify", place, *METHOD, *FEW]
    for name, executor in (("here", ()), ("cluster", ("--ray", address))):
        assert main([*qualify, *executor, "--out", str(tmp_path / name)]) == 0
    local_content, cluster_content = (record.load(tmp_path / name) for name in ("here", "cluster"))
    assert figures(local_content["stages"]) == figures(cluster_content["stages"])
    assert local_content["qualification"]["agreement"] == cluster_content["qualification"]["agreement"]


def figures(part: object) -> object:
    """A part of a record without times and memory, as text that tells NaN."""
    if isinstance(part, dict):
        return {key: figures(value) for key, value in part.items() if key not in TIMED}
    return [figures(each) for each in part] if isinstance(part, list | tuple) else repr(part)
