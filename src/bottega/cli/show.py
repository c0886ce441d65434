"""``bottega show``."""

from typing import Annotated

import typer


def show(target: Annotated[str, typer.Argument()]) -> None:
    """Show."""


__all__ = ["show"]
