"""The command ``bottega``: its commands, and how errors reach the user, in one line each."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bottega import __version__
from bottega.cli.assemble import assemble
from bottega.cli.branch import branch
from bottega.cli.data import app as data_app
from bottega.cli.edge_heads import edge_heads
from bottega.cli.enlarge import enlarge
from bottega.cli.evaluate import app as evaluate_app
from bottega.cli.foreign import export_model, import_model
from bottega.cli.options import printable
from bottega.cli.paint import paint
from bottega.cli.plan import plan
from bottega.cli.probe import app as probe_app
from bottega.cli.probe_experts import experts
from bottega.cli.replay import replay
from bottega.cli.routes import paths, routes
from bottega.cli.show import show
from bottega.cli.train import train
from bottega.cli.upcycle import upcycle
from bottega.errors import BottegaError

STOPPED = 130
"""The exit code of a command that the user interrupted."""

_LONGEST = 2000


class _Commands(TyperGroup):
    """Commands that an interrupt ends in words; typer by itself would end them without any."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(
    name="bottega",
    cls=_Commands,
    help="Train, branch, paint with and measure text-to-image diffusion models made of experts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(paint)
app.command()(replay)
app.command()(enlarge)
app.command()(train)
app.command()(plan)
app.command()(branch)
app.command()(upcycle)
app.command()(show)
app.command()(assemble)
app.command("import")(import_model)
app.command("export")(export_model)
app.command()(routes)
probe_app.command()(experts)
probe_app.command()(paths)
probe_app.command()(edge_heads)
app.add_typer(data_app, name="data")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(probe_app, name="probe")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"bottega {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Train, branch, paint with and measure text-to-image diffusion models made of experts."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code: 0 well, 2 refused, 130 stopped, 1 for a command's own no."""
    try:
        with _plain_warnings():
            result: Any = app(args=list(arguments), prog_name="bottega", standalone_mode=False)
    except BottegaError as error:
        complain(str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return STOPPED
    except OSError as error:  # a full disk, a folder that may not be read
        place = "" if error.filename is None else f"{error.filename}: "
        complain(f"{place}{error.strerror or error}")
        return 2
    except Exception as error:
        if _is_lack_of_memory(error):
            complain(
                "there is not enough memory for this; smaller or fewer pictures at once take less"
            )
            return 2
        if not hasattr(error, "format_message"):  # typer has carried click inside since 0.26
            raise
        return _refuse_usage(error)
    return result if isinstance(result, int) else 0


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a CPU or torch on a GPU could not have as much as was asked for."""
    told = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return told or isinstance(error, MemoryError)


def complain(message: str) -> None:
    """Say one line on stderr; what a file brought along cannot steer the terminal, nor fill it."""
    line = printable(message)
    typer.echo(f"bottega: {line[:_LONGEST]}{' ...' if len(line) > _LONGEST else ''}", err=True)


def _refuse_usage(error: Any) -> int:
    """A command line that cannot be understood, in one line; without any command, the help."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if message.strip():  # empty after the help that answers a command line without a command
        place = "bottega" if context is None else context.command_path
        complain(f"{message} ({place} --help says more)")
    return int(error.exit_code)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line each, without the line of code that they came from."""
    said: set[str] = set()

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if str(message) not in said:  # once is enough, however often a text is read
            said.add(str(message))
            complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=r"bottega\b")
        warnings.showwarning = show_warning
        yield


def main() -> None:
    """Run what the user typed."""
    sys.exit(run(sys.argv[1:]))


__all__ = ["STOPPED", "app", "complain", "main", "options", "run"]
