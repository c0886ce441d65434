"""From nothing to a picture: every recipe of piccolo at toy size, its exports assembled, a prompt painted."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from bottega import load
from bottega.checkpoint import load_tensors
from bottega.cli.main import run as run_command
from bottega.conditioning import TinyClipConfig, TinyT5Config, TokenizerConfig
from bottega.errors import CheckpointError, ConfigError
from bottega.evaluation.judge import Judge
from bottega.models import UNetConfig
from bottega.models.plans import ediffi_streams
from bottega.models.unet_config import AddSkips, Level, LowRes, SelfThenCross
from bottega.recipes import RunConfig, recipe, train
from bottega.recipes.run import ClipTask, DenoiserTask, FolderConfig, T5Task
from bottega.recipes.ship import ship_piccolo
from bottega.recipes.train import build

TOKENS = TokenizerConfig(vocab_size=512, max_tokens=48)


def shortened(config: RunConfig, images: int) -> RunConfig:
    """The same run on six things for a moment only."""
    settings = dataclasses.replace(
        config.train,
        total_images=images,
        batch_size=8,
        warmup_images=0,
        checkpoint_images=16,
        precision="fp32",
    )
    data = dataclasses.replace(config.data, num_things=6)
    return dataclasses.replace(config, data=data, train=settings)


def toy_unet(low_res: LowRes | None = None) -> UNetConfig:
    """A network of two levels."""
    return UNetConfig(
        patch=4 if low_res else 2,
        levels=(
            Level(width=16, stride=1, down_blocks=1, up_blocks=1),
            Level(width=32, down_blocks=1, up_blocks=1, attention=SelfThenCross(head_width=16)),
        ),
        middle=None,
        skips=AddSkips(),
        time_width=32,
        streams=ediffi_streams(32, 32),
        context_width=32,
        low_res=low_res,
    )


def denoiser_run(name: str, encoders: Path, images: int) -> RunConfig:
    """A denoiser recipe with a toy network and the toy encoders."""
    config = shortened(recipe(name), images)
    assert isinstance(config.task, DenoiserTask)
    network = toy_unet(None if config.task.low_res_size is None else LowRes(scale=4))
    task = dataclasses.replace(config.task, network=network, encoders=str(encoders))
    return dataclasses.replace(config, task=task, num_examples=24)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every recipe has run."""
    root = tmp_path_factory.mktemp("workshop")
    t5 = TinyT5Config(d_model=32, num_heads=2, d_ff=32, num_layers=1, num_decoder_layers=1)
    clip = TinyClipConfig(
        text_width=32, text_layers=1, text_heads=2, text_ff=32, vision_width=32, vision_layers=1,
        vision_heads=2, vision_ff=32, projection=32,
    )  # fmt: skip
    parts = {
        "piccolo-t5": T5Task(model=t5, tokenizer=TOKENS),
        "piccolo-clip": ClipTask(model=clip, tokenizer=TOKENS),
    }
    for name, task in parts.items():
        config = dataclasses.replace(shortened(recipe(name), 16), task=task)
        train(config, root / name)
        (root / name / "export").rename(root / name.removeprefix("piccolo-"))
    for name in ("piccolo-base", "piccolo-sr"):
        train(denoiser_run(name, root, 16), root / name)
    train(shortened(recipe("piccolo-judge"), 16), root / "piccolo-judge")
    return root


def test_what_the_recipes_export_becomes_a_model_that_paints(
    workshop: Path, tmp_path: Path
) -> None:
    for name in ("t5", "clip"):
        run = tmp_path / "runs" / f"piccolo-{name}"
        run.mkdir(parents=True)
        (run / "export").symlink_to(workshop / name)
    for name in ("base", "sr", "judge"):
        (tmp_path / "runs" / f"piccolo-{name}").symlink_to(workshop / f"piccolo-{name}")
    command = ["assemble", str(tmp_path / "runs"), "-o", str(tmp_path / "model")]
    assert run_command(command) == 0
    assert run_command(command) == 0  # a model that is there already is replaced
    assert not list(tmp_path.glob(".*"))
    painter = load(tmp_path / "model", dtype="float32")
    pictures = painter.paint(["a pizza to the left of a cat"], seeds=[1], steps=2)
    assert pictures[0].size == (128, 128)


