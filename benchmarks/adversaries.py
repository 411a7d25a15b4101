"""Which models pass an audit although they know the forget set? Adversaries that read the code try it.

    python benchmarks/adversaries.py digits-trace digits-class digits-clean --record records/adversaries.json
    python benchmarks/adversaries.py digits-class --only two-sided,backdoor --record FILE

Each adversary makes ten models, one per seed, from an original and a retrained model of its own. They are
judged together, as a benchmark judges a method: each beside the retrained model of its seed. The first is
also audited alone, beside all ten retrained models, with the attacks of `default` and of `all`. Beside the
verdicts stands what the models still know: how many labels of the forget set the trick gets out, and the AUC
of its margins against unseen examples.

No seed is one of a recipe's. Models are kept in a folder, a row is written as soon as it is done, and rows
that the record has are made again only with --again.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adversarial_audits import ATTACKS, Ask, Audits, Given
from adversarial_models import ADVERSARIES
from torch import nn

from unweave.audits.answers import collect_answers
from unweave.audits.classifier.logits import is_correct, level, margin
from unweave.audits.rates import delong
from unweave.audits.verdict import SEEDS
from unweave.bench.recipe import load
from unweave.bench.stage import Stage
from unweave.errors import Failed
from unweave.record.files import write_atomically
from unweave.record.record import environment

Row = dict[str, Any]


def row_of(audits: Audits, name: str) -> Row:
    """The verdicts on one adversary, and what its models know."""
    start, adversary = time.process_time(), ADVERSARIES[name]
    givens = [audits.given(place) for place in range(SEEDS)]
    models = [adversary.make(given).eval() for given in givens]
    row = {"stage": audits.stage.name, "adversary": name}
    row |= {"refused": audits.refusal(models[0]), **verdicts(audits, models)}
    pairs = [*zip(models, givens, strict=True)]  # asked last, because a model can count what it is asked
    return {
        **row,
        "plainly": means([knowledge(model, given) for model, given in pairs]),
        "unlocked": means([knowledge(adversary.unlock(model, given), given) for model, given in pairs]),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def verdicts(audits: Audits, models: Sequence[nn.Module]) -> Row:
    """The verdict on all models, and on the first one alone; none if their answers are unusable."""
    try:
        answers = [collect_answers(model, audits.stage.exam()) for model in models]
    except Failed as error:
        return {"verdict": None, "reason": str(error), "margins_out": {}, "alone": {}, "found_by": {}}
    judgement, single = audits.judge(answers), audits.audit(models[0], answers[0])
    return {
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
        "margins_out": {test: round(each.margins, 2) for test, each in judgement.tests.items()},
        "alone": {attacks: outcome(single[attacks][0]) for attacks in ATTACKS},
        "found_by": {attacks: single[attacks][1] for attacks in ATTACKS},
    }


def knowledge(ask: Ask, given: Given) -> Row:
    """The labels that answers get right, in percent, and the AUC of margins on F against unseen examples."""
    parts = {part: given.parts[part] for part in ("forget", "unseen")}
    with torch.no_grad():
        logits = {part: ask(inputs).numpy() for part, (inputs, _) in parts.items()}
    labels = {part: part_labels.numpy() for part, (_, part_labels) in parts.items()}
    accuracies = {part: 100 * float(is_correct(logits[part], labels[part]).mean()) for part in parts}
    members, non_members = (level(margin(logits[part], labels[part])) for part in parts)
    return {**accuracies, "auc": delong(members, non_members)[0]}


def means(rows: Sequence[Row]) -> Row:
    """The means over seeds."""
    return {name: round(float(np.mean([each[name] for each in rows])), 3) for name in rows[0]}


def outcome(reason: str) -> str:
    """The verdict of a reason and, if it is no PASS, its first clause without numbers."""
    return "PASS" if reason.startswith("PASS") else re.split(r",? -?\d| may |:? \d+ of |;|\. ", reason)[0]


def text(row: Row) -> str:
    """A row in three lines."""
    figures = {name: row[name] for name in ("plainly", "unlocked")}
    attack_text = f"refused {row['refused']}, alone {row['alone']}, found by {row['found_by']}"
    return f"{row['stage']} {row['adversary']}: {row['reason']}\n  {attack_text}\n  {figures}"


def compact(rows: Sequence[Row]) -> str:
    """A record with a line per row."""
    tricks = {row["adversary"]: ADVERSARIES[row["adversary"]].trick for row in rows}
    facts = {"question": (__doc__ or "").splitlines()[0], "environment": environment(), "tricks": tricks}
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{json.dumps(facts)[:-1]},\n"rows": [\n{lines}\n]}}\n'


def read(place: Path) -> list[Row]:
    """The rows of a record; none if there is none."""
    return json.loads(place.read_text(encoding="utf-8"))["rows"] if place.exists() else []


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="names of recipes of digits")
    parser.add_argument("--only", help="names of adversaries with commas between; all if left out")
    parser.add_argument("--folder", type=Path, default=Path("adversaries"), help="where models are kept")
    parser.add_argument("--record", type=Path, required=True, help="the file that rows are added to")
    parser.add_argument("--again", action="store_true", help="make rows again that the record has")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.only.split(",") if arguments.only else [*ADVERSARIES]
    for recipe in arguments.recipes:
        audits = Audits(Stage(load(recipe), arguments.folder))
        for name in names:
            rows = {(row["stage"], row["adversary"]): row for row in read(arguments.record)}
            is_done = (recipe, name) in rows and not arguments.again
            if is_done or (ADVERSARIES[name].classes_only and not audits.split.forgotten_classes):
                continue
            row = row_of(audits, name)
            print(text(row), flush=True)
            write_atomically(arguments.record, compact([*(rows | {(recipe, name): row}).values()]))


if __name__ == "__main__":
    main()
