"""The networks of a stage as they are, with what learns beside them: a LoRA, or a ControlNet.

Only what learns is a part of the module, so that checkpoints of a run hold nothing else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.errors import ConfigError
from bottega.models import Context, ControlNet, UNet
from bottega.models.lora import LoraPlan, add_lora, lora_parameters, share_lora
from bottega.shapes import Images

_DOT = "/"  # names of parameters may not hold dots


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptedContext:
    """The same condition as each of the networks has it; ``spread`` is as in `Context`."""

    contexts: tuple[Context, ...]
    spread: Any = None

    @property
    def enlarged(self) -> Tensor | None:
        """The picture to enlarge, which is the same for all."""
        return self.contexts[0].enlarged

    def with_spread(self, spread: Any) -> "AdaptedContext":
        """The same with where to keep what the networks say of a variance that they learned."""
        return replace(self, spread=spread)


class Adapted(nn.Module):
    """Networks that do not learn, each for its own noise, called as one network is."""

    def __init__(self, networks: Sequence[UNet], starts: Sequence[float]) -> None:
        """Freeze ``networks``.

        Args:
            networks: From the least noise to the most.
            starts: The c_noise at which each of them but the first begins.

        Raises:
            ConfigError: Unless there is a bound between any two.
        """
        super().__init__()
        if len(starts) != len(networks) - 1:
            raise ConfigError(
                f"{len(networks)} networks need {len(networks) - 1} bounds between them, got {len(starts)}"
            )
        self._networks = tuple(networks)
        self._starts = tuple(starts)
        for network in networks:
            network.requires_grad_(False)

    @property
    def config(self) -> Any:
        """What the networks are built from."""
        return self._networks[0].config

    def prepare(self, condition: Condition, *args: Any, **more: Any) -> AdaptedContext:
        """What depends on neither x nor the noise, for each of the networks."""
        contexts = (network.prepare(condition, *args, **more) for network in self._networks)
        return AdaptedContext(contexts=tuple(contexts))

    def forward(
        self, x: Images, c_noise: Float[Tensor, "batch"], context: AdaptedContext, **more: Any
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Every picture through the network of its own noise."""
        if len(self._networks) == 1:
            return self._networks[0](x, c_noise, context.contexts[0], **more)
        bounds = torch.tensor(self._starts, dtype=torch.float64)
        owners = torch.bucketize(c_noise.detach().cpu().double(), bounds, right=True)
        rows: list[Tensor] = []
        parts: list[Tensor] = []
        for owner in owners.unique().tolist():
            here = (owners == owner).nonzero()[:, 0]
            index = here.to(x.device)
            told = context.contexts[owner].select(here)
            parts.append(self._networks[owner](x[index], c_noise[index], told, **more))
            rows.append(here)
        back = torch.cat(rows).argsort().to(x.device)
        return torch.cat(parts)[back]

    def train(self, mode: bool = True) -> "Adapted":
        """Learn, or do not: a LoRA's dropout is inside the networks."""
        for network in self._networks:
            network.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adapted":
        for network in self._networks:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)


class WithLora(Adapted):
    """Networks with one LoRA that all of them share."""

    def __init__(self, networks: Sequence[UNet], starts: Sequence[float], plan: LoraPlan) -> None:
        """Put a fresh LoRA beside the layers that the plan names; it changes nothing yet.

        Raises:
            ConfigError: For a target that names no layer.
        """
        super().__init__(networks, starts)
        first, *others = dict.fromkeys(networks)  # one may work at both ends of the noise
        for network in (first, *others):
            add_lora(network, plan)
        for network in others:
            share_lora(first, network)
        self.lora = nn.ParameterDict(
            {name.replace(".", _DOT): p for name, p in lora_parameters(networks[0]).items()}
        )

    @staticmethod
    def matrices(state: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """The LoRA in a ``state_dict()`` of this module, by the names that `peft` writes."""
        return {
            name.removeprefix("lora.").replace(_DOT, "."): tensor
            for name, tensor in state
            if name.startswith("lora.")
        }


class WithControlNet(Adapted):
    """Networks that one ControlNet steers."""

    def __init__(
        self, networks: Sequence[UNet], starts: Sequence[float], control: ControlNet
    ) -> None:
        """Steer ``networks`` by ``control``, which learns."""
        super().__init__(networks, starts)
        self.control = control.requires_grad_(True)

    def prepare(self, condition: Condition, *args: Any, **more: Any) -> AdaptedContext:
        """What depends on neither x nor the noise; the condition holds the control picture."""
        plain = super().prepare(condition, *args, **more)
        control = self.control.control(condition)
        return AdaptedContext(contexts=tuple(c.with_control(control) for c in plain.contexts))

    @staticmethod
    def weights(state: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """The ControlNet in a ``state_dict()`` of this module."""
        return {
            name.removeprefix("control."): tensor
            for name, tensor in state
            if name.startswith("control.")
        }


__all__ = ["Adapted", "AdaptedContext", "WithControlNet", "WithLora"]
