"""What a step costs: the modes of LUR and Scissorhands' repair against a training loop written by hand.

    python benchmarks/steps.py                   # twenty minutes of one core; --rounds 3 for a first look
    python benchmarks/steps.py --record records/steps.json

Everything but the loop by hand runs through the library's own `descend`. Rounds are interleaved: in each,
every competitor takes a short descent of its own from the same weights, over batches of the same sizes, and
its time is divided by that of the loop by hand in the same round. Reported is the median over rounds. On the
CPU time is CPU time on one thread, which other work on the machine disturbs least; on a GPU it is wall time
between two synchronisations.

Memory is the peak of a fresh process during the steps, less what it held before: gradients, optimizer state,
activations.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unweave.data.datasets import load
from unweave.data.resident import Resident
from unweave.descend import Descent, Phase, descend
from unweave.feed import forever
from unweave.lookahead import Held
from unweave.methods.lur import LUR
from unweave.methods.scissorhands import Scissorhands
from unweave.models import build
from unweave.objective import bounded, nll
from unweave.params import Params, add, norm
from unweave.problem import Problem, Split
from unweave.run.record import environment
from unweave.step import Term
from unweave.tasks.classifier import Classifier

ALPHA, WEIGHT = 0.01, 0.3
MODES = ("joint", "lagged", "nested", "exact")
COMPETITORS = ("by hand", *MODES, "scissorhands")


@dataclass(frozen=True)
class Setting:
    """A model, its data and the length of a descent.

    Args:
        model: A key of `MODELS`.
        batch: Retain examples per step.
        forget_batch: Forget examples per step.
        warm: Steps before the clock starts: the first of a descent checks more and allocates.
        steps: Steps that are timed.
        targets: The largest ratio to the loop by hand that a competitor may have.
    """

    model: str
    batch: int
    forget_batch: int
    warm: int
    steps: int
    targets: Mapping[str, float]

    def how(self, steps: int) -> Descent:
        """Plain SGD with momentum and no clip, so that the loop by hand is short."""
        return Descent(lr=1e-3, steps=steps, batch=self.batch, forget_batch=self.forget_batch)

    def problem(self, device: str) -> Problem:
        """Fresh weights and data on the device; a quarter of the data is to be forgotten."""
        torch.manual_seed(0)
        train, held_out = load("digits") if self.model == "mlp" else (noise(1024), noise(64))
        split = Split(train.to(device), range(0, len(train), 4), held_out.to(device))
        model = build(self.model, 10, {}).to(device)
        return Problem(Classifier(10), model, split, torch.Generator().manual_seed(0))


SETTINGS = {
    "resnet18": Setting(
        "resnet18", 32, 32, 1, 3, {"joint": 1.03, "lagged": 1.1, "nested": 1.75, "exact": 2.6}
    ),
    "digits": Setting("mlp", 128, 32, 20, 100, {"lagged": 1.15}),
}


def noise(n: int) -> Resident:
    """Images of 3 x 32 x 32 random pixels: what is in them costs nothing."""
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    return Resident(images, torch.arange(n) % 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


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
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def tick(self, problem: Problem, index: int) -> None:
        """Called before every step."""
        if index == self.warm:
            self.start = self.now()


def run(competitor: str, problem: Problem, how: Descent, tick: Callable[[Problem, int], None]) -> None:
    """One descent."""
    if competitor == "by hand":
        by_hand(problem, how, tick)
    elif competitor == "scissorhands":
        unlearn = -nll("forget")
        terms: list[Term] = [
            nll("retain") + Scissorhands().forget_weight * unlearn,
            Held(unlearn, every=10**9),
        ]
        descend(problem, how, Phase(terms, rule="gem", watch=tick))
    else:
        descend(problem, how, Phase(terms_of(competitor), watch=tick))


def terms_of(mode: str) -> list[Term]:
    """The terms of a mode of LUR."""
    lur = {name: LUR(mode=name) for name in MODES}[mode]
    return lur.terms(nll("retain"), WEIGHT * bounded(), ALPHA)


def by_hand(problem: Problem, how: Descent, tick: Callable[[Problem, int], None]) -> None:
    """Joint training as one writes it without a library: two forward passes, one backward pass."""
    model, split = problem.model.train(), problem.split
    optimizer = torch.optim.SGD(model.parameters(), how.lr, how.momentum)
    retain = plain_batches(split.train, split.retain, how.batch, problem.generator)
    forget = plain_batches(split.train, split.forget, how.forget_batch or how.batch, problem.generator)
    for index in range(how.steps or 0):
        (x_r, y_r), (x_f, y_f) = next(retain), next(forget)
        tick(problem, index)
        forgetting = -functional.cross_entropy(model(x_f), y_f, reduction="none").log1p().mean()
        loss = functional.cross_entropy(model(x_r), y_r) + WEIGHT * forgetting
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain_batches(
    source: object, ids: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of shuffled batches."""
    assert isinstance(source, Resident)
    labels = source.labels.to(source.inputs.device)
    for rows in forever(ids, size, generator):
        x = source.inputs[rows.to(source.inputs.device)]
        yield (x if x.is_floating_point() else (x.float() / 255 - 0.5) / 0.25), labels[rows.to(labels.device)]


