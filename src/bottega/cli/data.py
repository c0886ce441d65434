"""``bottega data``: look at what a model is taught, and embed captions ahead of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottega.cli.edges import edges
from bottega.cli.filtering import filter_data, inspect_data
from bottega.cli.options import Settings, listed

if TYPE_CHECKING:
    from bottega.conditioning.cache import EmbeddingCache
    from bottega.recipes import RunConfig

app = typer.Typer(
    help="Look at data, filter it, and embed captions ahead of a run.", no_args_is_help=True
)
app.command("inspect")(inspect_data)
app.command("filter")(filter_data)
app.command()(edges)

_CHUNK = 512
_MAX_PIXELS = 200_000_000


@app.command()
def show(
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")] = Path(
        "data.png"
    ),
    count: Annotated[int, typer.Option("-n", "--count", help="How many examples.")] = 24,
    start: Annotated[int, typer.Option("--start", help="The first example.")] = 0,
    size: Annotated[int, typer.Option("--size", help="Pixels of a picture.")] = 128,
    columns: Annotated[int, typer.Option("--columns", help="Pictures in a row.")] = 6,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Pictures and captions of your own, not Emoji World."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a contact sheet of examples with their captions.

    --set changes a setting of the world, for example --set split=held_out or --set mixture.style=1.
    """
    from bottega.config import override, parse_assignments
    from bottega.data import contact_sheet
    from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig
    from bottega.errors import InputError
    from bottega.pipelines import check_writable

    if not 1 <= count <= 10_000:
        raise InputError(f"--count must be between 1 and 10000, got {count}")
    if not 16 <= size <= 1024:
        raise InputError(f"--size must be between 16 and 1024, got {size}")
    if count * size**2 > _MAX_PIXELS:
        raise InputError(
            f"{count} pictures of {size} px are more than one sheet holds ({_MAX_PIXELS:,} pixels); lower -n or --size"
        )
    if columns < 1:
        raise InputError(f"--columns must be at least 1, got {columns}")
    if folder is not None and settings:
        raise InputError("--set changes the drawn world; a folder has no settings")
    if start < 0:
        raise InputError(f"--start must be 0 or more, got {start}")
    check_writable(output)
    indices = range(start, start + count)
    if folder is None:
        config = override(EmojiWorldConfig(), parse_assignments(listed(settings)))
        contact_sheet(EmojiWorld(config), indices, output, columns=columns, size=size)
    else:
        _show_folder(folder, indices, output, columns, size)
    typer.echo(str(output))


def _show_folder(
    folder: Path, indices: Sequence[int], output: Path, columns: int, size: int
) -> None:
    from bottega.data import contact_sheet, pictures_in
    from bottega.errors import InputError

    source = pictures_in(folder, size)
    typer.echo(str(source.report), err=True)
    here = [index for index in indices if index < source.num_examples]
    if not here:
        raise InputError(f"{folder} holds {source.num_examples} pictures; --start is beyond them")
    contact_sheet(source, here, output, columns=columns, size=size)


@app.command()
def embed(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Whose captions to embed.")],
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FOLDER", help="By default runs/embeddings, as training."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything again and compare checksums.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Embed the captions of a recipe ahead of its run; what is there already is not embedded again."""
    from bottega.conditioning.cache import EmbeddingCache
    from bottega.config import override, parse_assignments
    from bottega.errors import ConfigError, DataError
    from bottega.recipes import recipe as find_recipe
    from bottega.recipes.run import DenoiserTask
    from bottega.recipes.train import load_encoders

    config = override(find_recipe(recipe), parse_assignments(listed(settings)))
    task = config.task
    if not isinstance(task, DenoiserTask):
        raise ConfigError(f"the recipe {recipe} trains no denoiser and embeds no captions")
    store = EmbeddingCache(
        Path("runs") / "embeddings" if cache is None else cache, load_encoders(task.encoders)
    )
    _fill(store, config)
    reports = store.verify() if verify else store.report()
    for report in reports.values():
        typer.echo(
            f"{report.encoder}: {report.texts:,} texts, {report.size_bytes / 2**20:.1f} MiB, "
            f"{report.truncated_frac:.2%} cut short"
        )
    damaged = sum(report.damaged for report in reports.values())
    if damaged:
        raise DataError(f"{damaged:,} embeddings are damaged; delete the cache and embed again")


def _fill(store: "EmbeddingCache", config: "RunConfig") -> None:
    from rich.console import Console
    from rich.progress import track

    captions = _captions(config)
    chunks = [captions[i : i + _CHUNK] for i in range(0, len(captions), _CHUNK)]
    console = Console(stderr=True)
    for chunk in track(
        chunks, "embedding", console=console, transient=True, disable=not console.is_terminal
    ):
        store.encode_texts(list(dict.fromkeys(chunk)))


def _captions(config: "RunConfig") -> list[str]:
    """Every caption that a run over a bounded set will read."""
    from bottega.data import pictures_in
    from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig
    from bottega.errors import ConfigError

    if not isinstance(config.data, EmojiWorldConfig):
        source = pictures_in(
            config.data.path,
            config.size,
            caption_field=config.data.caption_field,
            caption=config.data.caption,
            check="headers",
            buckets=config.buckets,
        )
        return [example.caption for example in source.examples]
    if config.num_examples is None:
        raise ConfigError(
            "num_examples is none, so the world never ends; bound it with --set num_examples=100000"
        )
    world = EmojiWorld(config.data)
    return [world[index].caption for index in range(config.num_examples)]


__all__ = ["app", "embed", "show"]
