"""The one currency, ``Denoise``, and the preconditioned network that most often is one.

Images live in [-1, 1]; sigma is the standard deviation of the noise in those units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.shapes import Images, Sigmas

Denoise = Callable[[Images, Sigmas], Images]
"""Given noisy pictures and their noise levels, the expected clean pictures. Samplers ask for nothing else."""

Noise = Callable[[], Images]
"""The next independent unit Gaussian draw, of the shape of the walk; called only when it is used."""


class Step(NamedTuple):
    """Where a sampler stands: ``x`` at noise level ``sigma``, and the newest estimate of the clean picture."""

    sigma: float
    x: Images
    denoised: Images


class Scalings(NamedTuple):
    """The four numbers per image that surround a raw network (EDM's c_skip, c_out, c_in and c_noise)."""

    skip: Sigmas
    out: Sigmas
    input: Sigmas
    noise: Sigmas


@dataclass(frozen=True, kw_only=True)
class EDMPrecond:
    """Scalings that keep the network's input and its regression target at unit variance.

    ``around`` is what ``sigma_data`` measures the spread from. A super-resolution net already knows the picture but for
    its details: around "low_res", the enlarged picture it is given is taken off before the network and put back after
    it, ``sigma_data`` is the spread of what is missing, and a small network errs towards that picture instead of
    towards noise.

    Source: Karras et al. 2022 (arXiv:2206.00364), Table 1 and Appendix B.6; eDiff-I uses the same. We differ at
    sigma = 0, where c_noise stays finite, so that denoising a clean picture returns it.
    """

    sigma_data: float = 0.5
    around: Literal["zero", "low_res"] = "zero"

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < float("inf"):
            raise ConfigError(f"sigma_data must be positive and finite, got {self.sigma_data}")

    def __call__(self, sigma: Sigmas) -> Scalings:
        """Evaluate the four scalings at each image's noise level."""
        spread = (sigma.square() + self.sigma_data**2).sqrt()  # std of the noisy image
        return Scalings(
            skip=(self.sigma_data / spread).square(),
            out=self.sigma_data * sigma / spread,
            input=1 / spread,
            noise=sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log() / 4,
        )

    def weight(self, sigma: Sigmas) -> Sigmas:
        """The loss weight (EDM's lambda) that makes the network's own output count alike at every sigma."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


@runtime_checkable
class DenoiserLike(Protocol):
    """What a stage paints with: a `Denoiser`, a network trained with timesteps, or several that share the noise."""

    def prepare(self, condition: Condition) -> Any:
        """Do everything that depends on neither x nor sigma, once per prompt; the result is the context."""
        ...

    def forward(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """Denoise ``x`` as ``context`` says."""
        ...

    def __call__(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """What `forward` does."""
        ...

    def bind(self, context: Any) -> Denoise:
        """The ``Denoise`` that paints what ``context`` says."""
        ...

    def to(self, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """Move to where and to the precision in which it is to compute."""
        ...


class Denoiser(nn.Module):
    """A raw network made into a ``Denoise``: D = m + c_skip (x - m) + c_out F(c_in (x - m); c_noise).

    m is zero, or with a preconditioning ``around`` "low_res" the context's ``enlarged`` picture. The network is called
    as ``network(x, c_noise, context)`` and runs in the type of its parameters, while everything around it stays in
    float32 (or wider, when ``x`` is).

    Source: Karras et al. 2022 (arXiv:2206.00364), equation 7, where m is zero.
    """

    def __init__(self, network: nn.Module, precond: EDMPrecond | None = None) -> None:
        """Wrap ``network``, which offers ``prepare(condition)`` too, with EDM's scalings."""
        super().__init__()
        self.network = network
        self.precond = EDMPrecond() if precond is None else precond

    def prepare(self, condition: Condition) -> Any:
        """Do everything that depends on neither x nor sigma, once per prompt; the result is the context."""
        prepare = cast(Callable[[Condition], Any], self.network.prepare)
        return prepare(condition)

    def foresee(self, context: Any, sigmas: Sigmas) -> Any:
        """The context for a walk over these noise levels, with what depends on them alone done at once."""
        foresee = getattr(self.network, "foresee", None)
        return context if foresee is None else foresee(context, self.precond(sigmas).noise)

    def forward(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """Denoise ``x``; keep ``sigma`` in float32 or wider even when the network runs in bfloat16."""
        wide = torch.promote_types(x.dtype, torch.float32)
        x = x.to(wide)
        centre = self._centre(context)
        if centre is not None:
            x = x - centre
        scale = self.precond(sigma)
        inner = parameter_dtype(self.network, wide)
        inputs = (per_image(scale.input).to(wide) * x).to(inner)
        residual = self.network(inputs, scale.noise, context).to(wide)
        denoised = per_image(scale.skip).to(wide) * x + per_image(scale.out).to(wide) * residual
        return denoised if centre is None else denoised + centre

    def _centre(self, context: Any) -> Images | None:
        if self.precond.around == "zero":
            return None
        enlarged: Images | None = getattr(context, "enlarged", None)
        if enlarged is None:
            raise InputError(
                "a denoiser preconditioned around the low-resolution picture needs one; give a condition with low_res"
            )
        return enlarged

    def bind(self, context: Any) -> Denoise:
        """The ``Denoise`` that paints what ``context`` says."""

        def denoise(x: Images, sigma: Sigmas) -> Images:
            return self(x, sigma, context)

        return denoise


def parameter_dtype(network: nn.Module, default: torch.dtype) -> torch.dtype:
    """The type a network computes in: that of its first floating parameter, or ``default`` if it has none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), default)


def per_image(values: Shaped[Tensor, "batch"]) -> Shaped[Tensor, "batch 1 1 1"]:
    """One number per image, shaped to multiply images."""
    return values[:, None, None, None]


__all__ = [
    "Denoise",
    "Denoiser",
    "DenoiserLike",
    "EDMPrecond",
    "Noise",
    "Scalings",
    "Step",
    "parameter_dtype",
    "per_image",
]
