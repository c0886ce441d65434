"""A model by name: one that ships with bottega, a folder, or an id of the Hugging Face Hub through its cache."""

import re
from pathlib import Path
from typing import Any, cast

from bottega.errors import InputError
from bottega.pipelines.cascade import SHIPPED, find_model

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = [
    "model_index.json",
    "image_noising_scheduler/*",
    "scheduler/*",
    "text_encoder*/*",
    "tokenizer*/*",
    "unet/*",
    "vae/*",
]
_UNWANTED = [
    "*.bin",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
    "*.onnx*",
    "*.pb",
    "*.xml",
    "*.fp16.*",
    "*non_ema*",
]


def locate(model: str | Path, *, local_files_only: bool = False) -> Path:
    """The folder of a model.

    Args:
        model: The name of one that ships with bottega, a folder, or ``owner/name`` of the Hub. A folder of that name
            wins.
        local_files_only: Look in the Hub's cache, and fetch nothing.

    Raises:
        InputError: When there is no such model, or it cannot be fetched.
        CheckpointError: For a known name whose weights are not in this installation.
    """
    if not isinstance(cast(Any, model), (str, Path)):
        raise InputError(f"a model is a name or a folder, got {model!r}")
    name = str(model)
    if isinstance(model, Path) or name in SHIPPED or Path(name).exists() or not _ID.fullmatch(name):
        return find_model(model)
    return _from_hub(name, local_files_only)


def model_name(model: str | Path) -> str | None:
    """What to call a model after where it comes from: its id, or None for a folder, which has a name itself."""
    name = str(model)
    return name if _ID.fullmatch(name) and not Path(name).exists() else None


def _from_hub(name: str, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    if local_files_only:
        disable_progress_bars()
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                local_files_only=local_files_only,
            )
        )
    except Exception as error:  # the Hub's client raises many kinds; all mean this model
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        where = "in the Hub's cache" if local_files_only else f"in the Hub: {why}"
        raise InputError(f"there is no folder {name}, and no such model {where}") from None
    finally:
        if local_files_only:
            enable_progress_bars()


__all__ = ["locate", "model_name"]
