"""What the command line says of itself: its methods with their settings, its flags, its version."""

import json
import re
from functools import reduce

import pytest

import unweave
from for_each import for_each
from unweave import cli
from unweave.cli.options import parse_settings
from unweave.cli.terminal import show
from unweave.cli.terminal.describe_settings import changed_settings
from unweave.methods import METHODS, STAGES, method_named
from unweave.methods.configure import configure, stages_of
from unweave.methods.pipeline import Pipeline
from unweave.targets import TARGETS

NAMED = [*METHODS, *STAGES, "lur:recover", "shrink-perturb:lur-match:recover", "salun:recover"]
VERBS = [(name,) for name in cli.app if not name.startswith("-")] + [("bench", "table")]
SHARED = {"--out", "--json", "--device", "--seed", "--quiet"}


class TestMethods:
    def test_every_method_is_listed_once(self, run):
        result = run("methods")
        assert result.code == 0 and result.error == ""
        table = result.out.partition("For models of one family")[0]
        column = " ".join(line[: table.index("Data")] for line in table.splitlines()[1:])
        assert sorted(column.replace(",", " ").split()) == sorted(METHODS)

    def test_the_list_in_json_is_the_registry(self, run):
        entries = json.loads(run("methods", "--json").out)
        assert list(entries) == [*METHODS, *STAGES]
        for name, each in entries.items():
            about = {**METHODS, **STAGES}[name].about
            assert (each["paper"], each["data"], each["step"]) == (about.paper, about.data, about.step)
            assert each["deviations"] == about.deviations

    def test_one_method_comes_with_its_settings_and_no_other_method(self, run):
        result = run("methods", "salun")
        assert result.code == 0 and result.out.startswith(f"salun: {METHODS['salun'].about.paper}\n")
        rows = dict(re.findall(r"^(\w[\w.]*)  +(\S+)  +\S", result.out, re.MULTILINE))
        assert rows["fraction"] == "0.5" and rows["how.optimizer"] == '"sgd"' and rows["how.steps"] == "null"
        assert "scissorhands" not in result.out

    def test_starts_and_recoveries_have_a_table_and_a_pipeline_is_spelled(self, run):
        text = run("methods").out.partition("Stages of pipelines")[2]
        names = re.findall(r"^([a-z-]+) {2,}[A-Z]", text, re.MULTILINE)
        assert names == list(STAGES) and "such as lur:recover" in text

    @pytest.mark.parametrize("width", [80, 120])
    @for_each("name", ["lur", "lur:recover", "salun", "scrub", "kde", "sa", "lur-match"])
    def test_every_setting_is_shown_with_its_default_and_meaning(self, run, monkeypatch, name, width):
        monkeypatch.setattr(show, "WIDTH", width)
        _, *tables = run("methods", name).out.partition("\nChoice for ")[0].split("\nSetting ")
        rows = [row for table in tables for row in rows_of(f"Setting {table}")]
        assert all(len(line) <= width for table in tables for line in table.splitlines())
        entry = json.loads(run("methods", name, "--json").out)[name]
        first = rows[-1]["Setting"].rpartition(".")[0]
        for path, value in entry["settings"].items():
            root, _, setting = path.rpartition(".")
            column = f"In {root}" if f"In {root}" in rows[-1] else "Default"
            label = path if column == "Default" else f"{first}.{setting}"
            (row,) = [each for each in rows if each["Setting"] == label]
            assert (row[column], row["Meaning"]) == (json.dumps(value), entry["meanings"][path])

    @for_each("name", NAMED)
    def test_every_setting_has_a_meaning_from_the_docstring_of_its_class(self, run, name):
        (entry,) = json.loads(run("methods", name, "--json").out).values()
        assert list(entry["meanings"]) == list(entry["settings"])
        for path, meaning in entry["meanings"].items():
            *outer, setting = path.removesuffix(".kind").split(".")
            docstring = " ".join(str(type(reduce(inside, outer, method_named(name))).__doc__).split())
            assert f" {setting}: {meaning}" in docstring and meaning.endswith((".", "`."))
            assert "\n" not in meaning and ":math:" not in meaning

    @pytest.mark.parametrize("name", ["lur", "lur:recover"])
    def test_what_may_stand_in_a_setting_is_listed_and_can_be_set(self, run, name):
        prefix, text = name.removesuffix("recover").replace(":", "."), run("methods", name)
        prefix = prefix if "." in prefix else ""
        (entry,) = json.loads(run("methods", name, "--json").out).values()
        choices = entry["choices"]
        assert list(choices[f"{prefix}forget"]) == list(TARGETS)
        assert list(choices[f"{prefix}alpha"]) == ["along", "curvature"]
        assert list(choices[f"{prefix}where"]) == ["salient"]
        for path, kinds in choices.items():
            for kind, meaning in kinds.items():
                method = configure(method_named(name), parse_settings([f"{path}.kind={kind}"]))
                at = reduce(inside, path.split("."), method)
                assert type(at).__name__.lower() == kind and meaning.endswith(".")
                assert re.search(rf"^{re.escape(path)} +{kind} +{meaning[0]}", text.out, re.MULTILINE)

    @for_each("name", NAMED)
    def test_the_settings_shown_rebuild_the_method(self, run, name):
        entries = json.loads(run("methods", name, "--json").out)
        assert list(entries) == [name]
        settings = [f"{path}={json.dumps(value)}" for path, value in entries[name]["settings"].items()]
        assert configure(method_named(name), parse_settings(settings)) == method_named(name)

    @for_each("name", [*NAMED, "lur-match:recover"])
    def test_what_is_changed_of_the_defaults_rebuilds_the_method(self, name):
        method, defaults = (
            method_named(name),
            [type(each)() for each in stages_of(method_named(name)).values()],
        )
        changes = changed_settings(method)
        settings = parse_settings([f"{path}={json.dumps(value)}" for path, value in changes.items()])
        base = Pipeline(*defaults, names=name.split(":")) if ":" in name else defaults[0]
        assert configure(base, settings) == method and len(changes) < 12

    def test_out_keeps_the_list(self, run, here):
        result = run("methods", "--json", "--out", "kept")
        assert json.loads((here / "kept" / "methods.json").read_text()) == json.loads(result.out)
        assert sorted(path.name for path in (here / "kept").iterdir()) == ["methods.json", "run.json"]


