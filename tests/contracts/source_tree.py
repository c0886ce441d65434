"""The source tree as the contracts see it: files, syntax trees, and who is tracked by git."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "bottega"
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A file as test ids show it."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """``bottega.data.batch`` for a source file, ``bottega.data`` for a package's ``__init__``."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in FILES if path.stem != "__main__"]
PACKAGES = [module_name(path) for path in FILES if path.stem == "__init__"]


@cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and nested ones included."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """All the parameters of a function, the starred ones too."""
    a = function.args
    starred = [arg for arg in (a.vararg, a.kwarg) if arg is not None]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *starred]


def tracked_files() -> list[Path]:
    """Every file under version control; without git, every file that is not a build product."""
    try:
        listing = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        folders = ["src", "tests", "docs", "scripts", "benchmarks", "examples", ".ci"]
        found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
        found += list(ROOT.glob("*.*"))
        return [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]
