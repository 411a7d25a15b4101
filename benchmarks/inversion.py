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
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from class_probes import probe_class
from torch import Tensor, nn

from unweave.audits.attacks.inversion import Search, is_nearest, recover, update_between
from unweave.audits.attacks.label_inference import label_from_probes
from unweave.audits.attacks.last_layer_bias import label_from_bias
from unweave.audits.attacks.update_alignment import loss_gradient
from unweave.audits.classifier.collect import logits_of
from unweave.audits.score import Share
from unweave.bench.recipe import Recipe, load
from unweave.bench.split_data import make_split
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.methods import Method, method_named
from unweave.methods.defences import Obfuscate, Prune
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.simple import GradientAscent
from unweave.problem import Problem
from unweave.record.files import write_atomically
from unweave.record.record import environment
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights.params import Params, norm, scale

Row = dict[str, Any]
STAGE = "digits-clean"
STEP = GradientAscent(how=replace(GradientAscent().how, steps=1, batch=512))
DEFENCES: Mapping[str, Method] = {
    "noise of 0.3 %": Obfuscate(0.003),
    "noise of 3 %": Obfuscate(0.03),
    "pruned by 30 %": Prune(0.3),
    "pruned by 70 %": Prune(0.7),
    "fine-tuned, 1 epoch": Recover(how=Descent(lr=0.01, epochs=1)),
}
METHODS = ("ascent", "neggrad+", "salun", "scissorhands", "lur", "lur:recover")
DELETIONS: Mapping[str, Method] = {
    "one ascent step": STEP,
    **{f"one ascent step, {name}": Pipeline(STEP, each) for name, each in DEFENCES.items()},
    **{name: method_named(name) for name in METHODS},
}
RETRAIN, NORM, OTHER = "retrain", "control: equal norm on retain data", "control: another record"
CONTROLS = (NORM, OTHER)
PRIVATE = (16, 64, 128, 256, 512)
"""The numbers of private records of the paper's exact deletion; the last two take more than one step."""
SHARES = (0.1, 0.5, 1.0)
KNOWN = "1, label known"
DECOYS = 99
TOGETHER = 40
"""Records that are deleted in groups of 2 to 40; a larger group is one."""


@dataclass(frozen=True)
class Lab:
    """A stage with its original, and the search of the attacker.

    Args:
        recipe: The stage.
        iterations: Steps of each restart of the search.
        out: The folder of trained nets and results.
    """

    recipe: Recipe
    iterations: int
    out: Path

    @cached_property
    def whole(self) -> Split:
        """The data of the stage."""
        return make_split(self.recipe.data, family=self.recipe.family)

    @cached_property
    def inputs(self) -> Tensor:
        """The inputs of all training examples."""
        source = self.whole.train
        (raw,) = source.stream([torch.arange(len(source))])
        assert isinstance(raw.inputs, tuple)
        return raw.inputs[0]

    @property
    def labels(self) -> Tensor:
        """The labels of all training examples."""
        return self.whole.train.labels

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return 1 + int(self.labels.max())

    @cached_property
    def original(self) -> nn.Module:
        """The net trained on all examples."""
        return self.train(self.whole, "mixed")

    @cached_property
    def search(self) -> Search:
        """The search of the attacker, within the range of the inputs."""
        return Search(
            iterations=self.iterations, least=float(self.inputs.min()), most=float(self.inputs.max())
        )

    @property
    def image(self) -> Sequence[int]:
        """The shape in which an input is an image."""
        shape = self.inputs.shape[1:]
        return shape if len(shape) == 3 else (1, 8, 8)

    def build(self) -> nn.Module:
        """A net with fresh weights."""
        return self.recipe.build(self.n_classes)

    def train(self, split: Split, part: Literal["mixed", "retain"]) -> nn.Module:
        """A net of seed 0."""
        return train_model(self.recipe.train, self.build, split, part, 0).model

    def split(self, forget: Sequence[int]) -> Split:
        """The data with another forget set."""
        return Split(
            self.whole.train, list(forget), self.whole.held_out, calibration=self.whole.calibration.tolist()
        )

    def delete(self, name: str, forget: Sequence[int]) -> nn.Module:
        """The net after a deletion."""
        split, model = self.split(forget), copy.deepcopy(self.original)
        if name == RETRAIN:
            return self.train(split, "retain")
        draws = torch.Generator().manual_seed(0)
        problem = Problem(
            Classifier(self.n_classes), model, split, draws, self.build, caller_model=self.original
        )
        DELETIONS[name](problem)
        return model

    def accuracy(self, model: nn.Module) -> float:
        """The accuracy on held-out examples, in percent."""
        test = (self.whole.held_out, self.whole.test)
        logits = logits_of(model.eval(), test, "cpu")
        return 100 * float((logits.argmax(1) == self.whole.held_out.labels[self.whole.test].numpy()).mean())

    def decoys(self, record: int, forget: Sequence[int]) -> Tensor:
        """Other records of its class that were not deleted, 99 or as many as there are."""
        same = (self.labels == self.labels[record]).nonzero()[:, 0]
        return self.inputs[same[~torch.isin(same, torch.tensor([record, *forget]))][:DECOYS]]


