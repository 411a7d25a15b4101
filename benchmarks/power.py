"""Does an audit tell a retrained model from the original? The verdicts of many audits of one stage.

    python benchmarks/power.py digits-clean digits-trace digits-class --record records/power.json
    python benchmarks/power.py --candidates --retrains 34 --originals 10 --audits 200 --record FILE
    python benchmarks/power.py fashion-mnist-class --data FOLDER --retrains 36 --record FILE
    python benchmarks/power.py digits-class --attacks default --record records/power.json

A stage is of use if a genuine retrain passes and the original fails. Retrained models and originals are
trained once, from seeds that no recipe uses. Each audit then draws at random 12 of the retrained models to
fix the margins, 10 as references, 10 others to be judged, and 10 originals. Where a class is forgotten,
originals whose last layer hides it are judged as well: its row is zero and its bias -15.

With --attacks the first model of each kind is also audited alone, as by `unweave audit`: without attacks
and with them, on the same draws. Such a row stands in the record beside that without attacks, and so does
one with another number of models that fix the margins.

Audits share models, so the shares are those of these models: with few of them one audit is much like the
next. Models are kept in a folder, and a run that is interrupted goes on from there.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from power_attacks import Attacker
from power_audits import Draw, audit, draw
from power_models import CANDIDATES, FIRST_SEED, Change, Models, models_of, stage_of
from rows import Row, write_json

from unweave.audits.attack_runs.plan import Request
from unweave.audits.attack_runs.verdict import judge_with_attacks
from unweave.audits.margins import RETRAINS
from unweave.audits.metrics import Values
from unweave.audits.verdict import SEEDS, Judgement, Verdict
from unweave.bench.stage import Stage
from unweave.record.files import read_object
from unweave.record.record import environment

COMMON = 4
"""How many reasons of a kind are printed."""


def attacked_verdicts(models: Models, draws: Sequence[Draw], attacker: Attacker) -> Row:
    """The verdicts on one model of each kind, as of a user who has one: without attacks and with them."""
    first = [{kind: [some[0]] * SEEDS for kind, some in each.judged.items()} for each in draws]
    single = [replace(each, judged=numbers) for each, numbers in zip(draws, first, strict=True)]
    plain_judgements = [audit(models, each) for each in single]
    attacked_judgements = [
        {kind: judge_with_attacks(each, attacker.attack(kind, one)) for kind, each in judgements.items()}
        for judgements, one in zip(plain_judgements, single, strict=True)
    ]
    return {
        "ran": [each.name for each in attacker.plan.attacks],
        "without": by_kind(plain_judgements),
        "verdicts": by_kind(attacked_judgements),
    }


def by_kind(judgements: Sequence[Mapping[str, Judgement]]) -> dict[str, Row]:
    """The summary of each kind of model."""
    return {kind: summary([each[kind] for each in judgements]) for kind in judgements[0]}


def summary(judgements: Sequence[Judgement]) -> Row:
    """The share of each verdict, the reasons of all that is no PASS, and how far out the models are.

    Distances are in margins, the 5 % quantile and the median over audits.
    """
    verdicts = Counter(str(each.verdict) for each in judgements)
    reasons = Counter(reason(each) for each in judgements if each.verdict != Verdict.PASS)
    margins = {name: [each.tests[name].margins for each in judgements] for name in judgements[0].tests}
    return {
        "share": {str(verdict): verdicts[str(verdict)] / len(judgements) for verdict in Verdict},
        "reasons": dict(reasons.most_common()),
        "margins_out": {
            name: [round(float(np.quantile(each, q)), 2) for q in (0.05, 0.5)]
            for name, each in margins.items()
        },
    }


def reason(judgement: Judgement) -> str:
    """The first clause of a verdict's reason, without its numbers."""
    return re.sub(r"-?\d+(\.\d+)?", "#", re.split(r"; |\. ", judgement.reason)[0])


