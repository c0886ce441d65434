"""The page on formats names every key that files really have."""

import dataclasses
import re
from pathlib import Path

import pytest

from bottega.checkpoint import Manifest
from bottega.checkpoint.ensemble import EnsembleManifest, Member
from bottega.pipelines import Box, CascadeManifest, Provenance, Region, StageEntry
from bottega.pipelines.edit import StartRecord
from bottega.pipelines.masks import StoredMask
from bottega.pipelines.provenance import Machine, Request, SheetLayout, StageRecord
from bottega.recipes.programme import PlannedNode, PlannedStage, Programme

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def section(title: str) -> str:
    """One section of the page."""
    _, _, rest = DOCS.read_text(encoding="utf-8").partition(f"## {title}\n")
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "classes"),
    [
        ("A checkpoint", (Manifest,)),
        ("An ensemble", (EnsembleManifest, Member)),
        ("A plan", (Programme, PlannedStage, PlannedNode)),
        ("A model folder", (CascadeManifest, StageEntry)),
        (
            "A picture",
            (
                *(Provenance, Request, StageRecord, Machine, SheetLayout),
                *(Region, Box, StoredMask, StartRecord),
            ),
        ),
    ],
)
def test_every_key_on_disk_is_documented(title: str, classes: tuple[type, ...]):
    named = set(re.findall(r"`(\w+)`", section(title)))
    keys = {f.name for cls in classes for f in dataclasses.fields(cls)}
    assert keys <= named
