"""Files that can't be right: checkpoints, runs, evidence, and a place to write that is none."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import projects
from projects import loads
from records import synthetic
from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence
from unweave.cli import main
from unweave.record import checkpoint, record

FORGET = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")


class TestCheckpoints:
    FLAGS = ("--random", 0.1)

    def test_is_read_where_nothing_is_wrong(self, run, folder, here):
        assert run("forget", folder, *self.FLAGS, *FORGET).code == 0
        assert (here / "forgotten" / "model.safetensors").is_file()

    def test_another_architecture(self, refused, folder, tmp_path):
        other = projects.recipe(tmp_path, name="other", hidden=17)
        sentence = (
            r"another architecture: tensor '0.weight' must be float32 \[17, 64\], found float32 \[16, 64\]"
        )
        refused(sentence, "forget", folder, "--recipe", other, *self.FLAGS)

    def test_another_split(self, refused, folder):
        place = folder / "recipe.toml"
        place.write_text(place.read_text().replace("limit = 200", "limit = 201"))
        refused("must have been trained on split", "forget", folder, *self.FLAGS)

    def test_truncated(self, refused, folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        refused("truncated or not safetensors", "forget", folder, *self.FLAGS)

    def test_not_safetensors(self, refused, folder):
        torch.save({"weight": torch.zeros(1)}, folder / "model.safetensors")
        refused("truncated or not safetensors", "forget", folder, *self.FLAGS)

    def test_nan(self, refused, folder):
        state = load_file(folder / "model.safetensors")
        state["0.weight"][0, 0] = float("nan")
        checkpoint.save(folder, state, json.loads((folder / "model.json").read_text()))
        refused("holds NaN or infinity in tensor '0.weight'", "forget", folder, *self.FLAGS)

    def test_weights_that_the_sidecar_does_not_know(self, refused, folder):
        state = load_file(folder / "model.safetensors")
        save_file({name: value + 1 for name, value in state.items()}, folder / "model.safetensors")
        refused("is not the file that its model.json describes", "forget", folder, *self.FLAGS)

    @pytest.mark.parametrize("name", ["model.safetensors", "model.json", "recipe.toml"])
    def test_a_missing_file(self, refused, folder, name):
        (folder / name).unlink()
        refused(re.escape(name), "forget", folder, *self.FLAGS)

    def test_a_recipe_for_no_folder(self, refused, project, trained):
        refused("found no folder", "forget", project, "--recipe", trained[0], *self.FLAGS)

    def test_the_original_is_never_written_to(self, run, folder, listed, tmp_path):
        files = listed(folder)
        assert run("forget", folder, *self.FLAGS, *FORGET, "--out", folder).code == 0
        assert listed(folder) == files and (tmp_path / "model-2" / "model.safetensors").is_file()


class TestRuns:
    """Folders that are no finished run of forget."""

    def test_another_folder(self, refused, tmp_path):
        refused("no forget.json in", "audit", tmp_path)

    def test_not_finished(self, refused, forgotten):
        (forgotten / "split.json").unlink()
        refused("not finished", "audit", forgotten)

    @pytest.mark.parametrize(
        "content", ["{}", "[]", "null", "7", '{"digest": 1}', '{"digest": "1", "forget": null}', "{"]
    )
    def test_a_split_that_is_none(self, refused, forgotten, content):
        (forgotten / "split.json").write_text(content)
        refused("expected a split in .*split.json, found another file", "audit", forgotten)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [("{}", "'model' is missing"), ("[]", "must hold a JSON object, found list"), ("{", "not JSON")],
    )
    def test_a_request_that_is_none(self, refused, forgotten, content, sentence):
        (forgotten / "forget.json").write_text(content)
        refused(f"forget.json .*{sentence}", "audit", forgotten)

    def test_a_model_of_another_run(self, refused, trained, forgotten, tmp_path):
        recipe, _ = trained
        assert main(["forget", recipe, "--ids=1,2", "--out", str(tmp_path / "other"), *FORGET]) == 0
        for name in ("model.safetensors", "model.json"):
            shutil.copy(tmp_path / "other" / name, forgotten / name)
        refused("must have been trained on split", "audit", forgotten)

    def test_data_that_changed(self, run, refused, tmp_path):
        place = projects.project(tmp_path / "p")
        assert run("forget", place, "--random", 0.1, *FORGET, "--out", tmp_path / "run").code == 0
        projects.project(tmp_path / "p", loads("given(test=Records(120, 7))"))
        refused("was made from other data", "audit", tmp_path / "run")

    @pytest.mark.parametrize("flags", [("--references", -1), ("--references", 101), ("--jobs", 0)])
    def test_flags(self, refused, forgotten, flags):
        refused(f"{flags[0]} must be", "audit", forgotten, *flags)

    def test_no_record(self, refused, tmp_path):
        refused("expected a record at", "report", tmp_path / "nowhere")
        (tmp_path / "record.json").write_text('{"schema": "other"}')
        refused("expected a record of schema", "bench", "table", tmp_path)


class TestEvidence:
    @pytest.fixture
    def saved(self, tmp_path):
        """The answers of a model, and a folder with those of three retrained ones."""
        for seed, name in enumerate(("model", "reference/0", "reference/1", "reference/2")):
            path = tmp_path / f"{name}.parquet"
            path.parent.mkdir(exist_ok=True)
            parquet.save(answers(seed), path)
        return tmp_path / "model.parquet", tmp_path / "reference"

    def test_three_references_are_too_few(self, run, saved, here):
        result = run("audit", "--evidence", saved[0], "--reference", saved[1])
        assert result.code == 1
        assert result.out.startswith("INCONCLUSIVE: no verdict: 3 seeds, 10 needed; 0 calibration retrains")

    def test_nan(self, refused, saved):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(saved[0])
        rows = table["logits"].to_pylist()
        rows[5][1] = float("nan")
        nan_table = table.set_column(3, "logits", pa.array(rows, pa.list_(pa.float32())))
        pq.write_table(nan_table, saved[0])
        refused(
            "logits contain NaN .* first at id 5", "audit", "--evidence", saved[0], "--reference", saved[1]
        )

    def test_another_length(self, refused, saved):
        parquet.save(answers(1, n=29), saved[0])
        refused("29 instead of 30|is missing", "audit", "--evidence", saved[0], "--reference", saved[1])

    def test_other_classes(self, refused, saved):
        parquet.save(answers(1, classes=4), saved[0])
        refused("expected 3 logits", "audit", "--evidence", saved[0], "--reference", saved[1])

    def test_without_reference(self, refused, saved, tmp_path):
        refused("--evidence needs --reference", "audit", "--evidence", saved[0])
        (tmp_path / "empty").mkdir()
        refused("found none in", "audit", "--evidence", saved[0], "--reference", tmp_path / "empty")
        refused("found nothing", "audit", "--evidence", saved[0], "--reference", tmp_path / "nowhere")
        refused("found a file", "audit", "--evidence", saved[0], "--reference", saved[0])

    def test_no_parquet(self, refused, saved):
        saved[0].write_text("logits")
        refused("expected a parquet file", "audit", "--evidence", saved[0], "--reference", saved[1])

    def test_a_missing_file(self, refused, saved):
        refused("no such file", "audit", "--evidence", "nowhere.parquet", "--reference", saved[1])

    def test_both_or_neither(self, refused, saved, tmp_path):
        refused("found neither", "audit")
        refused("found both", "audit", tmp_path, "--evidence", saved[0])
        refused("go with --evidence", "audit", tmp_path, "--reference", saved[1])


def answers(seed: int, *, n: int = 30, classes: int = 3) -> Evidence:
    """What some model answers."""
    rng = np.random.default_rng(seed)
    parts = ("forget", "retain", "calibration", "test")
    logits = {part: rng.normal(size=(n, classes)).astype(np.float32) for part in parts}
    labels = {part: np.arange(n) % classes for part in parts}
    return Evidence(logits, labels, {part: np.arange(n) for part in parts})


class TestOut:
    @pytest.mark.parametrize("suffix", ["", "/deeper/down"])
    def test_a_file(self, refused, project, trained, tmp_path, suffix):
        (tmp_path / "taken").write_text("mine")
        place = f"{tmp_path / 'taken'}{suffix}"
        sentence = f"--out must be a folder, found a file at {tmp_path / 'taken'}"
        refused(sentence, "forget", project, "--random", 0.1, "--out", place)
        refused(sentence, "bench", trained[0], "--methods", "finetune", "--out", place)
        refused(sentence, "audit", trained[1], "--out", place)
        refused(sentence, "methods", "--out", place)

    def test_a_table_that_needs_one(self, refused, trained):
        refused("say with --out where", "bench", "table", trained[1], "--format", "parquet")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"methods = 3", "own.toml: methods must be a table, found 3"),
        (b"[[methods]]", r"own.toml: methods must be a table, found \[\{\}\]"),
        (b"[methods.lur", "--tuned must be TOML, found .*own.toml: Expected ']'"),
        (b"\xff", "--tuned must be TOML, found .*own.toml: 'utf-8' codec"),
    ],
)
def test_settings_that_are_none(refused, project, here, content, sentence):
    (here / "own.toml").write_bytes(content)
    flags = ("--method", "lur", "--tuned", here / "own.toml", "--quiet")
    refused(sentence, "forget", project, "--random", 0.1, *flags)


def test_a_record_nested_without_end(refused, here):
    (here / "record.json").write_text("[" * 100_000)
    refused("expected JSON in .*record.json, found tables nested too deeply", "report", here / "record.json")


@pytest.mark.parametrize("files", [3, [], {"a.webp": {}}, {"a.webp": 3}])
def test_a_record_with_files_that_are_none(refused, here, files):
    (here / "record.json").write_text(json.dumps({"schema": record.SCHEMA, "files": files}))
    for verb in (("report",), ("bench", "table")):
        refused("record.json: 'files' must hold", *verb, here)


class TestEarlierVersions:
    """What a version has left whose LUR had a recovery of its own."""

    def test_a_finished_run_with_settings_of_that_lur(self, refused, forgotten):
        request = json.loads((forgotten / "forget.json").read_text())
        request |= {"method": "lur", "settings": {"recover": 5, "alpha_in": "along"}}
        (forgotten / "forget.json").write_text(json.dumps(request))
        sentence = "forget.json has settings of another version of lur: unknown key 'recover'"
        advice = "make it again, with unweave forget .* --method lur"
        refused(f"{sentence}.*{advice}", "audit", forgotten, "--quiet")

    def test_a_search_of_that_lur(self, refused, project, here):
        (here / "tuning").mkdir()
        (here / "tuning" / "project.toml").write_text("[methods.lur]\nalpha = 0.1\nrecover = 5\n")
        flags = ("--method", "lur", "--tuned", here / "tuning", "--quiet")
        sentence = "another version of lur: unknown key 'recover'"
        advice = "run the bench that made it again, with --tune"
        refused(f"{sentence}.*{advice}", "forget", project, "--random", 0.1, *flags)

    def test_a_recipe_for_that_lur(self, refused, tmp_path):
        place = Path(projects.recipe(tmp_path))
        place.write_text(place.read_text() + "\n[methods.lur]\nrecover = 5\n")
        refused("unknown key 'recover' in methods.lur", "bench", place)

    def test_a_record_of_that_lur_is_printed(self, run, here):
        content = synthetic()
        content["stages"]["trace"]["recipe"]["methods"] = {"lur": {"alpha_in": "along", "recover": 5}}
        record.write(content, here / "earlier")
        assert run("bench", "table", here / "earlier").code == 0
        assert run("report", here / "earlier", "--out", here / "page").code == 0
