"""Does a model paint what it is asked for? Fixed prompts are painted, judged, and counted beside real pictures."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bottega import __version__
from bottega import config as configs
from bottega.data.emoji_world import render
from bottega.errors import InputError
from bottega.evaluation import prompts as prompt_lists
from bottega.evaluation.expectation import check
from bottega.evaluation.intervals import design_effect
from bottega.evaluation.judge import Reader
from bottega.evaluation.prompts import CATEGORIES, Prompt, real_plan
from bottega.evaluation.report import Card, Report, Score, Share
from bottega.rundir import write_atomically
from bottega.shapes import Images

if TYPE_CHECKING:
    from PIL.Image import Image

Paint = Callable[[Sequence[str], Sequence[int]], Images]
"""Paints one picture in [-1, 1] for each text and seed."""

Claims = Mapping[str, bool]
Verdicts = dict[tuple[int, int], Claims]
"""What was found, by the prompt's place in the list and the seed."""

CLAIMS = ("right", "things", "tints", "relation", "background", "style", "word", "nothing_else")
"""Every claim, in the order of reports."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose pictures are judged: a name, a digest of the weights, and the settings as plain JSON."""

    name: str
    digest: str = "unknown"
    settings: Any = None


def evaluate(
    paint: Paint,
    judge: Reader,
    prompts: Sequence[Prompt],
    *,
    subject: Subject,
    seeds: Sequence[int] = (0, 1, 2),
    size: int = 128,
    batch_size: int = 16,
    journal: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Paint every prompt with every seed, judge the pictures, and count what is right.

    Args:
        paint: Called with at most ``batch_size`` texts and as many seeds.
        judge: Reads the pictures; it must know every thing the prompts name.
        prompts: From `make_prompts`.
        subject: What goes on the card.
        seeds: Pictures per prompt; three or more show how much a figure owes to luck.
        size: Side of the real pictures, in pixels; give the painter's own.
        batch_size: Pictures painted at a time.
        journal: A file to which verdicts are added as they come; an evaluation that was stopped goes on from it.
        progress: Told how many pictures of how many are done.

    Raises:
        InputError: For no prompts or seeds, things the judge cannot name, a painter that returns the wrong number
            of pictures, or a journal of another evaluation.
    """
    _check_input(judge, prompts, seeds, batch_size)
    card = Card(
        model=subject.name,
        model_digest=subject.digest,
        settings=subject.settings,
        prompts_digest=prompt_lists.digest(prompts),
        num_prompts=len(prompts),
        seeds=tuple(seeds),
        size=size,
        judge_digest=judge.digest,
        bottega=__version__,
    )
    real = _judge_real(judge, prompts, seeds, size)
    log = None if journal is None else _Journal(Path(journal), card)
    painted: Verdicts = {} if log is None else log.read()
    waiting = [key for key in real if key not in painted]
    for keys in _chunks(waiting, batch_size):
        if progress is not None:
            progress(len(painted), len(real))
        images = paint([prompts[i].text for i, _ in keys], [seed for _, seed in keys])
        if len(images) != len(keys):
            raise InputError(f"the painter returned {len(images)} pictures for {len(keys)} prompts")
        verdicts = _judge(judge, prompts, keys, images)
        painted |= verdicts
        if log is not None:
            log.add(verdicts)
    if progress is not None:
        progress(len(painted), len(real))
    return Report(card=card, scores=tuple(_scores(prompts, tuple(seeds), painted, real)))


def images_of(pictures: "Sequence[Image]") -> Images:
    """PIL pictures of one size as a batch in [-1, 1]."""
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _check_input(
    judge: Reader, prompts: Sequence[Prompt], seeds: Sequence[int], batch_size: int
) -> None:
    if not prompts or not seeds or batch_size < 1:
        raise InputError("an evaluation needs prompts, seeds, and a batch size of at least 1")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds must differ, got {list(seeds)}")
    wanted = {w.thing for prompt in prompts for w in prompt.expected.things}
    strange = sorted(wanted - set(judge.config.things))
    if strange:
        raise InputError(
            f"the judge cannot name {strange[0]!r} and {len(strange) - 1} more things of the "
            "prompts; make the prompts from the judge's vocabulary"
        )


def _judge(
    judge: Reader, prompts: Sequence[Prompt], keys: Sequence[tuple[int, int]], images: Images
) -> Verdicts:
    return {
        key: check(prompts[key[0]].expected, reading)
        for key, reading in zip(keys, judge.read(images), strict=True)
    }


def _judge_real(
    judge: Reader, prompts: Sequence[Prompt], seeds: Sequence[int], size: int
) -> Verdicts:
    """What the judge says of real pictures of the same prompts: the most that a painter could be credited with."""
    verdicts: Verdicts = {}
    for keys in _chunks([(i, seed) for seed in seeds for i in range(len(prompts))], 64):
        pictures = np.stack([render(real_plan(prompts[i], seed), size) for i, seed in keys])
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        verdicts |= _judge(judge, prompts, keys, images)
    return verdicts


def _scores(
    prompts: Sequence[Prompt], seeds: tuple[int, ...], painted: Verdicts, real: Verdicts
) -> Iterator[Score]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[prompt.category].append(place)
    for category in CATEGORIES:
        for claim in CLAIMS:
            # A claim is counted over the prompts that make it: not every description names a background.
            made = [i for i in places[category] if claim in real[i, seeds[0]]]
            if made:
                held = [[painted[i, seed][claim] for seed in seeds] for i in made]
                yield Score(
                    category=category,
                    claim=claim,
                    painted=_share(held),
                    ceiling=_share([[real[i, seed][claim] for seed in seeds] for i in made]),
                    by_seed=tuple(sum(column) / len(made) for column in zip(*held, strict=True)),
                )


def _share(held: Sequence[Sequence[bool]]) -> Share:
    trials = sum(len(row) for row in held)
    return Share.of(sum(sum(row) for row in held), trials, design_effect(held))


def _chunks(keys: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


class _Journal:
    """Verdicts on disk, a line each, under the card they were made with."""

    def __init__(self, path: Path, card: Card) -> None:
        self._path = path
        self._card = configs.to_json(card)

    def read(self) -> Verdicts:
        """What is there already; a last line that was cut off by a crash is forgotten."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps({"card": self._card}) + "\n", encoding="utf-8")
            return {}
        try:
            whole = self._path.read_bytes().decode()
            kept = whole[: whole.rfind("\n") + 1]
            rows = [json.loads(line) for line in kept.split("\n")[:-1]]
            card = rows[0]["card"] if rows else None
            verdicts: Verdicts = {
                (row["prompt"], row["seed"]): dict(row["claims"]) for row in rows[1:]
            }
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self._path} is damaged: {error}") from None
        if card != self._card:
            raise InputError(
                f"{self._path} belongs to another evaluation; name another file, or remove it"
            )
        if kept != whole:
            write_atomically(self._path, kept.encode())
        return verdicts

    def add(self, verdicts: Verdicts) -> None:
        lines = [
            json.dumps({"prompt": place, "seed": seed, "claims": dict(claims)})
            for (place, seed), claims in verdicts.items()
        ]
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))


__all__ = ["CLAIMS", "Claims", "Paint", "Subject", "Verdicts", "evaluate", "images_of"]
