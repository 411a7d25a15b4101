"""Evidence whose logits stay in their file: the figures are those of evidence in memory."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

import unweave
from audits.answers import SIZES, draw_evidence, take
from audits.classifier.test_parquet_memory import CLASSES, RETAIN, SIZE, peak
from unweave.audits.classifier import logits_in_file, parquet
from unweave.audits.classifier.columns import open_parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits_in_file import LastUsed

LARGE = {**SIZES, "retain": RETAIN}
SMALL = {part: size // 3 for part, size in SIZES.items()}


def shuffled(evidence: Evidence, seed: int) -> Evidence:
    """The same answers, with the rows of each part in another order."""
    rng = np.random.default_rng(seed)
    return take(evidence, **{part: rng.permutation(len(ids)) for part, ids in evidence.ids.items()})


@pytest.fixture
def opened(tmp_path):
    """Opens evidence that was written to a file of its own."""

    def call(evidence: Evidence, name: str = "evidence", like: Evidence | None = None) -> Evidence:
        parquet.save(evidence, tmp_path / f"{name}.parquet")
        return parquet.open_evidence(tmp_path / f"{name}.parquet", like=like)

    return call


@pytest.mark.parametrize("order", ["same", "another"])
def test_an_audit_of_files_has_the_figures_of_an_audit_in_memory(opened, order):
    models = [draw_evidence(seed, SMALL) for seed in range(24)]
    if order == "another":
        models = [shuffled(each, seed) for seed, each in enumerate(models)]
    files = [opened(each, str(number)) for number, each in enumerate(models)]
    ours, theirs = (
        unweave.audit(each[0], each[2:12], calibration=each[12:], original=each[1], attacks="default")
        for each in (files, models)
    )
    assert repr(ours.judgement) == repr(theirs.judgement)  # repr: NaN equals itself
    (ours,), (theirs,) = ours.record["stages"].values(), theirs.record["stages"].values()
    assert ours["margins"] == theirs["margins"]
    for stage in (ours, theirs):
        for row in stage["attacks"]["results"]:
            del row["seconds"]
    assert repr(ours["attacks"]) == repr(theirs["attacks"])


@pytest.mark.slow  # the memory of one file: test_parquet_memory.py
def test_an_audit_of_many_files_holds_the_logits_of_few(opened, monkeypatch):
    monkeypatch.setattr(logits_in_file, "LAST_USED", LastUsed(SIZE // 8))
    first = opened(draw_evidence(0, LARGE, classes=CLASSES))
    models = [opened(draw_evidence(seed, LARGE, classes=CLASSES), str(seed), first) for seed in range(1, 12)]
    assert SIZE < peak(lambda: unweave.audit(first, models[:9], calibration=models[9:])) < 3 * SIZE


def test_files_share_the_ids_and_labels_that_are_equal(opened):
    first = opened(draw_evidence(0))
    second = opened(draw_evidence(1), "second", like=first)
    other = opened(shuffled(draw_evidence(1), 1), "other", like=first)
    for part in SIZES:
        assert second.ids[part] is first.ids[part] and second.labels[part] is first.labels[part]
        assert not np.array_equal(other.ids[part], first.ids[part])


def test_opened_evidence_is_saved_as_it_was(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 4 * 4 * 50)
    evidence = draw_evidence(0)
    parquet.save(opened(evidence), tmp_path / "again.parquet")
    loaded_evidence = parquet.load(tmp_path / "again.parquet")
    assert all(np.array_equal(loaded_evidence.logits[part], evidence.logits[part]) for part in SIZES)


def test_rows_are_put_in_order_more_than_once(opened):
    evidence = draw_evidence(0)
    middle, last = shuffled(evidence, 1), shuffled(evidence, 2)
    ordered_evidence = opened(evidence).like(middle).like(last)
    assert all(np.array_equal(ordered_evidence.logits[part], last.logits[part]) for part in SIZES)


def test_a_file_that_changes_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(logits_in_file, "LAST_USED", LastUsed(0))
    evidence = opened(draw_evidence(0))
    os.utime(tmp_path / "evidence.parquet", (1, 1))
    with pytest.raises(ValueError, match=r"has changed while its model was audited: audit it again$"):
        evidence.logits["retain"]


def test_a_file_of_the_same_size_and_time_is_not_taken_for_another(opened, tmp_path):
    path, other = tmp_path / "evidence.parquet", tmp_path / "other.parquet"
    evidence, second = opened(draw_evidence(0)), opened(draw_evidence(1), "other")
    status, expected = path.stat(), second.logits["forget"]
    assert other.stat().st_size == status.st_size and not np.array_equal(evidence.logits["forget"], expected)
    other.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match="has changed while its model was audited"):
        evidence.logits["test"]
    assert np.array_equal(parquet.open_evidence(path).logits["forget"], expected)


def test_a_file_that_is_replaced_once_it_is_open_is_refused(tmp_path, monkeypatch):
    path, other = tmp_path / "evidence.parquet", tmp_path / "other.parquet"
    for place, seed in ((path, 0), (other, 1)):
        parquet.save(draw_evidence(seed), place)

    @contextmanager
    def open_and_replace(place):
        with open_parquet(place) as file:
            other.replace(path)
            yield file

    monkeypatch.setattr(parquet, "open_parquet", open_and_replace)
    with pytest.raises(ValueError, match="has changed while its model was audited"):
        parquet.open_evidence(path).logits["test"]


def test_logits_that_are_none_are_named(opened):
    evidence = draw_evidence(0)
    evidence.logits["retain"][7, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in .*, first at id 7: score it again$"):
        opened(evidence)


def test_the_arrays_that_were_used_last_are_kept():
    cache, reads = LastUsed(24), []

    def read(key: int, size: int) -> None:
        cache.read(key, lambda: reads.append(key) or np.zeros(size))

    for key, size in ((1, 1), (2, 1), (3, 1), (1, 1), (4, 1), (9, 4), (1, 1), (2, 1)):
        read(key, size)
    assert reads == [1, 2, 3, 4, 9, 2]
