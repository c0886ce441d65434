"""Where to compute and in which precision, from the words a user writes."""

import torch

from bottega.errors import InputError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, and the CPU otherwise.

    Raises:
        InputError: For an unknown name, or a device that is not here.
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not index.isdigit()):
        raise InputError(f"device {name!r} is not known{nearest(kind, DEVICES)}")
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if int(index or 0) >= present:
        raise InputError(
            f"there is no device {name} here; choose cpu, or auto for the best there is"
        )
    return torch.device(name)


def find_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of that name; ``auto`` is bfloat16 where ``device`` multiplies it fast.

    Raises:
        InputError: For an unknown name.
    """
    name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known{nearest(name, DTYPES)}")
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # Asked by name, because the functions are not promised to stay.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


__all__ = ["DEVICES", "DTYPES", "find_device", "find_dtype", "has_fast_bfloat16"]
