"""The scripts in `benchmarks`: none names what the package no longer has."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def has(module: str, name: str) -> bool:
    """Whether a module has this name, or a submodule of it."""
    package = import_module(module)
    return hasattr(package, name) or (
        hasattr(package, "__path__") and find_spec(f"{module}.{name}") is not None
    )


def test_what_scripts_import_of_the_package_is_there():
    missing_names = [
        f"{path.name}: {node.module}.{each.name}"
        for path in sorted(FOLDER.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("unweave")
        for each in node.names
        if not has(node.module, each.name)
    ]
    assert missing_names == []
