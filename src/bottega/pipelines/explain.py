"""What became of regions: the masks as every layer saw them, and the attention that their words got."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bottega.errors import InputError
from bottega.models.regions import Attended, Watch

Maps = Float[Tensor, "phrases height width"]

_CELL = 96
_GAP = 6
_LETTER = 11
_LABEL = 150


@dataclass(frozen=True, kw_only=True)
class Size:
    """Layers of one size in one stage of one picture."""

    picture: int
    stage: str
    height: int
    width: int


@dataclass(kw_only=True, eq=False)
class Seen:
    """What layers of one size made of the phrases: masks, and attention added up over layers and steps."""

    masks: Maps
    total: Maps
    calls: int = 1

    @property
    def attention(self) -> Maps:
        """The share of attention that each phrase's words got, on average."""
        return self.total / self.calls

    def inside(self) -> list[float]:
        """For every phrase, the share of its attention that fell into its region."""
        within = (self.attention * self.masks).sum(dim=(1, 2))
        return (within / self.attention.sum(dim=(1, 2)).clamp(min=1e-12)).tolist()

    def areas(self) -> list[float]:
        """For every phrase, the share of the picture that its region covers."""
        return self.masks.mean(dim=(1, 2)).tolist()


class Explanation:
    """Collects what was attended to while something is painted; hand it to `Painter.paint` as ``watch``."""

    def __init__(self) -> None:
        self.seen: dict[Size, Seen] = {}

    def at(self, stage: str, pictures: Sequence[int]) -> Watch:
        """Whom to tell what a stage sees of those pictures."""

        def watch(attended: Attended) -> None:
            height, width = attended.masks.shape[1:]
            picture = pictures[attended.row]
            size = Size(picture=picture, stage=stage, height=height, width=width)
            masks = attended.masks.cpu()
            attention = attended.attention.float().cpu()
            if size not in self.seen:
                self.seen[size] = Seen(masks=masks, total=attention)
                return
            seen = self.seen[size]
            seen.total = seen.total + attention
            seen.calls += 1

        return watch

    def page(self, phrases: Sequence[str], picture: int = 0) -> Image.Image:
        """Draw it: a row per stage and size of layer, and per phrase its mask and the attention its words got.

        Every attention map is as bright as its own largest value, which is written beneath it, with the share of it
        that fell into the region and the share of the picture that the region covers.

        Args:
            phrases: What to call the regions, in their order.
            picture: Which picture of the painting.

        Raises:
            InputError: When nothing was seen of it.
        """
        rows = [(size, seen) for size, seen in self.seen.items() if size.picture == picture]
        if not rows:
            raise InputError("nothing was seen of any region: no layer here reads the words")
        line = _LETTER + 3
        width = _LABEL + len(phrases) * 2 * (_CELL + _GAP) + _GAP
        height = 2 * line + len(rows) * (_CELL + 3 * line)
        page = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(page)
        font = ImageFont.load_default(size=_LETTER)
        for column, phrase in enumerate(phrases):
            left = _LABEL + column * 2 * (_CELL + _GAP)
            draw.text((left, _GAP), phrase[:40], "black", font)
        for number, (size, seen) in enumerate(rows):
            top = 2 * line + number * (_CELL + 3 * line)
            name = f"{size.stage}\n{size.height} x {size.width} positions\n{seen.calls} looks"
            draw.multiline_text((_GAP, top), name, "black", font)
            facts = zip(seen.masks, seen.attention, seen.inside(), seen.areas(), strict=True)
            for column, (mask, attention, inside, area) in enumerate(facts):
                left = _LABEL + column * 2 * (_CELL + _GAP)
                largest = float(attention.max())
                shares = attention / max(largest, 1e-12)
                for place, values in ((left, mask), (left + _CELL + _GAP, shares)):
                    drawn = _enlarged(values)
                    edge = (place - 1, top - 1, place + drawn.width, top + drawn.height)
                    page.paste(drawn, (place, top))
                    draw.rectangle(edge, outline="gray")
                words = f"{area:.0%} of the area\n{inside:.0%} inside, up to {largest:.2g}"
                draw.multiline_text((left, top + _CELL + 1), words, "black", font, spacing=1)
        return page


def _enlarged(values: Float[Tensor, "height width"]) -> Image.Image:
    grey = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(grey)
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST).convert("RGB")


__all__ = ["Explanation", "Seen", "Size"]
