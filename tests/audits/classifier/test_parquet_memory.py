"""Files of evidence are written, read and digested in pieces."""

import hashlib
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from audits.answers import SIZES, draw_evidence
from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.exam import ANSWERED

CLASSES, RETAIN = 64, 25_000
SIZE = 4 * CLASSES * RETAIN
"""The bytes of the logits."""


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return draw_evidence(0, {**SIZES, "retain": RETAIN}, classes=CLASSES)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", SIZE // 16)
    return tmp_path / "evidence.parquet"


def peak(work, *given) -> int:
    """The most bytes that numpy, Python and Arrow hold at once beyond what they held before."""
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work(*given)
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_writing_copies_a_group_of_rows_at_once(evidence, path):
    assert peak(parquet.save, evidence, path) < SIZE / 2
    assert pq.ParquetFile(path).num_row_groups > 16


def test_reading_takes_the_result_and_a_piece(evidence, path):
    parquet.save(evidence, path)
    assert SIZE < peak(parquet.load, path) < 2 * SIZE


def test_a_file_in_one_group_of_rows_is_read_in_pieces(evidence, path):
    parquet.save(evidence, path)
    pq.write_table(pq.read_table(path), path, row_group_size=10**6)
    assert pq.ParquetFile(path).num_row_groups == 1
    assert SIZE < peak(parquet.load, path) < 2 * SIZE


def test_reading_a_part_takes_little(evidence, path):
    parquet.save(evidence, path)
    assert peak(parquet.load_unseen, path) < SIZE / 2


def test_the_digest_of_logits_copies_none(evidence):
    bytes_by_name = b"".join(evidence.logits[part].tobytes() for part in sorted(evidence.logits))
    assert ANSWERED.fingerprint(evidence) == hashlib.sha256(bytes_by_name).hexdigest()
    assert peak(ANSWERED.fingerprint, evidence) < SIZE / 100


def test_the_digest_is_that_of_rows_in_order(evidence):
    columns = {part: np.asfortranarray(logits) for part, logits in evidence.logits.items()}
    assert ANSWERED.fingerprint(replace(evidence, logits=columns)) == ANSWERED.fingerprint(evidence)


@pytest.mark.parametrize("group", [7, 10**6])
def test_groups_of_rows_make_no_difference(tmp_path, monkeypatch, group):
    monkeypatch.setattr(parquet, "GROUP", 16 * group)
    names = {part: np.array([f"{part}/{i}" for i in range(n)]) for part, n in SIZES.items()}
    evidence, path = replace(draw_evidence(0), ids=names), tmp_path / "evidence.parquet"
    parquet.save(evidence, path)
    found = parquet.load(path)
    for part in SIZES:
        assert (found.logits[part] == evidence.logits[part]).all()
        assert (found.labels[part] == evidence.labels[part]).all()
        assert (found.ids[part] == evidence.ids[part]).all()


def test_ids_that_are_objects_have_one_type_in_all_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 16 * 7)
    numbers = {
        part: np.array([0.5 * i if i > 10 else i for i in range(n)], object) for part, n in SIZES.items()
    }
    evidence, path = replace(draw_evidence(0), ids=numbers), tmp_path / "evidence.parquet"
    parquet.save(evidence, path)
    assert pq.read_table(path)["id"].type == "double"


def test_rows_in_any_order_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 16 * 30)
    evidence, path = draw_evidence(0), tmp_path / "evidence.parquet"
    parquet.save(evidence, path)
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(order), path, row_group_size=70)
    found = parquet.load(path).like(evidence)
    assert all((found.logits[part] == evidence.logits[part]).all() for part in SIZES)
    assert all((found.labels[part] == evidence.labels[part]).all() for part in SIZES)
