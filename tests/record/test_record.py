"""A record on the disk is whole, valid and the same as in memory; anything else is refused by name."""

import errno
import json
import math
import os
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from for_each import for_each
from records import few, put, synthetic, without
from unweave.record import record

LUR = ("stages", "trace", "methods", "lur")
UA = (*LUR, "scores", "ua")
# The issue fixes these keys; a change of the schema must change this list too.
METHOD = [
    "repr", "scores", "gap", "verdict", "reason", "seconds", "cost",
    "peak_mib", "gradient_evaluations", "trace", "failed"
]  # fmt: skip
SCORE = ["value", "low", "high", "n", "reference", "null_band", "gap", "direction"]
STAGE = ["recipe", "seeds", "data", "margins", "reference", "methods"]


def schema():
    return json.loads(Path(record.__file__).with_name("record.schema.json").read_text())


def test_the_schema_is_a_schema_of_its_draft_and_has_the_records_id():
    Draft202012Validator.check_schema(schema())
    assert schema()["$id"] == record.SCHEMA == "unweave.record/2"


def test_the_synthetic_record_follows_the_schema():
    record.validate(synthetic())


PARTS = {
    "classifier": ("ua", "ra", "ta", "mia"),
    "diffusion": ("ua", "ra", "class_tv"),
    "regression": ("ua", "error"),
}
FAMILY = ("stages", "trace", "family")


def of_family(family: str, parts: tuple[str, ...]):
    """A record that names a family, in which one method's gap has those parts."""
    rows = few()["stages"]["trace"]["methods"]
    methods = {name: row | {"gap": None} for name, row in rows.items() if name != "lur"}
    methods["lur"] = rows["lur"] | {"gap": rows["lur"]["gap"] | {"parts": dict.fromkeys(parts, 1.0)}}
    return put(put(few(), "stages", "trace", "methods", value=methods), *FAMILY, value=family)


@for_each("family", PARTS)
def test_the_family_of_a_stage_decides_the_parts_of_its_gaps(family):
    record.validate(of_family(family, PARTS[family]))


@for_each(
    ("family", "parts", "said"),
    [
        ("classifier", PARTS["diffusion"], "gap.parts"),
        ("diffusion", PARTS["classifier"], "gap.parts"),
        ("classifier", PARTS["regression"], "gap.parts"),
        ("diffusion", ("ua", "ra"), "class_tv"),
    ],
)
def test_the_parts_of_another_family_are_refused(family, parts, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        record.validate(of_family(family, parts))


@for_each(
    "path",
    [("schema",), ("environment",), ("stages",)]
    + [("stages", "trace", key) for key in STAGE]
    + [("stages", "trace", "reference", key) for key in ("scores", "null_band")]
    + [(*LUR, key) for key in METHOD]
    + [(*UA, key) for key in SCORE]
    + [(*LUR, "gap", key) for key in ("mean", "low", "high", "of_means", "parts")]
    + [(*LUR, "gap", "parts", key) for key in ("ua", "ra", "ta", "mia")],
)
def test_a_missing_key_is_refused_by_name(path):
    with pytest.raises(ValueError, match=re.escape(path[-1])):
        record.validate(without(few(), *path))


@for_each(
    "path",
    [
        (),
        ("stages", "trace"),
        ("stages", "trace", "reference"),
        LUR,
        UA,
        (*LUR, "gap"),
        (*LUR, "gap", "parts"),
    ],
)
def test_an_unknown_key_is_refused_by_name(path):
    with pytest.raises(ValueError, match="surprise"):
        record.validate(put(few(), *path, "surprise", value=1))


@for_each(
    ("path", "value"),
    [
        ((*LUR, "verdict"), "OK"),
        ((*LUR, "verdict"), None),
        ((*LUR, "failed"), False),
        ((*LUR, "trace"), {"cosine": [[0, 0.5]]}),
        ((*UA, "direction"), "down"),
        ((*UA, "null_band"), [1.0]),
        ((*UA, "value"), "9.0"),
        ((*UA, "n"), 2.5),
        ((*LUR, "scores", "UA!"), None),
        (("stages", "trace", "seeds"), ["a"]),
        (("stages", "trace", "partial"), 1),
        (("stages", "trace", "headline"), "lurr"),
        (("stages",), {}),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(path, value):
    with pytest.raises(ValueError, match=re.escape(path[-1])):
        record.validate(put(few(), *path, value=value))


@pytest.mark.parametrize("change", [{"counts": [1]}, {"edges": [0.5 * i for i in range(29)]}])
def test_histograms_that_do_not_fit_their_edges_or_each_other_are_refused(change):
    content = synthetic()
    content["stages"]["trace"]["histograms"]["lur"] |= change
    with pytest.raises(ValueError, match=r"histograms\.\w+: expected"):
        record.validate(content)


def test_figures_per_seed_are_as_many_as_seeds():
    with pytest.raises(ValueError, match=r"lur\.per_seed\.gap: expected 10 numbers, one per seed, found 3"):
        record.validate(put(synthetic(), *LUR, "per_seed", value={"gap": [1.0, 2.0, 3.0]}))


def test_a_message_stays_short_when_the_value_it_refuses_is_large():
    with pytest.raises(ValueError, match="recipe") as error:
        record.validate(put(synthetic(), "stages", "trace", "recipe", value=list(range(10_000))))
    assert len(str(error.value)) < 500


def test_a_written_record_is_read_back_with_the_same_numbers(tmp_path):
    content = without(synthetic(), "stages", "trace", "methods", "diverged")
    path = record.write(content, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "record.json"
    assert record.load(path) == record.load(path.parent) == content


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path):
    content = put(synthetic(), *LUR, "seconds", value=math.inf)
    record.write(content, tmp_path)
    methods = record.load(tmp_path)["stages"]["trace"]["methods"]
    assert methods["lur"]["seconds"] is None
    assert methods["diverged"]["scores"]["ua"]["value"] is None
    assert not {"NaN", "Infinity"} & set(
        re.findall(r"\b(NaN|Infinity)\b(?! at)", (tmp_path / "record.json").read_text())
    )


def test_tuples_are_arrays(tmp_path):
    record.write(put(synthetic(), *UA, "null_band", value=(8.0, 10.0)), tmp_path)
    assert record.load(tmp_path)["stages"]["trace"]["methods"]["lur"]["scores"]["ua"]["null_band"] == [
        8.0,
        10.0,
    ]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch, step, failure):
    record.write(synthetic(), tmp_path)
    content = (tmp_path / "record.json").read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)):
        record.write(put(synthetic(), *LUR, "seconds", value=99.0), tmp_path)
    assert (tmp_path / "record.json").read_bytes() == content
    assert os.listdir(tmp_path) == ["record.json"]


