"""The loss of a network that was trained with timesteps, in its own terms, so that it can be trained further."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition, Stream
from bottega.conditioning import ConditionDropout
from bottega.conditioning.numbers import sized_numbers
from bottega.data import Batch
from bottega.diffusion import TimestepPlan
from bottega.diffusion.denoiser import per_image
from bottega.diffusion.noise import stratified
from bottega.errors import ConfigError
from bottega.training.latents import Encode, seen_by_network
from bottega.training.objective import Loss


@dataclass(frozen=True, kw_only=True)
class TimestepObjective:
    """The squared error of eps, v or the picture, whichever the network gives, at timesteps drawn evenly.

    ``encode`` takes pictures to latents, None for a network of pixels. ``dropout`` is the share of pictures whose text
    is replaced by ``empty``, the condition of an empty text as this network knows it. ``numbers`` are told beside the
    text, with the sizes in them those of the pictures. ``condition_dropout`` silences streams instead, as our own
    denoisers learn it. ``intervals`` confines the noise to intervals of its probability, weak noise first, for an
    expert denoiser. A learned variance is left as it is. ``rank`` and ``world_size`` spread the timesteps evenly over
    processes.

    Source: Ho et al. 2020 (arXiv:2006.11239), equation 14; Salimans & Ho 2022 (arXiv:2202.00512), Appendix D, for v.
    """

    plan: TimestepPlan
    encode: Encode | None = None
    dropout: float = 0.1
    empty: Condition | None = None
    numbers: tuple[float, ...] = ()
    condition_dropout: ConditionDropout | None = None
    intervals: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"dropout must be in [0, 1], got {self.dropout}")
        if self.dropout > 0 and self.empty is None:
            raise ConfigError(
                "dropout needs the condition of an empty text; give empty, or dropout 0"
            )
        ends = [end for interval in self.intervals for end in interval]
        if not ends or ends != sorted(ends) or ends[0] < 0 or ends[-1] > 1:
            raise ConfigError(f"intervals must rise within [0, 1], got {self.intervals}")
        if not self.plan.timesteps_within(self.intervals):
            raise ConfigError(f"none of the timesteps lies in the intervals {self.intervals}")

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean loss of a batch, with each picture's own loss and noise level."""
        clean = seen_by_network(batch, self.encode)
        sigma = self._sigmas(len(clean), generator).to(clean.device)
        eps = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        level = per_image(sigma)
        signal = 1 / (1 + level.square()).sqrt()
        noisy = signal * (clean + level * eps)
        time = self.plan.schedule.timestep(sigma)
        context = network.prepare(self._condition(batch, generator))  # pyright: ignore[reportCallIssue]
        output = network(noisy, time, context)[:, : clean.shape[1]]
        match self.plan.prediction:
            case "eps":
                target = eps
            case "v":
                target = signal * (eps - level * clean)
            case "x0":
                target = clean
        each = (output.float() - target.float()).square().flatten(1).mean(1)
        return Loss(total=each.mean(), per_image=each, sigma=sigma)

    def _sigmas(self, count: int, generator: torch.Generator) -> Float[Tensor, "batch"]:
        """Noise levels of whole timesteps, one from each slice of equal probability."""
        share = stratified(count, generator, rank=self.rank, world_size=self.world_size)
        inside = self.plan.timesteps_within(self.intervals)
        places = (share * len(inside)).long().clamp(max=len(inside) - 1)
        known = self.plan.schedule
        return torch.tensor([known.sigma(inside[place]) for place in places.tolist()])

    def _condition(self, batch: Batch, generator: torch.Generator) -> Condition:
        condition = Condition() if batch.condition is None else batch.condition
        if self.numbers:
            numbers = sized_numbers(self.numbers, *batch.images.shape[2:])
            rows = torch.tensor([numbers] * len(batch), device=batch.images.device)
            condition = replace(condition, numbers=rows)
        if self.condition_dropout is not None and condition.streams:
            condition = self.condition_dropout(condition, generator)
        if self.empty is None or self.dropout == 0:
            return condition
        draws = torch.rand(len(batch), generator=generator, device=generator.device)
        drop = (draws < self.dropout).cpu()
        streams = {
            name: _replaced(stream, self.empty.streams[name], drop)
            for name, stream in condition.streams.items()
        }
        return replace(condition, streams=streams)


def _replaced(stream: Stream, empty: Stream, drop: Tensor) -> Stream:
    """The rows of ``empty`` where ``drop`` is True."""
    drop = drop.to(stream.tokens.device)
    other = empty.to(device=stream.tokens.device, dtype=stream.tokens.dtype)
    pooled = stream.pooled
    if pooled is not None and other.pooled is not None:
        pooled = torch.where(drop[:, None], other.pooled, pooled)
    return Stream(
        tokens=torch.where(drop[:, None, None], other.tokens, stream.tokens),
        mask=torch.where(drop[:, None], other.mask, stream.mask),
        pooled=pooled,
    )


__all__ = ["Encode", "TimestepObjective"]
