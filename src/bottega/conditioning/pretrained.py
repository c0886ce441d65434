"""Reading frozen transformers models from Hugging Face folders: strict, silent, and with a digest of what was read."""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from bottega.errors import CheckpointError

_READ_BYTES = 1 << 22
# Everything in a folder that decides what an encoder says.
_PATTERNS = (
    "config.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
)


def load_frozen(model_class: Any, folder: Path, *, dtype: torch.dtype) -> Any:
    """Load a model for reading only.

    Raises:
        CheckpointError: When the folder is missing or damaged, or lacks weights that the model needs.
    """
    require_folder(folder)
    try:
        with quiet():
            model, report = model_class.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,  # never a pickle, which the digest would not cover either
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
    except (
        Exception
    ) as error:  # transformers and safetensors raise many kinds; all mean this folder
        raise CheckpointError(
            f"{folder} cannot be read as a {model_class.__name__}: {_first_line(error)}"
        ) from error
    misshapen = (key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    missing = sorted(report["missing_keys"]) + sorted(misshapen)
    if missing:
        raise CheckpointError(
            f"{folder} is no complete {model_class.__name__}: {len(missing)} weights are missing or of "
            f"another shape, the first is {missing[0]}"
        )
    return model.eval().requires_grad_(False)


def require_folder(folder: Path) -> None:
    """Refuse a folder that is not there or holds no ``config.json``."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no encoder: expected a Hugging Face folder with config.json, "
            f"model.safetensors and a tokenizer"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder; an empty object where there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error


def folder_digest(folder: Path, settings: str) -> str:
    """A fingerprint of an encoder's weights, tokenizer and settings, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for pattern in _PATTERNS:
        for path in sorted(folder.glob(pattern)):
            status = path.stat()
            digest.update(path.name.encode())
            digest.update(_file_digest(str(path), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_digest(path: str, _size: int, _changed_ns: int) -> bytes:
    """Size and time are part of the key, so that a file written anew is read anew."""
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.digest()


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep transformers' reports and progress bars off the terminal; what matters is checked by the caller."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


__all__ = ["folder_digest", "load_frozen", "quiet", "read_json", "require_folder"]
