"""The peak memory of a piece of work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Peak:
    """The peak memory of a body, known at its end.

    Args:
        mib: CUDA: of the device's allocator; Linux: of the whole process with its libraries; otherwise None.
    """

    mib: float | None = None


@contextmanager
def peak_memory(device: torch.device | str) -> Iterator[Peak]:
    """Measures the peak memory of the body."""
    peak, cuda = Peak(), torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")  # resets the high-water mark to the present resident size
    yield peak
    if cuda:
        peak.mib = torch.cuda.max_memory_allocated(device) / 2**20
    elif RESET.exists():
        peak.mib = read_sizes(STATUS)["VmHWM"] / 2**20


def read_sizes(file: Path) -> dict[str, int]:
    """The sizes in bytes, by name, in a file of Linux about a process or the machine; none without it."""
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return {row[0].rstrip(":"): 1024 * int(row[1]) for row in rows if row and row[-1] == "kB"}
