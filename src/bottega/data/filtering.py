"""A data set through filters into a new one, with every dropped sample counted by its reason and named in a list.

::

    TARGET/report.json      how many were seen, kept, and dropped for which reason by which filter
    TARGET/dropped.jsonl    every dropped sample with its filter, reason and detail
    TARGET/metadata.jsonl   of a folder: the kept pictures 000000000.png, ... with captions and facts
    TARGET/00000.tar, ...   of shards: the same as members 000000000.png, 000000000.txt, 000000000.json
"""

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from bottega.data.filters import Dropped, Filter
from bottega.data.samples import Sample
from bottega.data.stored import Rejected
from bottega.errors import InputError

AT_ONCE = 32
"""Samples that go through the filters together."""

READ = "read"
"""What stands in place of a filter for samples that cannot be read."""

_ESCAPED = "backslashreplace"
"""How half characters are written, of names on disk above all: in JSON's strings Python's escapes are JSON's."""

REPORT = "report.json"
DROPPED = "dropped.jsonl"


@dataclass(kw_only=True)
class FilterReport:
    """How many samples came, how many stayed, and what became of the others, by filter and reason."""

    filters: tuple[str, ...]
    seen: int = 0
    kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def facts(self) -> dict[str, Any]:
        """As plain JSON values, filters in their order and their reasons by number."""
        order = (READ, *self.filters)
        ranked = sorted(self.dropped.items(), key=lambda d: (order.index(d[0][0]), -d[1], d[0][1]))
        dropped = [{"filter": name, "reason": r, "samples": n} for (name, r), n in ranked]
        return {
            "seen": self.seen,
            "kept": self.kept,
            "filters": list(self.filters),
            "dropped": dropped,
        }

    def __str__(self) -> str:
        """One line in all, then one per reason."""
        lines = [f"{self.seen:,} samples seen, {self.kept:,} kept"]
        for row in self.facts()["dropped"]:
            lines.append(f"{row['samples']:>9,}  {row['filter']}: {row['reason']}")
        return "\n".join(lines)


OnDrop = Callable[[str, Dropped], None]
"""Told the filter and what it dropped."""


def sort_samples(
    samples: Iterable[Sample | Rejected],
    filters: Mapping[str, Filter],
    report: FilterReport,
    on_drop: OnDrop | None = None,
) -> Iterator[Sample]:
    """What is left of samples after every filter, in their order.

    Args:
        samples: As `read_samples` gives them.
        filters: By name, in the order in which they are asked.
        report: Counts along.
        on_drop: Told of every sample that goes.

    Raises:
        InputError: For a filter that has not one verdict for each sample, which would then vanish uncounted.
    """

    def drop(name: str, dropped: Dropped) -> None:
        report.dropped[name, dropped.reason] += 1
        if on_drop is not None:
            on_drop(name, dropped)

    for chunk in _chunks(samples):
        report.seen += len(chunk)
        left: list[Sample] = []
        for sample in chunk:
            if isinstance(sample, Rejected):
                reason, _, detail = sample.reason.partition(": ")
                drop(READ, Dropped(sample.file, reason.partition(" (")[0], detail))
            else:
                left.append(sample)
        for name, judge in filters.items():
            verdicts = judge(left) if left else []
            _check_verdicts(name, verdicts, len(left))
            for verdict in verdicts:
                if isinstance(verdict, Dropped):
                    drop(name, verdict)
            left = [verdict for verdict in verdicts if isinstance(verdict, Sample)]
        report.kept += len(left)
        yield from left


