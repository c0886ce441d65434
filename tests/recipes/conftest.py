"""The tiny model whose encoders toy runs hear."""

from tiny_model import tiny_folder

__all__ = ["tiny_folder"]
