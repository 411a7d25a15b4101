"""The function `audit`: one model and retrained models; the verdict comes first, missing parts are named."""

import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import unweave
from audits.answers import draw_evidence
from folders import contents
from for_each import for_each
from trainer import Trainer, build, make_data
from unweave.audits.answers import Answers
from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.exam import ANSWERED, ClassifierExam
from unweave.audits.classifier.metrics import METRICS, measure
from unweave.audits.references import Retrain, refuse_no_reference
from unweave.audits.verdict import Verdict
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.methods.simple import FineTune
from unweave.record import record
from unweave.tasks.diffusion import Diffusion

SIZES = {"forget": 200, "retain": 400, "calibration": 200, "test": 200}


def make_evidence(seed: int, noise: float = 0.05, lift: float = 0.0) -> Evidence:
    """A model that agrees with those of other seeds but for a little noise; `lift`: what it knows of F."""
    base, generator = draw_evidence(0, SIZES), np.random.default_rng(seed)
    logits = {
        part: each + generator.normal(scale=noise, size=each.shape).astype(np.float32)
        for part, each in base.logits.items()
    }
    logits["forget"][np.arange(SIZES["forget"]), base.labels["forget"]] += lift
    return replace(base, logits=logits)


REFERENCES = [make_evidence(seed) for seed in range(10)]
CALIBRATION = [make_evidence(seed) for seed in range(100, 112)]


def test_a_retrained_model_passes_and_the_untouched_original_fails() -> None:
    original = make_evidence(51, lift=3.0)
    retrained_audit = unweave.audit(make_evidence(50), REFERENCES, calibration=CALIBRATION, original=original)
    assert retrained_audit.verdict is Verdict.PASS, retrained_audit.reason
    original_audit = unweave.audit(original, REFERENCES, calibration=CALIBRATION, original=original)
    assert original_audit.verdict is Verdict.FAIL and "under-forgetting" in original_audit.reason


def test_copies_are_no_references() -> None:
    with pytest.raises(ValueError, match="same answers in numbers 3 and 9: does train"):
        unweave.audit(make_evidence(50), [*REFERENCES[:9], REFERENCES[3]], calibration=CALIBRATION)


def test_calibration_of_another_request_is_refused() -> None:
    classes = CALIBRATION[0].n_classes
    other_calibration = [
        replace(each, labels={**each.labels, "forget": (each.labels["forget"] + 1) % classes})
        for each in CALIBRATION
    ]
    with pytest.raises(ValueError, match="another label in the reference"):
        unweave.audit(make_evidence(50), REFERENCES, calibration=other_calibration)


def test_nothing_to_forget_is_not_a_pass() -> None:
    audit = unweave.audit(make_evidence(50), REFERENCES, calibration=CALIBRATION, original=make_evidence(51))
    assert audit.verdict is Verdict.INCONCLUSIVE and "no measurable influence" in audit.reason


@for_each(
    ("references", "calibration", "reasons"),
    [
        ([], [], ["no retrained model", "0 calibration retrains, 12 needed"]),
        (REFERENCES[:4], CALIBRATION, ["4 seeds, 10 needed"]),
        (REFERENCES, CALIBRATION[:11], ["11 calibration retrains, 12 needed"]),
        (REFERENCES, [], ["0 calibration retrains, 12 needed"]),
    ],
)
def test_what_is_missing_is_named(references, calibration, reasons) -> None:
    audit = unweave.audit(make_evidence(50), references, calibration=calibration)
    assert audit.verdict is Verdict.INCONCLUSIVE
    assert all(part in audit.reason for part in reasons), audit.reason


def test_a_figure_of_one_model_has_no_interval_and_is_its_own_value() -> None:
    evidence = make_evidence(50)
    audit = unweave.audit(evidence, REFERENCES, calibration=CALIBRATION)
    own_values = measure(evidence)
    for name, value in own_values.items():
        score = audit.scores[name]
        assert (score.value, score.n) == (pytest.approx(value), 1) and np.isnan([score.low, score.high]).all()
    pairs = [measure(evidence, other)["tv"] for other in REFERENCES]
    assert audit.scores["tv"].value == pytest.approx(np.mean(pairs)) and audit.scores["tv"].n == 10
    assert {name for name, metric in METRICS.items() if metric.needs_reference} <= set(audit.scores)