def test_an_invalid_record_leaves_no_trace_on_the_disk(tmp_path):
    with pytest.raises(ValueError, match="verdict"):
        record.write(put(synthetic(), *LUR, "verdict", value="OK"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_a_file_is_refused_and_kept(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="expected a folder .* found a file"):
        record.write(synthetic(), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@for_each(
    ("text", "message"),
    [
        ('{"schema": "unweave.record/2", ', "expected JSON .* line 1"),
        ("[]", "expected a record of schema 'unweave.record/2', found 'list'"),
        ("{}", "found None"),
        ('{"schema": "unweave.record/3"}', "found 'unweave.record/3'"),
        ('{"schema": "unweave.record/2", "environment": {}, "stages": {"a": {}}}', "stages.a .*required"),
        ('{"schema": NaN}', "record.json: expected numbers that JSON knows, found NaN"),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_what_was_found(tmp_path, text, message):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        record.load(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        record.load(tmp_path)


@for_each("name", ["absent", "absent/record.json", "file/record.json"])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"expected a record at .*{name.split('/')[0]}.*, found none"):
        record.load(tmp_path / name)


def test_the_environment_is_json_and_names_what_a_run_depends_on():
    facts = record.environment()
    assert json.loads(json.dumps(facts)) == facts
    assert {"torch", "numpy", "diffusers", "transformers"} <= facts["packages"].keys()
    assert re.fullmatch(r"[0-9a-f]{64}", facts["code"])
    assert record.environment()["code"] == facts["code"]


def test_the_code_of_a_record_is_that_of_the_packages_files(tmp_path, monkeypatch):
    digest, digests = record.package_digest.__wrapped__, []
    monkeypatch.setattr(record, "__file__", str(tmp_path / "run" / "record.py"))
    for name, text in [
        ("train.py", "a = 1"),
        ("train.py", "a = 2"),
        ("tasks.py", "a = 2"),
        ("notes.md", "a"),
    ]:
        (tmp_path / name).write_text(text)
        digests.append(digest())
    assert len(set(digests)) == 3 and digests[2] == digests[3], "text that is no code does not count"
