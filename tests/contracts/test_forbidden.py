"""What may not be written: code that runs data, loads leniently, or takes zero for unset."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import FILES, functions, name_of, parameters, syntax

MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
CALLS = {"eval", "exec", "compile", "os.system", "torch.load", "torch.save", "numpy.fromfile"}
KEYWORDS = {"strict": False, "shell": True, "allow_pickle": True, "weights_only": False}


def dotted(node: ast.expr) -> str:
    """``torch.load`` for the expression that says so; empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def findings(path: Path) -> Iterator[str]:
    """Every forbidden import, call and keyword of a file."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from (
                f"line {node.lineno}: import {alias.name}"
                for alias in node.names
                if alias.name.split(".")[0] in MODULES
            )
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"line {node.lineno}: from {node.module} import ..."
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in CALLS:
                yield f"line {node.lineno}: {called}(...)"
            for keyword in node.keywords:
                wanted = KEYWORDS.get(keyword.arg or "")
                lenient = isinstance(keyword.value, ast.Constant) and keyword.value.value is wanted
                if wanted is not None and lenient and called != "zip":
                    yield f"line {node.lineno}: {keyword.arg}={wanted}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_data_or_loads_leniently(path: Path):
    assert not list(findings(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_error_belongs_to_bottegas_tree(path: Path):
    builtin = {"Exception", "OSError", "RuntimeError", "TypeError", "ValueError"}
    raised = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and dotted(node.exc.func) in builtin
    ]
    assert not raised, "callers catch the errors of bottega.errors"


def zero_for_unset(path: Path) -> Iterator[str]:
    """``x or default`` on a number that may be None: zero is a value, and would be lost."""
    for function in functions(path):
        numbers = {
            arg.arg
            for arg in parameters(function)
            if arg.annotation is not None
            and "None" in (text := ast.unparse(arg.annotation))
            and ("int" in text or "float" in text)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
                first = node.values[0]
                if isinstance(first, ast.Name) and first.id in numbers:
                    yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_zero_is_never_taken_for_unset(path: Path):
    assert not list(zero_for_unset(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_tensor_modules_keep_their_annotations(path: Path):
    names = [
        alias.name
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    ]
    uses_shapes = "jaxtyping" in path.read_text(encoding="utf-8")
    assert not (uses_shapes and "annotations" in names), (
        "the shape hook reads annotations, so they may not be turned to text"
    )


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [name_of(path) for path in FILES if drawers & {path.stem, path.parent.name}]
