"""A denoiser learns in the latents of an autoencoder, becomes a model folder, and that paints."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_latents import EPS, SIDE, TINY, tiny_autoencoder, toy_latent, write_tiny_autoencoder
from tiny_model import tiny_unet
from toy_runs import toy_sr

from bottega import load
from bottega.checkpoint import load_manifest, load_tensors
from bottega.cli.main import run as run_command
from bottega.diffusion import Denoiser, TimestepDenoiser
from bottega.errors import CheckpointError, ConfigError, InputError
from bottega.pipelines import (
    Box,
    Inpaint,
    Region,
    assemble,
    paint_again,
    read_manifest,
    save_denoiser,
    save_picture,
)
from bottega.pipelines.stored import denoiser_config
from bottega.recipes import train
from bottega.recipes.branch import begin_child
from bottega.recipes.latents import cache_key, open_space
from bottega.recipes.run import FolderConfig, LatentSpace
from bottega.recipes.train import build
from bottega.training import LocalEngine

__all__ = ["tiny_autoencoder"]

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long")  # for toy encoders

FORMS = {"edm": None, "eps": EPS}


def trained(config, folder: Path):
    return train(config, folder, engine=LocalEngine())


@pytest.fixture(scope="module", params=sorted(FORMS))
def painted(request, tiny_folder, tiny_autoencoder, tmp_path_factory):
    """A run of each form, and the model that it became."""
    root = tmp_path_factory.mktemp(f"latents-{request.param}")
    config = toy_latent(tiny_folder, tiny_autoencoder, plan=FORMS[request.param])
    trained(config, root / "run")
    code = run_command(["assemble", str(root / "run"), "-o", str(root / "model"), "--name", "mine"])
    assert code == 0
    return root, request.param


def test_the_model_paints_in_latents_what_its_form_says(painted, tiny_autoencoder):
    root, form = painted
    painter = load(root / "model", device="cpu")
    (stage,) = painter.stages
    assert stage.shape == (4, SIDE // 2, SIDE // 2) and stage.multiple == 4
    assert isinstance(stage.denoiser, TimestepDenoiser if form == "eps" else Denoiser)
    assert (stage.timestep_plan == EPS) == (form == "eps")
    assert painter.settings["base"].thresholding is None
    assert painter.settings["base"].grid == ("trailing" if form == "eps" else "karras")
    first, second = painter.paint(["a dog", "a red car"], seeds=[1, 2], steps=3)
    assert first.size == (SIDE, SIDE)
    assert not np.array_equal(np.asarray(first), np.asarray(second))
    (alone,) = painter.paint("a red car", seeds=2, steps=3)
    assert np.array_equal(np.asarray(alone), np.asarray(second))


@pytest.fixture
def talkative(painted, tmp_path):
    """The same model with weights that all matter: what begins at zero has hardly moved in a moment of training."""
    root, _ = painted
    model = shutil.copytree(root / "model", tmp_path / "talkative")
    facts = read_manifest(model)
    stored = denoiser_config(model / "base", load_manifest(model / "base"))
    shutil.rmtree(model / "base")
    save_denoiser(model / "base", tiny_unet(stored.network, 0).state_dict(), stored)
    assemble(model, name="mine", stages=facts.stages, encoders=facts.encoders)
    return model


def test_pictures_of_latents_are_replayed_byte_for_byte(talkative, tmp_path):
    painter = load(talkative, device="cpu")
    region = Region(phrase="dog", where=Box(left=0.0, top=0.0, right=0.5, bottom=1.0), strength=5.0)
    plain, placed = (
        painter.paint("a dog", seeds=3, steps=3, regions=regions)[0] for regions in ([], [region])
    )
    assert not np.array_equal(np.asarray(plain), np.asarray(placed))
    path = save_picture(placed, tmp_path / "placed.png")
    assert paint_again(path, model=talkative).same_bytes


def test_a_part_of_a_picture_is_painted_anew_and_the_rest_stays(talkative):
    painter = load(talkative, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (SIDE // 2, 0, SIDE, SIDE))
    start = Inpaint(Image.fromarray(pixels), mask)
    (made,) = painter.paint("a dog", seeds=3, steps=3, start=start)
    left, right = np.split(np.asarray(made), 2, axis=1)
    assert np.array_equal(left, pixels[:, : SIDE // 2])
    assert not np.array_equal(right, pixels[:, SIDE // 2 :])


def test_a_probe_shows_a_network_of_latents_what_it_knows(talkative, tmp_path, capsys):
    arguments = ["--pictures", "2", "--sigmas", "1", "--maps", str(tmp_path / "maps.png")]
    code = run_command(["probe", "attention", "--model", str(talkative), *arguments])
    assert code == 0 and "sigma        1" in capsys.readouterr().out
    with Image.open(tmp_path / "maps.png") as maps:
        assert maps.width > SIDE


def test_the_network_of_the_model_is_the_one_that_was_trained(painted):
    root, _ = painted
    exported = load_tensors(root / "run" / "export")
    shipped = load(root / "model", device="cpu").stages[0].denoiser.network.state_dict()
    for name, tensor in exported.items():
        assert torch.equal(shipped[name].to(tensor.dtype), tensor), name


def test_show_says_where_a_model_paints(painted, capsys):
    root, _ = painted
    assert run_command(["show", str(root / "model")]) == 0
    said = capsys.readouterr().out
    assert "4 channels, a position for 2 x 2 pixels" in said and "at 8 x 8" in said
    assert run_command(["show", str(root / "model" / "autoencoder")]) == 0
    assert "after a shift of 0.1" in capsys.readouterr().out


def test_the_digest_of_a_model_knows_its_autoencoder(painted, tmp_path):
    root, _ = painted
    manifest = read_manifest(root / "model")
    assert {name.split("/")[0] for name in manifest.files} >= {"base", "autoencoder", "t5", "clip"}
    stage = dataclasses.replace(manifest.stages[0], autoencoder=None)
    assert dataclasses.replace(manifest, stages=(stage,)).digest != manifest.digest


def test_a_model_whose_network_does_not_fit_its_latents_is_refused(painted, tmp_path):
    root, _ = painted
    model = shutil.copytree(root / "model", tmp_path / "model")
    facts = json.loads((model / "manifest.json").read_text())
    facts["stages"][0]["autoencoder"] = None
    facts["files"] = {k: v for k, v in facts["files"].items() if not k.startswith("autoencoder/")}
    (model / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="takes 4 channels, pictures have 3"):
        load(model, device="cpu")


def test_a_net_that_enlarges_works_on_the_pixels_of_latents(
    tiny_folder, tiny_autoencoder, tmp_path
):
    base = dataclasses.replace(toy_latent(tiny_folder, tiny_autoencoder), size=SIDE // 2)
    trained(base, tmp_path / "base")
    trained(toy_sr(tiny_folder), tmp_path / "large")
    arguments = ["--then", tmp_path / "large", "-o", tmp_path / "model"]
    assert run_command(["assemble", str(tmp_path / "base"), *map(str, arguments)]) == 0
    painter = load(tmp_path / "model", device="cpu")
    first, second = painter.stages
    assert first.space is not None and second.space is None
    assert painter.paint("a dog", steps=2)[0].size == (SIDE, SIDE)


PUBLISHED = {
    "one scale": {},
    "a mean and a spread for each channel": {
        "latents_mean": (-1.6, 1.2, 0.3, -2.0),
        "latents_std": (8.4, 5.9, 5.3, 5.7),
        "scaling_factor": 0.5,
    },
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_any_published_autoencoder_is_a_space(tiny_folder, tmp_path, kind):
    """One of the older form: attention in its middle, further products around the latents, and no shift."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    theirs = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=SIDE,
        **PUBLISHED[kind],
    ).eval()
    theirs.save_pretrained(tmp_path / "published" / "vae")
    config = toy_latent(tiny_folder, tmp_path / "published")
    space = open_space(config.task)
    assert space is not None
    pictures = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    shape, settings = (1, 4, 1, 1), PUBLISHED[kind]
    mean = torch.tensor(settings.get("latents_mean", (0.0,) * 4)).view(shape)
    spread = torch.tensor(settings.get("latents_std", (1.0,) * 4)).view(shape)
    scale = settings.get("scaling_factor", 0.18215)
    with torch.no_grad():  # as diffusers' pipelines have it
        expected = (theirs.encode(pictures).latent_dist.mean - mean) * scale / spread
        torch.testing.assert_close(space.encode(pictures), expected)
        given = theirs.decode(expected * spread / scale + mean).sample
    torch.testing.assert_close(space.decode(expected), given)
    build(config)


