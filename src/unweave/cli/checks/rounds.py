"""Measures costs in interleaved rounds: every round measures each in turn.

So what else a machine does falls on all alike. Times of a few steps vary nevertheless, so what is quick is
measured in several rounds, and the range is shown.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import product
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from unweave.bench.peak_memory import peak_memory
from unweave.bench.workers import Listener, Progress
from unweave.cli.checks.memory import explain_no_memory, limit_memory
from unweave.weights.processes import Processes

ROUNDS = 3
"""The number of rounds of measurements; one of what is slow."""

AGREEMENT = timedelta(minutes=2)
"""The longest wait, after an error, for the other processes to fail too."""


@dataclass(frozen=True)
class Round:
    """One measurement of a cost.

    Args:
        seconds: CPU time on a CPU, otherwise wall time.
        gradients: Gradient evaluations; None if unknown.
        is_quick: Whether to measure it again.
    """

    seconds: float
    gradients: float | None
    is_quick: bool


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a method.

    Args:
        seconds: CPU time on a CPU, otherwise wall time, the median of the rounds; None if it can't be run.
        gradients: Gradient evaluations; None if unknown.
        peak_mib: The peak memory in MiB, of several processes the largest; None if unknown.
        refused: The reason if the method can't be run; otherwise None.
        seconds_range: The least and the most seconds of the rounds; None if there was one.
    """

    seconds: float | None
    gradients: float | None
    peak_mib: float | None
    refused: str | None = None
    seconds_range: tuple[float, float] | None = None

    def relative_to(self, other: "Estimate | None") -> float | None:
        """The time as a multiple of another's."""
        if self.seconds is None or other is None or not other.seconds:
            return None
        return self.seconds / other.seconds

    def costs_more_than(self, other: "Estimate | None") -> bool | None:
        """Whether it takes longer than another one; None if the measurements leave that open.

        A longer time counts if it takes more gradient evaluations as well, whatever their batches, or if all
        of its rounds took longer than all of the other's.
        """
        ratio = self.relative_to(other)
        if other is None or ratio is None or ratio <= 1:
            return False
        counts, ranges = (self.gradients, other.gradients), (self.seconds_range, other.seconds_range)
        is_larger = counts[0] is not None and counts[1] is not None and counts[0] > counts[1]
        is_slower = ranges[0] is not None and ranges[1] is not None and ranges[0][0] > ranges[1][1]
        return True if is_larger or is_slower else None


def estimate_all(
    measurements: Mapping[str, Iterator[Round]], device: torch.device, listener: Listener
) -> dict[str, Estimate]:
    """Estimates costs from interleaved rounds, or says why something can't be run.

    Args:
        measurements: Measure each cost once more.
        device: The device of the model.
        listener: Is told of each measurement.
    """
    rounds: dict[str, list[Round]] = {name: [] for name in measurements}
    peaks: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    group = group_of_errors()
    for number, (_, name) in enumerate(product(range(ROUNDS), measurements), 1):
        if name not in reasons and all(each.is_quick for each in rounds[name]):
            with peak_memory(device) as peak:
                result = attempt(name, lambda name=name: next(measurements[name]), group)
            if isinstance(result, Round):
                rounds[name].append(result)
                if name not in peaks:
                    peaks[name] = Processes.current().largest(peak.mib)
            else:
                reasons[name] = result
        listener(Progress(name, number, ROUNDS * len(rounds)))
    return {
        name: Estimate(None, None, None, reasons[name]) if name in reasons else from_rounds(each, peaks[name])
        for name, each in rounds.items()
    }


def group_of_errors() -> dist.ProcessGroup | None:
    """A group in which several processes agree on errors; None for one. All must call this together."""
    if Processes.current().count == 1:
        return None
    group = dist.new_group(backend="gloo", timeout=AGREEMENT)
    assert isinstance(group, dist.ProcessGroup)  # every process is a member
    return group


def attempt(name: str, measure: Callable[[], Round], group: dist.ProcessGroup | None) -> Round | str:
    """One measurement of that name, or the first line of the error that refuses it.

    Raises:
        Exception: The error, if this process met it alone: the others then wait for it in a measurement.
    """
    try:
        with limit_memory():
            return measure()
    except (ValueError, RuntimeError, MemoryError) as error:  # torch may not train a compiled model
        if group is not None:
            raise_if_alone(error, name, group)
        return explain_no_memory(error) or first_line(error)


def raise_if_alone(error: Exception, name: str, group: dist.ProcessGroup) -> None:
    """Raises an error again unless all processes of the group meet one in the measurement of that name."""
    names: list[str] = [""] * dist.get_world_size()
    try:
        dist.all_gather_object(names, name, group)
    except RuntimeError:
        raise error from None
    if set(names) != {name}:
        raise error


def from_rounds(rounds: list[Round], peak_mib: float | None) -> Estimate:
    """The estimate of several rounds."""
    seconds = [max(0.0, each.seconds) for each in rounds]
    between = (min(seconds), max(seconds)) if len(seconds) > 1 else None
    return Estimate(median(seconds), rounds[0].gradients, peak_mib, seconds_range=between)


def first_line(error: Exception) -> str:
    """The first line of an error; torch adds a page of advice."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def compare_with_retraining(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """The estimates as plain values, relative to that of "retrain", which comes first."""
    retrain = estimates.get("retrain")
    return {
        name: {**asdict(each), "cost": each.relative_to(retrain), "costs_more": each.costs_more_than(retrain)}
        for name, each in sorted(estimates.items(), key=lambda item: item[0] != "retrain")
    }
