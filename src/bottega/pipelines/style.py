"""A reference picture whose style is taken: as a tensor for the encoder, and as a digest for the record."""

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def style_tensor(style: Image.Image) -> Float[Tensor, "3 height width"]:
    """A reference picture in [-1, 1]."""
    pixels = torch.from_numpy(np.array(style.convert("RGB"))).permute(2, 0, 1)
    return pixels.float() / 127.5 - 1


def style_digest(style: Image.Image) -> str:
    """A fingerprint of a reference picture's pixels."""
    plain = style.convert("RGB")
    return hashlib.sha256(f"{plain.size}".encode() + plain.tobytes()).hexdigest()


__all__ = ["style_digest", "style_tensor"]