def test_kept_latents_train_like_fresh_ones(tiny_folder, tiny_autoencoder, tmp_path):
    fresh = toy_latent(tiny_folder, tiny_autoencoder)
    kept = toy_latent(tiny_folder, tiny_autoencoder, cached=True)
    losses = []
    for name, config in (("fresh", fresh), ("kept", kept), ("again", kept)):
        trained(config, tmp_path / name)
        lines = (tmp_path / name / "journal.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        losses.append([record["loss"] for record in records if record["event"] == "train"])
    assert losses[1] == losses[2]  # read from the disk, to the bit
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # half precision is all that differs
    (folder,) = (tmp_path / "latents").iterdir()
    assert [path.name for path in folder.iterdir()] == ["chunk-000000.safetensors"]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_denoiser_of_latents_can_be_branched(form, tiny_folder, tiny_autoencoder, tmp_path):
    config = toy_latent(tiny_folder, tiny_autoencoder, plan=FORMS[form])
    trained(config, tmp_path / "root")
    child = begin_child(tmp_path / "root", "1/0")
    trained(child.config, child.run)
    code = run_command(["assemble", str(tmp_path / "root"), "-o", str(tmp_path / "model")])
    assert code == 0
    painter = load(tmp_path / "model", device="cpu")
    (stage,) = painter.stages
    assert len(stage.denoiser.parts) == 2 and stage.timestep_plan == FORMS[form]
    assert painter.paint("a dog", steps=2)[0].size == (SIDE, SIDE)


def test_what_does_not_fit_an_autoencoder_is_one_clear_error(
    tiny_folder, tiny_autoencoder, tmp_path
):
    config = toy_latent(tiny_folder, tiny_autoencoder)
    task = config.task

    def with_(**changes):
        return dataclasses.replace(task, **changes)

    wrong = dataclasses.replace(task.latents, factor=4)
    with pytest.raises(ConfigError, match=r"factor is 4, but the autoencoder .* shrinks by 2"):
        open_space(with_(latents=wrong))
    three = dataclasses.replace(task.network, in_channels=3)
    with pytest.raises(ConfigError, match=r"have 4 channels; .* got 3 and 4"):
        open_space(with_(network=three))
    with pytest.raises(CheckpointError, match="holds no autoencoder"):
        open_space(with_(latents=LatentSpace(autoencoder=str(tmp_path), factor=2)))
    with pytest.raises(InputError, match="neither a folder nor known"):
        build(dataclasses.replace(config, task=with_(latents=LatentSpace(autoencoder="nowhere"))))
    with pytest.raises(ConfigError, match="size must be a multiple of 4"):
        dataclasses.replace(config, size=10)
    with pytest.raises(ConfigError, match="say with num_examples"):
        cached = dataclasses.replace(task.latents, cached=True)
        dataclasses.replace(config, num_examples=None, task=with_(latents=cached))
    with pytest.raises(ConfigError, match="are for a base"):
        with_(low_res_size=8, augmentation=_augmentation())
    with pytest.raises(ConfigError, match="emphasis draws noise"):
        with_(timestep_plan=EPS, emphasis=task.noise)
    with pytest.raises(ConfigError, match=r"task\.latents\.factor must be at least 1"):
        LatentSpace(autoencoder="x", factor=0)


def _augmentation():
    from bottega.diffusion import AugmentationLevels

    return AugmentationLevels(max_level=0.2)


def test_an_autoencoder_is_found_in_whatever_holds_it(tiny_folder, tiny_autoencoder, tmp_path):
    for place in ("export", "autoencoder", "vae"):
        write_tiny_autoencoder(tmp_path / place / place)
        config = toy_latent(tiny_folder, tmp_path / place)
        assert open_space(config.task).channels == TINY.latent_channels


def test_other_pictures_or_another_autoencoder_are_kept_apart(tiny_folder, tmp_path):
    config = toy_latent(tiny_folder, write_tiny_autoencoder(tmp_path / "one"))
    other = write_tiny_autoencoder(tmp_path / "two", seed=1)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"a picture")
    mine = dataclasses.replace(config, data=FolderConfig(path=str(tmp_path / "pictures")))
    keys = [
        cache_key(config, tmp_path / "one"),
        cache_key(config, other),
        cache_key(dataclasses.replace(config, size=SIDE * 2), tmp_path / "one"),
        cache_key(mine, tmp_path / "one"),
    ]
    (tmp_path / "pictures" / "a.png").write_bytes(b"another picture")
    keys.append(cache_key(mine, tmp_path / "one"))
    assert len(set(keys)) == len(keys)
    assert keys[0] == cache_key(config, tmp_path / "one")


