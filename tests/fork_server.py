"""Processes that begin with all packages loaded, forked from one server that imports them once for all tests.

Forking the server is safe: it has computed nothing, and its only other thread is jemalloc's, which is made
for forks. Without it each process would spend seconds on imports: torch._dynamo, which comes with the first
step of an optimizer, scikit-learn with pandas, and diffusers.
"""

from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

from torch.multiprocessing.spawn import start_processes

PACKAGES = [
    *("unweave.cli", "torch.distributed.fsdp", "torch.distributed.checkpoint", "torch._dynamo"),
    *("jsonschema", "sklearn.svm", "sklearn.datasets", "sklearn.linear_model"),
]
if find_spec("diffusers"):
    PACKAGES.append("unweave.tasks.diffusion.class_denoisers")


def fork_server() -> ForkServerContext:
    """The context whose processes are forked from that server."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    return context


def run_group(work: Callable[..., None], count: int, *arguments: object) -> None:
    """Runs `work(rank, count, *arguments)` in several processes at once; one that fails ends all."""
    fork_server()
    start_processes(work, (count, *arguments), nprocs=count, start_method="forkserver")
