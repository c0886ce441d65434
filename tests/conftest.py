"""Shapes are types: every annotated tensor in bottega is checked while the tests run."""

import os

from jaxtyping import install_import_hook

if os.environ.get("BOTTEGA_SHAPE_HOOK", "1") == "1":
    install_import_hook("bottega", "beartype.beartype")