def attack(
    lab: Lab,
    model: nn.Module,
    update: Params,
    forget: Sequence[int],
    victims: Sequence[int],
    *,
    label_known: bool,
) -> Row:
    """Reconstructs what was deleted, and looks for the victims in it."""
    labels, bias = lab.labels[list(forget)], list(update.values())[-1]
    inferred = label_from_bias(bias)
    known = labels if label_known else torch.tensor([inferred])
    found = recover(model, update, known, lab.inputs.shape[1:], image=lab.image, search=lab.search).inputs
    hits, errors, chance = [], [], []
    for record in victims:
        ours = found if len(forget) == 1 else found[labels == lab.labels[record]]
        decoys = lab.decoys(record, forget)
        hits.append(is_nearest(ours, lab.inputs[record], decoys))
        errors.append(float((ours - lab.inputs[record]).flatten(1).square().mean(1).min()))
        chance.append(1 / (1 + len(decoys)))
    shown = found[0].flatten().tolist() if len(forget) == 1 else []
    return {
        "hits": hits,
        "psnr": [10 * float(np.log10((lab.search.most - lab.search.least) ** 2 / each)) for each in errors],
        "chance": chance,
        "label": inferred == int(labels[0]) if len(forget) == 1 else None,
        "shown": [round(each, 2) for each in shown],
    }


def invert(lab: Lab, name: str, forget: Sequence[int], *, label_known: bool) -> Row:
    """Deletes records, and attacks the update."""
    after = lab.delete("one ascent step" if name in CONTROLS else name, forget)
    update, victims = update_between(lab.original, after), forget
    if name == NORM:
        retain, draws = lab.split(forget).retain, torch.Generator().manual_seed(forget[0])
        drawn = retain[torch.randperm(len(retain), generator=draws)[:16]]
        gradient = loss_gradient(lab.original.eval(), (lab.inputs[drawn],), lab.labels[drawn])
        update = scale(gradient, float(norm(update)) / float(norm(gradient)))
    if name == OTHER:
        same = (lab.labels == lab.labels[forget[0]]).nonzero()[:, 0].tolist()
        victims = [next(each for each in same if each not in forget)]
    if "pruned" in name:
        weights = dict(after.named_parameters())
        update = {each: change * (weights[each] != 0) for each, change in update.items()}
    found = attack(lab, lab.original, update, forget, victims, label_known=label_known)
    return {"accuracy": lab.accuracy(after), **found}


