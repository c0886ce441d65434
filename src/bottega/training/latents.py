"""Latents in training: what a network of latents is given to see, and a source that brings latents with its pictures.

Latents of a source that ends may be kept on disk: each picture is encoded once, in the order of the source and always
in the same company, so that the values are the same whoever asks for them first.

::

    FOLDER/chunk-000000.safetensors    the latents of pictures 0 to 255 in float16, and so on; of a source with
                                       buckets 256 pictures of the first bucket, and so on bucket by bucket
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bottega.data import Batch, Groups, Source, groups_of
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
        groups = groups_of(source)
        alike = (range(source.num_examples),) if groups is None else groups
        self._lots = [g[at : at + CHUNK] for g in alike for at in range(0, len(g), CHUNK)]
        self._places = (
            None
            if groups is None
            else {
                index: (n, row) for n, lot in enumerate(self._lots) for row, index in enumerate(lot)
            }
        )
        self._chunks: dict[int, Tensor] = {}

    def fill(self, on_pictures: Callable[[int, int], None] | None = None) -> None:
        """Encode whatever is not on disk yet.

        Args:
            on_pictures: Told how many of how many pictures are there, file by file.
        """
        done, total = 0, sum(len(lot) for lot in self._lots)
        for number, lot in enumerate(self._lots):
            self._chunk(number)
            done += len(lot)
            if on_pictures is not None:
                on_pictures(done, total)

    def gather(self, indices: Sequence[int]) -> Float[Tensor, "batch _ _ _"]:
        """The latents of some pictures of one size, in float32."""
        rows: list[Tensor] = []
        for index in indices:
            number, row = divmod(index, CHUNK) if self._places is None else self._places[index]
            rows.append(self._chunk(number)[row])
        return torch.stack(rows).float()

    def _chunk(self, number: int) -> Tensor:
        if number not in self._chunks:
            path = self._folder / f"chunk-{number:06d}.safetensors"
            lot = self._lots[number]
            kept = self._read(path, lot)
            self._chunks[number] = self._made(path, lot) if kept is None else kept
        return self._chunks[number]

    def _read(self, path: Path, lot: Sequence[int]) -> Tensor | None:
        """What a file holds; None where it is missing or damaged."""
        if not path.is_file():
            return None
        try:
            latents = load_file(path)["latents"]  # mapped: a page is read when it is used
        except (OSError, SafetensorError, KeyError):
            return None
        return latents if len(latents) == len(lot) else None

    def _made(self, path: Path, indices: Sequence[int]) -> Tensor:
        """Encode the pictures of a file, and write it."""
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

    @property
    def groups(self) -> Groups | None:
        """Those of the source beneath."""
        return groups_of(self._source)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's batch with its latents."""
        batch = self._source.batch(indices)
        return dataclasses.replace(batch, latents=self._cache.gather(indices))


__all__ = ["CHUNK", "Encode", "LatentCache", "LatentSource", "seen_by_network"]
