"""What ``bottega show`` says of a network that has experts inside: how many, where, and what is at work at once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bottega.models import UNetConfig
    from bottega.pipelines import Painter


def expert_lines(config: "UNetConfig", size: int) -> Iterator[str]:
    """Nothing for a network without experts; otherwise its census, for pictures of ``size``."""
    from bottega.cli.show import short
    from bottega.models.expert_places import SPACE_EXPERTS, expert_census

    census = expert_census(config)
    if census is None:
        return
    total = census.parameters
    yield f"experts            in {census.blocks} transformer blocks"
    for kind, count in census.shares.items():
        yield f"  {kind:29} {short(count):>7}  {count / total:.0%}"
    for place in census.places:
        ways = [
            f"{number} {way}"
            for number, way in ((place.down, "down"), (place.middle, "middle"), (place.up, "up"))
            if number > 0
        ]
        each = [
            f"{number} {kind} experts of {short(count)}"
            for kind, (number, count) in (("space", place.space), ("time", place.time))
            if number > 0
        ]
        yield (
            f"  level {size // place.divisor:>4} px    {place.width:>5} channels  "
            f"{place.blocks} block{'s' if place.blocks > 1 else ''} ({', '.join(ways)}), each with "
            f"{' and '.join(each)}"
        )
    if census.idle_time > 0:
        yield (
            f"at work at once    {short(total - census.idle_time)} parameters at most: of the time experts one a "
            "block, by the noise"
        )
    if SPACE_EXPERTS in census.shares:
        yield (
            "                   of the space experts those that a word of the prompt takes; the operations above "
            "count all at every position"
        )


def say_shelves(painter: "Painter") -> None:
    """Which share of the space experts the prompts needed, where the others were left on disk."""
    from bottega.pipelines.shelf import shelf_of

    for stage in painter.stages:
        count = shelf_of(stage.denoiser)
        if count is not None:
            typer.echo(
                f"{stage.name}: {count.most_resident} of {count.experts} space experts were in memory at most; "
                f"{count.spared_bytes / 1e6:.1f} of {sum(count.bytes_each) / 1e6:.1f} MB stayed on disk",
                err=True,
            )


__all__ = ["expert_lines", "say_shelves"]
