"""Networks that were trained with timesteps, and give eps, x0 or v, become a ``Denoise`` here.

A variance-preserving network sees ``z = sqrt(abar) clean + sqrt(1 - abar) eps``. Our ``x = clean + sigma eps`` with
``sigma = sqrt((1 - abar) / abar)`` is ``z / sqrt(abar)``, and every formula below follows.
"""

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from bottega.condition import Condition
from bottega.diffusion.denoiser import Denoise, parameter_dtype, per_image
from bottega.diffusion.schedules import Discrete, Schedule
from bottega.errors import ConfigError
from bottega.shapes import Images, Sigmas

Prediction = Literal["eps", "x0", "v"]
"""What a network's output stands for: the noise, the clean picture, or v = sqrt(abar) eps - sqrt(1 - abar) clean."""


class Spread:
    """What a network with a learned variance said of it at its newest call: -1 is DDPM's smaller one, 1 its larger.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation 15, where v is (1 + ours) / 2.
    """

    def __init__(self) -> None:
        """Nothing said yet."""
        self.newest: Images | None = None


class TimestepDenoiser(nn.Module):
    """A network trained with timesteps made into a ``Denoise``.

    The network is called as ``network(z, timestep, context)`` with one timestep per image, which need not be whole, and
    runs in the type of its parameters. Channels that it gives beyond those it got, a learned variance, are cut off;
    where the context has a `Spread` they are kept there.

    Source: Imagen (arXiv:2205.11487), Appendix A, for eps; Salimans & Ho 2022 (arXiv:2202.00512), Appendix D, for v.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: str) -> None:
        """Wrap ``network``, which was trained on ``schedule`` to give ``prediction``: eps, x0 or v.

        Raises:
            ConfigError: For another prediction, or for eps on a schedule that ends without signal.
        """
        super().__init__()
        if prediction not in get_args(Prediction):
            raise ConfigError(f"prediction must be eps, x0 or v, got {prediction!r}")
        if prediction == "eps" and isinstance(schedule, Discrete) and schedule.ends_without_signal:
            raise ConfigError(
                "an eps network says nothing about the picture where no signal is left, "
                "as at the end of this schedule; such schedules need v or x0"
            )
        self.network = network
        self.schedule = schedule
        self.prediction = cast(Prediction, prediction)

    def prepare(self, condition: Condition) -> Any:
        """Do everything that depends on neither x nor sigma, once per prompt; the result is the context."""
        prepare = cast(Callable[[Condition], Any], self.network.prepare)
        return prepare(condition)

    def foresee(self, context: Any, sigmas: Sigmas) -> Any:
        """The context for a walk over these noise levels, with what depends on them alone done at once."""
        foresee = getattr(self.network, "foresee", None)
        return context if foresee is None else foresee(context, self.schedule.timestep(sigmas))

    def forward(self, x: Images, sigma: Sigmas, context: Any = None) -> Images:
        """Denoise ``x``; keep ``sigma`` in float32 or wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        x = x.to(wide)
        level = per_image(sigma).to(wide)
        signal = 1 / (1 + level.square()).sqrt()  # sqrt(abar)
        time = self.schedule.timestep(sigma)
        inputs = (signal * x).to(parameter_dtype(self.network, wide))
        output = self.network(inputs, time, context)
        spread: Spread | None = getattr(context, "spread", None)
        if spread is not None:
            spread.newest = output[:, x.shape[1] :].to(wide)
        output = output[:, : x.shape[1]].to(wide)
        if self.prediction == "eps":
            return x - level * output
        if self.prediction == "v":
            return signal.square() * x - level * signal * output
        return output

    def bind(self, context: Any) -> Denoise:
        """The ``Denoise`` that paints what ``context`` says."""

        def denoise(x: Images, sigma: Sigmas) -> Images:
            return self(x, sigma, context)

        return denoise


__all__ = ["Prediction", "Spread", "TimestepDenoiser"]
