"""``bottega paint``: prompts in, PNG files out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottega.cli.asked import canvas_for, explain_to, read_regions, read_size, read_start
from bottega.cli.beside import ControlNets, Controls, Loras, read_beside, say_beside
from bottega.cli.options import (
    Device,
    Dtype,
    LocalFilesOnly,
    Model,
    Residency,
    Settings,
    Style,
    check_apart,
    listed,
    names,
)
from bottega.cli.progress import painting_bar
from bottega.cli.show_experts import say_shelves

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.pipelines import Painter, PaintStep

_PREVIEW_SECONDS = 0.25


def paint(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help='What to paint; "" paints freely.')
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The PNG to write; several are numbered."),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Pictures per prompt.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Picture j has seed + j, from 0.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every stage.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help="How hard to follow the prompt; 1 is guidance off."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="dpmpp_2m, heun, euler, ddim and others.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option("--negative", metavar="PROMPT", help="What to keep away from.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All pictures on one sheet.")] = False,
    columns: Annotated[
        int | None, typer.Option("--columns", help="Pictures in a row of the sheet.")
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option("--watch", metavar="PNG", help="Rewrite this preview while painting."),
    ] = None,
    model: Model = "piccolo",
    device: Device = "auto",
    dtype: Dtype = "auto",
    residency: Residency = "all",
    local_files_only: LocalFilesOnly = False,
    encoders: Annotated[
        str | None,
        typer.Option("--encoders", metavar="A+B", help="Encoders to hear: t5, clip or t5+clip."),
    ] = None,
    style: Style = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--region",
            metavar="WORDS@LEFT,TOP,RIGHT,BOTTOM|WORDS=MASK",
            help="Where these words of the prompt are wanted; *-1 after it: where not.",
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option("--explain", metavar="PNG", help="Draw the regions as every layer saw them."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="PICTURE", help="Begin with this picture.")
    ] = None,
    inpaint: Annotated[
        Path | None,
        typer.Option("--inpaint", metavar="PICTURE", help="Paint a part of this picture anew."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", metavar="PICTURE", help="That part, in white.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="How much --from and --inpaint change, up to 1."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HEIGHTxWIDTH", help="Pixels, when not the model's square."),
    ] = None,
    aspect: Annotated[
        str | None,
        typer.Option("--aspect", metavar="WIDTH:HEIGHT", help="As 3:2; the nearest size to it."),
    ] = None,
    lora: Loras = None,
    controlnet: ControlNets = None,
    control: Controls = None,
    settings: Settings = None,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Do not write into the file what made it.")
    ] = False,
) -> None:
    """Paint pictures. Each PNG carries what made it, and `bottega replay` makes it again.

    --set changes a setting of one stage, for example --set base.sigma_max=60.
    """
    from bottega.pipelines import load, open_picture
    from bottega.pipelines.provenance import check_describable

    sheet_columns = _sheet_columns(grid, columns, len(prompts), count)
    targets = _targets(output, len(prompts), count, grid, watch, explain)
    regions = read_regions(listed(region))
    start = read_start(source, inpaint, mask, strength)
    watch_regions = explain_to(explain, regions)
    wanted_size = read_size(size, aspect)
    beside = read_beside(lora, controlnet, control)
    if not no_metadata:
        check_describable(prompts * count, negative, regions=regions, together=grid)
    reference = None if style is None else open_picture(style)
    painter = load(
        model,
        device=device,
        dtype=dtype,
        residency=residency,
        local_files_only=local_files_only,
        **beside.folders(),
    )
    wanted = painter.resolve(
        _stage_settings(painter, listed(settings)),
        _given(steps=steps, guidance_scale=guidance, sampler=sampler),
    )
    texts = [prompt for prompt in prompts for _ in range(count)]
    canvas = canvas_for(painter, wanted_size)
    walk = painter.paint_steps(
        texts,
        negative=negative,
        seeds=seed,
        encoders=names(encoders),
        style=reference,
        regions=regions,
        start=start,
        size=canvas,
        controls=beside.guides,
        settings=wanted,
        watch=watch_regions,
    )
    say_beside(painter)
    preview = _Preview(watch, len(texts), sheet_columns, (canvas.width, canvas.height))
    finished: list[Image] = []
    with painting_bar(len(texts), sum(s.steps for s in wanted.values())) as move:
        for step in walk:
            move(step)
            preview.show(step)
            finished += step.pictures
            if not grid:
                _write_all(step, targets, metadata=not no_metadata)
    if grid:
        _write_sheet(finished, targets[0], sheet_columns, len(prompts) > 1, not no_metadata)
    say_shelves(painter)
    if explain is not None and watch_regions is not None:
        _write(watch_regions.page([r.phrase for r in regions]), explain, metadata=False)


def _stage_settings(painter: "Painter", assignments: list[str]) -> dict[str, Any]:
    """The stages' settings with ``base.steps=30`` and the like applied to them."""
    from bottega.config import override, parse_assignments
    from bottega.errors import ConfigError

    settings = painter.settings
    for path, text in parse_assignments(assignments).items():
        stage, dot, rest = path.partition(".")
        if not dot:
            stages = ", ".join(settings)
            raise ConfigError(
                f"--set {path}: name the stage too, as in base.{path}; stages: {stages}"
            )
        stage = painter.stage_named(stage)
        settings[stage] = override(settings[stage], {rest: text})
    return settings


