"""A stage of expert denoisers paints as its members would, wherever their weights lie."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_network, tiny_unet

import bottega
from bottega.checkpoint.ensemble import file_member, read_ensemble
from bottega.condition import Condition
from bottega.diffusion import Denoiser, LogNormal
from bottega.ensemble import Node, steps_table
from bottega.errors import CheckpointError
from bottega.models import UNet
from bottega.pipelines import DenoiserConfig, assemble, read_manifest, repaint, save_denoiser
from bottega.pipelines.cascade import load_stages
from bottega.pipelines.experts import ensemble_config, load_mixture, mixture_with
from bottega.pipelines.provenance import CHUNK, parse_provenance

NOISE = LogNormal()
PARTS = ("0/0", "9/511", "3/0")


def unet(seed: int) -> UNet:
    """A tiny network that the seed decides altogether."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return tiny_unet(tiny_network(), seed)


def file_unet(home: Path, part: str, seed: int, *, parent: str | None = None, **changes) -> str:
    """File the tiny network of a seed."""
    state = unet(seed).state_dict()
    config = replace(DenoiserConfig(network=tiny_network(), noise=NOISE), **changes)
    return file_member(
        home,
        part,
        lambda folder: save_denoiser(folder, state, config),
        noise=NOISE,
        parent_part=None if parent is None else "0/0",
        parent=parent,
    ).digest


def ensemble(home: Path, seeds: dict[str, int]) -> Path:
    root = file_unet(home, "0/0", seeds["0/0"])
    for part, seed in seeds.items():
        if part != "0/0":
            file_unet(home, part, seed, parent=root)
    return home


@pytest.fixture
def model(tiny_folder, tmp_path):
    """Makes the tiny model's base an ensemble of three, with weights by seed."""

    def make(**seeds: int) -> Path:
        folder = Path(shutil.copytree(tiny_folder, tmp_path / f"model-{len(seeds)}-{seeds}"))
        shutil.rmtree(folder / "base")
        by_part = dict(zip(PARTS, (seeds["root"], seeds["high"], seeds["low"]), strict=True))
        ensemble(folder / "base", by_part)
        before = read_manifest(folder)
        assemble(folder, name="experts", stages=before.stages, encoders=before.encoders)
        return folder

    return make


def painted(folder: Path, residency: str) -> bytes:
    painter = bottega.load(folder, device="cpu", dtype="float32")
    stages = load_stages(folder, read_manifest(folder), residency=residency)
    painter.stages = stages
    return painter.paint("a red car", seeds=[3])[0].tobytes()


def test_copies_of_one_denoiser_paint_as_the_one_does(model, tiny_folder, tmp_path):
    copies = model(root=0, high=0, low=0)
    single = Path(shutil.copytree(tiny_folder, tmp_path / "single"))
    save_denoiser(single / "base", unet(0).state_dict(), DenoiserConfig(network=tiny_network()))
    before = read_manifest(single)
    assemble(single, name="single", stages=before.stages, encoders=before.encoders)
    alone = painted(single, "all")
    assert painted(copies, "all") == alone
    assert painted(copies, "active") == alone


def test_experts_that_differ_paint_otherwise_and_alike_under_every_residency(model):
    others = model(root=0, high=1, low=2)
    everything = painted(others, "all")
    assert everything != painted(model(root=0, high=0, low=0), "all")
    assert painted(others, "active") == everything


def test_a_picture_by_experts_says_who_made_it_and_is_made_again(model):
    folder = model(root=0, high=1, low=2)
    painter = bottega.load(folder, device="cpu", dtype="float32")
    picture = painter.paint("two apples on a blue background")[0]
    origin = parse_provenance(picture.info[CHUNK])
    assert origin.model_digest == read_manifest(folder).digest
    assert repaint(painter, origin).tobytes() == picture.tobytes()
    other = bottega.load(model(root=0, high=1, low=3), device="cpu", dtype="float32")
    assert other.digest != painter.digest


def test_every_member_is_asked_at_its_own_noise(tmp_path):
    home = ensemble(tmp_path / "e", {"0/0": 0, "9/511": 1, "3/0": 2})
    mixture = load_mixture(home)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma, seed in ((80.0, 1), (9.7, 1), (9.5, 0), (0.1, 0), (0.05, 2), (0.0, 2)):
        alone = Denoiser(unet(seed).to(torch.bfloat16).float())
        level = torch.tensor([sigma])
        condition = Condition()
        with torch.no_grad():
            expected = alone(x, level, alone.prepare(condition))
            found = mixture(x, level, mixture.prepare(condition))
        assert torch.equal(found, expected), sigma
    table = steps_table(mixture.parts, NOISE, [80.0, 1.0, 0.05, 0.0], "euler")
    assert [call.expert for call in table] == ["9/511", "0/0", "3/0"]


def test_a_guest_takes_its_place_and_parents_stand_in_for_the_rest(tmp_path):
    home = ensemble(tmp_path / "e", {"0/0": 0, "3/0": 2})
    guest = Denoiser(unet(5))
    mixture = mixture_with(home, Node(9, 511), guest)
    assert mixture.expert_for(80.0).denoiser is guest
    assert [mixture.expert_for(s).name for s in (80.0, 1.0, 0.01)] == ["9/511", "0/0", "3/0"]
    assert read_ensemble(home).parts == ("0/0", "3/0")  # nothing is filed by looking


def test_what_is_damaged_or_mixed_up_is_named(tmp_path):
    home = ensemble(tmp_path / "e", {"0/0": 0, "3/0": 2})
    assert ensemble_config(home).network == tiny_network()
    data = bytearray((home / "3-0" / "denoiser.safetensors").read_bytes())
    data[-1] ^= 1
    (home / "3-0" / "denoiser.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"3-0.denoiser\.safetensors is damaged"):
        load_mixture(home)
    shutil.rmtree(home / "3-0")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_mixture(home)
    shutil.copytree(home / "0-0", home / "3-0")
    with pytest.raises(CheckpointError, match=r"ensemble\.json says"):
        load_mixture(home)


def test_an_ensemble_of_nobody_or_of_strangers_cannot_paint(tmp_path):
    home = tmp_path / "e"
    root = file_unet(home, "0/0", 0)
    file_unet(home, "3/0", 1, parent=root, noise=LogNormal(mean=0.5))
    with pytest.raises(CheckpointError, match="learned other noise"):
        load_mixture(home)
    with pytest.raises(CheckpointError, match="is built otherwise than"):
        ensemble_config(home)
    facts = json.loads((home / "ensemble.json").read_text())
    (home / "ensemble.json").write_text(json.dumps(facts | {"members": []}))
    with pytest.raises(CheckpointError, match="holds no expert denoiser"):
        load_mixture(home)