def test_the_original_stands_beside_the_model_where_it_is_known() -> None:
    model, original = make_evidence(50), make_evidence(51, lift=3.0)
    audit = unweave.audit(model, REFERENCES, calibration=CALIBRATION, original=original)
    rows = audit.record["stages"]["audit"]["methods"]
    assert list(rows) == ["original", "model"] and rows["original"]["verdict"] == "FAIL"
    other = unweave.audit(original, REFERENCES, calibration=CALIBRATION, original=original).scores
    assert {name: score["value"] for name, score in rows["original"]["scores"].items()} == {
        name: pytest.approx(score.value, nan_ok=True) for name, score in other.items()
    }
    plain_audit = unweave.audit(model, REFERENCES, calibration=CALIBRATION)
    assert list(plain_audit.record["stages"]["audit"]["methods"]) == ["model"]
    assert plain_audit.scores.keys() == audit.scores.keys()


def test_the_verdict_is_printed_first_and_everything_is_saved(tmp_path) -> None:
    audit = unweave.audit(
        make_evidence(50), REFERENCES, calibration=CALIBRATION, original=make_evidence(51, lift=3.0)
    )
    assert str(audit).startswith("PASS: ") and "TV on F" in str(audit)
    audit.save(tmp_path / "out")
    assert record.load(tmp_path / "out")["stages"]["audit"]["methods"]["model"]["verdict"] == "PASS"
    assert "PASS" in (tmp_path / "out" / "report.html").read_text()
    saved_evidence = parquet.load(tmp_path / "out" / "evidence.parquet")
    assert np.array_equal(saved_evidence.logits["forget"], audit.evidence.logits["forget"])


@pytest.fixture
def result():
    dataset, test = make_data()
    split = unweave.Split(dataset, (dataset.tensors[1] == 2).nonzero()[:, 0], test)
    return unweave.unlearn(Trainer()(dataset, 0), split, FineTune(how=Descent(lr=0.1, steps=3)))


def test_references_are_trained_without_what_is_forgotten(result) -> None:
    train = Trainer()
    audit = unweave.audit(result, Retrain(train, seeds=range(2), calibration_seeds=(7, 8, 9)))
    assert train.calls == [(len(result.split.retain), seed) for seed in (0, 1, 7, 8, 9)]
    assert "2 seeds, 10 needed; 3 calibration retrains, 12 needed" in audit.reason
    assert {"probe", "silhouette", "relearn"} <= set(audit.scores)  # a whole class is forgotten


def test_an_interrupted_audit_goes_on(result, tmp_path) -> None:
    train = Trainer()
    first = unweave.audit(result, Retrain(train, range(2), range(7, 9), folder=tmp_path, code="15 steps"))
    audit = unweave.audit(result, Retrain(train, range(3), range(7, 9), folder=tmp_path, code="15 steps"))
    assert [seed for _, seed in train.calls] == [0, 1, 7, 8, 2]
    assert first.scores["probe"].reference is not None
    assert audit.record["stages"]["audit"]["reference"]["scores"]["probe"]["n"] == 3


OWN = """
import torch
from sizes import HIDDEN
from torch import nn

ASKED = []


def train(dataset, seed):
    ASKED.append(seed)
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))
"""


def own_train(folder: Path, monkeypatch: pytest.MonkeyPatch, hidden: int = 8, end: str = "") -> ModuleType:
    """A user's module in a new process: its file, and another one that it imports."""
    folder.mkdir(exist_ok=True)
    (folder / "sizes.py").write_text(f"HIDDEN = {hidden}\n")
    (folder / "training.py").write_text(OWN + end)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("sizes", "training"):  # set before they are deleted: undone, both are gone again
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return importlib.import_module("training")


def test_references_of_the_same_code_are_read_by_a_new_process(result, tmp_path, monkeypatch) -> None:
    for seeds in ([0, 7, 8], []):
        mine = own_train(tmp_path / "mine", monkeypatch)
        unweave.audit(result, Retrain(mine.train, range(1), [7, 8], folder=tmp_path / "kept"))
        assert seeds == mine.ASKED


