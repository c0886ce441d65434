"""How an enlarging network learns against a critic: close to the truth, alike in a judge's eyes, and not to be told.

Generator and critic learn in the same step from the same pictures; neither's loss moves the other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bottega.data import Batch, Degradations
from bottega.errors import ConfigError
from bottega.models.srgan import SrGan
from bottega.shapes import Images
from bottega.training.denoiser_objective import random_crops, shrink
from bottega.training.objective import Loss

Map = Float[Tensor, "batch _ _ _"]
FeatureMaps = Callable[[Images], Sequence[Map]]
"""What a network that was trained to see makes of pictures of any size, at several depths."""


@dataclass(frozen=True, kw_only=True)
class SrGanWeights:
    """How much each part of the generator's loss counts; a part of weight 0 is not computed.

    With ``adversarial`` 0 there is no critic to learn from, and none that learns.

    Source: Wang et al. 2021 (arXiv:2107.10833), section 4.1: 1, 1, 0.1, after a run with ``pixel`` alone.
    """

    pixel: float = 1.0
    feature: float = 1.0
    adversarial: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"the weight {name} must be 0 or more and finite, got {value}")
        if self.pixel + self.feature + self.adversarial == 0:
            raise ConfigError("a generator needs a loss: pixel, feature or adversarial above 0")


@dataclass(frozen=True, kw_only=True)
class SrGanObjective:
    """The losses of an `SrGan` on pictures that are shrunk, spoilt by ``degradations``, and enlarged again.

    ``crop_px`` shows squares of that side at random places. ``features`` is needed where ``weights.feature`` counts.

    Source: Wang et al. 2021 (arXiv:2107.10833), section 3.3 and 4.1. We differ: features are a judge's, not VGG's, and
    count relative to their size; the truth is not sharpened first; both learn at once, not in turn.
    """

    weights: SrGanWeights = field(default_factory=SrGanWeights)
    degradations: Degradations | None = field(default_factory=Degradations)
    crop_px: int | None = None
    features: FeatureMaps | None = None

    def __post_init__(self) -> None:
        if self.weights.feature > 0 and self.features is None:
            raise ConfigError("weights.feature counts, but there are no features; give some, or 0")

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The generator's loss and the critic's, added up."""
        assert isinstance(network, SrGan)  # built beside this objective
        real, low_res = self._pair(batch.clean(), network.generator.config.scale, generator)
        made = network(low_res)
        per_image, metrics = self._generator_loss(network.discriminator, made, real)
        total = per_image.mean()
        if self.weights.adversarial > 0:
            critic = _critic_loss(network.discriminator, made.detach(), real)
            total = total + critic["critic"]
            metrics |= critic
        return Loss(total=total, per_image=per_image.detach(), metrics=_detached(metrics))

    def _pair(
        self, clean: Images, scale: int, generator: torch.Generator
    ) -> tuple[Map, Float[Tensor, "batch _ _ _"]]:
        """What is true, and what the network is shown of it."""
        low_res = shrink(clean, clean.shape[-1] // scale)
        if self.degradations is not None:
            device = generator.device
            seeds = torch.randint(2**62, (len(clean),), generator=generator, device=device)
            low_res = self.degradations(low_res, seeds.tolist())
        if self.crop_px is None:
            return clean, low_res
        return random_crops(clean, low_res, self.crop_px, generator)

    def _generator_loss(
        self, discriminator: nn.Module, made: Images, real: Images
    ) -> tuple[Float[Tensor, "batch"], dict[str, Tensor]]:
        weights, parts = self.weights, {}
        if weights.pixel > 0:
            parts["pixel"] = (made - real).abs().flatten(1).mean(1)
        if weights.feature > 0 and self.features is not None:
            with torch.no_grad():
                wanted = self.features(real)
            parts["feature"] = feature_error(self.features(made), wanted)
        if weights.adversarial > 0:
            with _at_rest(discriminator):
                parts["adversarial"] = F.softplus(-discriminator(made)).flatten(1).mean(1)
        per_image = torch.stack([getattr(weights, name) * part for name, part in parts.items()])
        return per_image.sum(0), {name: part.mean() for name, part in parts.items()}


def feature_error(made: Sequence[Map], real: Sequence[Map]) -> Float[Tensor, "batch"]:
    """How far maps lie from those of the truth, relative to how large those are; a mean over depths, per picture.

    Raises:
        ConfigError: Without maps, or when one side has more than the other.
    """
    if not made or len(made) != len(real):
        raise ConfigError(f"both pictures need the same maps, got {len(made)} and {len(real)}")
    errors = [
        (a - b).abs().flatten(1).mean(1) / b.abs().flatten(1).mean(1).clamp(min=1e-6)
        for a, b in zip(made, real, strict=True)
    ]
    return torch.stack(errors).mean(0)


def _critic_loss(discriminator: nn.Module, made: Images, real: Images) -> dict[str, Tensor]:
    """The critic's loss, and how often it is right about pixels of either kind."""
    of_real, of_made = discriminator(real), discriminator(made)
    loss = F.softplus(-of_real).mean() + F.softplus(of_made).mean()
    return {
        "critic": loss,
        "real_told": (of_real > 0).float().mean(),
        "made_told": (of_made < 0).float().mean(),
    }


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """The module's weights take part, and learn nothing of it."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _detached(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in metrics.items()}


__all__ = ["FeatureMaps", "SrGanObjective", "SrGanWeights", "feature_error"]
