"""The benchmarks of adapters run, at a size that says nothing about quality."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tiny_adapters import write_controlnet, write_lora

from bottega.data.emoji_world.plan import STYLES
from bottega.evaluation import Judge, JudgeConfig, JudgeNetwork, judge_config, judge_world
from bottega.pipelines import assemble, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:the text .* is too long for")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
THINGS = 4


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module: ModuleType, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(scope="module")
def judged(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model with a judge that has learned nothing."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("judged") / "model"))
    known = judge_config(judge_world(num_things=THINGS))
    small = JudgeConfig(
        things=known.things,
        backgrounds=known.backgrounds,
        styles=known.styles,
        tints=known.tints,
        signs=known.signs,
        widths=(16, 16, 16),
        size_px=32,
    )
    Judge(JudgeNetwork(small)).save(folder / "judge")
    before = read_manifest(folder)
    assemble(folder, name="tiny", stages=before.stages, encoders=before.encoders, judge="judge")
    return folder


def test_a_blueprint_is_none_of_the_worlds_styles(monkeypatch, tmp_path):
    module = script("lora_style")
    call(module, monkeypatch, "--things", THINGS, "draw", tmp_path / "pictures", "--count", 2)
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 2
    for path in pictures:
        caption = path.with_suffix(".txt").read_text()
        assert caption.strip()
        assert not any(re.search(rf"\b{style}\b", caption) for style in STYLES)
        drawn = np.asarray(Image.open(path)).astype(int)
        assert (drawn[..., 2] >= drawn[..., 0]).mean() > 0.95  # blue, or white


@pytest.mark.slow
def test_styles_are_counted_with_a_lora_and_without(judged, monkeypatch, tmp_path, capsys):
    lora = write_lora(tmp_path / "style")
    call(
        *(script("lora_style"), monkeypatch, "--things", THINGS, "judge", lora),
        *("--model", judged, "--pictures", 2, "--real", 3, "--steps", 1),
        *("--sheet", tmp_path / "sheet.png"),
    )
    said = capsys.readouterr().out
    assert re.search(r"3 unseen real pictures of each of 7 styles: [\d.]+% right", said)
    assert len(re.findall(r"^with\S*,?.*recognised in [\d.]+% of 2 pictures", said, re.M)) == 2
    assert len(list(tmp_path.glob("sheet-*.png"))) == 2


@pytest.mark.slow
def test_edges_are_compared_with_a_controlnet_and_without(judged, monkeypatch, tmp_path, capsys):
    net = write_controlnet(tmp_path / "edges")
    call(
        *(script("controlnet_edges"), monkeypatch, net, "--model", judged, "--things", THINGS),
        *("--pictures", 2, "--steps", 1, "--scales", 1.0, "--sheet", tmp_path / "sheet.png"),
    )
    said = capsys.readouterr().out
    for name in ("edges of another scene", "without", "ControlNet at 1"):
        assert re.search(rf"^{name} +F 0\.\d+  precision", said, re.M), said
    assert (tmp_path / "sheet.png").exists()
