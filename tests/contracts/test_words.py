"""One thing, one word: the glossary's forbidden synonyms appear nowhere in the code's interfaces."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import FILES, ROOT, functions, name_of, parameters, syntax

GLOSSARY = ROOT / "docs" / "glossary.md"

EDGE = ("src/bottega/diffusion/parameterization.py", "src/bottega/diffusion/schedules.py")
AT_THE_EDGE = {
    "timestep": EDGE,
    "timesteps": EDGE,
    "scaling_factor": ("src/bottega/models/autoencoder_kl.py",),  # as its config.json has it
}
"""Where another system's word may stand, because that system's numbers or files are what is being translated."""


def rows() -> list[tuple[list[str], list[str]]]:
    """The glossary's table as (our words, words not to use) per row."""
    table = []
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and not set(cells[0]) <= set("-: "):
            ours, others = (re.findall(r"`([A-Za-z_]\w*)[^`]*`", cell) for cell in cells[1:])
            table.append((ours, others))
    return table


FORBIDDEN = {word for _, others in rows() for word in others}


def interface(path: Path) -> Iterator[tuple[int, str]]:
    """Every name another file could come to depend on: parameters, fields, attributes, definitions."""
    for function in functions(path):
        yield function.lineno, function.name
        yield from ((arg.lineno, arg.arg) for arg in parameters(function))
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_the_glossary_has_rows():
    assert len(rows()) > 20
    assert {"timestep", "cfg_scale", "x_start", "pred_x0"} <= FORBIDDEN


def test_no_word_is_both_ours_and_forbidden():
    ours = {word for words, _ in rows() for word in words}
    assert not ours & FORBIDDEN


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_interface_uses_a_forbidden_word(path: Path):
    used = [
        f"line {line}: {name}"
        for line, name in interface(path)
        if name in FORBIDDEN and name_of(path) not in AT_THE_EDGE.get(name, ())
    ]
    assert not used, f"see docs/glossary.md: {used}"
