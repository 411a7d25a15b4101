"""Faults to seed in the package: one line of one function is replaced by another.

A fault is known by its module, its function and the text of both lines, so that it can be seeded in another
commit that has the same line. Messages, defaults, types and docstrings are left alone.
"""

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

Fault = dict[str, str]
"""The module, the function, the kind, the line and the line with the fault."""

PACKAGES = ("descent", "weights", "targets", "methods", "audits", "data", "tasks", "record")

COMPARED = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
COMPUTED = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.Pow: ("**", "*"),
}
CALLED = {
    "detach": "clone",
    "mean": "sum",
    "sum": "mean",
    "min": "max",
    "max": "min",
    "abs": "clone",
    "eval": "train",
    "any": "all",
    "all": "any",
    "argmax": "argmin",
    "zero_": "clone",
    "sqrt": "abs",
}
NOT_A_NUMBER = re.compile('[Pp]ath|folder|place|[A-Z]{4}|"')
"""Operands of which an operator joins paths or texts: another one fails at once, whatever the tests are."""
UNLIKE_OR_ALIKE = re.compile(r"[\"*]|\b(self|isinstance|getattr|linspace|for|super|map|max|min|save_file)\b")
"""Arguments whose exchange fails at once, or changes nothing."""


def edits(node: ast.AST, line: str) -> Iterator[tuple[str, str]]:
    """The kinds of fault that an expression or statement of one line can have, each with its new text."""

    def text(of: ast.AST) -> str:
        return line[of.col_offset : of.end_col_offset]  # type: ignore[attr-defined]

    def between(left: ast.AST, right: ast.AST, old: str, new: str) -> str:
        gap = line[left.end_col_offset : right.col_offset].replace(old, new, 1)  # type: ignore[attr-defined]
        return (
            line[node.col_offset : left.end_col_offset] + gap + line[right.col_offset : node.end_col_offset]  # type: ignore[attr-defined]
        )

    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARED:
            yield "comparison", between(left, right, *COMPARED[type(op)])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
            if not NOT_A_NUMBER.search(text(node)):
                yield "operator", between(left, right, *COMPUTED[type(op)])
        case ast.BoolOp(op=op, values=[left, right]):
            words = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
            yield "and/or", between(left, right, *words)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "negation", text(operand)
        case ast.Constant(value=bool(value)):
            yield "constant", str(not value)
        case ast.Constant(value=int() | float()):
            yield "constant", f"({text(node)} + 1)"
        case ast.Call(func=ast.Attribute(attr=name)) if name in CALLED:
            yield "call", text(node).replace(f".{name}(", f".{CALLED[name]}(", 1)
        case ast.Call(func=called, args=[first, second, *_]):
            if not UNLIKE_OR_ALIKE.search(f"{text(first)} {text(second)} {text(called)}"):
                begin, end = node.col_offset, node.end_col_offset
                gap = line[first.end_col_offset : second.col_offset]
                swapped = text(second) + gap + text(first)
                yield (
                    "arguments",
                    line[begin : first.col_offset] + swapped + line[second.end_col_offset : end],
                )
        case ast.IfExp(test=test):
            asked = text(test)
            yield "condition", text(node).replace(f" if {asked} else", f" if not ({asked}) else", 1)
        case ast.Return(value=ast.BinOp() | ast.Call() | ast.Name() as value):
            yield "sign", f"return -({text(value)})"
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "statement", "pass"


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those below, but for messages, types and defaults."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            spared = isinstance(child, ast.Raise | ast.JoinedStr | ast.arguments | ast.Assert)
            if isinstance(child, ast.AST) and not spared and name not in ("annotation", "returns"):
                yield from walk(child)


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions and methods of a module by their names; those inside a function belong to it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")


def faults_of(module: Path, root: Path) -> list[Fault]:
    """Every fault of a module, each once; of numbers alone the sign is changed."""
    lines, found = module.read_text(encoding="utf-8").splitlines(), {}
    for name, function in functions(ast.parse("\n".join(lines))):
        numeric = re.match("Tensor|Float|float", ast.unparse(function.returns) if function.returns else "")
        for node in (each for statement in function.body for each in walk(statement)):
            first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", None)
            if first != last or not (line := lines[first - 1]).isascii():
                continue  # of two lines, or with columns that are not characters
            for kind, new in edits(node, line):
                fault = (line[: node.col_offset] + new + line[node.end_col_offset :]).strip()  # type: ignore[attr-defined]
                if fault != line.strip() and (numeric or kind != "sign"):
                    of = {"module": str(module.relative_to(root)), "function": name, "kind": kind}
                    found[name, line.strip(), fault] = {**of, "line": line.strip(), "fault": fault}
    return list(found.values())


def draw(root: Path, number: int, seed: int) -> list[Fault]:
    """As many faults from every package in turn, their kinds equally likely; one a line at most."""
    chance, taken = random.Random(seed), set()
    drawn: list[list[Fault]] = [[] for _ in PACKAGES]
    for package, of in zip(PACKAGES, drawn, strict=True):
        modules = sorted((root / "src" / "unweave" / package).rglob("*.py"))
        pool = [fault for module in modules for fault in faults_of(module, root)]
        for _ in range(number // len(PACKAGES)):
            left = [each for each in pool if place(each) not in taken]
            kind = chance.choice(sorted({each["kind"] for each in left}))
            of.append(chance.choice([each for each in left if each["kind"] == kind]))
            taken.add(place(of[-1]))
    return [fault for each in zip(*drawn, strict=True) for fault in each]


def place(fault: Fault) -> tuple[str, str, str]:
    """The line that a fault replaces."""
    return fault["module"], fault["function"], fault["line"]


def seeded(root: Path, fault: Fault) -> str | None:
    """The text of the module with the fault; None where this tree has no such line in that function."""
    path = root / fault["module"]
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = source.splitlines(keepends=True)
    for name, function in functions(ast.parse(source)):
        for at in range(function.lineno, function.end_lineno or 0):
            if name == fault["function"] and lines[at].strip() == fault["line"]:
                lines[at] = lines[at].replace(fault["line"], fault["fault"])
                return "".join(lines)
    return None
