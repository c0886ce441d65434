"""A progress bar over stages and steps, on stderr, and only where somebody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottega.pipelines import PaintStep


@contextmanager
def painting_bar(num_pictures: int, num_steps: int) -> Iterator[Callable[["PaintStep"], None]]:
    """Show a bar while pictures are painted, and give the function that moves it.

    Args:
        num_pictures: How many are painted.
        num_steps: How many steps one picture takes, over all its stages.
    """
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=num_pictures * num_steps)

        def move(step: "PaintStep") -> None:
            which = f"picture {step.indices[-1] + 1}/{num_pictures}  " if num_pictures > 1 else ""
            place = f"{which}{step.stage}  step {step.step}/{step.num_steps}"
            progress.update(task, advance=len(step.indices), description=place)

        yield move


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while things are counted, and give the function that is told how many of how many are done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def move(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield move


__all__ = ["counting_bar", "painting_bar"]