def test_assemble_refuses_what_is_no_denoisers_run(tiny_folder, tiny_autoencoder, tmp_path, capsys):
    from bottega.config import dumps
    from bottega.recipes import recipe

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(dumps(recipe("piccolo-autoencoder")))
    for arguments, words in (
        ([tmp_path / "run"], "trains no denoiser"),
        ([tmp_path, "--then", tmp_path / "run"], "--then goes on from a denoiser's run"),
    ):
        code = run_command(["assemble", *map(str, arguments), "-o", str(tmp_path / "model")])
        said = capsys.readouterr()
        assert code == 2 and words in said.err and said.err.count("\n") == 1
    config = toy_latent(tiny_folder, tiny_autoencoder)
    (tmp_path / "run" / "config.json").write_text(dumps(config))
    code = run_command(["assemble", str(tmp_path / "run"), "-o", str(tmp_path / "model")])
    assert code == 2 and "has exported nothing yet" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_run_in_bfloat16_sees_nearly_the_latents_that_one_in_float32_sees(
    tiny_folder, tiny_autoencoder
):
    config = toy_latent(tiny_folder, tiny_autoencoder)
    clean = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact, half = (
        open_space(config.task, dtype=dtype).encode(clean)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32  # what noise is added to
    error = (half - exact).std() / exact.std()
    assert 0 < error < 0.02, error
