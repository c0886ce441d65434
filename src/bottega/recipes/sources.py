"""Where a run's pictures come from: the drawn world, or a folder of one's own, and what it leaves out of that."""

import json
from collections import Counter
from collections.abc import Sequence

from bottega.data import Batch, Groups, Source, groups_of, pictures_in
from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource
from bottega.data.stored import FolderReport, StoredSource
from bottega.recipes.adapter_tasks import LoraTask
from bottega.recipes.run import FolderConfig, RunConfig
from bottega.training import Hook, TrainState

LEFT_OUT = "left-out.json"
"""Where a run names the files that it does not see."""

# Far beyond any training index, so that a preview is of scenes the network has not seen.
_UNSEEN = 10**9


class Bounded:
    """The first ``num_examples`` of a source, so that their captions can be embedded once and for all."""

    def __init__(self, source: Source, num_examples: int) -> None:
        """Show only that many of ``source``, or all where there are fewer."""
        self._source = source
        most = source.num_examples
        self.num_examples: int | None = num_examples if most is None else min(num_examples, most)

    @property
    def whole(self) -> Source:
        """All of it."""
        return self._source

    @property
    def groups(self) -> Groups | None:
        """What is left of the source's own."""
        groups, count = groups_of(self._source), self.num_examples
        if groups is None or count is None:
            return groups
        return tuple(tuple(i for i in group if i < count) for group in groups)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The source's own batch."""
        return self._source.batch(indices)


def picture_source(config: RunConfig) -> Source:
    """Batches of the run's pictures and captions.

    Raises:
        DataError: For a folder without a usable picture, or when the emoji font is missing.
    """
    source = _whole(config)
    return source if config.num_examples is None else Bounded(source, config.num_examples)


class LeftOut(Hook):
    """Says as a run begins how many files it does not see, by reason, and names each in ``left-out.json``."""

    def __init__(self, place: str, report: FolderReport) -> None:
        """Tell of what was found at ``place``."""
        super().__init__(every_images=2**62)
        self._place, self.report = place, report

    def begin(self, state: TrainState) -> None:
        """Write the file, and have it said before the first step."""
        if state.engine.rank != 0:
            return
        rejected = self.report.rejected
        counts = Counter(r.reason.partition(": ")[0].partition(" (")[0] for r in rejected)
        facts = {
            "place": self._place,
            "used": self.report.num_usable,
            "left_out": [{"reason": r, "files": n} for r, n in counts.most_common()],
            "files": [{"name": r.file, "reason": r.reason} for r in rejected],
        }
        written = state.run.write_text(LEFT_OUT, json.dumps(facts, indent=2) + "\n")
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        state.warnings.append(
            f"{self._place}: {self.report.num_usable:,} pictures are used, {len(rejected):,} files left out "
            f"({reasons}); {written} names them"
        )


def left_out(config: RunConfig, source: Source) -> list[Hook]:
    """What says which files a run does not see; nothing where all are used, or none are there."""
    stored = source.whole if isinstance(source, Bounded) else source
    if not isinstance(config.data, FolderConfig) or not isinstance(stored, StoredSource):
        return []
    return [LeftOut(config.data.path, stored.report)] if stored.report.rejected else []


def preview_batch(config: RunConfig, num_pictures: int) -> Batch:
    """Pictures and captions to judge progress by: unseen scenes of the world, or the first files of a folder.

    In buckets, unseen scenes are squares, and files come from the bucket that holds most.
    """
    if isinstance(config.data, EmojiWorldConfig):
        unseen = WorldSource(EmojiWorld(config.data), config.size)
        return unseen.batch(range(_UNSEEN, _UNSEEN + num_pictures))
    source = _whole(config)
    groups = groups_of(source)
    here = range(0 if source.num_examples is None else source.num_examples)
    members = here if groups is None else max(groups, key=len)
    return source.batch(members[:num_pictures])


def _whole(config: RunConfig) -> Source:
    if isinstance(config.data, FolderConfig):
        return pictures_in(
            config.data.path,
            config.size,
            caption_field=config.data.caption_field,
            caption=config.data.caption,
            # Of a handful every picture counts, and looking at all of it takes no time.
            check="pixels" if isinstance(config.task, LoraTask) else "headers",
            buckets=config.buckets,
        )
    world, bounded = EmojiWorld(config.data), config.num_examples
    return WorldSource(world, config.size, buckets=config.buckets, num_examples=bounded)


__all__ = ["LEFT_OUT", "Bounded", "LeftOut", "left_out", "picture_source", "preview_batch"]
