"""What probes found, as pictures: maps of attention beside the pictures that were looked at, and a matrix."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from bottega.evaluation.probes.attention import NULL, Observer
from bottega.evaluation.probes.intervals import Matrix
from bottega.pipelines import sheet
from bottega.pipelines.output import to_pictures
from bottega.shapes import Images

_CELL_PX = 96
_MOST_PICTURES = 4


def text_maps(clean: Images, seen: Sequence[tuple[float, Observer]]) -> Image.Image:
    """A row for each of the first pictures, and for each noise level the attention to all words, each map by itself.

    A map is as bright as its own largest value, which is written beneath; the largest layers that read text are shown.
    """
    count = min(_MOST_PICTURES, len(clean))
    shown = [_enlarged(picture) for picture in to_pictures(clean[:count])]
    cells: list[Image.Image] = []
    captions: list[str] = []
    for row in range(count):
        cells.append(shown[row])
        captions.append("clean")
        for sigma, observer in seen:
            size = max(observer.maps)
            words = [
                key
                for name, start, end in observer.segments
                if name != NULL
                for key in range(start, end)
            ]
            drawn = observer.map_of(size, words)[row]
            largest = float(drawn.max())
            grey = (drawn / max(largest, 1e-12) * 255).round().to(torch.uint8).numpy()
            cells.append(_enlarged(Image.fromarray(grey).convert("RGB")))
            captions.append(f"sigma {sigma:.3g}, up to {largest:.2f}")
    return sheet(cells, len(seen) + 1, captions)


def matrix_picture(cosines: Matrix, edges: Sequence[float]) -> Image.Image:
    """Cosines as coloured cells with their values: blue agrees, red conflicts; edges are noise levels between bins."""
    count, cell, margin, letter = len(cosines), 64, 96, 14
    side = margin + count * cell + 24
    page = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=letter)
    pen.text((8, 8), "gradient cosine; sigma between bins, low noise first", "black", font)
    for i, row in enumerate(cosines.tolist()):
        for j, value in enumerate(row):
            left, top = margin + j * cell, margin + i * cell
            fade = round(255 * (1 - min(1.0, abs(value)) * 0.75))
            colour = (fade, fade, 255) if value >= 0 else (255, fade, fade)
            pen.rectangle((left, top, left + cell, top + cell), fill=colour, outline="white")
            middle = (left + cell / 2, top + cell / 2)
            pen.text(middle, f"{value:.2f}", "black", font, anchor="mm")
    for place, edge in enumerate(edges, start=1):
        at = margin + place * cell
        pen.text((at, margin - 8), f"{edge:.3g}", "black", font, anchor="ms")
        pen.text((margin - 8, at), f"{edge:.3g}", "black", font, anchor="rm")
    return page


def _enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)


__all__ = ["matrix_picture", "text_maps"]
