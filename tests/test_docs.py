"""What the documents show is run, and what they point to is there.

A fenced ``bash`` or ``python`` block is run as it stands, the blocks of one document one after the other in one empty
folder. A comment on the line above a fence changes that:

    <!-- test: with --set train.total_images=64 -->   each ``bottega`` line gets these arguments too
    <!-- test: skip, because ... -->                  the block is not run, and the reason is read here

Fences without a language, and ``text`` or ``json`` ones, are not run.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PICCOLO = ROOT / "src" / "bottega" / "weights" / "piccolo" / "manifest.json"
FENCE = re.compile(
    r"^(?:<!-- test: (?P<test>[^\n]*?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NEEDS_PICCOLO = re.compile(r"bottega (paint|evaluate|replay)|train lab --run|load\(.piccolo")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<picture>[^)\s]+)\)")


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """One runnable block: where it stands, what it says, and how it is to be run."""

    line: int
    language: str
    code: str
    test: str

    def command(self) -> list[str]:
        """How to run this block."""
        if self.language == "python":
            return [sys.executable, "-c", self.code]
        code = self.code.replace("pip install . && ", "")
        if self.test.startswith("with "):
            code = re.sub(r"^(bottega [^\n#]*)", rf"\1 {self.test[5:]} ", code, flags=re.MULTILINE)
        return ["bash", "-euo", "pipefail", "-c", code]


def snippets(path: Path) -> list[Snippet]:
    """The runnable blocks of a document."""
    text = path.read_text(encoding="utf-8")
    return [
        Snippet(
            line=text[: match.start("language")].count("\n") + 1,
            language=match["language"],
            code=match["code"],
            test=match["test"] or "",
        )
        for match in FENCE.finditer(text)
    ]


WITH_SNIPPETS = [path for path in DOCUMENTS if snippets(path)]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_SNIPPETS, ids=lambda path: path.name)
def test_what_a_document_shows_can_be_run(path: Path, tmp_path: Path):
    folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for snippet in snippets(path):
        if snippet.test.startswith("skip"):
            continue
        if NEEDS_PICCOLO.search(snippet.code) and not PICCOLO.exists():
            pytest.skip("piccolo's weights are not part of this checkout")
        done = subprocess.run(
            snippet.command(),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0, f"{path.name}, line {snippet.line}:\n{snippet.code}\n{said}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_block_is_skipped_for_a_reason_only(path: Path):
    for snippet in snippets(path):
        known = re.fullmatch(r"|with \S.*|skip, \S.{10,}", snippet.test)
        assert known, (
            f"{path.name}, line {snippet.line}: {snippet.test!r} is not a way to run a block"
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(path: Path):
    for match in LINK.finditer(path.read_text(encoding="utf-8")):
        target = (match["target"] or match["picture"]).split("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), f"{path.name} points to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_a_document_names_in_code_exists(path: Path):
    if path.name == "log.md":  # the log tells of what was, too
        return
    named = re.findall(
        r"`((?:src|tests|docs|scripts|benchmarks|examples)/[\w./-]+\.\w+)`",
        path.read_text(encoding="utf-8"),
    )
    assert not [name for name in named if not (ROOT / name).exists()]
