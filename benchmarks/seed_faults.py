"""Seed faults in the package and record which of them the tests catch.

    python benchmarks/seed_faults.py records/faults.json                # 120 faults, tests of this clone
    python benchmarks/seed_faults.py records/faults.json --tree OLD --as before --survivors-of after

Nothing is written into the tree: the tests run in a copy, and a fault is put into the loaded function of a
fork. So the package and the tests are imported once, and a run that was stopped goes on where it was; with
more seconds, faults whose tests were cut short run again. Under a fault run the tests of its package, those
elsewhere that import its module, and those that all methods share, until one fails or the time is over. A
test that hangs has caught it. The processes that a test starts do not have the fault, so those tests come
last.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from draw_faults import PACKAGES, Fault, draw, seeded
from jaxtyping import install_import_hook

SHARED = ("test_methods.py", "test_unlearning.py", "test_auditing.py")
HANGS = 30
"""Seconds of CPU time in one test, after which it hangs."""
PATIENCE = 30
"""Seconds of the clock for one of CPU time, on a machine with other work; a test that sleeps ends then."""
FLAGS = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
FLAGS += ["-o", "addopts=--import-mode=importlib", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


@cache
def tests_of(root: Path, module: str) -> list[list[str]]:
    """The test files that may see a module, those first that most likely do."""
    inner = Path(module).relative_to("src/unweave").with_suffix("")
    package, parent = inner.parts[0], re.escape(".".join(("unweave", *inner.parts[:-1])))
    imports = re.compile(rf"{parent}\.{inner.name} import|from {parent} import .*\b{inner.name}\b")
    files = sorted((root / "tests").rglob("test_*.py"))

    def rank(path: Path) -> int:
        text, own = path.read_text(encoding="utf-8"), path.relative_to(root / "tests").parts[0] == package
        imported = bool(imports.search(text))
        if own and re.search(r"^import (gloo|shards|subprocess)", text, re.MULTILINE):
            return 4
        elsewhere = imported and path.parts[-2] not in ("cli", "bench", "project", "report")
        named = path.stem == f"test_{inner.name}"
        return [own and named, own and imported, elsewhere, own, path.name in SHARED, True].index(True)

    groups = [[str(path.relative_to(root)) for path in files if rank(path) == place] for place in range(5)]
    return [each for each in groups if each]


class Watch:
    """Stops a test that hangs, ends a run whose time is over, and keeps the first test that fails."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.caught_by, self.cut = seconds, "", False

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Before a test."""
        signal.setitimer(signal.ITIMER_PROF, HANGS)
        if time.process_time() > self.seconds:
            self.cut, item.session.shouldstop = True, "time is over"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After a test."""
        if report.failed:
            self.caught_by = self.caught_by or report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def stop(signum: int, frame: types.FrameType | None) -> None:
    """Ends the test that runs."""
    raise TimeoutError(f"more than {HANGS} s of CPU time in one test")


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of every function in a module, those inside others included."""
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from codes(each)


def put_into_function(root: Path, fault: Fault, text: str) -> None:
    """Give the loaded functions of that name the code with the fault."""
    path = str(root / fault["module"])
    dotted = ".".join(Path(fault["module"]).with_suffix("").parts[1:])
    importlib.import_module(dotted.removesuffix(".__init__"))
    (code,) = (each for each in codes(compile(text, path, "exec")) if each.co_qualname == fault["function"])
    gc.unfreeze()  # the tests' conftest freezes what is loaded, and so hides it
    loaded = [each for each in gc.get_objects() if type(each) is types.FunctionType]
    wanted = (path, fault["function"])
    found = [each for each in loaded if (each.__code__.co_filename, each.__code__.co_qualname) == wanted]
    if not found:
        raise LookupError(f"no function {fault['function']} of {path} is loaded")
    for each in found:
        each.__code__ = code


def test_fork(root: Path, fault: Fault, text: str, seconds: float, out: Path) -> None:
    """Run the tests under the fault in this process, and write what came of it."""
    os.setpgid(0, 0)
    os.chdir(root)
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    put_into_function(root, fault, text)
    signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds + 2 * HANGS),) * 2)
    watch = Watch(seconds)
    for files in tests_of(root, fault["module"]):
        if not watch.caught_by and not watch.cut:
            pytest.main([*FLAGS, *files], plugins=[watch])
    signal.setitimer(signal.ITIMER_PROF, 0)
    caught = {"outcome": "caught", "by": watch.caught_by}
    survived = {"outcome": "survived"} | ({"cut_after": seconds} if watch.cut else {})
    out.write_text(json.dumps(caught if watch.caught_by else survived))


def outcome_of(root: Path, fault: Fault, text: str, seconds: float) -> dict[str, object]:
    """What the tests say under a fault: caught and by which, survived, or a timeout."""
    out, began = Path(tempfile.gettempdir()) / f"faults-{os.getpid()}.json", time.monotonic()
    out.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            test_fork(root, fault, text, seconds, out)
        finally:
            traceback.print_exc()
            os._exit(0)
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        time.sleep(0.1)
        if time.monotonic() - began > PATIENCE * (seconds + HANGS):
            os.killpg(pid, signal.SIGKILL)
    if out.exists():
        return json.loads(out.read_text())
    if os.WIFSIGNALED(ended[1]):
        return {"outcome": "timeout"}
    sys.exit(f"the tests of {fault['module']} did not run: see {out.with_suffix('.log')}")


def load(tree: Path) -> Path:
    """A copy of the files that git knows, from which package and tests are imported as pytest would."""
    root = Path(tempfile.gettempdir()) / f"faults-{tree.resolve().name}"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, capture_output=True, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, root / name)
    sys.path[0] = str(root / "src")  # in the place of this folder, whose files have names of tests
    os.environ |= {"PYTHONPATH": sys.path[0], "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = False
    torch.set_num_threads(1)
    install_import_hook("unweave", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
    with contextlib.chdir(root):
        pytest.main([*FLAGS, "--collect-only", "-qq", *(f"tests/{each}" for each in (*PACKAGES, *SHARED))])
    return root


def main() -> None:
    """Run what is left, and write the record after every fault."""
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("record", type=Path)
    read.add_argument("--tree", type=Path, default=Path.cwd(), help="the clone whose tests are run")
    read.add_argument("--as", dest="name", default="after", help="the name of this column of the record")
    read.add_argument("--survivors-of", help="only the faults that survived in this column")
    read.add_argument("--number", type=int, default=120, help="of faults, drawn with seed 0")
    read.add_argument("--seconds", type=float, default=60, help="CPU time for the tests of a fault")
    of = read.parse_args()
    record = json.loads(of.record.read_text()) if of.record.exists() else {}
    faults = record.get("faults") or draw(of.tree, of.number, seed=0)
    root = load(of.tree)
    for fault in faults:
        known = of.name in fault and fault[of.name].get("cut_after", of.seconds) >= of.seconds
        if known or (of.survivors_of and fault.get(of.survivors_of, {}).get("outcome") != "survived"):
            continue
        text = seeded(root, fault)
        found = outcome_of(root, fault, text, of.seconds) if text else {"outcome": "no such line"}
        fault[of.name] = found
        record = {"question": "Which of 120 seeded faults do the tests catch?", "faults": faults}
        of.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(fault["module"], fault["function"], found["outcome"], found.get("by", ""), flush=True)


if __name__ == "__main__":
    main()
