"""Until when does a picture follow its prompt? Another prompt is given after a share of the steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from bottega.condition import Condition
from bottega.diffusion import Denoise, DenoiserLike
from bottega.errors import InputError
from bottega.evaluation.intervals import design_effect
from bottega.evaluation.judge import Reading
from bottega.evaluation.report import Share
from bottega.pipelines import Stage, StageSettings
from bottega.shapes import Images, Sigmas

Follows = Callable[[Reading], bool]
"""Whether a picture shows what a prompt asks for."""


class Switched:
    """A denoiser told one condition above a noise level, and another at that level and below.

    It stands where a `DenoiserLike` stands, an ensemble's too: the condition it is prepared with is the first one.

    Source: eDiff-I (arXiv:2211.01324), Figure 4.
    """

    def __init__(self, denoiser: DenoiserLike, second: Condition, sigma: float) -> None:
        """Tell ``denoiser`` of ``second`` from ``sigma`` down; 0 never does, infinity always."""
        self._denoiser = denoiser
        self._second = second
        self._sigma = sigma

    def prepare(self, condition: Condition) -> tuple[Any, Any]:
        """Both contexts; the rows of ``second`` take the place of the first rows, those told a prompt."""
        rows = self._second.batch_size
        second = self._second
        if condition.batch_size > rows:
            second = Condition.cat([second, _rest(condition, rows)])
        return self._denoiser.prepare(condition), self._denoiser.prepare(second)

    def forward(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """Denoise as the context of this noise level says; all pictures stand at one level."""
        return self._denoiser(x, sigma, context[int(bool((sigma <= self._sigma).all()))])

    def __call__(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """What `forward` does."""
        return self.forward(x, sigma, context)

    def bind(self, context: Any) -> Denoise:
        """The ``Denoise`` that paints what both contexts say."""

        def denoise(x: Images, sigma: Sigmas) -> Images:
            return self(x, sigma, context)

        return denoise

    def to(self, *, device: torch.device | str, dtype: torch.dtype) -> "Switched":
        """Move the denoiser."""
        self._denoiser.to(device=device, dtype=dtype)
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptPair:
    """Two prompts as conditions of one row, what guidance keeps away from, and how to see which was followed."""

    first: Condition
    second: Condition
    uncond: Condition
    follows_first: Follows
    follows_second: Follows


@dataclass(frozen=True, kw_only=True)
class SwitchPoint:
    """What became of pictures switched after ``share`` of the steps, where the noise had fallen to ``sigma``."""

    share: float
    sigma: float
    first: Share
    second: Share


@dataclass(frozen=True, kw_only=True)
class Switching:
    """The whole curve, from a switch before the first step to none at all.

    ``stops_at`` is the largest noise level of a switch after which the second prompt is followed less than half as
    often as when it is given from the start; None if it always is followed, or never.
    """

    points: tuple[SwitchPoint, ...]

    @property
    def stops_at(self) -> float | None:
        """The noise level at which the picture has stopped following."""
        whole = self.points[0].second.value
        if whole == 0:
            return None
        late = [p.sigma for p in self.points if p.second.value < whole / 2]
        return max(late) if late else None

    @property
    def stops_after(self) -> float | None:
        """The share of the steps by then."""
        sigma = self.stops_at
        return None if sigma is None else min(p.share for p in self.points if p.sigma == sigma)


class _Look(NamedTuple):
    first: bool
    second: bool


def probe_switch(
    stage: Stage,
    read: Callable[[Images], list[Reading]],
    pairs: Sequence[PromptPair],
    settings: StageSettings,
    *,
    shares: Sequence[float],
    seeds: Sequence[int] = (0,),
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Switching:
    """Paint every pair once for every share of the steps after which its second prompt takes over.

    Args:
        stage: What paints; it enlarges nothing.
        read: The judge's way of reading pictures.
        pairs: Prompts that no picture follows both of by chance.
        settings: How to sample.
        shares: From 0 (the second prompt throughout) to 1 (never), 0 among them.
        seeds: Pictures per pair and share.
        device: Where the stage's denoiser lives.
        progress: Told how many pictures of how many are done.

    Raises:
        InputError: Without pairs or seeds, for shares outside [0, 1] or without 0, or a stage that enlarges.
    """
    ordered = sorted(set(shares))
    if not pairs or not seeds or not ordered or ordered[0] != 0 or ordered[-1] > 1:
        raise InputError(
            f"a probe needs prompts, seeds, and shares from 0 to at most 1 with 0 among them, got {ordered}"
        )
    if stage.low_res_from is not None:
        raise InputError(f"stage {stage.name} enlarges; probe the stage that paints the words")
    sigmas = stage.sigmas(settings)
    total, done = len(ordered) * len(pairs) * len(seeds), 0
    points: list[SwitchPoint] = []
    for share in ordered:
        taken = round(share * (len(sigmas) - 1))
        sigma = float("inf") if taken == 0 else sigmas[taken]
        looks: list[list[_Look]] = []
        for pair in pairs:
            looks.append([])
            for seed in seeds:
                x = _painted(stage, pair, sigma, seed, settings, device)
                (reading,) = read(stage.pictures(x).clamp(-1, 1))
                looks[-1].append(_Look(pair.follows_first(reading), pair.follows_second(reading)))
                done += 1
                if progress is not None:
                    progress(done, total)
        points.append(
            SwitchPoint(
                share=share,
                sigma=sigmas[taken],
                first=_share([[look.first for look in row] for row in looks]),
                second=_share([[look.second for look in row] for row in looks]),
            )
        )
    return Switching(points=tuple(points))


def _painted(
    stage: Stage,
    pair: PromptPair,
    sigma: float,
    seed: int,
    settings: StageSettings,
    device: torch.device | str,
) -> Images:
    told = replace(stage, denoiser=Switched(stage.denoiser, pair.second, sigma))
    x = None
    for step in told.paint(pair.first, pair.uncond, [seed], settings, device=device):
        x = step.x
    if x is None:
        raise InputError(f"stage {stage.name} took no step")
    return x


def _rest(condition: Condition, rows: int) -> Condition:
    """The rows of a condition after the first ``rows``."""
    streams = {
        name: replace(
            stream,
            tokens=stream.tokens[rows:],
            mask=stream.mask[rows:],
            pooled=None if stream.pooled is None else stream.pooled[rows:],
        )
        for name, stream in condition.streams.items()
    }
    return Condition(streams=streams)


def _share(rows: Sequence[Sequence[bool]]) -> Share:
    return Share.of(sum(map(sum, rows)), sum(map(len, rows)), design_effect(rows))


__all__ = ["Follows", "PromptPair", "SwitchPoint", "Switched", "Switching", "probe_switch"]
