"""The repository speaks of itself alone, and its files are what they seem."""

import ast
import re
import sys
import tomllib

import pytest
from source_tree import FILES, ROOT, syntax, tracked_files

TEXT = {
    ".cfg",
    ".css",
    ".html",
    ".ini",
    ".js",
    ".json",
    ".md",
    ".py",
    ".sh",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    "",
}
HOMES = ("home", "Users", "root", "work", "opt/venv", "mnt", "workspace")
MACHINE_PATH = re.compile(rf"(?<![\w.~}}$/-])/(?:{'|'.join(HOMES)})/[\w.-]+")
MIB = 2**20


def texts():
    """Every tracked text file with its content."""
    for path in tracked_files():
        if path.suffix in TEXT and path.stat().st_size < MIB:
            yield path, path.read_text(encoding="utf-8")


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in texts()
        for match in MACHINE_PATH.finditer(text)
    ]
    assert not found


def test_no_file_carries_a_conflict_or_a_windows_line_ending():
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert not [str(path) for path, text in texts() if marks.search(text) or "\r\n" in text]


def test_large_files_are_weights_or_pictures():
    large = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.stat().st_size > MIB
        and path.suffix not in {".safetensors", ".png", ".jpg", ".webp"}
    ]
    assert not large


@pytest.mark.parametrize(
    ("folder", "most"), [("piccolo", 60e6), ("piccolo-raphael", 25e6), ("", 80e6)]
)
def test_the_weights_stay_small(folder, most):
    weights = ROOT / "src" / "bottega" / "weights" / folder
    assert sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) < most


def test_torch_is_bounded_so_that_a_cpu_build_can_be_found():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = next(r for r in map(Requirement, project["dependencies"]) if r.name == "torch")
    admitted = ["2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.13.0+cpu"]
    assert all(version in torch.specifier for version in admitted)
    assert not any(version in torch.specifier for version in ["2.10.0", "2.13.1", "2.14.0", "3.0"])


def test_every_dependency_is_explained():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    names = {Requirement(r).name for r in [*project["dependencies"], *extras]} - {"bottega"}
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert not [name for name in sorted(names) if f"`{name}`" not in explained]


def test_the_package_imports_nothing_that_it_does_not_ask_for():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    names = {Requirement(r).name for r in asked} - {"pillow"}
    brought = {"PIL", "bottega", "huggingface_hub", "tokenizers"}  # the last two by transformers
    imported = {
        name.split(".")[0]
        for path in FILES
        for node in ast.walk(syntax(path))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported - set(sys.stdlib_module_names) - names - brought


@pytest.mark.parametrize("script", ["scripts/test", "scripts/check", ".ci/run"])
def test_a_script_can_be_run(script: str):
    path = ROOT / script
    assert path.stat().st_mode & 0o100
    assert path.read_text(encoding="utf-8").startswith("#!")
