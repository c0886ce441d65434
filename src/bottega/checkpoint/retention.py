"""The checkpoints of a run: their names, the newest good one, and which to keep."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from bottega.checkpoint.store import verify
from bottega.errors import CheckpointError, ConfigError

_PREFIX = "images-"


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which checkpoints stay: the newest ``keep_last``, and one per ``keep_every_images`` for good."""

    keep_last: int = 3
    keep_every_images: int | None = None

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ConfigError(f"keep_last must be at least 1, got {self.keep_last}")
        if self.keep_every_images is not None and self.keep_every_images < 1:
            raise ConfigError(f"keep_every_images must be positive, got {self.keep_every_images}")


def name_for(images_seen: int) -> str:
    """The folder name of a run's checkpoint, which sorts by progress."""
    return f"{_PREFIX}{images_seen:09d}"


def list_checkpoints(folder: Path | str) -> list[Path]:
    """The checkpoints in a run's folder, oldest first; half-written ones carry other names."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = [(n, p) for p in folder.iterdir() if (n := _images(p)) is not None]
    return [path for _, path in sorted(found)]


def latest_good(folder: Path | str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every file is intact, and what was wrong with each newer one."""
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def prune(folder: Path | str, retention: Retention) -> list[Path]:
    """Delete the checkpoints that the policy does not keep, and leavings of writes that a crash cut short.

    Each is renamed before it is deleted, so a crash in the middle never leaves a damaged one under a good name.
    """
    folder = Path(folder)
    paths = list_checkpoints(folder)
    kept = set(paths[-retention.keep_last :])
    last_mark: int | None = None
    for path in paths:
        images = _images(path)
        if retention.keep_every_images is None or images is None:
            continue
        mark = images // retention.keep_every_images
        if mark > 0 and mark != last_mark:
            kept.add(path)
            last_mark = mark
    removed = [path for path in paths if path not in kept]
    for path in removed:
        doomed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
    for leaving in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(leaving, ignore_errors=True)
    return removed


def _images(path: Path) -> int | None:
    digits = path.name.removeprefix(_PREFIX)
    if path.name.startswith(_PREFIX) and digits.isdigit() and path.is_dir():
        return int(digits)
    return None


__all__ = ["Retention", "latest_good", "list_checkpoints", "name_for", "prune"]
