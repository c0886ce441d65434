"""Small and single: a file keeps to one duty, a function to one screen."""

from pathlib import Path

import pytest
from source_tree import FILES, functions, name_of

LINES_PER_FILE = 400
LINES_PER_FUNCTION = 60
LINES_OF_THE_LOOP = 100
THE_LOOP = {("src/bottega/training/trainer.py", "fit")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_fits_its_budget(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_PER_FILE


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_function_fits_its_budget(path: Path):
    over = {}
    for function in functions(path):
        first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
        if name_of(path).startswith("src/bottega/cli/"):
            first = function.body[0].lineno  # a command's signature is the list of its options
        num_lines = (function.end_lineno or first) - first + 1
        is_loop = (name_of(path), function.name) in THE_LOOP
        if num_lines > (LINES_OF_THE_LOOP if is_loop else LINES_PER_FUNCTION):
            over[function.name] = num_lines
    assert not over
