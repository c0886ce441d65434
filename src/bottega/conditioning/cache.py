"""Embeddings of texts on disk, so that a training run encodes each caption once in its life.

A cache is a folder with one folder per text encoder, named by the encoder's digest: another encoder, tokenizer or
length never reads what this one wrote.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bottega.condition import Stream
from bottega.conditioning.bundle import Encoders
from bottega.conditioning.cache_store import CacheStore, Entry, text_key
from bottega.conditioning.encoders import TextEncoder
from bottega.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What a cache holds for one encoder.

    ``truncated`` counts texts that did not fit the encoder; ``damaged`` those whose checksum is wrong, which only
    `EmbeddingCache.verify` looks for.
    """

    encoder: str
    digest: str
    texts: int
    truncated: int
    size_bytes: int
    damaged: int = 0

    @property
    def truncated_frac(self) -> float:
        """Share of the texts that lost tokens."""
        return self.truncated / self.texts if self.texts else 0.0

    def forecast_bytes(self, num_texts: int) -> int:
        """The size of a cache of ``num_texts`` texts like these."""
        return round(self.size_bytes / self.texts * num_texts) if self.texts else 0


class EmbeddingCache:
    """The streams of text encoders, looked up on disk; what is not there is encoded and added.

    Features are kept as float16, real tokens only. Safe to use from several threads, and from several processes at
    once: each process writes files of its own, and sees what others wrote when it opens the cache or calls `refresh`.
    """

    def __init__(self, folder: Path | str, encoders: Encoders, *, rows: int = 64) -> None:
        """Open or begin a cache.

        Args:
            folder: Made when it is not there.
            encoders: Whose text encoders are cached.
            rows: Texts per call of an encoder.

        Raises:
            DataError: When the folder holds something else, or its files cannot be read.
        """
        if rows < 1:
            raise ConfigError(f"rows must be at least 1, got {rows}")
        self.encoders = encoders
        self._rows = rows
        self._lock = threading.Lock()
        self._stores = {
            name: CacheStore(
                Path(folder) / f"{name}-{encoder.digest[:16]}",
                max_tokens=encoder.max_tokens,
                width=encoder.width,
                pooled_width=encoder.pooled_width,
                digest=encoder.digest,
            )
            for name, encoder in encoders.texts.items()
        }

    def encode_texts(
        self, texts: Sequence[str], *, dtype: torch.dtype = torch.float32
    ) -> dict[str, Stream]:
        """The streams of ``texts``, on the CPU.

        A text's features are the same whether they were just encoded or read: both have passed through float16.

        Raises:
            DataError: When what is on disk does not match its checksum.
        """
        with self._lock:
            return {
                name: self._encode(store, self.encoders.texts[name], texts, dtype)
                for name, store in self._stores.items()
            }

    def refresh(self) -> None:
        """Take in what other processes have added since."""
        with self._lock:
            for store in self._stores.values():
                store.refresh()

    def report(self) -> Mapping[str, CacheReport]:
        """What the cache holds, by encoder."""
        with self._lock:
            return {name: self._report(name, store) for name, store in self._stores.items()}

    def verify(self, *, repair: bool = False) -> Mapping[str, CacheReport]:
        """Read everything and compare checksums.

        Args:
            repair: Forget damaged entries, so that they are encoded anew when next asked for. Only for a cache that
                nobody else is using.
        """
        with self._lock:
            return {
                name: self._report(name, store, damaged=store.verify(repair=repair))
                for name, store in self._stores.items()
            }

    def _report(self, name: str, store: CacheStore, damaged: int = 0) -> CacheReport:
        return CacheReport(
            encoder=name,
            digest=self.encoders.texts[name].digest,
            texts=len(store),
            truncated=store.truncated,
            size_bytes=store.size_bytes,
            damaged=damaged,
        )

    def _encode(
        self, store: CacheStore, encoder: TextEncoder, texts: Sequence[str], dtype: torch.dtype
    ) -> Stream:
        keys = [text_key(text) for text in texts]
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in store}
        if missing:
            encoded = encoder.encode(list(missing.values()), rows=self._rows)
            store.append(
                [
                    Entry.of(key, encoded.stream, row, encoded.truncated[row])
                    for row, key in enumerate(missing)
                ]
            )
        return store.gather(keys, dtype)


__all__ = ["CacheReport", "EmbeddingCache"]
