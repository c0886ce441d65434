import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def load_parity():
    spec = importlib.util.spec_from_file_location(
        "foreign_parity", ROOT / "benchmarks" / "foreign_parity.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


parity = load_parity()
SMALL = {**parity.SD1, "block_out_channels": (32, 64), "layers_per_block": 1}
SMALL |= {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@pytest.fixture(scope="session")
def foreign_parity():
    """The benchmark that compares the two, as a module."""
    return parity


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Every family's network of theirs and of ours, and the folder between them, each made once."""
    made = {}

    def pair(family):
        if family not in made:
            folder = tmp_path_factory.mktemp("unet")
            made[family] = (parity.make_pair(parity.FAMILIES[family], folder), folder)
        return made[family]

    return pair


@pytest.fixture
def small(tmp_path):
    """A folder with a small network, to be spoilt."""
    folder = tmp_path / "unet"
    parity.random_unet(SMALL).save_pretrained(folder)
    return folder
