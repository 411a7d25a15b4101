"""What an import loads, in one new process: no extra, and nothing heavy before it is needed."""

import json
import subprocess
import sys

import pytest

LOADS = {
    "unweave": "sklearn scipy optuna matplotlib pydantic pandas pyarrow jinja2 torchvision rich",
    "unweave.audits.verdict": "scipy sklearn pyarrow",
    "unweave.record.record": "matplotlib jinja2 jsonschema pyarrow",
    "unweave.report": "matplotlib jinja2 jsonschema pyarrow",
}
"""What is imported, in this order, and what must not have been loaded then."""
MISSING = ("diffusers", "transformers", "peft", "optuna", "torchvision", "matplotlib")
"""The extras, and what only a report draws with."""
CODE = f"""
import importlib, json, sys
loaded = {{}}
for name, heavy in {LOADS}.items():
    importlib.import_module(name)
    loaded[name] = [each for each in heavy.split() if each in sys.modules]
print(json.dumps(loaded))
sys.modules.update(dict.fromkeys({MISSING}))  # an import of any of them raises ImportError
from unweave.cli import main
sys.exit(main(["demo", "--help"]))
"""


def test_imports_load_nothing_heavy_and_help_needs_no_extra(subtests: pytest.Subtests):
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    modules, *help_lines = result.stdout.splitlines()
    for name, heavy_modules in json.loads(modules).items():
        with subtests.test(name):
            assert heavy_modules == []
    assert "unweave demo" in "\n".join(help_lines)
