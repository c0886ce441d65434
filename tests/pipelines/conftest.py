"""The tiny model, for all tests of painting."""

import pytest
from tiny_model import tiny_folder

from bottega.pipelines import Painter, load

__all__ = ["tiny_folder"]


@pytest.fixture(scope="session")
def painter(tiny_folder) -> Painter:
    return load(tiny_folder, device="cpu", dtype="float32")
