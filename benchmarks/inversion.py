"""What an attacker reads from the update of a deletion: the records, and their class.

    export OMP_NUM_THREADS=1
    python benchmarks/inversion.py --out inversion         # digits: half an hour of one core
    python benchmarks/inversion.py --out inversion --stage fashion-mnist-random10 --counts 1
    python benchmarks/inversion.py --out inversion --record records/inversion.json --picture FILE

The attacker knows the weights before and after. Records are drawn at random and deleted, one alone or N
together, by one ascent step and by methods with their default settings, alone and with a defence. Of N
records together the attacker knows the labels; of one record alone it infers the label from the last bias,
and in a further row knows it. A record is re-identified if its reconstruction is nearer to it than to 99
others of its class. Pruned weights are zero, so the attacker leaves them out. There are two controls, which
should be at chance: an update of equal norm from retain examples, and the deletion of another record.

Exact deletion has two forms: `retrain`, of the same seed, and the paper's, where a net trained on public data
is fine-tuned for an epoch on N private records, with and without the record.

The class of a deletion is inferred from queries alone, after a tenth, half and all of a class are deleted.
Each deletion is one small file in --out, and a second run goes on from there.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from inversion_attacks import infer_class, invert, invert_exact
from inversion_lab import CONTROLS, DELETIONS, METHODS, NORM, OTHER, RETRAIN, Lab
from rows import Row, write_json

from unweave.audits.score import Share
from unweave.bench.recipe import load
from unweave.record.files import read_object
from unweave.record.record import environment

STAGE = "digits-clean"
PRIVATE = (16, 64, 128, 256, 512)
"""The numbers of private records of the paper's exact deletion; the last two take more than one step."""
SHARES = (0.1, 0.5, 1.0)
LABEL_KNOWN = "1, label known"
TOGETHER = 40
"""Records that are deleted in groups of 2 to 40; a larger group is one."""


def deletions(lab: Lab, counts: Sequence[int], records: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Every part of the study: the name of its file, and what makes it."""
    order = lab.order(1).tolist()
    for n in counts:
        groups = [order[i * n : (i + 1) * n] for i in range(records if n == 1 else max(1, TOGETHER // n))]
        names = (*DELETIONS, RETRAIN, *(CONTROLS if n == 1 else (NORM,)))
        for name, (index, forget) in product(names, enumerate(groups)):
            yield f"{n} together/{name}/{index}", partial(invert, lab, name, forget, label_known=n > 1)
            if n == 1 and name != OTHER:
                yield f"{LABEL_KNOWN}/{name}/{index}", partial(invert, lab, name, forget, label_known=True)
    if lab.recipe.name != STAGE:
        return
    for size in PRIVATE:
        for index, record in enumerate(order[:records]):
            yield f"exact/{size} private records/{index}", partial(invert_exact, lab, size, record)
    for name in (*METHODS, RETRAIN):
        for share in SHARES:
            for label in range(lab.n_classes):
                key = f"classes/{name}, {share:g} of a class/{label}"
                yield key, partial(infer_class, lab, name, label, share)


def summarize(results: Mapping[str, Row]) -> dict[str, dict[str, Row]]:
    """The figures of every row, over its files."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for key, each in results.items():
        part, name, _ = key.split("/")
        groups.setdefault((part, name), []).append(each)
    rows: dict[str, dict[str, Row]] = {}
    for (part, name), each in groups.items():
        rows.setdefault(part, {})[name] = classes_row(each) if part == "classes" else records_row(each)
    return rows


def records_row(runs: Sequence[Row]) -> Row:
    """Of how many records; the interval is exact. Deletions that changed no weight give none away."""
    hits = [hit for each in runs for hit in each["hits"]]
    share, labels = Share(sum(hits), len(hits), exact=True), [each["label"] for each in runs]
    return {
        "re-identified": sum(hits),
        "records": len(hits),
        "low": round(share.low, 3),
        "high": round(share.high, 3),
        "chance": round(float(np.mean([c for each in runs for c in each["chance"]])), 4),
        "labels": None if None in labels else sum(labels),
        "psnr": round(float(np.median([each for one in runs for each in one["psnr"]])), 1),
        "accuracy": round(float(np.mean([each["accuracy"] for each in runs])), 2),
        "unchanged": sum(each.get("unchanged", False) for each in runs),
    }


def classes_row(runs: Sequence[Row]) -> Row:
    """Of how many classes."""
    return {"classes": len(runs), **{how: sum(each[how] for each in runs) for how in ("queries", "bias")}}


def draw(lab: Lab, results: Mapping[str, Row], path: Path, columns: int = 10) -> None:
    """A picture of the records, and below them what each deletion gave away."""
    from matplotlib.figure import Figure

    names = [*DELETIONS, RETRAIN, NORM]
    order = lab.order(1)[:columns]
    rows = {"deleted": [lab.inputs[i].view(lab.image)[0] for i in order]}
    for name in names:
        recoveries = [results[f"1 together/{name}/{i}"]["shown"] for i in range(columns)]
        rows[name] = [torch.tensor(each).view(lab.image)[0] if each else None for each in recoveries]
    figure = Figure(figsize=(columns * 0.62 + 2.2, len(rows) * 0.62))
    for i, (name, images) in enumerate(rows.items()):
        for j, each in enumerate(images):
            axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            if each is not None:
                axes.imshow(each, cmap="gray_r", vmin=lab.search.least, vmax=lab.search.most)
            axes.set_xticks([])
            axes.set_yticks([])
            if j == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=2.2 / figure.get_figwidth(), right=1, bottom=0, top=1, wspace=0, hspace=0)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("unweave-inversion"))
    parser.add_argument("--stage", default=STAGE)
    parser.add_argument("--data", help="the folder of the data, instead of the recipe's")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--record", type=Path, help="a JSON file; other stages in it stay")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(arguments.stage)
    if arguments.data:
        recipe = replace(recipe, data=replace(recipe.data, folder=arguments.data))
    lab, results = Lab(recipe, arguments.iterations, arguments.out), {}
    for key, make in deletions(lab, arguments.counts, arguments.records):
        path = arguments.out / arguments.stage / f"{key}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, make())
        results[key] = read_object(path)
    rows = summarize(results)
    for part, each in rows.items():
        for name, row in each.items():
            print(f"{part:<12} {name:<38}", "  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.picture:
        draw(lab, results, arguments.picture)
    if arguments.record:
        old_record = read_object(arguments.record) if arguments.record.exists() else {}
        stage = {"iterations": arguments.iterations, **rows, "environment": environment()}
        write_json(arguments.record, {"stages": {**old_record.get("stages", {}), arguments.stage: stage}})


if __name__ == "__main__":
    main()
