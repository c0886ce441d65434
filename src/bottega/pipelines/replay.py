"""Painting a picture again from what its file says, and comparing the two byte for byte."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from bottega.errors import InputError
from bottega.pipelines.cascade import SHIPPED
from bottega.pipelines.controls import guides_again
from bottega.pipelines.edit import restart
from bottega.pipelines.loading import load
from bottega.pipelines.output import encode, open_picture
from bottega.pipelines.painter import Painter, PaintStep
from bottega.pipelines.provenance import Provenance, read_provenance, sheet_of
from bottega.pipelines.style import style_digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """A picture painted again, and how it compares with the file it came from.

    ``same_bytes`` is about the file; ``num_different`` counts pixels and ``largest`` is the largest difference of a
    channel, of 255, or None when the sizes differ. ``changed`` names what has another version here than it had there.
    """

    picture: Image.Image
    same_bytes: bool
    num_different: int
    largest: int | None
    changed: tuple[str, ...]

    def verdict(self) -> str:
        """One sentence."""
        if self.same_bytes:
            return "identical, byte for byte"
        why = f"; other than then: {', '.join(self.changed)}" if self.changed else ""
        if self.largest is None:
            return f"different in size{why}"
        if self.largest == 0:
            return f"the same pixels in a file that differs{why}"
        return f"{self.num_different} pixels differ, by at most {self.largest} of 255{why}"


def paint_again(
    path: Path | str,
    *,
    model: str | Path | None = None,
    style: Image.Image | None = None,
    picture: Image.Image | None = None,
    loras: Sequence[Path | str] = (),
    controlnets: Sequence[Path | str] = (),
    controls: Sequence[Image.Image] = (),
    on_step: Callable[[PaintStep], None] | None = None,
) -> Replay:
    """Paint again what a PNG says it is.

    Args:
        path: A picture or sheet that bottega wrote.
        model: The folder of the model, where it is none that ships with bottega.
        style: The reference picture, where one was used.
        picture: The picture it was painted from, where there was one.
        loras: The folders of its LoRAs, in their order; their scales are known.
        controlnets: The folders of its ControlNets, in their order.
        controls: The control pictures that they read.
        on_step: Called after every step.

    Raises:
        InputError: When the file does not say how it was made, or another model or reference picture is needed.
        CheckpointError: When the model cannot be loaded.
    """
    path = Path(path)
    origin = read_provenance(path)
    _check_style(path, origin, style)
    _start(path, origin, picture)
    if model is None and origin.model not in SHIPPED:  # a stranger's file names no folder of ours
        raise InputError(
            f"{path} was painted by {origin.model!r}, which does not come with bottega; give its folder with --model"
        )
    if len(loras) != len(origin.loras):
        names = ", ".join(record.name for record in origin.loras)
        raise InputError(
            f"{path} was painted with {len(origin.loras)} LoRAs{': ' if names else ''}{names}; "
            f"give their folders in this order with --lora, got {len(loras)}"
        )
    machine = origin.machine
    painter = load(
        origin.model if model is None else model,
        device=machine.device,
        dtype=machine.dtype,
        lanes=machine.lanes,
        loras=[(one, record.scale) for one, record in zip(loras, origin.loras, strict=True)],
        controlnets=controlnets,
    )
    with _threads(machine.threads):
        made = repaint(
            painter, origin, style=style, picture=picture, controls=controls, on_step=on_step
        )
    return _compared(made, path, _changes(origin))


def repaint(
    painter: Painter,
    origin: Provenance,
    *,
    style: Image.Image | None = None,
    picture: Image.Image | None = None,
    controls: Sequence[Image.Image] = (),
    on_step: Callable[[PaintStep], None] | None = None,
) -> Image.Image:
    """Paint what ``origin`` describes, as one picture or a sheet.

    Raises:
        InputError: When ``painter`` is another model than the one that painted it or was given other LoRAs or
            ControlNets, or a picture is another than the one it was painted from.
    """
    if painter.digest != origin.model_digest:
        raise InputError(
            f"it was painted by {origin.model} {origin.model_digest[:12]}, but this {painter.name} is "
            f"{painter.digest[:12]}; give the folder of the model that made it"
        )
    _check_adapters(painter, origin)
    start = restart(origin.requests[0].start, picture)
    pictures = painter.paint(
        [request.prompt for request in origin.requests],
        negative=[request.negative for request in origin.requests],
        seeds=[request.seed for request in origin.requests],
        settings={record.name: record.settings for record in origin.stages},
        encoders=origin.encoders,
        style=style,
        regions=[request.regions for request in origin.requests],
        start=start,
        size=origin.canvas,
        controls=guides_again(origin.requests[0].controls, controls),
        on_step=on_step,
    )
    if origin.sheet is None:
        return pictures[0]
    return sheet_of(pictures, columns=origin.sheet.columns, captions=origin.sheet.captions)


def _check_adapters(painter: Painter, origin: Provenance) -> None:
    """Refuse a painter that was given other LoRAs or ControlNets than the one before."""
    before = [(one.digest, one.scale) for one in origin.loras]
    if [(used.lora.digest, used.scale) for used in painter.adapters.loras] != before:
        raise InputError("it was painted with other LoRAs than these")
    nets = [record.digest for record in origin.requests[0].controls]
    if [used.digest for used in painter.adapters.controlnets] != nets:
        raise InputError(
            f"it was painted with {len(nets)} ControlNets; give the same, in the same order"
        )


def _check_style(path: Path, origin: Provenance, style: Image.Image | None) -> None:
    if (origin.style is None) != (style is None):
        needs = "was painted without a style picture" if style else "needs its style picture again"
        raise InputError(f"{path} {needs}")
    if style is not None and style_digest(style) != origin.style:
        raise InputError(f"{path} was painted with another style picture")


def _start(path: Path, origin: Provenance, picture: Image.Image | None) -> None:
    """Refuse a missing or a wrong picture before the model is loaded."""
    try:
        restart(origin.requests[0].start, picture)
    except InputError as error:
        raise InputError(f"{path} cannot be replayed: {error}") from None


def _compared(picture: Image.Image, path: Path, changed: tuple[str, ...]) -> Replay:
    if encode(picture) == path.read_bytes():
        return Replay(picture=picture, same_bytes=True, num_different=0, largest=0, changed=changed)
    before = open_picture(path)
    if before.size != picture.size:
        pixels = picture.width * picture.height
        return Replay(
            picture=picture, same_bytes=False, num_different=pixels, largest=None, changed=changed
        )
    gap = np.abs(np.asarray(before, np.int16) - np.asarray(picture, np.int16))
    return Replay(
        picture=picture,
        same_bytes=False,
        num_different=int((gap.max(axis=2) > 0).sum()),
        largest=int(gap.max()),
        changed=changed,
    )


def _changes(origin: Provenance) -> tuple[str, ...]:
    from bottega import __version__

    versions = (
        ("bottega", origin.bottega, __version__),
        ("torch", origin.machine.torch, torch.__version__),
        ("Pillow", origin.machine.pillow, PIL.__version__),
    )
    return tuple(f"{name} {then} then, {now} now" for name, then, now in versions if then != now)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with that many threads, because sums may round differently with another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["Replay", "paint_again", "repaint"]
