"""The tiny model, for all tests of the command line."""

from tiny_model import tiny_folder

__all__ = ["tiny_folder"]
