"""Times competitors in interleaved rounds, each relative to one of them in the same round.

In each round every competitor takes a short descent of its own from the same weights, over batches of the
same sizes, and its time is divided by that of the base in the same round. Reported is the median over
rounds. On the CPU time is CPU time on one thread, which other work on the machine disturbs least; on a GPU it
is wall time between two synchronisations.

Memory is the peak of a fresh process during the steps, less what it held before: gradients, optimizer state,
activations.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from statistics import median, quantiles
from typing import Any, Protocol

import torch
from rows import write_json
from timed_rounds import make_parser, turns

from unweave.bench.peak_memory import STATUS, read_sizes
from unweave.descent.descend import Descent
from unweave.descent.timing import synchronize
from unweave.problem import Problem
from unweave.record.record import environment
from unweave.weights.params import Params, add, norm

Tick = Callable[[Problem, int], None]


class Setting(Protocol):
    """A model, its data and the length of a descent, for competitors that take the same steps."""

    @property
    def competitors(self) -> Sequence[str]:
        """Their names."""
        ...

    @property
    def warm(self) -> int:
        """Steps before the clock starts: the first of a descent checks more and allocates."""
        ...

    @property
    def steps(self) -> int:
        """Steps that are timed."""
        ...

    @property
    def targets(self) -> Mapping[str, float]:
        """The largest ratio to the base that a competitor may have."""
        ...

    def how(self, steps: int) -> Descent:
        """The descent of a number of steps."""
        ...

    def problem(self, device: str) -> Problem:
        """Always the same weights and data, on the device."""
        ...

    def run(self, competitor: str, problem: Problem, how: Descent, tick: Tick) -> None:
        """One descent; calls `tick` before every step."""
        ...


@dataclass
class Clock:
    """The time from the first step that counts to the end of a descent.

    Args:
        device: What it waits for.
        warm: Steps that do not count.
    """

    device: torch.device
    warm: int
    start: float = field(default=0.0, init=False)

    def now(self) -> float:
        """CPU seconds of this process, or wall seconds after the GPU has finished."""
        if self.device.type == "cpu":
            return time.process_time()
        synchronize(self.device)
        return time.perf_counter()

    def tick(self, problem: Problem, index: int) -> None:
        """Called before every step."""
        if index == self.warm:
            self.start = self.now()


def shifts(setting: Setting, modes: Sequence[str], device: str) -> dict[str, float]:
    """How far a first step of each mode leads from that of joint, relative to its length.

    Raises:
        RuntimeError: If a lookahead does nothing, which would be timed for nothing.
    """
    joint = displacement(setting, "joint", device)
    away = {
        mode: float(norm(add(displacement(setting, mode, device), joint, scale=-1)) / norm(joint))
        for mode in modes
    }
    if min(away.values()) < 1e-4:
        raise RuntimeError(
            f"a step with a lookahead should lead elsewhere, found relative differences of {away}"
        )
    return away


def displacement(setting: Setting, competitor: str, device: str) -> Params:
    """Where one step of plain gradient descent leads."""
    problem = setting.problem(device)
    before = {name: p.detach().clone() for name, p in problem.params.items()}
    setting.run(competitor, problem, replace(setting.how(1), lr=1.0, optimizer="sgd"), lambda *_: None)
    return add({name: p.detach() for name, p in problem.params.items()}, before, scale=-1)


def seconds(setting: Setting, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per step of every competitor, one number per round; each round begins with another one."""
    names = list(setting.competitors)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in turns(names, rounds):
        clock = Clock(torch.device(device), setting.warm)
        how = setting.how(setting.warm + setting.steps)
        setting.run(name, setting.problem(device), how, clock.tick)
        times[name].append((clock.now() - clock.start) / setting.steps)
    return times


def alone(setting: Setting, competitor: str, device: str) -> float | None:
    """The peak in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak, setting, competitor, device).result()


def peak(setting: Setting, competitor: str, device: str) -> float | None:
    """MiB that three steps need beyond model and data; None if unknown. For a fresh process."""
    torch.set_num_threads(1)
    problem = setting.problem(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        setting.run(competitor, problem, setting.how(3), lambda *_: None)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = read_sizes(STATUS)
    setting.run(competitor, problem, setting.how(3), lambda *_: None)
    return (read_sizes(STATUS)["VmHWM"] - before["VmRSS"]) / 2**20 if before else None


def measure(
    settings: Mapping[str, Setting], rounds: int, device: str, *, base: str, modes: Sequence[str]
) -> dict[str, Any]:
    """Everything that is reported, by setting and competitor.

    Args:
        settings: By name.
        rounds: How many.
        device: Where.
        base: The competitor that the others are divided by.
        modes: Those whose step must lead elsewhere than that of "joint".
    """
    times = {name: seconds(setting, rounds, device) for name, setting in settings.items()}
    ratios = {
        name: {k: [a / b for a, b in zip(v, t[base], strict=True)] for k, v in t.items()}
        for name, t in times.items()
    }
    return {
        "ratios": {name: {k: median(v) for k, v in r.items()} for name, r in ratios.items()},
        "quartiles": {name: {k: quantiles(v, n=4)[::2] for k, v in r.items()} for name, r in ratios.items()},
        "targets": {name: setting.targets for name, setting in settings.items()},
        "seconds": {name: {k: median(v) for k, v in t.items()} for name, t in times.items()},
        "memory": {
            name: {k: alone(setting, k, device) for k in setting.competitors}
            for name, setting in settings.items()
        },
        "shift": {name: shifts(setting, modes, device) for name, setting in settings.items()},
        "base": base,
        "rounds": rounds,
        "device": device,
        "environment": environment(),
    }


def table(results: Mapping[str, Any]) -> str:
    """The ratios with their quartiles, and the memory, as text."""
    lines = []
    for name, ratios in results["ratios"].items():
        lines.append(f"{name}, {results['rounds']} rounds, relative to {results['base']}")
        for competitor, ratio in ratios.items():
            low, high = results["quartiles"][name][competitor]
            limit = results["targets"][name].get(competitor)
            target = "" if limit is None else f"  at most {limit:.2f}: {'yes' if ratio <= limit else 'NO'}"
            memory = results["memory"][name][competitor]
            peak = "unknown" if memory is None else f"{memory:.0f} MiB"
            lines.append(f"  {competitor:<13} {ratio:.3f} ({low:.3f} to {high:.3f})  {peak}{target}")
    return "\n".join(lines)


def report(
    description: str, settings: Mapping[str, Setting], *, base: str, modes: Sequence[str], alpha: float
) -> None:
    """The command: measures, prints, and keeps a record if asked to."""
    parser = make_parser(description, rounds=25)
    parser.add_argument("--settings", default=",".join(settings), help="names with commas between")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    selection = {name: settings[name] for name in arguments.settings.split(",")}
    results = measure(selection, arguments.rounds, arguments.device, base=base, modes=modes) | {
        "alpha": alpha
    }
    write_json(arguments.record, results)
    print(json.dumps(results, indent=1) if arguments.json else table(results))
