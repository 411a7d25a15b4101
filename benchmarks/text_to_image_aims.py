"""The aims of the study of text-to-image models: how far each run falls short of them.

Each aim is tested run by run, against the original and the retrained model of the same concept and seed. The
row "second retrained", a retrained model of another seed, shows how often chance alone misses an aim.
"""

from collections.abc import Mapping
from typing import Any

from aims import Count, count_met, write_count
from erase_tables import table

AIMS: Mapping[str, str] = {
    "concept": "points of UA",
    "neighbours": "points of RA",
    "quality": "KID",
    "share": "of a retraining above a tenth",
    "attacks": "points",
    "relearning": "steps",
}
"""The aims, with the unit of their shortfall, which is zero or less where a run meets the aim."""

ATTACKS: Mapping[str, str] = {
    "asked": "asked",
    "prompt": "best prompt",
    "guidance": "guidance",
    "unasked": "no prompt",
    "best_of_10": "best of 10",
    "concept_vector": "concept vector",
    "picture": "picture",
    "vector": "vector",
    "token": "token",
    "prefix": "prefix",
    "eight_bits": "8 bits",
    "old_words": "old words",
    "dropped": "no adapter",
}
"""The attacks, with their titles: shares of images that show the concept, in percent."""

RELEARNED = ("relearn_10", "relearn_10_old_words")
"""Steps of relearning, with the model's own text encoder and with that of the original."""

Run = Mapping[str, Any]


def shortfalls(run: Run, original: Run, retrained: Run, steps: int) -> dict[str, float]:
    """How far a run falls short of each aim that was measured.

    Args:
        run: The run.
        original: The run of the original of its concept and seed.
        retrained: That of the model retrained without the concept.
        steps: The gradients of a retraining.
    """
    values, before, expected = (each["values"] for each in (run, original, retrained))
    result = {
        "concept": expected["ua"] - values["ua"],
        "neighbours": before["ra_neighbours"] - values["ra_neighbours"] - 1,
        "quality": values["kid"] - original["kid interval"][1],
        "relearning": expected["relearn_10"] / 2 - min(values[name] for name in RELEARNED if name in values),
    }
    if "gradients" in run:
        result["share"] = run["gradients"] / steps - 0.1
    # a retrained model has no addition to drop: then as often as it shows the concept when asked
    gains = [values[name] - expected.get(name, expected["asked"]) for name in ATTACKS if name in values]
    return result | ({"attacks": max(gains)} if gains else {})


def tabulate(runs: Mapping[str, Any], steps: int) -> dict[str, dict[str, dict[str, Count]]]:
    """By factor, method and aim: how many runs meet it, of how many, and the mean and the largest shortfall.

    Args:
        runs: Runs by factor, value, seed and method. A run that failed meets no aim.
        steps: The gradients of a retraining.
    """
    return {
        factor: {name: count_met(rows, AIMS) for name, rows in by_method(values, steps).items()}
        for factor, values in runs.items()
    }


def by_method(values: Mapping[str, Any], steps: int) -> dict[str, list[dict[str, float] | None]]:
    """The shortfalls of the runs of each method of a factor; None for a run that failed."""
    rows: dict[str, list[dict[str, float] | None]] = {}
    for seeds in values.values():
        for methods in seeds.values():
            references = methods["original"], methods["retrained"]
            for name, run in methods.items():
                if name not in ("original", "retrained"):
                    each = None if run["failed"] else shortfalls(run, *references, steps)
                    rows.setdefault(name, []).append(each)
    return rows


def print_aims(counts: Mapping[str, Mapping[str, Mapping[str, Count]]]) -> None:
    """Prints, for each factor in Markdown, the runs that meet an aim, and the mean shortfall."""
    for factor, methods in counts.items():
        titles = [f"{aim}, {unit}" for aim, unit in AIMS.items()]
        rows = {name: [write_count(row.get(aim)) for aim in AIMS] for name, row in methods.items()}
        print(f"\n{factor}\n\n{table(titles, rows)}")
