"""`unweave.audit(result, Retrain(...), attacks=...)`: models are examined when they are trained, and once."""

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest
from torch import nn

import unweave
from trainer import Trainer, make_data
from unweave.audits.attack_runs.plan import Request, plan_attacks
from unweave.audits.classifier.prepare_attacks import attacked_exam
from unweave.audits.diffusion.exam import DiffusionExam
from unweave.audits.exam import Exam
from unweave.audits.references import Retrain
from unweave.descent.descend import Descent
from unweave.methods.simple import FineTune

HIDDEN = 12
ASKED = "representation,update-alignment,rmia"


@pytest.fixture
def result():
    dataset, test = make_data()
    split = unweave.Split(dataset, list(range(0, 60, 5)), test)
    return unweave.unlearn(Trainer(HIDDEN)(dataset, 0), split, FineTune(how=Descent(lr=0.1, steps=3)))


def audit(result, train, folder, attacks=ASKED):
    reference = Retrain(train, range(1, 3), [7, 8], folder=folder, code="15 steps")
    audit_result = unweave.audit(result, reference, attacks=attacks)
    return audit_result.record["stages"]["audit"]["attacks"]


def values(attacks) -> dict[tuple[str, str], float]:
    return {(row["attack"], row["figure"]): row["retrained"] for row in attacks["results"]}


def test_further_attacks_examine_the_stored_models_and_leave_earlier_numbers(result, tmp_path) -> None:
    train = Trainer(HIDDEN)
    plain_audit = unweave.audit(result, Retrain(train, range(1, 3), [7, 8], folder=tmp_path, code="15 steps"))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    attacks = audit(result, train, tmp_path)
    assert train.seeds == [1, 2, 7, 8]
    rows = {(row["attack"], row["figure"]): row for row in attacks["results"]}
    assert {attack for attack, _ in rows} == {*ASKED.split(",")} and attacks["tier"] == 1
    alignment = rows["update-alignment", "auc"]
    assert alignment["original"] is None and alignment["retrained"] is not None
    assert rows["representation", "few shots"]["original"] is not None
    measurements = {path: json.loads(path.read_text()) for path in tmp_path.rglob("attacks-*.json")}
    more_attacks = audit(result, train, tmp_path, attacks=f"{ASKED},zrf")
    other = replace(result, original=Trainer(HIDDEN)(result.split.train.dataset, 5))
    other_attacks = audit(other, train, tmp_path)
    assert train.seeds == [1, 2, 7, 8]
    assert values(attacks).items() <= values(more_attacks).items() and values(other_attacks) != values(
        attacks
    )
    assert all(path.read_bytes() == content for path, content in files.items())
    assert len(measurements) == 4 and len([*tmp_path.rglob("attacks-*.json")]) == 8
    for path, file_content in measurements.items():
        assert file_content.items() <= json.loads(path.read_text()).items()
    repeat = unweave.audit(result, Retrain(train, range(1, 3), [7, 8], folder=tmp_path, code="15 steps"))
    assert {name: each.value for name, each in repeat.scores.items()} == {
        name: each.value for name, each in plain_audit.scores.items()
    }


def test_a_stored_model_gives_the_figures_of_the_one_in_memory(result, tmp_path) -> None:
    attacks = f"{ASKED},relearning,compression"
    assert values(audit(result, Trainer(HIDDEN), tmp_path, attacks)) == values(
        audit(result, Trainer(HIDDEN), None, attacks)
    )


def test_answers_without_their_model_are_refused_only_where_an_attack_needs_it(result, tmp_path) -> None:
    audit(result, Trainer(HIDDEN), tmp_path, "rmia")
    for path in tmp_path.rglob("model.safetensors"):
        path.unlink()
    audit(result, Trainer(HIDDEN), tmp_path, "rmia")
    with pytest.raises(ValueError, match="representation needs the retrained models.*delete"):
        audit(result, Trainer(HIDDEN), tmp_path)


class Otherwise(Trainer):
    """Trains from other seeds."""

    def __call__(self, dataset, seed: int) -> nn.Module:
        return super().__call__(dataset, seed + 50)


def test_a_model_that_is_retrained_after_a_deletion_is_examined_again(result, tmp_path) -> None:
    audit(result, Trainer(HIDDEN), tmp_path)
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert values(audit(result, Otherwise(HIDDEN), tmp_path)) == values(
        audit(result, Otherwise(HIDDEN), None)
    )


def test_a_model_without_an_update_has_no_alignment_and_it_is_said(result, tmp_path) -> None:
    unchanged_result = replace(result, model=result.original)
    attacks = audit(unchanged_result, Trainer(HIDDEN), tmp_path)
    assert "a model without an update" in attacks["not_run"]["update-alignment"]


def test_attacks_on_a_generator_are_part_of_its_exam() -> None:
    exam = DiffusionExam.__new__(DiffusionExam)  # its kind is all that is asked
    with pytest.raises(ValueError, match="a tier and a budget are of attacks on classifiers"):
        attacked_exam(exam, Request(tier=1))
    with pytest.raises(ValueError, match="for classifiers and generators of images, found Mock"):
        attacked_exam(Mock(spec=Exam), Request())
    with pytest.raises(ValueError, match="the attack guidance is on generators of images"):
        plan_attacks(Request("guidance"), retrained=10, has_models=True)
    assert attacked_exam(exam, None) == (exam, None)
