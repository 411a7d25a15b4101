"""Processes that begin with the package loaded: forked from one server, which imports it once for all tests.

The server has one thread and has computed nothing, so that forking it is safe.
"""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

from torch.multiprocessing.spawn import start_processes

PACKAGES = ["unweave.cli", "torch.distributed.fsdp", "torch.distributed.checkpoint"]


def fork_server() -> ForkServerContext:
    """The context whose processes are forked from that server."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    return context


def run_group(work: Callable[..., None], count: int, *arguments: object) -> None:
    """Runs `work(rank, count, *arguments)` in several processes at once; one that fails ends all."""
    fork_server()
    start_processes(work, (count, *arguments), nprocs=count, start_method="forkserver")
