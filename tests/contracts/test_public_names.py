"""A package's ``__all__`` is what it offers: every name is there, documented, and none is missing."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from source_tree import FILES, MODULES, PACKAGES, SOURCE, module_name, name_of, syntax

FILES_WITH_ALL = [
    path
    for path in FILES
    if path.name != "__init__.py" and "__all__ =" in path.read_text(encoding="utf-8")
]


def listed(path: Path) -> list[str] | None:
    """The literal ``__all__`` of a file; None where it has none."""
    for node in syntax(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def re_exported(path: Path) -> set[str]:
    """The public names that a package's ``__init__`` takes from its own modules or defines itself."""
    names: set[str] = set()
    for node in syntax(path).body:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(
            f"{module_name(path)}."
        ):
            names |= {
                alias.asname or alias.name
                for alias in node.names
                if f"{node.module}.{alias.name}" not in MODULES
            }
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_what_can_be_imported_and_nothing_else(package: str):
    path = SOURCE.joinpath(*package.split(".")[1:], "__init__.py")
    names = listed(path)
    if names is None:
        assert not re_exported(path), f"{package} offers names without an __all__"
        return
    assert len(names) == len(set(names))
    assert re_exported(path) <= set(names)
    module = importlib.import_module(package)
    missing = [name for name in names if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_says_what_it_is(package: str):
    module = importlib.import_module(package)
    assert (module.__doc__ or "").strip()
    silent = [
        name
        for name in getattr(module, "__all__", [])
        if inspect.isclass(value := getattr(module, name)) or inspect.isfunction(value)
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{name}(")
    ]
    assert not silent


@pytest.mark.parametrize("path", FILES_WITH_ALL, ids=name_of)
def test_a_module_lists_every_public_function_and_class_it_defines(path: Path):
    defined = {
        node.name
        for node in syntax(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    names = set(listed(path) or [])
    assert defined <= names
    module = importlib.import_module(module_name(path))
    assert not [name for name in names if not hasattr(module, name)]
