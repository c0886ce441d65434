"""LoRA: what is learned is a product of two thin matrices beside some of a network's layers, nothing else.

The layers are chosen by name; while it learns, `peft` holds the matrices, and to paint they are added to the weights.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.errors import CheckpointError, ConfigError, nearest
from bottega.models.attention import SelfMixer, TextReader
from bottega.models.attention_config import require
from bottega.models.blocks import ResidualBlock
from bottega.models.layers import NoiseEmbedding, Shortcut
from bottega.models.moe import Expert
from bottega.models.moe_gates import Gate
from bottega.models.transformer import Gated, Plain

Group = Literal["attention", "feed_forward", "gates", "experts", "blocks", "time"]
"""Kinds of layers that a LoRA may be put beside, by the module that they belong to."""

GROUPS: Mapping[Group, tuple[type[nn.Module], ...]] = {
    "attention": (SelfMixer, TextReader),
    "feed_forward": (Gated, Plain),
    "gates": (Gate,),
    "experts": (Expert,),
    "blocks": (ResidualBlock,),
    "time": (NoiseEmbedding,),
}

PREFIX = "base_model.model."
"""What `peft` puts before every name in its files."""

ADAPTER = "default"
"""What `peft` calls an adapter that nobody named."""


@dataclass(frozen=True, kw_only=True)
class LoraPlan:
    """Which layers learn, and how much they can.

    Attributes:
        rank: How thin the matrices are; what is learned has at most this rank.
        alpha: The product is multiplied by ``alpha / rank``.
        dropout: The share of its inputs that a LoRA does not see while it learns.
        targets: Groups of layers (``attention``, ``feed_forward``, ``gates``, ``experts``, ``blocks``, ``time``), ends
            of layers' names as they stand in checkpoints (``mix.qkv``), or patterns for whole names
            (``up.*.text_kv``).

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("attention",)

    def __post_init__(self) -> None:
        require(self.rank > 0, f"lora.rank must be positive, got {self.rank}")
        require(self.alpha > 0, f"lora.alpha must be positive, got {self.alpha}")
        require(0 <= self.dropout < 1, f"lora.dropout must be in [0, 1), got {self.dropout}")
        require(len(self.targets) > 0, "lora.targets must name at least one kind of layer")


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """What a LoRA adds to one layer: ``up @ down``, ``factor`` times."""

    down: Float[Tensor, "rank inputs *kernel"]
    up: Float[Tensor, "outputs rank *ones"]
    factor: float

    def delta(self) -> Float[Tensor, "outputs inputs *kernel"]:
        """The product as a change of the layer's weight, in float32."""
        inner = self.down.float()
        product = self.up.float().flatten(1) @ inner.flatten(1)
        return product.unflatten(1, inner.shape[1:]) * self.factor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes."""
        return (self.up.shape[0], *self.down.shape[1:])


LowRanks = Mapping[str, LowRank]
"""What a LoRA adds, by the name of the layer."""


def target_names(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """The layers of a network that the targets name, in the network's order.

    Raises:
        ConfigError: For a target that names none, suggesting the nearest that does.
    """
    known = dict(_layers(network))
    wanted: set[str] = set()
    for target in targets:
        found = [n for n, group in known.items() if _is_named(n, group, target)]
        if not found:
            ends = {name.rsplit(".", 1)[-1] for name in known}
            choice = sorted({str(group) for group in known.values() if group is not None} | ends)
            raise ConfigError(f"no layer of this network is a {target!r}{nearest(target, choice)}")
        wanted.update(found)
    return [name for name in known if name in wanted]


def add_lora(network: nn.Module, plan: LoraPlan) -> list[str]:
    """Put a LoRA beside a network's layers, in place, and freeze everything else; it changes nothing yet.

    Returns:
        The names of the layers.

    Raises:
        ConfigError: For a target that names no layer.
    """
    from peft import inject_adapter_in_model

    names = target_names(network, plan.targets)
    network.requires_grad_(False)
    inject_adapter_in_model(peft_config(plan, names), network, adapter_name=ADAPTER)
    for module in _lora_layers(network).values():
        for matrix in _matrices(module):
            matrix.weight.requires_grad_(True)
    return names


def share_lora(owner: nn.Module, other: nn.Module) -> None:
    """Let a second network, to which `add_lora` gave one too, use the very matrices of the first."""
    theirs = _lora_layers(other)
    for name, module in _lora_layers(owner).items():
        for own, its in zip(_matrices(module), _matrices(theirs[name]), strict=True):
            its.weight = own.weight


def lora_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices that `add_lora` gave a network, by the names that `peft` writes."""
    return {
        f"{PREFIX}{name}.{kind}.weight": cast(nn.Parameter, matrix.weight)
        for name, module in _lora_layers(network).items()
        for kind, matrix in zip(("lora_A", "lora_B"), _matrices(module), strict=True)
    }


