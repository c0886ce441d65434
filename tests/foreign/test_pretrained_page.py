"""Every command of docs/pretrained.md runs, on tiny models of the classes that it names, found in the Hub's cache."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bottega.cli.main import run

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # diffusers' own
    pytest.mark.filterwarnings("ignore::bottega.models.moe_load.CollapseWarning"),
]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretrained.md"
IN_THE_CACHE = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/stable-diffusion-xl-refiner-1.0": "refiner",
    "DeepFloyd/IF-I-M-v1.0": "if1",
    "DeepFloyd/IF-II-M-v1.0": "if2",
}


LEARNING = ("Training further", "Expert denoisers", "Experts inside")
QUICK = {
    "size": 16,
    "train.total_images": 4,
    "train.batch_size": 2,
    "train.warmup_images": 0,
    "train.checkpoint_images": 4,
}


def commands():
    """Every command of the page, by its section."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        found[section.splitlines()[0]] = [line for block in blocks for line in block.splitlines()]
    return found


def run_all(lines, capsys):
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "bottega"
        if arguments[0] == "paint":
            arguments += ["--device", "cpu", "--steps", "2"]
        if arguments[0] in ("train", "branch"):
            quick = {k: v for k, v in QUICK.items() if k != "size" or arguments[0] == "train"}
            arguments += [part for k, v in quick.items() for part in ("--set", f"{k}={v}")]
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{out}{err}"
        for picture in re.findall(r"-o (\S+\.png)", line):
            assert Path(picture).is_file()


@pytest.fixture
def cache(folders, tmp_path, monkeypatch):
    """The Hub's cache with a tiny model of each repository's class in it."""
    place = tmp_path / "hub"
    for name, kind in IN_THE_CACHE.items():
        repository = place / f"models--{name.replace('/', '--')}"
        shutil.copytree(folders(kind), repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_every_command_of_the_page_runs(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mask = Image.new("L", (16, 16))
    mask.paste(255, (8, 0, 16, 16))
    mask.save("half.png")
    sections = commands()
    lines = [line for name, section in sections.items() if name not in LEARNING for line in section]
    assert {shlex.split(line)[1] for line in lines} == {
        "show",
        "paint",
        "import",
        "replay",
        "export",
    }
    run_all(lines, capsys)


@pytest.mark.slow
def test_every_command_of_the_page_that_trains_runs(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my-pictures").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (16, 16), colour).save(f"my-pictures/{name}.png")
        Path(f"my-pictures/{name}.txt").write_text(f"a {colour} dog")
    sections = commands()
    imported = [line for line in sections["Stable Diffusion 1.5"] if "bottega import" in line]
    lines = [line for name in LEARNING for line in sections[name]]
    assert {shlex.split(line)[1] for line in lines} == {
        "train",
        "branch",
        "upcycle",
        "routes",
        "show",
        "paint",
        "export",
    }
    run_all([*imported, *lines], capsys)
