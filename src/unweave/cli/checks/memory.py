"""The memory that is free as a limit: a method that needs more is refused, and does not end `check`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unweave.bench.peak_memory import STATUS, read_sizes

MACHINE = Path("/proc/meminfo")
REFUSED = ("can't allocate memory", "could not create a primitive", "std::bad_alloc")
"""What torch and oneDNN say in a RuntimeError if they get no memory of the CPU."""


@contextmanager
def limit_memory() -> Iterator[None]:
    """Limits the body to the memory that is free, on Linux; not once a GPU is in use.

    A container's own limit is not known here: there the kernel may still end the process.
    """
    process, machine = read_sizes(STATUS), read_sizes(MACHINE)
    if "VmData" not in process or "MemAvailable" not in machine or torch.cuda.is_initialized():
        yield
        return
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = process["VmData"] + machine["MemAvailable"] + machine.get("SwapFree", 0)
    limits = [each for each in (limit, soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def explain_no_memory(error: Exception) -> str:
    """A sentence if an error says that memory of the CPU is lacking; otherwise empty."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(each in text for each in REFUSED):
        return ""
    line = next(iter(text.splitlines()), "no memory")
    return f"it needs more memory than is free: use smaller batches, or train fewer weights ({line})"
