"""Regions and pictures to begin with, as the options of ``bottega paint`` give them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottega.pipelines import Canvas, Explanation, Painter, Region
    from bottega.pipelines.edit import Start


def read_regions(texts: list[str]) -> "list[Region]":
    """Every ``--region``."""
    from bottega.pipelines.output import open_mask
    from bottega.pipelines.regions import parse_region

    return [parse_region(text, open_mask) for text in texts]


def read_start(
    source: Path | None, inpaint: Path | None, mask: Path | None, strength: float | None
) -> "Start | None":
    """``--from``, or ``--inpaint`` with ``--mask``, and ``--strength`` for either.

    Raises:
        InputError: For options that do not go together, a file that is no picture, or a mask of another size.
    """
    from bottega.errors import InputError
    from bottega.pipelines import FromPicture, Inpaint, open_picture
    from bottega.pipelines.output import open_mask

    if source is not None and inpaint is not None:
        raise InputError(
            "--from changes a whole picture, --inpaint a part of one: give one of them"
        )
    if (mask is None) != (inpaint is None):
        raise InputError(
            "--inpaint and --mask go together: the picture, and where to paint in white"
        )
    own = {} if strength is None else {"strength": strength}
    if source is not None:
        return FromPicture(open_picture(source), **own)
    if inpaint is not None and mask is not None:
        return Inpaint(open_picture(inpaint), open_mask(mask), **own)
    if strength is not None:
        raise InputError("--strength is for a picture to begin with: give --from or --inpaint too")
    return None


def read_size(size: str | None, aspect: str | None) -> "Canvas | float | None":
    """The canvas that ``--size`` gives, or width over height from ``--aspect``.

    Raises:
        InputError: For both at once, or what neither size nor aspect can be.
    """
    from bottega.errors import InputError
    from bottega.pipelines import parse_aspect, parse_canvas

    if size is not None and aspect is not None:
        raise InputError("--size says everything that --aspect does: give one of them")
    if size is not None:
        return parse_canvas(size)
    return None if aspect is None else parse_aspect(aspect)


def canvas_for(painter: "Painter", wanted: "Canvas | float | None") -> "Canvas":
    """What `read_size` gave as a canvas that the painter has; without a wish, its own square."""
    from bottega.pipelines import Canvas

    if isinstance(wanted, (int, float)):
        return painter.size_for(wanted)
    side = painter.stages[-1].size
    return Canvas(height=side, width=side) if wanted is None else wanted


def explain_to(target: Path | None, regions: "list[Region]") -> "Explanation | None":
    """What ``--explain`` collects.

    Raises:
        InputError: Without regions, or for a place where no PNG can be written.
    """
    from bottega.errors import InputError
    from bottega.pipelines import Explanation, check_writable

    if target is None:
        return None
    if not regions:
        raise InputError("--explain draws regions: give --region too")
    check_writable(target)
    return Explanation()


__all__ = ["canvas_for", "explain_to", "read_regions", "read_size", "read_start"]
