"""A record that was changed after it was written is refused by name; an earlier one is read as what it is."""

import hashlib
import json
import random
import re

import pytest

from records import at_budgets, synthetic
from unweave.record import record
from unweave.record.digest import digest_of, rerun_command, seal

FIGURES = ("stages", "trace", "methods", "lur")


@pytest.fixture
def folder(tmp_path):
    record.write(synthetic(), tmp_path)
    return tmp_path


def change(folder, *path, value):
    """Edits one place of a record as somebody with an editor would."""
    file = folder / "record.json"
    content = json.loads(file.read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))


def test_the_digest_is_that_of_canonical_json():
    text = '{"a":[1,2.5,null],"b":"\\u00e9"}'
    assert digest_of({"b": "é", "digest": "anything", "a": [1, 2.5, float("nan")]}) == (
        hashlib.sha256(text.encode()).hexdigest()
    )


def test_a_written_record_carries_its_digest_and_is_read_without_it(folder):
    content = json.loads((folder / "record.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", content["digest"])
    assert "digest" not in record.load(folder) and seal(record.load(folder)) == content


def test_order_and_spacing_make_no_difference(folder):
    items = list(json.loads((folder / "record.json").read_text()).items())
    random.Random(0).shuffle(items)
    (folder / "record.json").write_text(json.dumps(dict(items), indent=7))
    assert record.load(folder)["stages"].keys() == synthetic()["stages"].keys()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*FIGURES, "scores", "ra", "value"), 55.5),
        (("stages", "trace", "methods", "original", "verdict"), "PASS"),
        ((*FIGURES, "reason"), "PASS: as good as retrained"),
        (("stages", "trace", "margins", "ua"), 99.0),
        (("stages", "trace", "seeds"), list(range(10, 20))),
        (("environment", "date"), "2026-01-03"),
    ],
)
def test_a_change_is_refused_with_the_file_what_was_found_and_what_to_do(folder, place, value):
    change(folder, *place, value=value)
    message = r"record\.json was changed after it was written: its digest is [0-9a-f]{12}, its content has "
    with pytest.raises(ValueError, match=message + r"[0-9a-f]{12}: put the original back, or make it again"):
        record.load(folder)


def test_the_advice_names_the_command_that_made_the_record():
    assert rerun_command(synthetic()) == "unweave bench trace class --tune 20"
    assert rerun_command(synthetic() | {"qualification": {}}) == "unweave qualify MODEL"
    assert rerun_command(at_budgets(0.1, 0.3)) == "unweave bench trace --budgets 0.1,0.3 --tune 20"
    project_record = {"stages": {"project": {"recipe": {"given": {}}}}}
    assert rerun_command(project_record) == "unweave bench MODEL REQUEST"
    assert rerun_command({"stages": {"audit": {"recipe": None}}}) == "unweave audit RUN"


def test_a_record_without_its_digest_is_refused(folder):
    content = json.loads((folder / "record.json").read_text())
    del content["digest"]
    (folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"record\.json has no digest, .* put the original back, or make"):
        record.load(folder)


def test_a_record_of_the_earlier_schema_is_read_as_it_is(tmp_path):
    content = json.loads(json.dumps(record.to_json_values(synthetic()))) | {"schema": record.EARLIER}
    (tmp_path / "record.json").write_text(json.dumps(content))
    assert record.load(tmp_path) == content


def test_a_record_is_never_written_in_the_earlier_schema(tmp_path):
    with pytest.raises(ValueError, match=r"expected a record of schema 'unweave.record/2'"):
        record.write(synthetic() | {"schema": record.EARLIER}, tmp_path)