def invert_exact(lab: Lab, n: int, record: int) -> Row:
    """The paper's exact deletion of one of N private records on which a public net was fine-tuned."""
    order = torch.randperm(len(lab.labels), generator=torch.Generator().manual_seed(2))
    half = order[: len(order) // 2]
    public, private = half[half != record], order[len(order) // 2 :]
    private = torch.cat([torch.tensor([record]), private[private != record][: n - 1]])
    before = lab.train(lab.split([i for i in order.tolist() if i not in set(public.tolist())]), "retain")
    after = [fine_tune(before, lab.inputs[rows], lab.labels[rows]) for rows in (private, private[1:])]
    whole, without = (update_between(before, each) for each in after)
    update = {name: -(n * whole[name] - (n - 1) * without[name]) for name in whole}
    found = attack(lab, before, update, [record], [record], label_known=False)
    return {"accuracy": lab.accuracy(after[1]), **found}


def fine_tune(model: nn.Module, inputs: Tensor, labels: Tensor) -> nn.Module:
    """An epoch of plain gradient descent, in batches of 128 and at the paper's rate."""
    after = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD(after.parameters(), 1e-3)
    for x, y in zip(inputs.split(128), labels.split(128), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(after(x), y).backward()
        optimizer.step()
    return after


def infer_class(lab: Lab, name: str, label: int, share: float) -> Row:
    """Deletes a share of a class, and infers the class by queries, and from the last bias."""
    same = (lab.labels == label).nonzero()[:, 0]
    after = lab.delete(name, same[: max(1, round(share * len(same)))].tolist())
    before, now = (answer_probes(lab, each) for each in (lab.original, after))
    bias = list(update_between(lab.original, after).values())[-1]
    return {"queries": label_from_probes(before, now) == label, "bias": label_from_bias(bias) == label}


@torch.no_grad()
def answer_probes(lab: Lab, model: nn.Module) -> Tensor:
    """The probability of each class for the probes of that class; the probes are found on the original."""
    probes, model = all_probes(lab), model.eval()
    return torch.stack([model(each).softmax(1)[:, label] for label, each in enumerate(probes)])


def all_probes(lab: Lab) -> Tensor:
    """The probes of every class, kept in the folder."""
    path = lab.out / f"{lab.recipe.name}-probes.npy"
    if not path.exists():

        @torch.no_grad()
        def answer(inputs: Tensor) -> Tensor:
            return lab.original.eval()(inputs).softmax(1)

        shape, low, high = lab.inputs.shape[1:], lab.search.least, lab.search.most
        found = [probe_class(answer, k, shape, least=low, most=high) for k in range(lab.n_classes)]
        np.save(path, torch.stack(found).numpy())
    return torch.from_numpy(np.load(path))


def deletions(lab: Lab, counts: Sequence[int], records: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Every part of the study: the name of its file, and what makes it."""
    order = torch.randperm(len(lab.labels), generator=torch.Generator().manual_seed(1)).tolist()
    for n in counts:
        groups = [order[i * n : (i + 1) * n] for i in range(records if n == 1 else max(1, TOGETHER // n))]
        for name in (*DELETIONS, RETRAIN, *CONTROLS) if n == 1 else (*DELETIONS, NORM):
            for index, forget in enumerate(groups):
                key, known = f"{n} together/{name}/{index}", n > 1
                yield key, partial(invert, lab, name, forget, label_known=known)
        if n == 1:
            for name, (index, forget) in product((*DELETIONS, RETRAIN, NORM), enumerate(groups)):
                yield f"{KNOWN}/{name}/{index}", partial(invert, lab, name, forget, label_known=True)
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


def summarize(found: Mapping[str, Row]) -> dict[str, dict[str, Row]]:
    """The figures of every row, over its files."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for key, each in found.items():
        part, name, _ = key.split("/")
        groups.setdefault((part, name), []).append(each)
    rows: dict[str, dict[str, Row]] = {}
    for (part, name), each in groups.items():
        rows.setdefault(part, {})[name] = classes_row(each) if part == "classes" else records_row(each)
    return rows


def records_row(found: Sequence[Row]) -> Row:
    """Of how many records; the interval is exact."""
    hits = [hit for each in found for hit in each["hits"]]
    share, labels = Share(sum(hits), len(hits), exact=True), [each["label"] for each in found]
    return {
        "re-identified": sum(hits),
        "records": len(hits),
        "low": round(share.low, 3),
        "high": round(share.high, 3),
        "chance": round(float(np.mean([c for each in found for c in each["chance"]])), 4),
        "labels": None if None in labels else sum(labels),
        "psnr": round(float(np.median([each for one in found for each in one["psnr"]])), 1),
        "accuracy": round(float(np.mean([each["accuracy"] for each in found])), 2),
    }


def classes_row(found: Sequence[Row]) -> Row:
    """Of how many classes."""
    return {"classes": len(found), **{how: sum(each[how] for each in found) for how in ("queries", "bias")}}


def draw(lab: Lab, found: Mapping[str, Row], path: Path, columns: int = 10) -> None:
    """A picture of the records, and below them what each deletion gave away."""
    from matplotlib.figure import Figure

    names = [*DELETIONS, RETRAIN, NORM]
    order = torch.randperm(len(lab.labels), generator=torch.Generator().manual_seed(1))[:columns]
    rows = {"deleted": [lab.inputs[i].view(lab.image)[0] for i in order]}
    for name in names:
        shown = [found[f"1 together/{name}/{i}"]["shown"] for i in range(columns)]
        rows[name] = [torch.tensor(each).view(lab.image)[0] for each in shown]
    figure = Figure(figsize=(columns * 0.62 + 2.2, len(rows) * 0.62))
    for i, (name, images) in enumerate(rows.items()):
        for j, each in enumerate(images):
            axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
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
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(asked.stage)
    if asked.data:
        recipe = replace(recipe, data=replace(recipe.data, folder=asked.data))
    lab, found = Lab(recipe, asked.iterations, asked.out), {}
    for key, make in deletions(lab, asked.counts, asked.records):
        path = asked.out / asked.stage / f"{key}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(make()) + "\n")
        found[key] = json.loads(path.read_text(encoding="utf-8"))
    rows = summarize(found)
    for part, each in rows.items():
        for name, row in each.items():
            print(f"{part:<12} {name:<38}", "  ".join(f"{key} {value}" for key, value in row.items()))
    if asked.picture:
        draw(lab, found, asked.picture)
    if asked.record:
        kept = json.loads(asked.record.read_text(encoding="utf-8")) if asked.record.exists() else {}
        stages = {**kept.get("stages", {}), asked.stage: {"iterations": asked.iterations, **rows}}
        record = {"stages": stages, "environment": environment()}
        write_atomically(asked.record, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