def _sheet_columns(grid: bool, columns: int | None, num_prompts: int, count: int) -> int:
    from bottega.errors import InputError
    from bottega.pipelines.output import default_columns
    from bottega.pipelines.provenance import MAX_PICTURES

    if count < 1:
        raise InputError(f"--count must be at least 1, got {count}")
    if num_prompts * count > MAX_PICTURES:
        raise InputError(
            f"at most {MAX_PICTURES} pictures are painted at once, got {num_prompts * count}"
        )
    if columns is not None and not grid:
        raise InputError("--columns is for a sheet: give --grid too")
    if columns is not None and columns < 1:
        raise InputError(f"--columns must be at least 1, got {columns}")
    return default_columns(num_prompts * count) if columns is None else columns


def _targets(
    output: Path | None,
    num_prompts: int,
    count: int,
    grid: bool,
    watch: Path | None,
    explain: Path | None,
) -> list[Path]:
    """Where each picture goes; everything is known to be writable, and apart, before anything is painted."""
    from bottega.pipelines import check_writable

    if watch is not None:
        check_writable(watch)
    number = 1 if grid else num_prompts * count
    place = _free_name(number) if output is None else output
    check_writable(place)
    targets = _numbered(place, number)
    for target in targets:
        check_writable(target)
    check_apart(*targets, watch, explain)
    return targets


def _numbered(place: Path, number: int) -> list[Path]:
    if number == 1:
        return [place]
    digits = len(str(number))
    return [place.with_stem(f"{place.stem}-{i + 1:0{digits}d}") for i in range(number)]


def _free_name(number: int) -> Path:
    """``painting.png``, or the first of ``painting-b.png``, ... that overwrites nothing."""
    tries = 0
    while True:
        place = Path("painting.png") if tries == 0 else Path(f"painting-{tries + 1}.png")
        if not any(path.exists() for path in _numbered(place, number)):
            return place
        tries += 1


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _write(picture: "Image", target: Path, *, metadata: bool) -> None:
    from bottega.pipelines import save_picture

    save_picture(picture, target, metadata=metadata)
    typer.echo(str(target))


def _write_all(step: "PaintStep", targets: list[Path], *, metadata: bool) -> None:
    """Write the pictures that a step finished."""
    for index, picture in zip(step.indices, step.pictures, strict=False):
        _write(picture, targets[index], metadata=metadata)


def _write_sheet(
    pictures: list["Image"], target: Path, columns: int, captions: bool, metadata: bool
) -> None:
    from bottega.pipelines import sheet_of

    page = sheet_of(pictures, columns=columns, captions=captions)
    _write(page, target, metadata=metadata)


class _Preview:
    """A file that shows the paintings as they grow, replaced whole each time."""

    def __init__(
        self, path: Path | None, num_pictures: int, columns: int, size: tuple[int, int]
    ) -> None:
        self._path = path
        self._columns = columns
        self._size = size
        self._shown: dict[int, Image] = {}
        self._num = num_pictures
        self._next = 0.0

    def show(self, step: "PaintStep") -> None:
        """Draw the newest estimates; seldom enough not to slow the painting down."""
        if self._path is None:
            return
        now = time.monotonic()
        if not step.pictures and now < self._next:
            return
        self._next = now + _PREVIEW_SECONDS
        from PIL.Image import Resampling

        from bottega.pipelines import save_picture, sheet

        pictures = step.pictures if step.pictures else step.previews()
        for index, picture in zip(step.indices, pictures, strict=True):
            self._shown[index] = picture.resize(self._size, Resampling.NEAREST)
        page = self._shown[0] if self._num == 1 else sheet([*self._shown.values()], self._columns)
        save_picture(page, self._path, metadata=False)


__all__ = ["paint"]
