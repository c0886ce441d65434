"""Randomness as a value: every draw is a function of (seed, purpose, rank, images_seen), so nothing needs saving."""

import hashlib
from collections.abc import Sequence

import torch

from bottega.errors import InputError
from bottega.shapes import Images


def derive(seed: int, *purpose: str | int) -> int:
    """Mix a seed with what it is for into a 63-bit seed; the same words always give the same number."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator for one purpose, for example ``generator(seed, "train", rank, images_seen)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


class ImageNoise:
    """Unit Gaussian noise with one generator per image, so a picture never depends on its neighbours.

    Draws are made on the CPU and moved, so that a seed means the same picture on every device.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        purpose: str,
        shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Make noise of ``shape`` (channels, height, width) for each of ``seeds``."""
        if not seeds:
            raise InputError("ImageNoise needs at least one seed")
        self._generators = [generator(seed, "paint", purpose) for seed in seeds]
        self._shape = shape
        self._device = device

    def __call__(self) -> Images:
        """The next independent draw for every image, in float32."""
        draws = [torch.randn(self._shape, generator=g) for g in self._generators]
        return torch.stack(draws).to(self._device)


__all__ = ["ImageNoise", "derive", "generator"]
