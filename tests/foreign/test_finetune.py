"""``bottega train finetune`` trains an imported model on pictures, and what it exports paints and goes back."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bottega.cli.main import run
from bottega.pipelines import load
from bottega.pipelines.convert import export_model, import_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers' own
    pytest.mark.slow,
]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {colour} dog")
    return folder


def test_an_imported_model_is_trained_paints_and_goes_back(
    folders, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    import_model(folders("sd"), tmp_path / "model")
    settings = {
        "data.path": pictures,
        "task.model": tmp_path / "model",
        "size": 16,
        "train.total_images": 16,
        "train.batch_size": 4,
        "train.learning_rate": "1e-2",
        "train.warmup_images": 0,
        "train.checkpoint_images": 16,
        "train.ema.every_images": 4,
    }
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert run(["train", "finetune", "--run", str(tmp_path / "run"), *arguments]) == 0
    exported = tmp_path / "run" / "export"
    before = load(tmp_path / "model", device="cpu", dtype="float32")
    after = load(exported, device="cpu", dtype="float32")
    assert after.digest != before.digest and after.settings == before.settings
    (old,) = before.paint("a red dog", steps=2)
    (new,) = after.paint("a red dog", steps=2)
    assert not np.array_equal(np.asarray(old), np.asarray(new))
    (back,) = export_model(exported, tmp_path / "again")
    learned = load_file(back / "unet" / "diffusion_pytorch_model.safetensors")
    known = load_file(folders("sd") / "unet" / "diffusion_pytorch_model.safetensors")
    assert {n: t.shape for n, t in learned.items()} == {n: t.shape for n, t in known.items()}
    assert not torch.equal(learned["conv_in.weight"], known["conv_in.weight"])


def test_what_cannot_be_trained_further_is_refused(folders, pictures, tmp_path, capsys):
    import_model(folders("if1"), tmp_path / "if", then=[folders("if2")])

    def refused(words, *settings):
        extra = [part for text in settings for part in ("--set", text)]
        code = run(
            ["train", "finetune", "--run", str(tmp_path / "run"), "--set", f"data.path={pictures}",
             "--set", f"task.model={tmp_path / 'if'}", *extra]
        )  # fmt: skip
        err = capsys.readouterr().err
        assert code == 2 and words in err, err

    refused("give --set size=16")
    refused("only stages that do not", "size=32", "task.stage=sr")
    refused("did you mean base", "size=16", "task.stage=bass")
