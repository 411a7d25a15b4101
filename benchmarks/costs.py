"""What every method for classifiers costs on one model: seconds of a step and before it, memory, passes.

    python benchmarks/costs.py                   # minutes of one core; --rounds 3 for a first look
    python benchmarks/costs.py --record records/costs.json

A small convolutional network is to forget one class of random images: what is in them costs nothing, and no
method refuses such a request. Each method runs with its own settings but for the length: in each round once
short and once long. The difference is what its steps cost, the rest is what it does before and after them:
masks, proxies, importances, recovery. Rounds are interleaved, and each time is divided by that of `finetune`
in the same round; reported is the median. Passes are the examples that gradients and masks were taken of, or
that a model was asked about, in a run with the method's defaults, relative to the training data.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from statistics import median
from time import process_time
from typing import Any, cast

import torch
from rows import write_json
from timed_rounds import make_parser, turns

from unweave.bench.peak_memory import STATUS, read_sizes
from unweave.data.in_memory import Resident
from unweave.descent.timing import warm_up
from unweave.methods import DEFAULT, Method, method_named, methods_for
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.problem import Problem
from unweave.record.record import environment
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.tasks.models import build

N, FORGOTTEN = 1280, 3
SHORT, LONG = 24, 72
BASE = "finetune"


@dataclass(frozen=True)
class Run:
    """What a run spent.

    Args:
        seconds: Of CPU time.
        gradients: Gradient evaluations.
        passes: Examples over those of the training data.
    """

    seconds: float
    gradients: int
    passes: float


def problem() -> Problem:
    """Always the same weights and data; one of ten classes is to be forgotten."""
    torch.manual_seed(0)
    train, held_out = images(N), images(N // 4)
    forget = (train.labels == FORGOTTEN).nonzero()[:, 0]
    split = Split(train, forget, held_out)
    return Problem(Classifier(10), build("conv", 10, {}), split, torch.Generator().manual_seed(0))


def images(n: int) -> Resident:
    """Images of 28 x 28 random pixels."""
    return Resident(
        torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8),
        torch.arange(n) % 10,
        mean=(0.5,),
        std=(0.25,),
    )


def of_length(method: Method, steps: int) -> Method:
    """The method with this number of steps and without recovery; itself if it has no steps."""
    if isinstance(method, Pipeline):
        stages = zip(method.names, method.stages, strict=True)
        parts = {name: of_length(each, steps) for name, each in stages if not isinstance(each, Recover)}
        return Pipeline(*parts.values(), names=tuple(parts))
    names = {field.name for field in fields(cast(Any, method))}
    if "how" not in names:
        return method
    how = replace(cast(Any, method).how, steps=steps, epochs=None)
    return replace(cast(Any, method), how=how)


def measure_run(method: Method) -> Run:
    """One run from fresh weights."""
    request = problem()
    start = process_time()
    method(request)
    seconds = process_time() - start
    return Run(seconds, request.cost.gradients, request.cost.examples / N)


def per_step(method: Method) -> tuple[float, float]:
    """Seconds of a step, and of all that is no step; NaN and the whole where a method has none."""
    short, long = measure_run(of_length(method, SHORT)), measure_run(of_length(method, LONG))
    if short.gradients == long.gradients:
        return float("nan"), short.seconds
    step = (long.seconds - short.seconds) / (LONG - SHORT)
    return step, short.seconds - SHORT * step


def rounds_of(methods: Mapping[str, Method], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """The two times of every method, one pair per round; each round begins with another method."""
    names = list(methods)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for name in turns(names, rounds):
        times[name].append(per_step(methods[name]))
    return times


def peak(method: Method) -> float | None:
    """MiB that a short run needs beyond model and data. For a fresh process."""
    torch.set_num_threads(1)
    warm_up()
    request, short = problem(), of_length(method, SHORT)
    before = read_sizes(STATUS)
    short(request)
    return (read_sizes(STATUS)["VmHWM"] - before["VmRSS"]) / 2**20 if before else None


def alone(method: Method) -> float | None:
    """The peak in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak, method).result()


def row(method: Method, times: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]) -> dict:
    """What is reported of one method."""
    run = measure_run(method)
    ratios = [mine / theirs for (mine, _), (theirs, _) in zip(times, base, strict=True)]
    before = [mine / theirs for (_, mine), (theirs, _) in zip(times, base, strict=True)]
    return {
        "step": median(step for step, _ in times),
        "step_ratio": median(ratios),
        "besides_in_steps": median(before),
        "peak_mib": alone(method),
        "passes": run.passes,
        "gradient_evaluations": run.gradients,
        "told": method.about.step,
    }


def measure(names: Sequence[str] | None, rounds: int) -> dict[str, Any]:
    """Every method, or the named ones with the base."""
    all_of_them = {DEFAULT: method_named(DEFAULT), **methods_for("classifier")}
    runnable = {name: method for name, method in all_of_them.items() if name != "original"}
    methods = {name: method for name, method in runnable.items() if names is None or name in {*names, BASE}}
    measure_run(methods[BASE])  # the first run of a process allocates and imports
    times = rounds_of(methods, rounds)
    rows = {name: row(method, times[name], times[BASE]) for name, method in methods.items()}
    return {"base": BASE, "rounds": rounds, "methods": rows, "environment": environment()}


def table(results: Mapping[str, Any]) -> str:
    """The rows as text."""
    lines = [f"relative to a step of {results['base']}, {results['rounds']} rounds"]
    for name, each in results["methods"].items():
        memory = "unknown" if each["peak_mib"] is None else f"{each['peak_mib']:.0f} MiB"
        lines.append(
            f"  {name:<16} step {each['step_ratio']:5.2f}  besides {each['besides_in_steps']:6.1f} steps  "
            f"{memory:>8}  {each['passes']:5.1f} passes"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints; keeps a record if there is `--record`."""
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("--methods", help="names with commas between; all if left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.methods and arguments.methods.split(","), arguments.rounds)
    write_json(arguments.record, results)
    print(table(results))


if __name__ == "__main__":
    main()
