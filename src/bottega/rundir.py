"""The folder of a run: where its settings, journal, checkpoints and previews lie, and who may write there."""

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from bottega.errors import InputError

_LOCK = ".lock"


class RunDir:
    """One run's folder, made when it is not there yet.

    ``config.json`` holds the resolved settings, ``journal.jsonl`` what happened, ``checkpoints/`` the states to resume
    from, ``previews/`` sheets painted on the way, ``tensorboard/`` curves.
    """

    def __init__(self, path: Path | str) -> None:
        """Open or make the folder.

        Raises:
            InputError: If it cannot be made or written to.
        """
        self.path = Path(path)
        self._is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError(f"cannot write to the run folder {self.path}; choose another")

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.json"

    @property
    def journal(self) -> Path:
        """One JSON object per line: what the run reported."""
        return self.path / "journal.jsonl"

    @property
    def checkpoints(self) -> Path:
        """States to resume from, ``images-000512000`` and so on."""
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        """Sheets painted while training."""
        return self.path / "previews"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run, whole or not at all."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
        return target

    @contextmanager
    def kept_once_used(self) -> Generator[None]:
        """Take the folder away again when what is done in it fails before anything was written; it must be new."""
        try:
            yield
        except BaseException:
            if self._is_new:
                self._remove_unused()
            raise

    def _remove_unused(self) -> None:
        with suppress(OSError):  # what was written stays; another process may have been faster
            if [entry.name for entry in self.path.iterdir()] == [_LOCK]:
                (self.path / _LOCK).unlink()
            self.path.rmdir()

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from training in this folder; the lock dies with the process.

        Raises:
            InputError: If a run is at work here already.
        """
        with (self.path / _LOCK).open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                owner = handle.read().strip()
                who = f"process {owner}" if owner else "another process"
                raise InputError(
                    f"{self.path} is in use by {who}; stop it, or choose another folder"
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield


def exported(folder: Path | str) -> Path:
    """What a run has exported, where a run is named that has; any other place is itself."""
    folder = Path(folder)
    export = folder / "export"
    is_run = (folder / "config.json").is_file() and (folder / "journal.jsonl").is_file()
    return export if is_run and export.is_dir() else folder


def check_place(path: Path | str) -> Path:
    """Refuse a file that could not be written, before the work of filling it.

    Raises:
        InputError: For a folder, a device, a file that may only be read, or a place where no file can be made.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if path.exists() and not path.is_file():
            raise InputError(f"cannot write {path}: it is no ordinary file")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"cannot write {path}: it may only be read")
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
        with tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        as_others(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def as_others(path: Path) -> None:
    """Give a file the permissions that any new file has here; what safetensors writes, only its owner could read."""
    path.chmod(0o666 & ~_umask())


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


__all__ = ["RunDir", "as_others", "check_place", "exported", "sync_folder", "write_atomically"]