def peft_config(plan: LoraPlan, names: Sequence[str], base: str | None = None) -> Any:
    """The same plan as `peft` has it; ``base`` names the model it was trained on."""
    from peft import LoraConfig

    alpha = int(plan.alpha) if plan.alpha == int(plan.alpha) else plan.alpha
    return LoraConfig(
        r=plan.rank,
        lora_alpha=cast(int, alpha),
        lora_dropout=plan.dropout,
        target_modules=list(names),
        base_model_name_or_path=base,
    )


def check_fits(network: nn.Module, layers: LowRanks, *, where: str) -> None:
    """Refuse a LoRA that was made for another network.

    Raises:
        CheckpointError: Naming the first layer that is missing or of another shape.
    """
    modules = dict(network.named_modules())
    for name, layer in layers.items():
        module = modules.get(name)
        weight = getattr(module, "weight", None)
        own = list(weight.shape) if isinstance(weight, Tensor) else "missing"
        if own != list(layer.shape):
            raise CheckpointError(
                f"{where} is a LoRA for another network: it changes {name} of {list(layer.shape)}, "
                f"which here is {own}"
            )


@torch.no_grad()
def merge(network: nn.Module, loras: Sequence[tuple[LowRanks, float]]) -> None:
    """Add LoRAs to a network's weights, each times its scale, in place; then it is as fast as it was.

    The sum is made in float32 and rounded once, so that the order of the LoRAs does not matter by more than that.
    """
    modules = dict(network.named_modules())
    for name in {name: None for layers, _ in loras for name in layers}:
        weight = cast(nn.Parameter, modules[name].weight)
        total = weight.float()
        for layers, scale in loras:
            if name in layers:
                total = total + layers[name].delta().to(total.device) * scale
        # A tensor of its own: weights may lie in a file that is mapped into memory.
        weight.data = total.to(weight.dtype)


def _layers(network: nn.Module) -> Iterator[tuple[str, Group | None]]:
    """Every layer that a LoRA can be put beside, with its group; what belongs to none can still be named."""
    owners: dict[str, Group] = {}
    for name, module in network.named_modules():
        for group, kinds in GROUPS.items():
            if isinstance(module, kinds):
                owners[name] = group
        if isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, Shortcut):
            yield name, _owner(name, owners)


def _owner(name: str, owners: Mapping[str, Group]) -> Group | None:
    """The group of the innermost module around a layer that has one."""
    while "." in name:
        name = name.rsplit(".", 1)[0]
        if name in owners:
            return owners[name]
    return owners.get("")


def _is_named(name: str, group: Group | None, target: str) -> bool:
    if target in GROUPS:
        return group == target
    return name == target or name.endswith(f".{target}") or fnmatch.fnmatchcase(name, target)


def _lora_layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in network.named_modules() if hasattr(m, "lora_A")}


def _matrices(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A layer's two thin layers, the way in first."""
    down, up = cast(nn.ModuleDict, module.lora_A), cast(nn.ModuleDict, module.lora_B)
    return down[ADAPTER], up[ADAPTER]


__all__ = [
    "ADAPTER",
    "GROUPS",
    "PREFIX",
    "Group",
    "LoraPlan",
    "LowRank",
    "LowRanks",
    "add_lora",
    "check_fits",
    "lora_parameters",
    "merge",
    "peft_config",
    "share_lora",
    "target_names",
]
