"""The tensor shapes everyone speaks of.

Images are NCHW floats in [-1, 1]; a sigma is a noise standard deviation in those units.
"""

from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Pictures, clean or noisy."""

Sigmas = Float[Tensor, "batch"]
"""One noise level per picture; float32 or wider."""

Tokens = Float[Tensor, "batch tokens width"]
"""One feature vector per token."""

TokenMask = Bool[Tensor, "batch tokens"]
"""True where a token is real, False where it is padding."""

Pooled = Float[Tensor, "batch pooled_width"]
"""One feature vector per text or picture."""

__all__ = ["Images", "Pooled", "Sigmas", "TokenMask", "Tokens"]
