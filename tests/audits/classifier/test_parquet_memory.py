"""Files of evidence are written, read and digested in pieces."""

import hashlib
import tracemalloc

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


def peak(work, *arguments) -> int:
    """The most bytes that numpy, Python and Arrow hold at once beyond what they held before."""
    default_pool, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(default_pool)


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