class TestHelp:
    @for_each("verb", VERBS)
    def test_every_flag_of_a_verb_is_explained(self, run, verb):
        result = run(*verb, "--help")
        assert result.code == 0 and result.error == "" and "\x1b" not in result.out
        flags_in_help = set(re.findall(r"^│ +(--[\w-]+)(?: [A-Z]+[.…]*)? +\S", result.out, re.MULTILINE))
        flags = flags_of(*verb)
        assert flags_in_help == flags and flags >= SHARED

    def test_every_verb_is_explained(self, run):
        result = run("--help")
        assert result.code == 0
        verbs = re.findall(r"^│ ([a-z]+) {2,}[A-Z]", result.out, re.MULTILINE)
        assert sorted(verbs) == sorted(verb for verb, *subverbs in VERBS if not subverbs)

    def test_the_version_is_the_packages(self, run):
        assert run("--version").out == f"{unweave.__version__}\n"


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a printed table by its header; a line that names no setting goes on with the last one."""
    header, *lines = table.splitlines()
    starts = [match.start() for match in re.finditer(r"(?<= {2})\S|^\S", header)]
    rows: list[list[str]] = []
    for line in filter(str.strip, lines):
        cells = [line[begin:end].strip() for begin, end in zip(starts, [*starts[1:], None], strict=True)]
        rows = [*rows, cells] if cells[0] else [*rows[:-1], [*rows[-1][:-1], f"{rows[-1][-1]} {cells[-1]}"]]
    names = [header[begin:end].strip() for begin, end in zip(starts, [*starts[1:], None], strict=True)]
    return [dict(zip(names, row, strict=True)) for row in rows]


def inside(settings: object, name: str) -> object:
    """A field of a dataclass, or a stage of a pipeline."""
    if isinstance(settings, Pipeline):
        return dict(zip(settings.names, settings.stages, strict=True))[name]
    return getattr(settings, name)


def flags_of(verb: str, *subverbs: str) -> set[str]:
    """The flags that a verb takes; those that cyclopts would add to negate others are switched off."""
    app = cli.app[verb]
    for name in subverbs:
        app = app[name]
    names = {name for argument in app.assemble_argument_collection() for name in argument.names}
    return {name for name in names if re.match("--(?!no-|empty-)", name)}
