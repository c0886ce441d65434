"""Routes as a picture: which expert each word takes, where words act, and which expert the noise takes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bottega.errors import InputError
from bottega.evaluation.plot import COLOURS
from bottega.evaluation.routes import Routes, TimeChoice, Token

Heat = Float[Tensor, "height width"]
"""Shares from 0 to 1."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_CELL = 26
_MAP = 112
_GAP = 8
_LETTER = 13
_LINE = 17
_LABEL = 170
_NARROWEST = 480  # what the longest title needs
_DARK = 0.2  # what is left of the picture where nothing acts
_MOST_LETTERS = 22


def routes_page(routes: Routes, picture: Image.Image) -> Image.Image:
    """The whole atlas of one prompt, on one page.

    Experts have a number and a colour, from 1. Tokens of a word stand beneath each other, stream by stream. A word's
    map is the painted picture, as bright as the share of blocks in which the word's expert acts there.

    Args:
        routes: What was traced.
        picture: What was painted, in which words act.

    Raises:
        InputError: Where there is nothing to draw.
    """
    parts = [_heading(routes, picture)]
    if routes.space_blocks:
        parts += [_paths(routes.tokens, len(routes.space_blocks)), _maps(routes, picture)]
    if routes.times:
        parts.append(_times(routes.times, len(routes.time_blocks)))
    if len(parts) == 1:
        raise InputError("there is nothing to draw: no block here has experts")
    page = Image.new(
        "RGB",
        (max(part.width for part in parts), sum(part.height + _GAP for part in parts)),
        "white",
    )
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height + _GAP
    return page


def heat_of(routes: Routes, keys: Sequence[int], sigma: float, height: int, width: int) -> Heat:
    """The share of blocks in which any of these tokens acts, position by position.

    Raises:
        InputError: Where nothing was looked at for them.
    """
    blocks: dict[int, Tensor] = {}
    for reach in routes.reaches:
        if reach.sigma == sigma and reach.key in keys:
            cells = reach.cells().float()[None, None]
            drawn = torch.nn.functional.interpolate(cells, (height, width), mode="nearest")[0, 0]
            known = blocks.get(reach.block)
            blocks[reach.block] = drawn if known is None else torch.maximum(known, drawn)
    if not blocks:
        raise InputError(f"nobody looked where the tokens {list(keys)} act at sigma {sigma:g}")
    return torch.stack(list(blocks.values())).mean(dim=0)


def colour_of(expert: int) -> str:
    """An expert's colour; after eight they come again."""
    return COLOURS[expert % len(COLOURS)]


def _heading(routes: Routes, picture: Image.Image) -> Image.Image:
    shown = _fitted(picture)
    part, pen, font = _blank(max(_LABEL * 4, shown.width + _LABEL), shown.height + _GAP)
    part.paste(shown, (_GAP, _GAP))
    left = shown.width + 2 * _GAP
    lines = _wrapped(routes.prompt, 56)[:4]
    space, time = routes.space_blocks, routes.time_blocks
    lines += [
        "",
        f"{len(space)} blocks whose experts words choose, {len(time)} whose experts noise chooses",
    ]
    pen.multiline_text((left, _GAP), "\n".join(lines), "black", font)
    return part


def _paths(tokens: Sequence[Token], num_blocks: int) -> Image.Image:
    """A row of coloured numbers for each token."""
    part, pen, font = _blank(
        _LABEL + num_blocks * _CELL + _GAP, _LINE * 2 + len(tokens) * _CELL + _GAP
    )
    pen.text((_GAP, 0), "the expert of each token, block by block", "black", font)
    for block in range(num_blocks):
        middle = (_LABEL + block * _CELL + _CELL / 2, _LINE + _LINE / 2)
        pen.text(middle, str(block + 1), "gray", font, anchor="mm")
    for row, token in enumerate(tokens):
        top = 2 * _LINE + row * _CELL
        name = f"{token.stream}: {token.text}"[:_MOST_LETTERS]
        pen.text((_GAP, top + _CELL / 2), name, "black", font, anchor="lm")
        for block, expert in enumerate(token.experts):
            _numbered(pen, font, _LABEL + block * _CELL, top, expert)
    return part


