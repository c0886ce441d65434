"""Others' weight files: found in a folder of the diffusers or transformers kind, checked by content, and mapped.

Only safetensors are read. What a file is called decides nothing: a pickle is refused under any name, before any library
opens it.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bottega.errors import CheckpointError

STEMS = ("diffusion_pytorch_model", "model")
"""What weight files are called before their ending: by diffusers, and by transformers."""

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_MAX_HEADER_BYTES = 100_000_000  # what the format's own reader allows
_MAX_CONFIG_BYTES = 10_000_000
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_CONVERT = (
    "convert it where you trust it: torch.load(..., weights_only=True), then safetensors.torch.save_file, "
    "or ask its publisher for safetensors"
)


def read_config(path: Path) -> dict[str, Any]:
    """A configuration in JSON.

    Raises:
        CheckpointError: When it is missing, or no JSON object.
    """
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is too large for a configuration")
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"there is no {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: expected an object, got {type(data).__name__}")
    return cast(dict[str, Any], data)


def weight_files(folder: Path | str) -> list[Path]:
    """The safetensors files that together hold a folder's weights, each checked.

    The plain name comes first, then shards with their index, then the only variant there is (``.fp16``).

    Raises:
        CheckpointError: When there are none, only pickles, or one that is damaged or something else in disguise.
    """
    folder = Path(folder)
    files = _found(folder)
    if not files:
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in _PICKLES)
        if pickles:
            raise CheckpointError(
                f"{folder} holds weights only as a pickle ({pickles[0]}), "
                f"which could run code and is not read; {_CONVERT}"
            )
        raise CheckpointError(
            f"{folder} holds no weights: expected {STEMS[0]}.safetensors or {STEMS[1]}.safetensors"
        )
    for path in files:
        check_safetensors(path)
    return files


def read_weights(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a folder by name, mapped from disk: a page is read when it is used, and never twice.

    Raises:
        CheckpointError: As `weight_files`, and for a tensor that two shards claim.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise CheckpointError(f"{path} holds {twice[0]}, which another shard holds too")
        tensors |= found
    return tensors


def check_safetensors(path: Path) -> None:
    """Refuse a file that is not whole safetensors, by its first bytes and its length alone.

    Raises:
        CheckpointError: Saying what it is instead, as far as that can be told.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = file.read(length) if 2 <= length <= min(size - 8, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not header.startswith(b"{"):
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in _PROTOCOLS):
            raise CheckpointError(
                f"{path} is a pickle, which could run code and is not read; {_CONVERT}"
            )
        raise CheckpointError(f"{path} is no safetensors file, or its beginning is damaged")
    try:
        entries: Any = json.loads(header)
        ends = [
            entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"
        ]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        raise CheckpointError(f"{path} is damaged: its header is no list of tensors") from None
    if size != expected:
        how = "cut off" if size < expected else "too long"
        raise CheckpointError(
            f"{path} is {how}: it has {size:,} bytes, its header promises {expected:,}; fetch it again"
        )


def check_keys(
    config: Mapping[str, Any], known: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """The settings of a foreign configuration, without notes of its writer (keys that begin with ``_``).

    Args:
        config: What the file says.
        known: Every key that is understood.
        where: The file, for messages.

    Raises:
        CheckpointError: For a key that is not understood, because it could change the result.
    """
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    unknown = sorted(set(plain) - set(known))
    if unknown:
        raise CheckpointError(
            f"{where} has the setting {unknown[0]}={plain[unknown[0]]!r}, which is not supported here"
        )
    return plain


def _found(folder: Path) -> list[Path]:
    for stem in STEMS:
        plain = folder / f"{stem}.safetensors"
        if plain.is_file():
            return [plain]
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
    for stem in STEMS:
        variants = sorted(folder.glob(f"{stem}.*.safetensors"))
        if len(variants) == 1:
            return variants
        if variants:
            names = ", ".join(path.name for path in variants)
            raise CheckpointError(
                f"{folder} holds several variants ({names}); leave one of them there"
            )
    return []


def _shards(index: Path) -> list[Path]:
    weights = read_config(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{index} is damaged: it has no weight_map")
    names = sorted({str(name) for name in cast(dict[str, Any], weights).values()})
    for name in names:
        if len(PurePosixPath(name).parts) != 1 or name in ("..", "."):
            raise CheckpointError(f"{index} is damaged: {name!r} is no file beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} lacks the shard {name}; fetch it again")
    return [index.parent / name for name in names]


__all__ = [
    "STEMS",
    "check_keys",
    "check_safetensors",
    "read_config",
    "read_weights",
    "weight_files",
]