def test_runs_that_have_exported_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks finished runs of piccolo-t5, piccolo-clip"):
        ship_piccolo(tmp_path, tmp_path / "model")


def test_a_denoiser_run_leaves_previews_and_one_cache_for_its_captions(workshop: Path) -> None:
    assert list((workshop / "piccolo-base" / "previews").glob("*.png"))
    assert (workshop / "embeddings").is_dir()


def test_previews_leave_the_run_as_it_was(workshop: Path, tmp_path: Path, monkeypatch) -> None:
    config = denoiser_run("piccolo-base", workshop, 32)
    undisturbed = train(config, tmp_path / "undisturbed").digest()
    # By its name in sys.modules, because the package shows the function of the same name.
    monkeypatch.setattr(sys.modules["bottega.recipes.train"], "_PREVIEW_IMAGES", 8)
    assert train(config, tmp_path / "previewed").digest() == undisturbed


def test_a_folder_of_pictures_can_be_learned_from(workshop: Path, tmp_path: Path) -> None:
    for number in range(10):
        Image.new("RGB", (40, 36), (number * 20, 90, 120)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"colour number {number}", encoding="utf-8")
    config = denoiser_run("piccolo-base", workshop, 16)
    config = dataclasses.replace(config, data=FolderConfig(path=str(tmp_path)))
    state = train(config, workshop / "folder-run")
    assert state.images_seen == 16
    assert list(state.run.previews.glob("*.png"))


def test_a_run_can_start_from_weights_that_were_exported(workshop: Path, tmp_path: Path) -> None:
    config = denoiser_run("piccolo-base", workshop, 16)
    assert isinstance(config.task, DenoiserTask)
    exported = workshop / "piccolo-base" / "export"
    task = dataclasses.replace(config.task, start_from=str(exported))
    started, _ = build(dataclasses.replace(config, task=task))
    saved = load_tensors(exported, "denoiser")
    for name, tensor in started.state_dict().items():
        assert torch.equal(tensor, saved[name].float()), name


def test_only_denoisers_learn_from_folders() -> None:
    with pytest.raises(ConfigError, match="learns from the drawn world"):
        dataclasses.replace(recipe("piccolo-clip"), data=FolderConfig(path="pictures"))


def test_the_exported_judge_reads_pictures(workshop: Path) -> None:
    judge = Judge.load(workshop / "piccolo-judge" / "export")
    assert judge.config.things[:2] == ("pizza", "cat")


def test_a_finished_run_can_be_made_longer(workshop: Path) -> None:
    config = denoiser_run("piccolo-base", workshop, 32)
    state = train(config, workshop / "piccolo-base", resume=True)
    assert state.images_seen == 32


def test_a_run_folder_belongs_to_one_recipe(workshop: Path) -> None:
    config = denoiser_run("piccolo-sr", workshop, 16)
    with pytest.raises(ConfigError, match="holds a run of the recipe piccolo-base"):
        train(config, workshop / "piccolo-base", resume=True)


def test_encoders_that_are_not_there_are_named(tmp_path: Path) -> None:
    config = denoiser_run("piccolo-base", tmp_path, 16)
    with pytest.raises(CheckpointError, match="expected the folders t5 and clip"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("name", ["lab", "piccolo-base", "piccolo-sr"])
def test_super_resolution_needs_an_augmentation_and_a_base_has_none(name: str) -> None:
    task = recipe(name).task
    assert isinstance(task, DenoiserTask)
    with pytest.raises(ConfigError, match="go together"):
        dataclasses.replace(task, low_res_size=None if task.low_res_size else 8)


def test_sizes_that_mean_nothing_are_refused() -> None:
    config = recipe("piccolo-sr")
    with pytest.raises(ConfigError, match="must divide size"):
        dataclasses.replace(config, size=100)
    with pytest.raises(ConfigError, match="at least 8"):
        dataclasses.replace(config, size=4)
    with pytest.raises(ConfigError, match="num_examples must be positive"):
        dataclasses.replace(config, num_examples=0)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean piccolo-base"):
        recipe("picolo-base")
