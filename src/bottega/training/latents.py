"""Latents in training: what a network of latents is given to see, and a source that brings latents with its pictures.

Latents of a source that ends may be kept on disk: each picture is encoded once, in the order of the source and always
in the same company, so that the values are the same whoever asks for them first.

::

    FOLDER/chunk-000000.safetensors    the latents of pictures 0 to 255 in float16, and so on
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bottega.data import Batch, Source
from bottega.errors import ConfigError, DataError
from bottega.rundir import write_atomically
from bottega.shapes import Images

Encode = Callable[[Images], Float[Tensor, "batch latent_channels latent_height latent_width"]]
"""Pictures in [-1, 1] to what the network sees, as a space's ``encode``."""

CHUNK = 256
"""Pictures in a file."""

_AT_ONCE = 16


def seen_by_network(
    batch: Batch, encode: Encode | None
) -> Float[Tensor, "batch channels height width"]:
    """What a network is to paint: the latents that the batch brings, else what ``encode`` makes of its pictures."""
    if batch.latents is not None:
        return batch.latents.float()
    clean = batch.clean()
    return clean if encode is None else encode(clean)


class LatentCache:
    """The latents of a source's pictures on disk; what is missing or damaged is encoded anew."""

    def __init__(
        self, folder: Path, source: Source, encode: Encode, *, device: torch.device | str = "cpu"
    ) -> None:
        """Keep in ``folder`` what ``encode`` makes, on ``device``, of the pictures of ``source``.

        Raises:
            ConfigError: For a source without end.
        """
        if source.num_examples is None:
            raise ConfigError(
                "latents of endless pictures cannot all be kept; say with num_examples how many there are"
            )
        self._folder, self._source, self._encode = folder, source, encode
        self._device = torch.device(device)
        self._count = source.num_examples
        self._chunks: dict[int, Tensor] = {}

    def fill(self, on_pictures: Callable[[int, int], None] | None = None) -> None:
        """Encode whatever is not on disk yet.

        Args:
            on_pictures: Told how many of how many pictures are there, file by file.
        """
        for chunk in range(-(-self._count // CHUNK)):
            self._chunk(chunk)
            if on_pictures is not None:
                on_pictures(min((chunk + 1) * CHUNK, self._count), self._count)

    def gather(self, indices: Sequence[int]) -> Float[Tensor, "batch _ _ _"]:
        """The latents of some pictures, in float32."""
        rows = [self._chunk(index // CHUNK)[index % CHUNK] for index in indices]
        return torch.stack(rows).float()

    def _chunk(self, number: int) -> Tensor:
        if number not in self._chunks:
            path = self._folder / f"chunk-{number:06d}.safetensors"
            self._chunks[number] = self._read(path, number) if path.is_file() else self._made(path)
        return self._chunks[number]

    def _indices(self, number: int) -> range:
        return range(number * CHUNK, min((number + 1) * CHUNK, self._count))

    def _read(self, path: Path, number: int) -> Tensor:
        try:
            latents = load_file(path)["latents"]  # mapped: a page is read when it is used
        except (OSError, SafetensorError, KeyError):
            return self._made(path)
        whole = len(latents) == len(self._indices(number))
        return latents if whole else self._made(path)

    def _made(self, path: Path) -> Tensor:
        """Encode the pictures of a file, and write it."""
        indices = self._indices(int(path.stem.removeprefix("chunk-")))
        parts: list[Tensor] = []
        for at in range(0, len(indices), _AT_ONCE):
            clean = self._source.batch(indices[at : at + _AT_ONCE]).clean()
            parts.append(self._encode(clean.to(self._device)).cpu())
        latents = torch.cat(parts).to(torch.float16).contiguous()
        if not bool(latents.isfinite().all()):
            raise DataError(
                f"the autoencoder makes latents that are not finite in float16, of pictures {indices[0]} to "
                f"{indices[-1]}"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({"latents": latents}))
        return load_file(path)["latents"]


class LatentSource:
    """The batches of a source, with the latents of their pictures."""

    def __init__(self, source: Source, cache: LatentCache) -> None:
        """Bring with ``source`` what ``cache`` keeps."""
        self._source, self._cache = source, cache

    @property
    def num_examples(self) -> int | None:
        """As many as the source beneath has."""
        return self._source.num_examples

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's batch with its latents."""
        batch = self._source.batch(indices)
        return dataclasses.replace(batch, latents=self._cache.gather(indices))


__all__ = ["CHUNK", "Encode", "LatentCache", "LatentSource", "seen_by_network"]
