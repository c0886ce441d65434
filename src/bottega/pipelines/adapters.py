"""What was trained beside a model and is painted with: LoRAs merged into its weights, and ControlNets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bottega.checkpoint.controlnet import ControlNetFacts, load_controlnet
from bottega.checkpoint.lora import Lora, adapter_name, load_lora
from bottega.diffusion import DenoiserLike
from bottega.ensemble import Mixture
from bottega.errors import CheckpointError, InputError, nearest
from bottega.models import ControlNet, UNet
from bottega.models.lora import LowRanks, check_fits, merge
from bottega.pipelines import given
from bottega.pipelines.controls import (
    Guide,
    Guides,
    LoraRecord,
    StageControl,
    check_scale,
    control_record,
    control_tensor,
    guides_of,
)
from bottega.pipelines.residency import LazyDenoiser
from bottega.pipelines.shelf import ShelvedUNet
from bottega.pipelines.stage import Stage

Folder = Path | str
Loras = Folder | Sequence[Folder | tuple[Folder, float]] | Mapping[Folder, float]
"""Folders of LoRAs with scales, in pairs or by folder; one without a scale is mixed in at 1."""
ControlNets = Folder | Sequence[Folder]
"""Folders of ControlNets, or one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UsedLora:
    """A LoRA, how strongly it is mixed in, and which expert denoisers of which stage it changes."""

    lora: Lora
    scale: float
    stage: str
    parts: tuple[str, ...]

    @property
    def record(self) -> LoraRecord:
        """What a description keeps of it."""
        return LoraRecord(name=self.lora.name, digest=self.lora.digest, scale=self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class UsedControlNet:
    """A ControlNet, and which expert denoisers of which stage it steers."""

    net: ControlNet
    facts: ControlNetFacts
    name: str
    digest: str
    parts: tuple[str, ...]

    def with_picture(self, guide: Guide, device: torch.device) -> StageControl:
        """The ControlNet with the picture that it is to read."""
        return StageControl(
            net=self.net,
            stage=self.facts.stage,
            parts=self.parts,
            picture=control_tensor(guide.picture, self.net.config.channels).to(device),
            scale=guide.scale,
            record=control_record(self.name, self.digest, guide),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapters:
    """All that a painter was given beside its model."""

    loras: tuple[UsedLora, ...] = ()
    controlnets: tuple[UsedControlNet, ...] = ()

    def describe(self) -> list[str]:
        """A line for each: what it changes."""
        lines = [
            f"LoRA {used.lora.name} at {used.scale:g} changes {_place(used.stage, used.parts)}"
            for used in self.loras
        ]
        return lines + [
            f"ControlNet {used.name} reads {used.facts.reads} and steers "
            f"{_place(used.facts.stage, used.parts)}"
            for used in self.controlnets
        ]

    def controls(
        self, guides: Guides, stages: Sequence[Stage], device: torch.device
    ) -> tuple[StageControl, ...]:
        """Every ControlNet with its picture, in the order in which both were given.

        Raises:
            InputError: Unless there are as many of one as of the other, each as large as its stage paints.
        """
        pictures = guides_of(guides)
        if len(pictures) != len(self.controlnets):
            raise InputError(
                f"there are {len(self.controlnets)} ControlNets and {len(pictures)} control pictures; "
                "give one picture for each"
            )
        steered = tuple(
            used.with_picture(guide, device)
            for used, guide in zip(self.controlnets, pictures, strict=True)
        )
        at = {stage.name: stage for stage in stages}
        for control in steered:
            control.check_size(at[control.stage].height, at[control.stage].width)
        return steered


def use_adapters(
    stages: Sequence[Stage],
    loras: Loras,
    controlnets: ControlNets,
) -> Adapters:
    """Merge LoRAs into the networks of stages, and make ControlNets ready for them.

    A network that is not in memory yet, or leaves it again, is changed whenever it has been read.

    Args:
        stages: Of one model.
        loras: Folders and scales.
        controlnets: Folders.

    Raises:
        InputError: For what is no folder, or a scale that is no number.
        CheckpointError: For what is damaged, or was made for another network, stage or expert denoiser.
    """
    used: list[UsedLora] = []
    for folder, scale in loras_of(loras):
        lora = load_lora(folder)
        facts = lora.facts
        wanted, own = (None, ()) if facts is None else (facts.stage, facts.parts)
        stage, parts = _at(stages, wanted, own, str(folder))
        used.append(UsedLora(lora=lora, scale=scale, stage=stage.name, parts=parts))
    for stage in stages:
        _merge_into(stage, [one for one in used if one.stage == stage.name])
    nets = (
        [controlnets]
        if isinstance(controlnets, Folder)
        else given.listed(controlnets, "ControlNets")
    )
    return Adapters(
        loras=tuple(used),
        controlnets=tuple(_controlnet(stages, _folder(net, "a ControlNet")) for net in nets),
    )


def loras_of(loras: Any) -> list[tuple[Folder, float]]:
    """What a caller gave as `Loras`, in pairs.

    Raises:
        InputError: For anything else, or a scale that is no number.
    """
    if isinstance(loras, Mapping):
        loras = list(cast(Mapping[Any, Any], loras).items())
    several = [loras] if isinstance(loras, Folder) else given.listed(loras, "LoRAs")
    found: list[tuple[Folder, float]] = []
    for one in several:
        pair = (one, 1.0) if isinstance(one, Folder) else one
        if not isinstance(pair, (tuple, list)) or len(cast(Sequence[Any], pair)) != 2:
            raise InputError(
                f"a LoRA is a folder, or a folder and its scale, as in ('style', 0.8), got {given.shown(one)}"
            )
        folder, scale = cast(Sequence[Any], pair)
        check_scale(scale)
        found.append((_folder(folder, "a LoRA"), float(scale)))
    return found


def _folder(value: Any, what: str) -> Folder:
    if isinstance(value, Folder):
        return value
    raise InputError(f"{what} is named by its folder, got {given.shown(value)}")


def _merge_into(stage: Stage, used: Sequence[UsedLora]) -> None:
    """All LoRAs of a stage at once, so that their sum is rounded once."""
    for part in _parts_of(stage) if used else ():
        here = [one for one in used if part is None or part in one.parts]

        if here:
            _change(stage, part, partial(_add, here))


def _add(used: Sequence[UsedLora], network: nn.Module) -> None:
    """Merge LoRAs into a network; into experts that wait on disk when they come."""
    later: list[tuple[UsedLora, LowRanks]] = []
    now: list[tuple[LowRanks, float]] = []
    for one in used:
        waiting = {
            n for n in one.lora.layers if isinstance(network, ShelvedUNet) and network.waits(n)
        }
        layers = {n: layer for n, layer in one.lora.layers.items() if n not in waiting}
        check_fits(network, layers, where=one.lora.name)
        now.append((layers, one.scale))
        later.append((one, {n: one.lora.layers[n] for n in waiting}))
    merge(network, now)
    if isinstance(network, ShelvedUNet):
        network.then(partial(_add_to_expert, later))


def _add_to_expert(
    later: Sequence[tuple[UsedLora, LowRanks]], name: str, expert: nn.Module
) -> None:
    own = [
        (one, {n.removeprefix(f"{name}."): layers[n] for n in layers if n.startswith(f"{name}.")})
        for one, layers in later
    ]
    for one, layers in own:
        check_fits(expert, layers, where=one.lora.name)
    merge(expert, [(layers, one.scale) for one, layers in own])


def _controlnet(stages: Sequence[Stage], folder: Path | str) -> UsedControlNet:
    net, facts, digest = load_controlnet(folder)
    stage, parts = _at(stages, facts.stage, facts.parts, str(folder))

    def check(network: nn.Module) -> None:
        if cast(UNet, network).config != facts.controlnet.network:
            raise CheckpointError(f"{folder} is a ControlNet for another network than {stage.name}")

    for part in _parts_of(stage):
        if part is None or part in parts:
            _change(stage, part, check)
    factor = 1 if stage.space is None else stage.space.factor
    if facts.controlnet.scale != factor:
        raise CheckpointError(
            f"{folder} reads control pictures {facts.controlnet.scale} times as large as what its network sees, "
            f"stage {stage.name} paints {factor} times as large"
        )
    return UsedControlNet(
        net=net, facts=facts, name=adapter_name(folder), digest=digest, parts=parts
    )


def _at(
    stages: Sequence[Stage], wanted: str | None, parts: tuple[str, ...], where: str
) -> tuple[Stage, tuple[str, ...]]:
    """The stage that something was made for, and which of its expert denoisers; none for a single denoiser."""
    names = [stage.name for stage in stages]
    name = names[0] if wanted is None else wanted
    if name not in names:
        raise CheckpointError(
            f"{where} was made for a stage {name!r}, which this model lacks{nearest(name, names)}"
        )
    stage = stages[names.index(name)]
    known = [part for part in _parts_of(stage) if part is not None]
    for part in parts:
        if not known:
            raise CheckpointError(
                f"{where} was made for the expert denoiser {part}, but stage {name} has one denoiser for all noise"
            )
        if part not in known:
            raise CheckpointError(
                f"{where} was made for the expert denoiser {part}, which stage {name} lacks{nearest(part, known)}"
            )
    return stage, parts if parts else tuple(known)


def _parts_of(stage: Stage) -> list[str | None]:
    """The names of a stage's expert denoisers, or None for its only denoiser."""
    denoiser = stage.denoiser
    if isinstance(denoiser, LazyDenoiser):
        denoiser = denoiser.open()
    return list(denoiser.parts) if isinstance(denoiser, Mixture) else [None]


def _change(stage: Stage, part: str | None, change: Callable[[nn.Module], None]) -> None:
    """Change a network now, and again whenever it has been read anew."""

    def all_of(denoiser: DenoiserLike) -> None:
        if isinstance(denoiser, Mixture):
            assert part is not None  # a mixture has parts
            denoiser.change(part, change)
        else:
            change(cast(nn.Module, cast(Any, denoiser).network))

    if isinstance(stage.denoiser, LazyDenoiser):
        stage.denoiser.then(all_of)
    else:
        all_of(stage.denoiser)


def _place(stage: str, parts: Sequence[str]) -> str:
    return stage if not parts else f"{stage}, expert denoisers {' and '.join(parts)}"


__all__ = [
    "Adapters",
    "ControlNets",
    "Loras",
    "UsedControlNet",
    "UsedLora",
    "loras_of",
    "use_adapters",
]
