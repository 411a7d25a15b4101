"""Two audits at the same time share one folder of retrained models: they take turns at each model."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from torch import nn

import unweave
from trainer import make_split
from unweave.audits.attack import Attack, Examiner, Subject
from unweave.audits.classifier.exam import ClassifierExam
from unweave.audits.reference_files import ReferenceFiles
from unweave.audits.references import Retrain, load_or_retrain

TURN = 0.5
"""Seconds in which a second audit that did not wait would have trained."""


@pytest.fixture
def split() -> unweave.Split:
    return make_split()


def test_the_second_audit_waits_and_reads_what_the_first_trained(split, tmp_path, caplog) -> None:
    exam, first_trains, second_trains = ClassifierExam(split), Event(), Event()

    def slow(dataset, seed: int) -> nn.Module:
        first_trains.set()
        second_trains.wait(TURN)
        return nn.Linear(4, 2)

    def other(dataset, seed: int) -> nn.Module:
        second_trains.set()
        return nn.Linear(4, 2)

    def answer(train) -> str:
        reference = Retrain(train, folder=tmp_path, code="one")
        return exam.fingerprint(load_or_retrain(reference, split, 0, exam).outputs)

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(2) as threads:
        first = threads.submit(answer, slow)
        assert first_trains.wait(30)
        assert threads.submit(answer, other).result(30) == first.result(30)
    assert not second_trains.is_set()
    assert "waiting for another audit" in caplog.text and str(tmp_path) in caplog.text


def test_a_model_that_fails_to_train_lets_the_next_audit_in(split, tmp_path) -> None:
    exam = ClassifierExam(split)

    def broken(dataset, seed: int) -> nn.Module:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        load_or_retrain(Retrain(broken, folder=tmp_path, code="one"), split, 0, exam)
    reference = Retrain(lambda dataset, seed: nn.Linear(4, 2), folder=tmp_path, code="one")
    assert load_or_retrain(reference, split, 0, exam).outputs.finite


def attack(name: str, examine) -> Attack:
    return Attack(
        name=name, paper="", evidence="", tier=0, fewest=1, says="", cannot="", examine=examine
    )  # fmt: skip


def test_attacks_of_two_audits_are_both_kept(split, tmp_path) -> None:
    exam, examining, other_done = ClassifierExam(split), Event(), Event()
    reference = Retrain(lambda dataset, seed: nn.Linear(4, 2), folder=tmp_path, code="one")
    load_or_retrain(reference, split, 0, exam)
    original = nn.Linear(4, 2)

    def slow(subject: Subject) -> dict[str, list[float]]:
        examining.set()
        other_done.wait(TURN)
        return {"slow": [1.0]}

    def quick(subject: Subject) -> dict[str, list[float]]:
        other_done.set()
        return {"quick": [2.0]}

    def examine(one: Attack) -> None:
        load_or_retrain(reference, split, 0, exam, examiner=Examiner([one], {}, original))

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(examine, attack("one", slow))
        assert examining.wait(30)
        threads.submit(examine, attack("two", quick)).result(30)
        first.result(30)
    (file,) = tmp_path.rglob("attacks-*.json")
    assert json.loads(file.read_text()) == {"one": {"slow": [1.0]}, "two": {"quick": [2.0]}}


def test_without_models_the_answers_and_what_attacks_need_are_stored(split, tmp_path) -> None:
    exam, seeds = ClassifierExam(split), []

    def train(dataset, seed: int) -> nn.Module:
        seeds.append(seed)
        return nn.Linear(4, 2)

    reference = Retrain(train, folder=tmp_path, code="one", keep_models=False)
    one, two = (
        attack(name, lambda subject: {"weight": [subject.model.weight[0, 0].item()]}) for name in "ab"
    )
    original = nn.Linear(4, 2)

    def load(*attacks: Attack):
        return load_or_retrain(reference, split, 0, exam, examiner=Examiner(attacks, {}, original))

    first = load(one)
    assert load(one).measurements == first.measurements
    assert seeds == [0] and not [*tmp_path.rglob("model.*")]
    with pytest.raises(ValueError, match=r"the attack b needs the retrained models.*delete that file"):
        load(one, two)
    (facts,) = tmp_path.glob("*.json")
    facts.unlink()
    assert load(one, two).measurements["a"] == load(two).measurements["b"] and seeds == [0, 0]


def test_a_model_of_an_earlier_training_goes_with_its_facts(split, tmp_path) -> None:
    exam = ClassifierExam(split)
    load_or_retrain(Retrain(lambda data, seed: nn.Linear(4, 2), folder=tmp_path, code="one"), split, 0, exam)
    (facts,) = tmp_path.glob("*.json")
    facts.unlink()
    reference = Retrain(lambda data, seed: nn.Linear(4, 2), folder=tmp_path, code="one", keep_models=False)
    load_or_retrain(reference, split, 0, exam)
    assert ReferenceFiles(facts, reference.digest).read(exam).outputs.finite
    assert not [*tmp_path.rglob("model.*")]


def test_what_is_stored_is_read_where_no_lock_can_be_made(split, tmp_path) -> None:
    exam = ClassifierExam(split)
    reference = Retrain(lambda data, seed: nn.Linear(4, 2), folder=tmp_path, code="one")
    first = load_or_retrain(reference, split, 0, exam)
    assert not [*tmp_path.glob("*.lock")]
    (facts,) = tmp_path.glob("*.json")
    facts.with_suffix(".lock").mkdir()  # no user can open it to write, as in a folder of another user
    second = load_or_retrain(reference, split, 0, exam)
    assert exam.fingerprint(second.outputs) == exam.fingerprint(first.outputs)
    facts.unlink()
    with pytest.raises(ValueError, match="expected a folder that retrained models can be written to"):
        load_or_retrain(reference, split, 0, exam)


def test_a_folder_that_can_not_be_made_is_refused(split, tmp_path) -> None:
    (tmp_path / "file").touch()
    reference = Retrain(lambda data, seed: nn.Linear(4, 2), folder=tmp_path / "file" / "new", code="one")
    with pytest.raises(ValueError, match="retrained models can be written to, found .*new .*Not a directory"):
        load_or_retrain(reference, split, 0, ClassifierExam(split))


def test_a_training_that_fails_leaves_no_file(split, tmp_path) -> None:
    def train(data, seed):
        raise RuntimeError("no memory")

    reference = Retrain(train, folder=tmp_path / "new" / "references", code="one")
    with pytest.raises(RuntimeError, match="no memory"):
        load_or_retrain(reference, split, 0, ClassifierExam(split))
    assert not [*tmp_path.iterdir()]
