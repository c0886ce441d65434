"""An autoencoder of ours is trained, leaves its run as diffusers' own, and its scale is what it says."""

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from bottega.config import override, parse_assignments
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.errors import CheckpointError, ConfigError
from bottega.models.autoencoder import AutoencoderConfig, build_autoencoder
from bottega.pipelines.latent import (
    Autoencoder,
    autoencoder_digest,
    find_autoencoder,
    is_autoencoder,
    measured_scale,
    open_autoencoder,
    read_autoencoder,
    write_autoencoder,
)
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.autoencoder import Reconstructions, signal_to_noise
from bottega.recipes.run import AutoencoderTask, FolderConfig
from bottega.recipes.sources import preview_batch
from bottega.training import LocalEngine

TINY = AutoencoderConfig(widths=(8, 16), norm_groups=2)


def toy(total: int = 16) -> RunConfig:
    """The recipe with a network of a few thousand weights, for a moment."""
    config = recipe("piccolo-autoencoder")
    train_config = dataclasses.replace(
        config.train, total_images=total, batch_size=8, warmup_images=0, checkpoint_images=8
    )
    data = dataclasses.replace(config.data, num_things=4)
    task = dataclasses.replace(config.task, model=TINY, scale_pictures=24)
    return dataclasses.replace(config, data=data, size=16, task=task, train=train_config)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "piccolo-autoencoder"
    train(toy(), folder, engine=LocalEngine())
    return folder


def test_latents_are_unit_normal_in_the_mean_and_the_journal_says_how(run):
    space = read_autoencoder(run / "export")
    assert (space.channels, space.factor) == (4, 2)
    clean = preview_batch(toy(), 24).clean()
    latents = space.encode(clean).double()
    assert float(latents.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-3)
    records = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    (record,) = [record for record in records if record["event"] == "latents"]
    assert (record["scale"], record["shift"]) == (space.scale, space.shift)
    assert record["psnr_db"] == pytest.approx(signal_to_noise(space, [clean]), abs=1e-3)
    assert record["images_seen"] == 16


def test_diffusers_reads_the_export_and_agrees(run):
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(run / "export")
    ours = open_autoencoder(run / "export")
    pictures = preview_batch(toy(), 2).clean()
    with torch.no_grad():
        expected = theirs.float()(pictures).sample
        assert torch.equal(ours(pictures), expected)
    assert theirs.config["scaling_factor"] == read_autoencoder(run / "export").scale
    assert theirs.config["shift_factor"] == read_autoencoder(run / "export").shift


def test_the_export_is_small_and_holds_no_pickle(run):
    names = sorted(path.name for path in (run / "export").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_the_shipped_size_is_below_four_megabytes():
    task = recipe("piccolo-autoencoder").task
    assert isinstance(task, AutoencoderTask)
    with torch.device("meta"):
        count = sum(p.numel() for p in build_autoencoder(task.model, 64).parameters())
    assert 2 * count < 4_000_000


def test_a_sheet_shows_pictures_above_what_comes_back(run, tmp_path):
    assert not (run / "previews").exists() or list((run / "previews").iterdir())
    shown = sorted((run / "previews").glob("*.png"))
    with Image.open(shown[-1]) as sheet:
        assert sheet.width > sheet.height > 4 * 16


def test_training_goes_on_to_the_same_weights(run, tmp_path):
    half = override(toy(), parse_assignments([]))
    folder = tmp_path / "piccolo-autoencoder"
    train(half, folder, engine=LocalEngine(), hooks=[_StopAt(8)])
    train(half, folder, engine=LocalEngine(), resume=True)
    assert autoencoder_digest(folder / "export") == autoencoder_digest(run / "export")


def _StopAt(images: int):
    from bottega.training import Hook

    class Stop(Hook):
        def observe(self, state, report):
            if state.images_seen >= images:
                state.stopped_by = "a test"

    return Stop(every_images=2**40)


def test_one_can_be_trained_on_pictures_of_ones_own(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        path = tmp_path / "pictures" / f"{number}.png"
        Image.new("RGB", (20, 20), (80 * number, 0, 90)).save(path)
        path.with_suffix(".txt").write_text("a colour")
    config = dataclasses.replace(toy(8), data=FolderConfig(path=str(tmp_path / "pictures")))
    train(config, tmp_path / "run", engine=LocalEngine())
    assert is_autoencoder(tmp_path / "run" / "export")


def test_the_signal_to_noise_ratio_is_that_of_the_definition():
    class Dimmed(Autoencoder):
        def encode(self, images):
            return images[:, :, ::1]

        def decode(self, latents):
            return latents + 0.2

    space = Dimmed(module=lambda: None, channels=3, factor=1, scale=1.0)
    pictures = torch.zeros(2, 3, 4, 4)
    assert signal_to_noise(space, [pictures]) == pytest.approx(20.0, abs=1e-5)
    assert signal_to_noise(space, [pictures + 1]) > 100  # brighter than white is white


def test_latents_that_say_nothing_have_no_scale():
    torch.manual_seed(0)
    module = build_autoencoder(TINY, 16)
    with pytest.raises(ConfigError, match="at least one picture"):
        measured_scale(module, [])
    for parameter in module.parameters():
        parameter.data.zero_()
    with pytest.raises(ConfigError, match="say nothing"):
        measured_scale(module, [torch.zeros(1, 3, 16, 16)])


def full_disk(*_, **__):
    raise OSError("no space left")


def test_a_writing_that_fails_leaves_the_old_autoencoder(run, tmp_path, monkeypatch):
    module = build_autoencoder(TINY, 16)
    settings, folder = TINY.settings(16), tmp_path / "autoencoder"
    write_autoencoder(folder, settings, module.state_dict())
    before = autoencoder_digest(folder)
    with monkeypatch.context() as broken, pytest.raises(OSError, match="no space left"):
        broken.setattr("bottega.pipelines.latent.save_file", full_disk)
        write_autoencoder(folder, settings, module.state_dict())
    assert autoencoder_digest(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["autoencoder"]


def test_what_is_no_autoencoder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no autoencoder: expected an AutoencoderKL"):
        find_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet"}))
    assert not is_autoencoder(tmp_path)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="scale_pictures must be at least 1"):
        AutoencoderTask(scale_pictures=0)
    with pytest.raises(ConfigError, match="size must be a multiple of 2"):
        dataclasses.replace(toy(), size=17)
    assert isinstance(toy().data, EmojiWorldConfig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reconstructions(toy())
