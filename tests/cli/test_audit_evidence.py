"""`unweave audit --evidence`: a model that unweave never saw, by its answers alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unweave
from audits.answers import draw_evidence
from cli.written import names, stage_of
from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.split import PARTS

N = 200
SIZES = {"forget": N, "retain": 2 * N, "calibration": N, "test": N}


def like_the_others(seed: int, lift: float = 0.0) -> Evidence:
    """What a model answers that differs from others by noise alone; `lift`: what it still knows of F."""
    base, noise_rng = draw_evidence(0, SIZES), np.random.default_rng(seed)
    logits = {
        part: each + noise_rng.normal(scale=0.05, size=each.shape).astype(np.float32)
        for part, each in base.logits.items()
    }
    logits["forget"][np.arange(N), base.labels["forget"]] += lift
    return replace(base, logits=logits)


RETRAINED = [like_the_others(seed) for seed in (*range(10), *range(100, 112))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Files of a model, of its original, and of few or 22 retrained models without leading zeros."""
    folder = tmp_path_factory.mktemp("evidence")
    for name, n in (("reference", len(RETRAINED)), ("few", 11), ("two", 2)):
        (folder / name).mkdir()
        for number in range(n):
            parquet.save(RETRAINED[number], folder / name / f"seed {number}.parquet")
    parquet.save(like_the_others(50), folder / "good.parquet")
    parquet.save(like_the_others(51, lift=3.0), folder / "original.parquet")
    return folder


@pytest.fixture
def audited(run, here, saved):
    """Audits one of the models; returns the exit code and what was said."""

    def call(name: str, *flags: object, reference: str = "reference"):
        return run("audit", "--evidence", saved / f"{name}.parquet", "--reference", saved / reference, *flags)

    return call


def test_a_model_like_the_retrained_ones_passes_with_code_0_and_the_figures_of_python(audited, here, saved):
    result = audited("good", "--json", "--original", saved / "original.parquet")
    content = json.loads(result.out)
    # by name the last twelve, where 2 comes before 10
    expected = unweave.audit(
        like_the_others(50),
        RETRAINED[:10],
        calibration=RETRAINED[10:],
        original=like_the_others(51, lift=3.0),
    )
    assert result.code == 0 and content["verdict"] == expected.verdict == "PASS"
    assert content["reason"] == expected.reason
    assert content["scores"].keys() == expected.scores.keys()
    for name, score in expected.scores.items():
        for key in ("value", "reference", "gap"):
            figure = content["scores"][name][key]
            assert (np.nan if figure is None else figure) == pytest.approx(getattr(score, key), nan_ok=True)
    (stage,) = expected.record["stages"].values()
    assert content["margins"] == pytest.approx(stage["margins"])
    assert stage_of(here / "unweave-audit")["margins"] == content["margins"]


def test_fewer_than_22_references_are_all_compared_with(audited):
    content = json.loads(audited("good", "--json", reference="few").out)
    assert content["verdict"] == "INCONCLUSIVE" and content["scores"]["tv"]["n"] == 11
    assert "0 calibration retrains, 12 needed" in content["reason"] and content["margins"] is None


def test_a_file_of_another_program_in_any_order_gives_the_same_figures(audited, here, saved):
    first_content = json.loads(audited("good", "--json", reference="two").out)
    table = pq.read_table(saved / "good.parquet").replace_schema_metadata(None)
    order = np.random.default_rng(0).permutation(len(table))
    logits = table["logits"].cast(pa.list_(pa.float64()))
    other = pa.table({"logits": logits, "id": table["id"], "note": table["part"], "part": table["part"]})
    pq.write_table(other.append_column("label", table["label"]).take(order), here / "elsewhere.parquet")
    content = json.loads(audited(here / "elsewhere", "--json", reference="two").out)
    assert content["out"] != first_content["out"] and content["reason"] == first_content["reason"]
    for name, score in first_content["scores"].items():
        assert content["scores"][name]["value"] == pytest.approx(score["value"])


def test_a_label_of_which_nothing_is_retained_counts_as_forgotten_whole(run, here):
    folder = here / "reference"
    folder.mkdir()
    for seed in range(3):
        parquet.save(without_class_0(RETRAINED[seed]), folder / f"{seed}.parquet")
    parquet.save(without_class_0(like_the_others(50)), here / "model.parquet")
    assert parquet.load(here / "model.parquet").forgotten_classes == ()
    content = json.loads(run("audit", "--evidence", "model.parquet", "--reference", folder, "--json").out)
    evidence = parquet.load(here / "unweave-audit" / "evidence.parquet")
    is_right = {part: evidence.logits[part].argmax(1) == evidence.labels[part] for part in PARTS}
    is_other_class = evidence.labels["test"] != 0
    assert evidence.forgotten_classes == (0,)
    assert content["scores"]["ta"]["value"] == pytest.approx(100 * is_right["test"][is_other_class].mean())
    assert content["scores"]["ua"]["value"] == pytest.approx(100 * (1 - is_right["forget"].mean()))


def without_class_0(evidence: Evidence) -> Evidence:
    """The same answers where all of class 0, and nothing else, is to be forgotten."""
    rows = {part: evidence.labels[part] != 0 for part in PARTS}
    rows |= {"forget": ~rows["forget"], "calibration": np.full(N, True), "test": np.full(N, True)}
    fields = [
        {part: each[part][rows[part]] for part in PARTS}
        for each in (evidence.logits, evidence.labels, evidence.ids)
    ]
    logits, labels, ids = fields
    return Evidence(logits, labels, ids)


def test_the_same_files_go_to_the_same_folder_and_others_to_a_numbered_one(audited, here, listed):
    audited("good", reference="two")
    assert names(here / "unweave-audit") == ["evidence.parquet", "record.json", "report.html", "run.json"]
    audited("good", reference="two")
    assert names(here) == ["unweave-audit"]
    files = listed(here)
    assert "Report: unweave-audit-2/report.html" in audited("original", reference="two").out
    assert files.items() <= listed(here).items()
