"""Diffusers folders of every kind, made once for all tests that read them."""

from pathlib import Path

import foreign_models
import pytest


class Folders:
    """Each folder is made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str) -> Path:
        folder = self.root / name
        if not folder.exists():
            make = {
                "sd": foreign_models.save_sd,
                "sd2": lambda f: foreign_models.save_sd(f, prediction="v_prediction"),
                "sdxl": foreign_models.save_sdxl,
                "refiner": lambda f: foreign_models.save_sdxl(f, refiner=True),
                "if1": foreign_models.save_if,
                "if2": lambda f: foreign_models.save_if(f, stage=2),
            }
            make[name](folder)
        return folder


@pytest.fixture
def parity(record_property):
    """Asserts that two agree, and keeps by how much, which ``benchmarks/foreign_parity.py`` makes a table of."""

    def agree(what, found, expected, within=1e-4):
        found, expected = found.detach(), expected.detach()
        apart = float((found - expected).abs().max() / expected.abs().max())
        record_property("parity", (what, apart, within))
        assert apart < within, f"{what}: {apart:.1e}"

    return agree


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("diffusers"))