def _maps(routes: Routes, picture: Image.Image) -> Image.Image:
    """For each word and noise level, where it acts."""
    sigmas = sorted({reach.sigma for reach in routes.reaches}, reverse=True)
    words = _words(routes)
    part, pen, font = _blank(
        _LABEL + len(sigmas) * (_MAP + _GAP) + _GAP, 2 * _LINE + len(words) * (_MAP + _GAP)
    )
    pen.text((_GAP, 0), "where each word's experts act, by noise", "black", font)
    for column, sigma in enumerate(sigmas):
        left = _LABEL + column * (_MAP + _GAP)
        pen.text((left, _LINE), f"sigma {sigma:.3g}", "gray", font)
        for row, (text, keys) in enumerate(words):
            top = 2 * _LINE + row * (_MAP + _GAP)
            if column == 0:
                pen.text((_GAP, top + _MAP / 2), text[:_MOST_LETTERS], "black", font, anchor="lm")
            shown = _fitted(picture)
            heat = heat_of(routes, keys, sigma, shown.height, shown.width)
            part.paste(_lit(shown, heat), (left, top))
    return part


def _words(routes: Routes) -> list[tuple[str, list[int]]]:
    """Every word of the prompt that the network read, and the end, with their tokens in all streams."""
    found = [
        (text, [token.key for token in routes.tokens if token.word == number])
        for number, text in enumerate(routes.words)
    ]
    found.append(("(end)", [token.key for token in routes.tokens if token.text == "(end)"]))
    return [(text, keys) for text, keys in found if keys]


def _times(times: Sequence[TimeChoice], num_blocks: int) -> Image.Image:
    """A column per noise level, falling, and a row per block."""
    ordered = sorted(times, key=lambda choice: -choice.sigma)
    part, pen, font = _blank(
        _LABEL + len(ordered) * _CELL + _GAP, 2 * _LINE + num_blocks * _CELL + _GAP
    )
    pen.text((_GAP, 0), "the expert that the noise chooses, from much to little", "black", font)
    for column, choice in enumerate(ordered):
        left = _LABEL + column * _CELL
        if column % 4 == 0:
            pen.text((left, _LINE), f"{choice.sigma:.2g}", "gray", font)
        for block, expert in enumerate(choice.experts):
            _numbered(pen, font, left, 2 * _LINE + block * _CELL, expert)
    for block in range(num_blocks):
        top = 2 * _LINE + block * _CELL + _CELL / 2
        pen.text((_GAP, top), f"block {block + 1}", "black", font, anchor="lm")
    return part


def _numbered(pen: ImageDraw.ImageDraw, font: Font, left: int, top: int, expert: int) -> None:
    box = (left, top, left + _CELL - 2, top + _CELL - 2)
    pen.rectangle(box, fill=colour_of(expert))
    middle = (left + _CELL / 2 - 1, top + _CELL / 2 - 1)
    pen.text(middle, str(expert + 1), "white", font, anchor="mm")


def _lit(picture: Image.Image, heat: Heat) -> Image.Image:
    light = (_DARK + (1 - _DARK) * heat.clamp(0, 1)) * 255
    mask = Image.fromarray(light.round().to(torch.uint8).numpy())
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def _fitted(picture: Image.Image) -> Image.Image:
    scale = _MAP / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _wrapped(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, Font]:
    part = Image.new("RGB", (max(width, _NARROWEST), height), "white")
    return part, ImageDraw.Draw(part), ImageFont.load_default(size=_LETTER)


__all__ = ["Heat", "colour_of", "heat_of", "routes_page"]
