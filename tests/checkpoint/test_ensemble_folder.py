"""Who paints what in an ensemble follows from what its members learned, and a child belongs to one parent only."""

import json
import math
from pathlib import Path

import pytest
import torch

from bottega.checkpoint import Manifest, load_manifest, save_module
from bottega.checkpoint.ensemble import (
    EnsembleManifest,
    Member,
    check_parent,
    file_member,
    folder_for,
    is_ensemble,
    member_manifest,
    read_ensemble,
)
from bottega.checkpoint.standing import is_within, nodes_of, remaining_part, subtract
from bottega.diffusion import LogNormal
from bottega.ensemble import Node, parse_part, probability_intervals, sigma_bounds, tiles
from bottega.errors import CheckpointError, ConfigError

NOISE = LogNormal()
CHILD_OF_ITSELF = {
    "part": "1/0", "folder": "a", "digest": "", "images_seen": 0, "parent": "x", "parent_part": "1/0",
}  # fmt: skip
EDIFFI = ("0/0", "9/511", "3/0", "complement(9/511,3/0)")


def manifest(*parts: str) -> EnsembleManifest:
    members = tuple(
        Member(part=part, folder=folder_for(part), digest=part, images_seen=8) for part in parts
    )
    return EnsembleManifest(noise=NOISE, members=members)


def painters(*parts: str) -> dict[str, str]:
    return {member.part: str(part) for member, part in manifest(*parts).painting()}


def weights(value: float):
    def write(folder: Path) -> Manifest:
        state = {"w": torch.full((2,), value)}
        return save_module(folder, state, kind="denoiser", config={}, images_seen=16)

    return write


@pytest.mark.parametrize(
    "parts",
    [
        ("0/0",),
        ("0/0", "9/511"),
        ("0/0", "9/511", "3/0"),
        EDIFFI,
        ("0/0", "1/0", "1/1", "2/0", "2/1", "2/2", "2/3"),
        ("0/0", "1/1", "2/3", "3/7", "9/511"),
        ("0/0", "1/0", "2/1"),
        ("0/0", "between(0.9,inf)"),
        ("0/0", "between(0.0,0.9)", "between(0.9,inf)"),
        ("0/0", "complement(9/511)", "3/0"),
    ],
    ids=" ".join,
)
def test_whatever_has_been_trained_so_far_every_sigma_is_painted_by_the_narrowest_that_knows_it(
    parts,
):
    made = manifest(*parts).painting()
    tiling = tiles([part for _, part in made], NOISE)  # refuses gaps and overlaps
    every = {m.part: parse_part(m.part) for m in manifest(*parts).members}
    for tile in tiling:
        member, _ = made[tile.part]
        low, high = NOISE.cdf(tile.low), NOISE.cdf(tile.high)
        middle = NOISE.quantile((low + high) / 2)
        knowing = [
            (sum(b - a for a, b in probability_intervals(part, NOISE)), name)
            for name, part in every.items()
            if any(a <= middle < b for a, b in sigma_bounds(part, NOISE))
        ]
        assert member.part == min(knowing)[1]


def test_a_parent_stands_in_for_children_that_are_missing_and_leaves_when_all_are_there():
    assert painters("0/0") == {"0/0": "0/0"}
    assert painters("0/0", "9/511") == {"0/0": "complement(9/511)", "9/511": "9/511"}
    assert painters("0/0", "1/0", "2/3") == {
        "1/0": "1/0",
        "0/0": "complement(1/0,2/3)",
        "2/3": "2/3",
    }
    assert set(painters(*EDIFFI)) == {"3/0", "complement(3/0,9/511)", "9/511"}
    assert painters("0/0", "between(0.9,inf)")["0/0"] == "between(0.0,0.9)"
    assert painters("0/0", "between(0,0.9)")["0/0"] == "between(0.9,inf)"
    assert list(painters("0/0", "1/1", "1/0")) == ["1/0", "1/1"]  # by rising noise


def test_parts_that_overlap_or_cannot_be_said_are_refused():
    with pytest.raises(ConfigError, match="neither lies inside the other"):
        painters("0/0", "between(0.1,1.0)", "between(0.5,2.0)")
    with pytest.raises(ConfigError, match="neither lies inside the other"):
        painters("0/0", "1/1", "complement(1/0)")
    with pytest.raises(ConfigError, match="on both sides"):
        painters("0/0", "between(0.5,2.0)")


def test_an_interval_of_probability_is_said_in_the_fewest_nodes():
    assert nodes_of(0.0, 1.0) == (Node(0, 0),)
    assert nodes_of(0.125, 511 / 512)[0] == Node(3, 1)
    for low, high in ((0.125, 511 / 512), (3 / 16, 5 / 8)):
        nodes = nodes_of(low, high)
        assert next(n.probability[0][0] for n in nodes) == low
        assert nodes[-1].probability[0][1] == high
        assert sum(2.0**-n.level for n in nodes) == high - low
    assert subtract(((0.0, 1.0),), ((0.2, 0.3), (0.5, 1.0))) == ((0.0, 0.2), (0.3, 0.5))


