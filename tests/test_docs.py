"""What README and docs say is so: blocks run, commands exist, links lead somewhere."""

import inspect
import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

import launched
import projects
import test_methods
import unweave
from for_each import for_each
from pages import (
    LINK,
    PAGES,
    RECORD,
    ROOT,
    anchors,
    blocks,
    code_in,
    figures,
    prose,
    sections,
    shorten_training,
    table,
    text,
)
from unweave import cli
from unweave.auditing import Audit
from unweave.audits.diffusion.prompt_file import read_prompts
from unweave.bench import recipe
from unweave.cli.checks import rounds
from unweave.descent.descend import Descent
from unweave.methods import METHODS, Method
from unweave.record import record

PACKAGE = Path(unweave.__file__).parent
README, CONTRIBUTING = "README.md", "CONTRIBUTING.md"
COMMANDS_PAGE, METHODS_PAGE, OWN_MODEL, PAPERS = (
    f"docs/{name}.md" for name in ("commands", "methods", "your-own-model", "papers")
)
OTHER_PROGRAMS = {"python3", "torchrun", "ruff", "pyright", "mkdocs", ".ci/run"}
VERBS = [name for name in cli.app if not name.startswith("-")]
EXAMPLE, MODULE, KIND = "kl-min", "kl_minimization", "KLMinimization"
"""The method of CONTRIBUTING's example: its name in the registry, its file, its class."""
VERDICTS = {"PASS", "FAIL", "INCONCLUSIVE"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run a page in; what the page imports and adds to the path is gone afterwards.

    A check measures costs once, as in `cli/conftest.py`.
    """
    modules, state = set(sys.modules), torch.get_rng_state()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(rounds, "ROUNDS", 1)
    yield tmp_path
    torch.set_rng_state(state)
    for name in set(sys.modules) - modules:
        if (vars(sys.modules[name]).get("__file__") or "").startswith(str(tmp_path)):
            del sys.modules[name]


FACTORS = {
    "object": ("two", "three", "four", "seven"),
    "colour": ("red", "blue"),
    "subject": ("nude person", "clothed person", "church"),
}
"""The factors of the images that a page with prompts speaks of."""


def shorten_command(arguments: list[str], *, audited: bool) -> list[str]:
    """A command that prices one method, not all; with two references if no test reads its audit."""
    if arguments[0] == "check" and "--methods" not in arguments:
        return [*arguments, "--methods", "lur:recover"]
    if arguments[0] == "audit" and not audited and not {"--references", "--evidence"} & {*arguments}:
        return [*arguments, "--references", "2"]
    return arguments


def run_page(page: str, folder: Path, *, audited: bool = False) -> dict[str, object]:
    """Runs the blocks of a page in their order; those of Python in one namespace, which is returned.

    Args:
        page: The page.
        folder: The folder to run it in.
        audited: Whether a test reads its audits, which then retrain as many models as the page says.
    """
    space: dict[str, object] = {}
    for block in (replace(each, code=shorten_training(each.code, audited=audited)) for each in blocks(page)):
        if block.file is not None:
            (folder / block.file).write_text(block.code, encoding="utf-8")
        match block.language:
            case "python":
                if block.file is None:
                    exec(compile(block.code, block.place, "exec"), space)
            case "toml":
                assert block.file is not None, f"{block.place}: its first line names no file"
                if "concept" in tomllib.loads(block.code):
                    read_prompts(folder / block.file, FACTORS)
                else:
                    recipe.load(folder / block.file)
            case "sh":
                for program, *arguments in block.commands:
                    follow(program, arguments, block.place, audited=audited)
            case other:
                raise AssertionError(f"{block.place}: no test runs {other or 'a block without a language'}")
    return space


def follow(program: str, arguments: list[str], place: str, *, audited: bool) -> None:
    """Checks a command, and runs it if it is one of ours and quick."""
    if program != "unweave":
        assert program in OTHER_PROGRAMS, f"{place}: unknown program {program!r}"
        return
    cli.app.parse_args(arguments, exit_on_error=False, print_error=False)
    if not slow(arguments):
        code = cli.main(shorten_command(arguments, audited=audited))
        expected = (cli.DONE, cli.NOT_PASSED) if arguments[0] == "audit" else (cli.DONE,)
        assert code in expected, f"{place}: {shlex.join(arguments)} ended with {code}"


def slow(arguments: list[str]) -> bool:
    """Whether a command trains for minutes: the demo, a search, a recipe of the package."""
    return arguments[0] == "demo" or "--tune" in arguments or bool({*recipe.recipe_names()} & {*arguments})


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


PAGES_WITH_BLOCKS = [page for page in PAGES if page not in (README, CONTRIBUTING, OWN_MODEL) and blocks(page)]


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS)
def test_every_block_runs(page: str, workplace: Path):
    run_page(page, workplace)


def test_many_pages_have_blocks():
    assert {"docs/delete-records.md", "docs/your-own-loop.md"} <= {*PAGES_WITH_BLOCKS}


MODEL_FILES = {"model.safetensors", "model.json", "split.json", "record.json"}


def test_every_block_of_the_readme_runs(workplace: Path):
    space = run_page(README, workplace, audited=True)
    assert isinstance(space["audit"], Audit)
    by_python, by_command = workplace / "forgotten", workplace / "without-records"
    assert files(by_python) == MODEL_FILES | {"report.html", "evidence.parquet"}
    assert files(by_command) >= MODEL_FILES | {"forget.json"}
    for place in (by_python, by_command / "audit"):
        assert_has_verdict(place)


def test_every_block_about_a_model_of_your_own_runs(workplace: Path):
    run_page(OWN_MODEL, workplace, audited=True)
    assert files(workplace / "without-scans") >= MODEL_FILES | {"forget.json"}
    assert_has_verdict(workplace / "without-scans" / "audit")


def assert_has_verdict(place: Path) -> None:
    """Asserts that the record there holds a verdict, with a margin for every tested figure."""
    (stage,) = record.load(place)["stages"].values()
    (row,) = (row for name, row in stage["methods"].items() if name != "original")
    assert row["verdict"] in VERDICTS and stage["margins"].keys() == {"ua", "ra", "ta", "auc", "tv"}


def test_the_example_of_contributing_is_a_method(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    for block in blocks(CONTRIBUTING):
        if block.file is not None:
            (workplace / block.file).write_text(block.code, encoding="utf-8")
    space: dict[str, object] = {"Descent": Descent}
    exec(f"from {MODULE} import {KIND}\nfrom test_{MODULE} import test_{MODULE}", space)
    make, parity = space[KIND], space[f"test_{MODULE}"]
    assert callable(make) and callable(parity)
    method = make()
    assert isinstance(method, Method) and eval(repr(method), space) == method
    parity()
    monkeypatch.setitem(test_methods.CASES, EXAMPLE, method)
    for family in ("batchnorm", "layernorm", "denoiser", "language"):  # none that is slow to import
        for check in test_methods.CONTRACT:
            check(EXAMPLE, family)


def test_the_contract_covers_an_added_method(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METHODS, EXAMPLE, METHODS["finetune"])
    (parametrize,) = runpy.run_path(test_methods.__file__)["test_contract"].pytestmark
    assert EXAMPLE in parametrize.args[1]


HALVED = '''
"""Half of ascent."""

from dataclasses import dataclass

from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, nll
from unweave.problem import Problem


@dataclass(frozen=True)
class Halved:
    """Descends half of the negated loss."""

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective."""
        return -0.5 * nll("forget")
'''
ROUNDED = '''
"""Coarse weights."""

from dataclasses import dataclass
from typing import ClassVar

from unweave.methods.about import About
from unweave.problem import Problem


@dataclass(frozen=True)
class Rounded:
    """Rounds all weights to tenths."""

    about: ClassVar[About] = About("ours", "none", "no steps")

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        for p in problem.params.values():
            p.data.mul_(10).round_().div_(10)
'''
ADDED = f"""
import sys

from every_family import problem
from unweave.cli import main
from unweave.methods import method_named
from unweave.methods.configure import configure
from unweave.tables import as_table

how = {{"steps": 1, "lr": 1e-6, "momentum": 0.0}}
given = {{"rounded": {{}}, "lur": {{"mode": "joint", "forget": "halved", "weight": 1.0, "how": how}}}}
method, of = configure(method_named("rounded:lur"), given), problem("layernorm")
assert as_table(method)["lur"]["forget"] == {{"kind": "halved"}}
method(of)
weight = of.model.state_dict()["0.weight"]
assert bool(((10 * weight).round() / 10 - weight).abs().max() < 1e-4) and "nll(forget)" in of.curves

assert main(["methods", "{EXAMPLE}", "--json"]) == 0
sys.exit(main(sys.argv[1:]))
"""
"""Runs the added stage with the added target, describes the added method, and gives a command."""


def insert(registry: Path, *changes: tuple[str, str]) -> None:
    """Puts texts into a registry, each before another that it holds."""
    content = registry.read_text(encoding="utf-8")
    for insertion, before in changes:
        assert before in content, f"{registry}: {before!r}"
        content = content.replace(before, f"{insertion}{before}", 1)
    registry.write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with three additions: the method of CONTRIBUTING, a target and a stage."""
    folder = tmp_path_factory.mktemp("extended")
    package = folder / "unweave"
    shutil.copytree(PACKAGE, package)
    (block,) = (block for block in blocks(CONTRIBUTING) if block.file == f"{MODULE}.py")
    (line,) = re.findall(rf'`("{EXAMPLE}": {KIND}\(\),)`', text(CONTRIBUTING))
    (package / "methods" / f"{MODULE}.py").write_text(block.code, encoding="utf-8")
    (package / "methods" / "rounded.py").write_text(ROUNDED, encoding="utf-8")
    (package / "targets" / "halved.py").write_text(HALVED, encoding="utf-8")
    insert(
        package / "methods" / "__init__.py",
        (f"\n    {line}", '\n    "lur": '),
        ('\n    "rounded": Rounded(),', '\n    "recover": '),
        (f"\nfrom unweave.methods.{MODULE} import {KIND}", "\n\n\n"),
        ("\nfrom unweave.methods.rounded import Rounded", "\n\n\n"),
    )
    insert(
        package / "targets" / "__init__.py",
        ("\nfrom unweave.targets.halved import Halved", "\n\nTarget = "),
        ("Halved | ", "(\n    Bounded"),
        ('\n    "halved": Halved(),', '\n    "level": '),
    )
    return folder


@pytest.fixture(scope="module")
def printed(extended: Path) -> str:
    """What a process prints that uses that copy: the example's description, and a benchmark of it."""
    with open(projects.recipe(extended), "a", encoding="utf-8") as recipe_file:
        recipe_file.write(f"\n[methods.{EXAMPLE}]\nhow = {{ steps = 4 }}\nretain_weight = 2\n")
    (extended / "added.py").write_text(ADDED, encoding="utf-8")
    bench = ["bench", recipe_file.name, "--methods", EXAMPLE, "--jobs", "1", "--quiet", "--out", "run"]
    process = launched.run_script(extended / "added.py", bench)
    assert process is not None and process.code == 0, process
    return process.out


def contents(package: Path) -> dict[str, bytes]:
    paths = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in paths}


def test_adding_a_method_a_target_or_a_stage_touches_two_files(extended: Path):
    before, after = contents(PACKAGE), contents(extended / "unweave")
    assert before.keys() <= after.keys()
    assert {name for name in after if before.get(name) != after[name]} == {
        *("methods/__init__.py", f"methods/{MODULE}.py", "methods/rounded.py"),
        *("targets/__init__.py", "targets/halved.py"),
    }
    line_counts = Counter(after["methods/__init__.py"].splitlines())
    line_counts.subtract(before["methods/__init__.py"].splitlines())
    assert sorted((+line_counts).values()) == [1] * 4 and not -line_counts  # of each a line, and the import


def test_the_command_line_knows_an_added_method(printed: str):
    methods, _ = json.JSONDecoder().raw_decode(printed)
    assert methods[EXAMPLE]["paper"] == "Maini et al., 2024, arXiv 2401.06121"


@pytest.mark.usefixtures("printed")
def test_a_benchmark_runs_an_added_method(extended: Path):
    (stage,) = record.load(extended / "run")["stages"].values()
    assert list(stage["methods"]) == [EXAMPLE, "original"]
    row = stage["methods"][EXAMPLE]
    assert row["failed"] is None and row["gradient_evaluations"] == 8 and "retain_weight=2" in row["repr"]


@for_each("page", PAGES)
def test_commands_and_flags_in_the_text_exist(page: str):
    for first, *words in code_in(page):
        if first == "unweave" and words:
            assert words[0] in VERBS, f"{page}: no command {words[0]!r}"
            flag_names = flags(words[0])
        else:
            flag_names = set().union(*map(flags, VERBS))
        if first == "unweave" or first.startswith("--"):
            used_flags = {word.partition("=")[0] for word in (first, *words) if word.startswith("--")}
            assert used_flags <= flag_names, f"{page}: no such flag: {used_flags - flag_names}"


@cache
def flags(verb: str) -> set[str]:
    """The flags of a verb, and of the verbs below it."""
    subcommands = [cli.app[verb][name] for name in cli.app[verb] if not name.startswith("-")]
    arguments = [each.assemble_argument_collection() for each in (cli.app[verb], *subcommands)]
    return {flag for collection in arguments for argument in collection for flag in argument.names}


def test_the_table_of_commands_is_that_of_the_command_line():
    names = re.findall(r"^\| `unweave (\w+)[^`]*` \|", prose(COMMANDS_PAGE), re.MULTILINE)
    assert sorted(names) == sorted(VERBS)


def test_the_exit_codes_are_those_of_the_command_line():
    (sentence,) = re.findall(r"^Exit codes: (.*?\.)\n", prose(COMMANDS_PAGE), re.MULTILINE | re.DOTALL)
    codes = [cli.DONE, cli.NOT_PASSED, cli.BAD_INPUT, cli.FAILED, cli.INTERRUPTED]
    assert [int(code) for code in re.findall(r"(?:^|;\s)(\d+) ", sentence)] == codes


@pytest.mark.parametrize("command", [r"unweave demo", r"\[test\].*&& python3? -m pytest"])
def test_the_two_commands_that_set_everything_up(command: str):
    # continuous integration takes what it runs from these lines
    lines = re.findall(rf"^python3? -m .*{command}[^&\n]*$", text(README), re.MULTILINE)
    assert len(lines) == 1 and " && " in lines[0]


@for_each("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in LINK.findall(prose(page)):
        path, _, heading = target.partition("#")
        if not path.startswith(("http://", "https://")):
            file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            if file.is_relative_to(ROOT / "src" / "unweave"):
                # the tests may lie beside an installed package
                file = PACKAGE / file.relative_to(ROOT / "src" / "unweave")
            assert file.exists(), f"{page}: {target} leads nowhere"
            assert not heading or heading in anchors(file.relative_to(ROOT).as_posix()), f"{page}: {target}"


def test_the_table_of_methods_is_the_registry():
    rows = table(METHODS_PAGE, "| Methods | Paper | Data | Cost of a step |")
    assert rows.keys() == METHODS.keys()
    for name, (_, *cells) in rows.items():
        about = METHODS[name].about
        assert cells == [about.paper, about.data, about.step], f"the row of {name}"


def test_the_readme_counts_the_methods():
    lur, names = "lur", METHODS.keys() - {"original"}
    (count,) = re.findall(r"one of (\d+) other methods", text(README).replace("\n", " "))
    assert int(count) == sum(name != lur and not name.startswith(f"{lur}-") for name in names)


def test_the_readme_is_short():
    assert len(text(README).split()) <= 1000


def test_the_table_of_papers_is_the_registry():
    rows = table(PAPERS, "| Methods | Paper | Class and file | In a recipe | Where it deviates |")
    assert rows.keys() == METHODS.keys()
    for name, (_, paper, place, _, deviations) in rows.items():
        kind, about = type(METHODS[name]), METHODS[name].about
        file = Path(inspect.getfile(kind)).relative_to(PACKAGE).as_posix()
        assert place == f"`{kind.__name__}` in [{file}](../src/unweave/{file})"
        assert paper == about.paper and deviations == (about.deviations or "none known"), f"the row of {name}"
    tables = re.findall(
        r"`\[methods\.\"?([^\]\"]+)\"?\]`", " ".join(dict.fromkeys(row[3] for row in rows.values()))
    )
    assert set(tables) == METHODS.keys() - {"original", "retrain"}


@for_each("page", PAGES)
def test_no_figure_stands_without_its_record(page: str):
    for section in sections(page):
        numbers, title = figures(section), section.partition("\n")[0]
        assert not numbers or RECORD.search(section), f"{page}, {title!r}: {numbers} beside no record"


def test_a_figure_is_told_from_a_number():
    figure_texts = ["a gap of 0.45", "12 % of the time", "1.5 times as fast", "in 20 seconds", "3 MiB"]
    numbers = ["Python 3.11 or newer", "arXiv 2503.06339", "ten seeds", "a 95 % interval", "`how.lr=0.1`"]
    assert all(map(figures, figure_texts)) and not any(map(figures, numbers))


@pytest.mark.skipif(not (ROOT / "records").exists(), reason="the records are in the clone only")
@for_each("page", PAGES)
def test_named_records_exist(page: str):
    for name in RECORD.findall(text(page)):
        assert (ROOT / "records" / name).exists(), f"{page}: there is no records/{name}"
