"""The tiny model and the command line, for all tests of commands."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from tiny_model import tiny_folder

__all__ = ["tiny_folder"]


class Done(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def bottega(capsys, tmp_path, monkeypatch) -> Callable[..., Done]:
    """Run a command line in a fresh folder, through the same door as the console script."""
    from bottega.cli.main import run

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call