def row_of(stage: Stage, change: Change, arguments: argparse.Namespace) -> Row:
    """The verdicts on one stage.

    Raises:
        ValueError: If there are fewer models than an audit draws.
    """
    retrains, originals = arguments.retrains, arguments.originals
    if retrains < arguments.calibration + 2 * SEEDS or originals < SEEDS:
        raise ValueError(
            f"an audit draws {arguments.calibration + 2 * SEEDS} retrained models and {SEEDS} originals, "
            f"found {retrains} and {originals}: train more"
        )
    start = time.process_time()
    models, rng = models_of(stage, retrains, originals), np.random.default_rng(0)
    draws = [draw(models, rng, arguments.calibration) for _ in range(arguments.audits)]
    verdicts = by_kind([audit(models, each) for each in draws])
    attack_facts = {}
    if arguments.attacks:
        verdicts_of_one = attacked_verdicts(models, draws, Attacker(models, arguments.attacks))
        attack_facts = {"attacks": arguments.attacks, "attacked": verdicts_of_one}
    table = stage.recipe.table()
    data = {key: value for key, value in table["data"].items() if key != "folder"}
    return {
        "stage": stage.recipe.name,
        "change": change,
        "recipe": {"data": data, "model": table["model"], "train": table["train"]},
        "models": {"retrained": retrains, "original": originals, "first seed": FIRST_SEED},
        "audits": arguments.audits,
        **({} if arguments.calibration == RETRAINS else {"calibration": arguments.calibration}),
        "cpu_seconds": round(time.process_time() - start, 1),
        "means": {kind: means(group) for kind, group in models.alone.items()},
        "verdicts": verdicts,
        **attack_facts,
        "environment": environment(),
    }


def means(group: Sequence[Values]) -> dict[str, list[float]]:
    """Mean and standard deviation over models, of the metrics of one model."""
    values = {name: [each[name] for each in group] for name in group[0]}
    return {
        name: [round(float(np.mean(each)), 3), round(float(np.std(each)), 3)] for name, each in values.items()
    }


def printed(row: Row) -> str:
    """The shares of a row as text."""
    change = json.dumps(row["change"]) if row["change"] else "as it ships"
    lines = [f"{row['stage']}, {change}"]
    tables = {"": row["verdicts"]}
    if "attacks" in row:
        tables["one model, "] = row["attacked"]["without"]
        tables[f"one model, attacks {row['attacks']}, "] = row["attacked"]["verdicts"]
    for title, table in tables.items():
        for kind, each in table.items():
            shares = ", ".join(f"{100 * share:.1f} % {verdict}" for verdict, share in each["share"].items())
            lines.append(f"  {title}{kind:<10} {shares}; margins out {each['margins_out']}")
            lines += [f"    {count} x {text}" for text, count in [*each["reasons"].items()][:COMMON]]
    return "\n".join(lines)


def keep(row: Row, place: Path) -> None:
    """Puts a row into a record, in the place of an earlier one of the same audits."""
    rows = read_object(place)["rows"] if place.exists() else []
    identity = {key: row.get(key) for key in ("stage", "change", "attacks", "calibration")}
    rows = [each for each in rows if {key: each.get(key) for key in identity} != identity]
    record = {"question": (__doc__ or "").splitlines()[0], "rows": [*rows, row]}
    write_json(place, record)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="names of recipes that ship, or TOML files")
    parser.add_argument(
        "--candidates", action="store_true", help="instead, what was tried for them, or for all"
    )
    parser.add_argument("--retrains", type=int, default=60, help="how many retrained models")
    parser.add_argument("--calibration", type=int, default=RETRAINS, help="how many of them fix the margins")
    parser.add_argument("--originals", type=int, default=20, help="how many originals")
    parser.add_argument("--audits", type=int, default=500, help="how many audits")
    parser.add_argument(
        "--attacks", help="default, all, or names such as rmia: audit single models with these"
    )
    parser.add_argument("--data", help="the folder of the data set, if it needs one")
    parser.add_argument("--folder", type=Path, default=Path("power"), help="where models are kept")
    parser.add_argument("--record", type=Path, help="the file that the rows are added to")
    arguments = parser.parse_args()
    if arguments.attacks:
        Request(arguments.attacks)  # an unknown name is refused before any training
    torch.set_num_threads(1)
    work: Mapping[str, Sequence[Change]] = {name: [{}] for name in arguments.recipes}
    if arguments.candidates:
        work = {name: CANDIDATES[name] for name in arguments.recipes or CANDIDATES}
    for name, change in [(name, each) for name, changes in work.items() for each in changes]:
        row = row_of(stage_of(name, change, arguments.folder, arguments.data), change, arguments)
        print(printed(row), flush=True)
        if arguments.record:
            keep(row, arguments.record)


if __name__ == "__main__":
    main()
