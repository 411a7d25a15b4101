"""The public line: the names in `__all__` are those of the checked-in list, and pages import no others."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import unweave
from for_each import for_each
from pages import PAGES, ROOT, blocks

PACKAGE = Path(unweave.__file__).parent
LIST = ROOT / "tests" / "public_names.txt"
EXAMPLES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "examples").glob("*.py"))]


def listed_names() -> dict[str, list[str]]:
    """The names of the list, by module."""
    lines = (line.split(": ") for line in LIST.read_text(encoding="utf-8").splitlines())
    return {module: names.split() for module, names in lines}


def declared_names(tree: ast.Module) -> list[str]:
    """The names in the `__all__` of a module; none without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def module_name(path: Path) -> str:
    parts = ("unweave", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def private_names(tree: ast.Module, public: Mapping[str, list[str]]) -> Iterator[str]:
    """The names of the package that a piece of code takes and that are not public."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == "unweave":
                imports = [(module, each.name) for each in node.names]
            case ast.Attribute(value=ast.Name(id="unweave"), attr=name):
                imports = [("unweave", name)]
            case ast.Import():
                imports = [("", each.name) for each in node.names if each.name.startswith("unweave.")]
            case _:
                imports = []
        yield from (
            f"{module}.{name}".lstrip(".") for module, name in imports if name not in public.get(module, [])
        )


def test_the_public_names_are_those_of_the_list() -> None:
    trees = {module_name(path): ast.parse(path.read_bytes()) for path in PACKAGE.rglob("*.py")}
    modules = {module: names for module, tree in trees.items() if (names := declared_names(tree))}
    assert dict(sorted(modules.items())) == listed_names(), "a public name was added or lost: update the list"


def test_every_public_name_of_the_package_exists() -> None:
    assert all(hasattr(unweave, name) for name in listed_names()["unweave"])


@for_each("page", [*PAGES, *EXAMPLES])
def test_pages_and_examples_take_public_names_only(page: str) -> None:
    if page.endswith(".py"):
        code = [(ROOT / page).read_text(encoding="utf-8")]
    else:
        code = [block.code for block in blocks(page) if block.language == "python"]
    assert [name for each in code for name in private_names(ast.parse(each), listed_names())] == []


def test_a_private_name_is_found() -> None:
    code = "import unweave.cli\nfrom unweave.tables import read\nunweave.tables\n"
    code += "import unweave\nfrom unweave.split import Split\nunweave.Split\n"
    assert list(private_names(ast.parse(code), listed_names())) == [
        "unweave.cli",
        "unweave.tables.read",
        "unweave.tables",
    ]