def filter_pictures(
    samples: Iterable[Sample | Rejected],
    target: Path | str | None,
    filters: Mapping[str, Filter],
    *,
    per_shard: int | None = None,
) -> FilterReport:
    """Write what is left of samples after every filter as a data set of its own, whole or not at all.

    Args:
        samples: As `read_samples` gives them.
        target: The folder to make; None to report only.
        filters: By name, in their order.
        per_shard: Pictures in a shard; a plain folder when not given.

    Raises:
        InputError: When the target is there already, or nothing is left.
    """
    report = FilterReport(filters=tuple(filters))
    if target is None:
        for _ in sort_samples(samples, filters, report):
            pass
        return report
    target = Path(target)
    check_target(target, per_shard)
    building = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        building.mkdir()
        with ExitStack() as opened:
            log = opened.enter_context(_opened(building / DROPPED))

            def note(name: str, dropped: Dropped) -> None:
                row = {"name": dropped.name, "filter": name, "reason": dropped.reason}
                log.write(_line({**row, "detail": dropped.detail}))

            writer = _Folder(building) if per_shard is None else _Shards(building, per_shard)
            opened.callback(writer.close)
            for number, sample in enumerate(sort_samples(samples, filters, report, note)):
                writer.add(f"{number:09d}", sample)
        if report.kept == 0:
            raise InputError(f"nothing is left to write to {target}: {_one_line(report)}")
        text = json.dumps(report.facts(), indent=2) + "\n"
        (building / REPORT).write_text(text, encoding="utf-8")
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return report


def check_target(target: Path, per_shard: int | None = None) -> None:
    """Refuse a place for a data set before any work is done.

    Raises:
        InputError: When it is there already, cannot be made, or shards would be empty.
    """
    if target.exists():
        raise InputError(f"{target} is there already; choose another folder, or remove it")
    if not target.absolute().parent.is_dir():
        raise InputError(f"there is no folder {target.absolute().parent} to make {target.name} in")
    if per_shard is not None and per_shard < 1:
        raise InputError(f"a shard holds at least 1 picture, got {per_shard}")


class _Folder:
    """Pictures beside a ``metadata.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = _opened(folder / "metadata.jsonl")

    def add(self, key: str, sample: Sample) -> None:
        name = f"{key}{sample.ending}"
        (self._folder / name).write_bytes(sample.read())
        row = {"file_name": name, "text": sample.caption, **_facts(sample)}
        self._rows.write(_line(row))

    def close(self) -> None:
        self._rows.close()


class _Shards:
    """Tar files as WebDataset has them, the same bytes for the same samples."""

    def __init__(self, folder: Path, per_shard: int) -> None:
        self._folder, self._per_shard = folder, per_shard
        self._number = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, sample: Sample) -> None:
        if self._tar is None or self._number % self._per_shard == 0:
            self.close()
            name = f"{self._number // self._per_shard:05d}.tar"
            self._tar = tarfile.open(self._folder / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._number += 1
        self._put(f"{key}{sample.ending}", sample.read())
        self._put(f"{key}.txt", sample.caption.encode())
        self._put(f"{key}.json", _line(_facts(sample)).encode(errors=_ESCAPED))

    def _put(self, name: str, data: bytes) -> None:
        assert self._tar is not None  # `add` opened it
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()


def _facts(sample: Sample) -> dict[str, Any]:
    """What is noted of a kept sample: what was known, what was measured, and where it came from."""
    known = {k: v for k, v in sample.facts.items() if k not in ("file_name", "text", "caption")}
    scores = {name: round(value, 6) for name, value in sample.scores.items()}
    height, width = sample.shape
    return {"source": sample.name, **known, "height": height, "width": width, **scores}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _opened(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors=_ESCAPED, newline="\n")


def _check_verdicts(name: str, verdicts: Any, count: int) -> None:
    if (
        not isinstance(verdicts, list)
        or len(cast(list[Any], verdicts)) != count
        or not all(isinstance(verdict, (Sample, Dropped)) for verdict in cast(list[Any], verdicts))
    ):
        raise InputError(
            f"filter {name!r} must return a list with a Sample or a Dropped for each of {count} samples"
        )


def _one_line(report: FilterReport) -> str:
    return "; ".join(" ".join(line.split()) for line in str(report).splitlines())


def _chunks(samples: Iterable[Sample | Rejected]) -> Iterator[Sequence[Sample | Rejected]]:
    chunk: list[Sample | Rejected] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


__all__ = [
    "AT_ONCE",
    "FilterReport",
    "check_target",
    "filter_pictures",
    "sort_samples",
]
