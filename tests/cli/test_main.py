"""The door of the command line: help, version, silence at import, and errors in one line."""

import subprocess
import sys
import warnings

import pytest
import typer

from bottega import __version__
from bottega.cli import main
from bottega.cli.options import listed, names, printable
from bottega.errors import InputError


def test_help_and_version(bottega):
    done = bottega("--help")
    assert done.code == 0
    for name in ("paint", "replay", "train", "show", "data", "evaluate"):
        assert name in done.out
    assert bottega("--version").out == f"bottega {__version__}\n"


def test_without_a_command_the_help_answers(bottega):
    done = bottega()
    assert done.code == 2 and "Usage" in done.out + done.err


def test_unknown_commands_name_the_nearest(bottega):
    done = bottega("piant", "x")
    assert done.code == 2 and "paint" in done.err and done.err.count("\n") == 1


def test_nothing_heavy_is_imported_before_a_command_runs():
    code = "import sys, bottega.cli.main; print(sorted({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_mistake_of_ours_is_not_dressed_up(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ZeroDivisionError):
        main.run([])


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_interrupts_are_130(monkeypatch, capsys, error):
    def stop(**_):
        raise error

    monkeypatch.setattr(main, "app", stop)
    assert main.run([]) == main.STOPPED
    assert capsys.readouterr().err == "bottega: stopped\n"


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def fail(**_):
        raise OSError(28, "No space left on device", "there.json")

    monkeypatch.setattr(main, "app", fail)
    assert main.run([]) == 2
    assert capsys.readouterr().err == "bottega: there.json: No space left on device\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
    ],
)
def test_too_little_memory_is_one_line(monkeypatch, capsys, error):
    def fail(**_):
        raise error

    monkeypatch.setattr(main, "app", fail)
    assert main.run([]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bottega: there is not enough memory") and err.count("\n") == 1


def test_what_a_file_says_cannot_steer_the_terminal_nor_fill_it(capsys):
    main.complain("\x1b[31mred\x07 and a café")
    assert capsys.readouterr().err == "bottega: \\x1b[31mred\\x07 and a café\n"
    main.complain("long " * 10_000)
    assert len(capsys.readouterr().err) < 2100


def test_warnings_are_one_line(monkeypatch, capsys):
    def warn(**_):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for _ in range(3):  # said once, however often there is reason to
                warnings.warn("two\nlines", UserWarning, stacklevel=1)

    monkeypatch.setattr(main, "app", warn)
    assert main.run([]) == 0
    assert capsys.readouterr().err == "bottega: warning: two lines\n"


def test_the_console_script_exits_with_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bottega", "--version"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 0


def test_lines_for_a_terminal_hold_letters_only():
    assert printable("a.png: \x1b[2J torch\u202e 2,\n\tnow 3 🍕") == (
        "a.png: \\x1b[2J torch\\u202e 2, now 3 🍕"
    )


def test_lists_on_the_command_line():
    assert names(None) is None
    assert names("a, b,,") == ("a", "b")
    assert names("t5+clip") == ("t5", "clip")
    with pytest.raises(InputError, match="expected names with commas between them, got ' , '"):
        names(" , ")
    assert listed(None) == [] and listed(["x"]) == ["x"]
