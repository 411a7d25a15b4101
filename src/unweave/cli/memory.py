"""The memory of the machine as a limit: beyond it an allocation fails, before the kernel ends the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unweave.bench.peak_memory import read_status

MACHINE = Path("/proc/meminfo")
MOST = 2**62
"""More bytes than any machine has."""
CONTAINER = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""The limit of a container, in bytes or "max", in the second and the first version of control groups."""

REFUSED = ("can't allocate memory", "Cannot allocate memory")
"""What torch says in a RuntimeError if it gets no memory of the CPU."""


@contextmanager
def limit_memory(most: int | None = None) -> Iterator[None]:
    """Limits the memory that the body may take on Linux; a limit of the user that is smaller stays.

    On a machine with a GPU there is no limit: its driver reserves addresses without taking memory.

    Args:
        most: The number of bytes; by default the memory of the machine or the container, and swap space.
    """
    status = read_status()
    if not {"VmData", "RssAnon"} <= status.keys() or torch.cuda.is_available():
        yield
        return
    import resource  # not on Windows

    reserved = status["VmData"] - status["RssAnon"]  # stacks of threads, for one
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = reserved + (memory_of_machine() if most is None else most)
    known = [each for each in (wanted, before, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def memory_of_machine() -> int:
    """The bytes of the machine's memory and swap space; in a container, those that it may take."""
    sizes = read_status(MACHINE)
    limits = [each.read_text().strip() for each in CONTAINER if each.is_file()]
    whole = sizes.get("MemTotal", MOST) + sizes.get("SwapTotal", 0)
    return min(whole, *(int(each) for each in limits if each.isdigit()), MOST)


def explain_no_memory(error: Exception) -> str:
    """A sentence if an error says that memory is lacking; otherwise empty."""
    advice = "use smaller batches (how.batch or how.micro_batch), or train fewer weights (--scope lora)"
    if isinstance(error, torch.OutOfMemoryError):
        return f"the device is out of memory: {str(error).splitlines()[0]}: {advice}"
    if isinstance(error, MemoryError) or any(each in str(error) for each in REFUSED):
        known = memory_of_machine()
        size = "" if known == MOST else f" of {known / 2**30:.1f} GiB"
        return f"the memory{size} is too small: {advice}"
    return ""
