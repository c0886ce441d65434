"""bottega: train, branch, paint with and measure text-to-image diffusion models made of experts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottega.pipelines import Painter, load

__version__ = "0.1.0"
__all__ = ["Painter", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the painter only when it is asked for, so that ``import bottega`` stays fast."""
    if name in ("Painter", "load"):
        from bottega import pipelines

        return getattr(pipelines, name)
    raise AttributeError(f"module 'bottega' has no attribute {name!r}")