def shifts(setting: Setting, device: str) -> dict[str, float]:
    """How far a first step of each mode leads from that of joint, relative to its length.

    Raises:
        RuntimeError: If a lookahead does nothing, which would be timed for nothing.
    """
    moved: dict[str, Params] = {}
    for mode in MODES:
        problem = setting.problem(device)
        before = {name: p.detach().clone() for name, p in problem.params.items()}
        run(mode, problem, replace(setting.how(1), lr=1.0), lambda *_: None)
        moved[mode] = add({name: p.detach() for name, p in problem.params.items()}, before, scale=-1)
    away = {
        mode: float(norm(add(moved[mode], moved["joint"], scale=-1)) / norm(moved["joint"]))
        for mode in MODES[1:]
    }
    if min(away.values()) < 1e-4:
        raise RuntimeError(
            f"a step with a lookahead should lead elsewhere, found relative differences of {away}"
        )
    return away


def seconds(setting: Setting, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per step of every competitor, one number per round; each round begins with another one."""
    times: dict[str, list[float]] = {name: [] for name in COMPETITORS}
    for i in range(rounds):
        turn = i % len(COMPETITORS)
        for name in COMPETITORS[turn:] + COMPETITORS[:turn]:
            clock = Clock(torch.device(device), setting.warm)
            run(name, setting.problem(device), setting.how(setting.warm + setting.steps), clock.tick)
            times[name].append((clock.now() - clock.start) / setting.steps)
    return times


def peak(setting: Setting, competitor: str, device: str) -> float | None:
    """MiB that three steps need beyond model and data; None if unknown. For a fresh process."""
    torch.set_num_threads(1)
    problem = setting.problem(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run(competitor, problem, setting.how(3), lambda *_: None)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = resident("VmRSS")
    run(competitor, problem, setting.how(3), lambda *_: None)
    after = resident("VmHWM")
    return None if before is None or after is None else after - before


def resident(key: str) -> float | None:
    """A line of Linux' account of this process, in MiB."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)


def measure(names: list[str], rounds: int, device: str) -> dict[str, Any]:
    """Everything that is reported, by setting and competitor."""
    times = {name: seconds(SETTINGS[name], rounds, device) for name in names}
    paired = {
        name: {k: [a / b for a, b in zip(v, t["by hand"], strict=True)] for k, v in t.items()}
        for name, t in times.items()
    }
    return {
        "ratios": {name: {k: median(v) for k, v in r.items()} for name, r in paired.items()},
        "quartiles": {name: {k: quantiles(v, n=4)[::2] for k, v in r.items()} for name, r in paired.items()},
        "targets": {name: SETTINGS[name].targets for name in names},
        "seconds": {name: {k: median(v) for k, v in t.items()} for name, t in times.items()},
        "memory": {name: {k: alone(name, k, device) for k in COMPETITORS} for name in names},
        "shift": {name: shifts(SETTINGS[name], device) for name in names},
        "rounds": rounds,
        "alpha": ALPHA,
        "device": device,
        "environment": environment(),
    }


def alone(setting: str, competitor: str, device: str) -> float | None:
    """The peak in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak, SETTINGS[setting], competitor, device).result()


def table(found: Mapping[str, Any]) -> str:
    """The ratios with their quartiles, and the memory, as text."""
    lines = []
    for name, ratios in found["ratios"].items():
        lines.append(f"{name}, {found['rounds']} rounds, relative to the loop by hand")
        for competitor, ratio in ratios.items():
            low, high = found["quartiles"][name][competitor]
            most = found["targets"][name].get(competitor)
            target = "" if most is None else f"  at most {most:.2f}: {'yes' if ratio <= most else 'NO'}"
            memory = found["memory"][name][competitor]
            held = "unknown" if memory is None else f"{memory:.0f} MiB"
            lines.append(f"  {competitor:<13} {ratio:.3f} ({low:.3f} to {high:.3f})  {held}{target}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", default=",".join(SETTINGS), help="names with commas between")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--record", type=Path, help="the file to keep the same object in")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.settings.split(","), asked.rounds, asked.device)
    text = json.dumps(found, indent=1)
    if asked.record:
        asked.record.write_text(text + "\n", encoding="utf-8")
    print(text if asked.json else table(found))


if __name__ == "__main__":
    main()