def test_progress_goes_to_the_log_alone(result, caplog, capsys) -> None:
    with caplog.at_level("INFO", logger="unweave"):
        unweave.audit(result, Retrain(Trainer(), seeds=range(2), calibration_seeds=(7, 8)))
    assert [each.getMessage() for each in caplog.records if each.name == "unweave.auditing"] == [
        f"retrained model {number} of 4 (seed {seed})" for number, seed in enumerate((0, 1, 7, 8), start=1)
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", [{"hidden": 9}, {"end": "# by another rate\n"}])
def test_references_of_another_train_are_refused(result, tmp_path, monkeypatch, change) -> None:
    mine = own_train(tmp_path / "mine", monkeypatch)
    unweave.audit(result, Retrain(mine.train, range(1), [7, 8], folder=tmp_path / "kept"))
    other = own_train(tmp_path / "mine", monkeypatch, **change)
    before = contents(tmp_path / "kept")
    with pytest.raises(
        ValueError, match=r"answers of a model that another train\(\) made: .* another folder"
    ):
        unweave.audit(result, Retrain(other.train, range(1), [7, 8], folder=tmp_path / "kept"))
    assert not other.ASKED
    assert contents(tmp_path / "kept") == before


def test_another_train_of_the_same_file_is_refused(result, tmp_path, monkeypatch) -> None:
    second = "\n\ndef other(dataset, seed):\n    return train(dataset, seed + 50)\n"
    mine = own_train(tmp_path / "mine", monkeypatch, end=second)
    unweave.audit(result, Retrain(mine.train, range(1), [7, 8], folder=tmp_path / "kept"))
    with pytest.raises(ValueError, match=r"answers of a model that another train\(\) made"):
        unweave.audit(result, Retrain(mine.other, range(1), [7, 8], folder=tmp_path / "kept"))


def test_another_name_of_the_code_is_another_train(result, tmp_path) -> None:
    train = Trainer()
    unweave.audit(result, Retrain(train, range(1), [7, 8], folder=tmp_path, code="15 steps"))
    with pytest.raises(ValueError, match="another train"):
        unweave.audit(result, Retrain(train, range(1), [7, 8], folder=tmp_path, code="16 steps"))


def make_closure(rate: float):
    return lambda dataset, seed: Trainer()(dataset, seed) if rate else build()


def make_default(rate: float):
    return lambda dataset, seed, rate=rate: Trainer()(dataset, seed) if rate else build()


@pytest.mark.parametrize(
    ("train", "kind"),
    [
        (Trainer(), "an object of Trainer"),
        (partial(own_train, hidden=3), "an object of partial"),
        (make_closure(0.1), "a function with values of its own: rate"),
        (make_default(0.1), "a function with values of its own: rate"),
        (eval("lambda dataset, seed: None"), "a function in '<string>', which is no file"),
    ],
)
def test_a_train_whose_code_no_file_tells_needs_a_name_to_be_kept(tmp_path, train, kind) -> None:
    with pytest.raises(ValueError, match=f"found {kind}.*code="):
        Retrain(train, folder=tmp_path)
    Retrain(train)
    Retrain(train, folder=tmp_path, code="rate 0.1")


def test_what_can_not_be_audited_is_refused(result) -> None:
    with pytest.raises(ValueError, match="expected data to retrain on, found evidence alone"):
        unweave.audit(make_evidence(0), Retrain(Trainer()))
    with pytest.raises(ValueError, match=r"found \[3, 4\] in both"):
        Retrain(Trainer(), range(5), range(3, 20))
    smaller_evidence = draw_evidence(0, {part: size - 10 for part, size in SIZES.items()})
    with pytest.raises(ValueError, match="part 'forget' must hold the same examples"):
        unweave.audit(smaller_evidence, REFERENCES)


def test_what_is_no_reference_is_refused(result) -> None:
    for reference, type_name in ((Trainer(), "Trainer"), (build(), "Sequential"), ([build()], "Sequential")):
        with pytest.raises(ValueError, match=f"must be Retrain.train., .* found {type_name}: wrap"):
            refuse_no_reference(reference)
    with pytest.raises(Failed, match="must return an nn.Module, found NoneType"):
        unweave.audit(result, Retrain(lambda dataset, seed: None, seeds=[0]))


def test_a_model_that_answers_nan_fails_by_name() -> None:
    nan_evidence = make_evidence(0)
    nan_evidence.logits["test"][0, 0] = float("nan")
    audit = unweave.audit(nan_evidence, REFERENCES, calibration=CALIBRATION)
    assert audit.verdict is Verdict.FAIL and "NaN" in audit.reason


class Silent(nn.Module):
    """Answers NaN, with weights that are finite."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * float("nan")


@pytest.mark.parametrize(("field", "name"), [("model", "unlearned"), ("original", "original")])
def test_a_model_without_answers_is_named_before_anything_is_retrained(result, field: str, name: str) -> None:
    train = Trainer()
    with pytest.raises(ValueError, match=f"^the {name} model can't be audited: NaN: the logits contain NaN"):
        unweave.audit(replace(result, **{field: Silent()}), Retrain(train))
    assert not train.calls


class Both(nn.Module):
    """Holds the original and answers as a retrained model."""

    def __init__(self, known: nn.Module, shown: nn.Module) -> None:
        super().__init__()
        self.known, self.shown = known, shown

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shown(x)


def test_a_model_with_more_weights_than_the_original_is_refused_before_anything_is_retrained(result) -> None:
    train = Trainer()
    with pytest.raises(ValueError, match=r"tensor '0.weight' must be \[8, 6\], found absent: .* can hold"):
        unweave.audit(replace(result, model=Both(result.original, build())), Retrain(train))
    assert not train.calls


def test_a_retrained_model_without_answers_is_named_by_its_seed(result) -> None:
    def train(dataset, seed: int) -> nn.Module:
        return Silent() if seed == 1 else build()

    with pytest.raises(Failed, match="^the model retrained with seed 1: NaN: the logits contain NaN"):
        unweave.audit(result, Retrain(train, seeds=range(3), calibration_seeds=()))


def test_a_retrained_model_with_other_logits_is_named_before_the_next_is_trained(result, tmp_path) -> None:
    seeds = []

    def train(dataset, seed: int) -> nn.Module:
        seeds.append(seed)
        return nn.Linear(6, 5)

    sentence = "^the model retrained with seed 0 gives 5 logits per example, and the audited one 3: train"
    with pytest.raises(Failed, match=sentence):
        unweave.audit(result, Retrain(train, seeds=range(3), folder=tmp_path, code="wide"))
    assert seeds == [0] and list(tmp_path.iterdir()) == []


def test_answers_hold_the_probes() -> None:
    assert Answers(make_evidence(0), {"probe": 3.0}).measure(ANSWERED)["probe"] == 3.0


def test_the_function_and_the_modules_share_a_name() -> None:
    from unweave.audits.score import Score

    assert callable(unweave.audit) and callable(unweave.unlearn)
    assert isinstance(unweave.audit(make_evidence(0)).scores["ua"], Score)


def test_a_generator_without_an_exam_is_refused_with_what_to_pass(result) -> None:
    denoiser = replace(result, task=Diffusion(3))
    with pytest.raises(ValueError, match=r"a generator needs an exam.*DiffusionFamily\(attacks=25\)\.exam"):
        unweave.audit(denoiser)


def test_references_are_read_under_the_same_exam_alone(result, tmp_path) -> None:
    train = Trainer()
    reference = Retrain(train, range(1), [7, 8], folder=tmp_path, code="15 steps")
    unweave.audit(result, reference)
    unweave.audit(result, reference, exam=Otherwise(result.split))
    assert [seed for _, seed in train.calls] == [0, 7, 8] * 2


class Otherwise(ClassifierExam):
    digest = "0123"


def test_the_cost_of_forgetting_stands_beside_that_of_a_retraining(result, tmp_path) -> None:
    for _ in range(2):  # trained, then read
        audit = unweave.audit(result, Retrain(Trainer(), range(2), [7, 8], folder=tmp_path, code="15 steps"))
        (stage,) = audit.record["stages"].values()
        reference, row = stage["reference"], stage["methods"]["FineTune"]
        assert reference["gradient_evaluations"] == 15 and reference["seconds"] > 0
        assert row["cost"] == pytest.approx(row["seconds"] / reference["seconds"])
        assert (row["gradient_evaluations"], row["seconds"]) == (3, result.cost.seconds)


def test_answers_that_an_earlier_version_kept_without_a_train_are_refused(result, tmp_path) -> None:
    reference = Retrain(Trainer(), range(2), [7, 8], folder=tmp_path, code="15 steps")
    unweave.audit(result, reference)
    for path in tmp_path.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())["probes"]))
    with pytest.raises(ValueError, match=r"has the answers of a model that another train\(\) made"):
        unweave.audit(result, reference)


def test_the_record_says_what_was_deleted_and_from_which_model(result) -> None:
    (stage,) = unweave.audit(result).record["stages"].values()
    ids = result.split.forget.tolist()
    assert stage["request"] == {
        "examples": len(ids), "of": 60, "ids": ids[:5], "classes": {"2": len(ids)},
        "model": "Sequential", "asked": None, "date": None,
    }  # fmt: skip
    (stage,) = unweave.audit(draw_evidence(0)).record["stages"].values()
    forget = draw_evidence(0).labels["forget"]
    counts = {str(label): int((forget == label).sum()) for label in range(4)}
    assert stage["request"]["classes"] == counts
    assert (stage["request"]["examples"], stage["request"]["of"]) == (100, 400)
    assert stage["request"]["ids"] == [0, 1, 2, 3, 4]
