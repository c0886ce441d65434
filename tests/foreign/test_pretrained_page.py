"""Every command of docs/pretrained.md runs, on tiny models of the classes that it names, found in the Hub's cache."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bottega.cli.main import run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretrained.md"
IN_THE_CACHE = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/stable-diffusion-xl-refiner-1.0": "refiner",
    "DeepFloyd/IF-I-M-v1.0": "if1",
    "DeepFloyd/IF-II-M-v1.0": "if2",
}


def commands():
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


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
    lines = commands()
    assert {shlex.split(line)[1] for line in lines} == {
        "show",
        "paint",
        "import",
        "replay",
        "export",
    }
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "bottega"
        if arguments[0] == "paint":
            arguments += ["--device", "cpu", "--steps", "2"]
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{out}{err}"
        for picture in re.findall(r"-o (\S+)", line):
            assert Path(picture).is_file()
