"""Where do the tasks of a shared denoiser conflict? Cosines of the gradients that different noise levels ask for."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.diffusion import Denoiser, LogNormal, edm_loss
from bottega.errors import InputError
from bottega.seeding import generator
from bottega.shapes import Images

_MOST_SPLITS = 100_000

Matrix = Float[Tensor, "bins bins"]

Loss = Callable[[int, int], Float[Tensor, ""]]
"""The loss of one bin of noise on one batch; the same batch number is the same pictures for every bin."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where to cut bins into groups: the first bin of every group but the first.

    ``within`` and ``between`` are the mean cosines of pairs of bins of one group, and of different groups.
    """

    cuts: tuple[int, ...]
    within: float
    between: float

    @property
    def gain(self) -> float:
        """How much better bins agree with their own group than with another."""
        return self.within - self.between


def gradient_cosines(
    parameters: Iterable[nn.Parameter],
    loss: Loss,
    *,
    num_bins: int,
    num_batches: int,
    progress: Callable[[int, int], None] | None = None,
) -> Matrix:
    """How far the mean gradients of bins of noise point the same way, corrected for their noise.

    Each bin's gradient is taken twice, from even and from odd batches. The cosine of two bins is taken across the
    halves, and divided by what a bin has with itself; so it says 1 for one task however few batches there are.

    Args:
        parameters: What the gradient is taken by.
        loss: Called once for every bin and batch.
        num_bins: How many bins of noise.
        num_batches: Batches per bin, an even number.
        progress: Told how many gradients of how many are done.

    Returns:
        A symmetric matrix, ones on the diagonal, and values in [-1, 1].

    Raises:
        InputError: For fewer than two bins, an odd number of batches, or a bin whose gradient is nothing but noise.
    """
    check_bins(num_bins, num_batches)
    chosen = [p for p in parameters if p.requires_grad]
    if not chosen:
        raise InputError("cosines need parameters that learn, and none does")
    halves: list[tuple[Tensor, Tensor]] = []
    for place in range(num_bins):
        sums = [torch.zeros(sum(p.numel() for p in chosen)) for _ in range(2)]
        for batch in range(num_batches):
            grads = torch.autograd.grad(
                loss(place, batch), chosen, allow_unused=True, materialize_grads=True
            )
            flat = [grad.flatten().float().cpu() for grad in grads]
            sums[batch % 2] += torch.cat(flat)
            if progress is not None:
                progress(place * num_batches + batch + 1, num_bins * num_batches)
        halves.append((sums[0], sums[1]))
    return corrected(halves)


def denoising_loss(
    denoiser: Denoiser,
    noise: LogNormal,
    batches: Callable[[int], tuple[Images, Condition]],
    *,
    num_bins: int,
    seed: int = 0,
) -> Loss:
    """The training loss of a denoiser on bins of equal probability of its training noise.

    Args:
        denoiser: What is probed.
        noise: What it was trained with.
        batches: Pictures in [-1, 1] and their words, by number.
        num_bins: How many bins.
        seed: Of the noise; a batch gets the same unit noise in every bin.
    """

    def loss(place: int, batch: int) -> Float[Tensor, ""]:
        clean, condition = batches(batch)
        draws = generator(seed, "probe", "intervals", batch)
        part = (place / num_bins, (place + 1) / num_bins)
        sigma = noise.sample(len(clean), draws, [part]).to(clean.device)
        eps = torch.randn(clean.shape, generator=draws).to(clean)
        return edm_loss(denoiser, clean, sigma, eps, denoiser.prepare(condition)).mean()

    return loss


def corrected(halves: Sequence[tuple[Tensor, Tensor]]) -> Matrix:
    """Cosines across independent halves, divided by each bin's own.

    Raises:
        InputError: Naming a bin whose two halves do not agree at all.
    """
    even = torch.stack([one for one, _ in halves]).double()
    odd = torch.stack([other for _, other in halves]).double()
    products = even @ odd.T
    products = (products + products.T) / 2
    own = products.diagonal()
    if bool((own <= 0).any()):
        weak = int((own <= 0).nonzero()[0])
        raise InputError(
            f"the gradient of bin {weak} is nothing but noise; give more batches or fewer bins"
        )
    cosines = products / (own[:, None] * own[None, :]).sqrt()
    return cosines.clamp(-1, 1).float()


def check_bins(num_bins: int, num_batches: int, num_groups: int = 2) -> None:
    """Refuse what could not be worked out, before the work.

    Raises:
        InputError: For fewer than two bins, an odd number of batches, or groups that bins do not fall into, or only in
            more ways than can be tried.
    """
    if num_bins < 2 or num_batches < 2 or num_batches % 2:
        raise InputError(
            "cosines need at least 2 bins and an even number of batches, got "
            f"{num_bins} and {num_batches}"
        )
    if not 2 <= num_groups <= num_bins:
        raise InputError(f"{num_bins} bins fall into 2 to {num_bins} groups, got {num_groups}")
    if math.comb(num_bins - 1, num_groups - 1) > _MOST_SPLITS:
        raise InputError(
            f"{num_bins} bins fall into {num_groups} groups in more than {_MOST_SPLITS:,} ways; take fewer bins"
        )


def best_split(cosines: Matrix, num_groups: int = 2) -> Split:
    """Cut neighbouring bins into groups so that bins agree with their group and not with the others.

    Raises:
        InputError: For fewer than two groups, or more than there are bins.
    """
    count = len(cosines)
    check_bins(count, 2, num_groups)
    splits = (_split(cosines, cuts) for cuts in combinations(range(1, count), num_groups - 1))
    return max(splits, key=lambda split: split.gain)


def _split(cosines: Matrix, cuts: tuple[int, ...]) -> Split:
    count = len(cosines)
    group = torch.zeros(count, dtype=torch.long)
    for number, (start, end) in enumerate(pairwise((0, *cuts, count))):
        group[start:end] = number
    same = group[:, None] == group[None, :]
    # A bin alone agrees with itself; its diagonal entry counts, or cutting it off would cost nothing.
    within, between = float(cosines[same].mean()), float(cosines[~same].mean())
    return Split(cuts=cuts, within=within, between=between)


__all__ = [
    "Loss",
    "Matrix",
    "Split",
    "best_split",
    "check_bins",
    "corrected",
    "denoising_loss",
    "gradient_cosines",
]
