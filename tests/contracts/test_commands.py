"""The console script works as a stranger meets it: installed, in a process of its own."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOTTEGA = Path(sys.executable).parent / "bottega"


def bottega(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run(
        [str(BOTTEGA), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"},
    )


def commands() -> list[str]:
    """The commands that ``bottega`` offers."""
    import typer.main

    from bottega.cli import main

    group = typer.main.get_command(main.app)
    return sorted(getattr(group, "commands", {}))


def test_help_names_every_command():
    done = bottega("--help")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert not [name for name in commands() if name not in done.stdout]


@pytest.mark.parametrize("command", commands())
def test_a_command_explains_itself(command: str):
    done = bottega(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_version_is_the_installed_one():
    done = bottega("--version")
    assert done.returncode == 0, done.stderr
    assert importlib.metadata.version("bottega") in done.stdout


def test_an_unknown_command_is_one_clear_refusal():
    done = bottega("piant")
    assert done.returncode == 2
    assert "piant" in done.stderr
    assert "Traceback" not in done.stderr