def test_being_below_means_holding_less_of_the_same():
    def inside(a: str, b: str) -> bool:
        return is_within(parse_part(a), parse_part(b), NOISE)

    assert inside("9/511", "1/1") and inside("complement(9/511)", "0/0")
    assert not inside("9/511", "1/0") and not inside("1/1", "1/1") and not inside("0/0", "1/0")
    assert remaining_part(Node(1, 0), [Node(1, 1)], NOISE) == Node(1, 0)


def test_members_are_filed_with_their_parents_digest(tmp_path):
    home = tmp_path / "ensemble"
    root = file_member(home, "0/0", weights(1.0), noise=NOISE)
    assert root.digest == load_manifest(home / "0-0").digest
    child = file_member(
        home, "9/511", weights(2.0), noise=NOISE, parent_part="0/0", parent=root.digest
    )
    read = read_ensemble(home)
    assert read.member("9/511") == child and child.parent == root.digest
    assert read.path_images("9/511") == 32
    assert member_manifest(home, child).images_seen == 16
    assert check_parent(home, "0/0", root.digest) == root
    again = file_member(
        home, "9/511", weights(3.0), noise=NOISE, parent_part="0/0", parent=root.digest
    )
    assert again.digest != child.digest and len(read_ensemble(home).members) == 2
    with pytest.raises(CheckpointError, match="is damaged: its digest is"):
        member_manifest(home, child)


def test_a_child_of_another_parent_is_refused_and_nothing_changes(tmp_path):
    home = tmp_path / "ensemble"
    root = file_member(home, "0/0", weights(1.0), noise=NOISE)
    before = sorted(home.rglob("*"))
    with pytest.raises(
        CheckpointError, match=r"grew from 0/0 with digest abc, but .* branch again"
    ):
        file_member(home, "1/0", weights(2.0), noise=NOISE, parent_part="0/0", parent="abc")
    with pytest.raises(CheckpointError, match="no member 1/1; choose from: 0/0"):
        file_member(home, "2/3", weights(2.0), noise=NOISE, parent_part="1/1", parent="abc")
    other = LogNormal(mean=0.0)
    with pytest.raises(CheckpointError, match="the new member learned noise with mean 0"):
        file_member(home, "1/0", weights(2.0), noise=other, parent_part="0/0", parent=root.digest)
    assert sorted(home.rglob("*")) == before


def test_a_member_with_children_cannot_be_replaced_by_another(tmp_path):
    home = tmp_path / "ensemble"
    root = file_member(home, "0/0", weights(1.0), noise=NOISE)
    file_member(home, "1/0", weights(2.0), noise=NOISE, parent_part="0/0", parent=root.digest)
    assert file_member(home, "0/0", weights(1.0), noise=NOISE) == root  # the same is welcome
    with pytest.raises(CheckpointError, match=r"from which 1/0 grew; .* would orphan them"):
        file_member(home, "0/0", weights(5.0), noise=NOISE)
    assert load_manifest(home / "0-0").digest == root.digest
    assert not list(home.glob(".0-0*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "cascade"}, "does not describe an ensemble"),
        ({"format_version": 2}, "upgrade bottega"),
        ({"membres": []}, "did you mean members"),
        ({"members": [{"part": "9/512", "folder": "a", "digest": "", "images_seen": 0}]}, "0 to 511"),
        ({"members": [{"part": "0/0", "folder": "../a", "digest": "", "images_seen": 0}]}, "no folder"),
        ({"members": [{"part": "0/0", "folder": "..", "digest": "", "images_seen": 0}]}, "no folder"),
        (
            {"members": [{"part": "0/0", "folder": "a", "digest": "", "images_seen": 0}] * 2},
            "listed twice",
        ),
        (
            {"members": [{"part": "0/0", "folder": "a", "digest": "", "images_seen": 0, "parent": "x"}]},
            "go together",
        ),
        (
            {"members": [CHILD_OF_ITSELF]},
            "1/0 is not below its parent 1/0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_manifests_that_make_no_sense_are_refused(tmp_path, changes, words):
    file_member(tmp_path / "e", "0/0", weights(1.0), noise=NOISE)
    path = tmp_path / "e" / "ensemble.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=words):
        read_ensemble(tmp_path / "e")


def test_files_that_are_no_ensemble_are_refused(tmp_path):
    assert not is_ensemble(tmp_path)
    with pytest.raises(CheckpointError, match="is not an ensemble"):
        read_ensemble(tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "ensemble.json").write_text(text)
        with pytest.raises(CheckpointError):
            read_ensemble(tmp_path)


def test_the_widest_members_reach_from_nothing_to_infinity():
    made = manifest(*EDIFFI).painting()
    bounds = [b for _, part in made for b in sigma_bounds(part, NOISE)]
    assert min(bounds)[0] == 0 and max(high for _, high in bounds) == math.inf
    assert bounds[0][1] == pytest.approx(0.0757, abs=5e-5)  # eDiff-I's E^3_0 and E^9_511
    assert bounds[-1][0] == pytest.approx(9.610, abs=5e-4)
