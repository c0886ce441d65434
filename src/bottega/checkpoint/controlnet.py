"""A ControlNet on disk: a checkpoint that says which stage, and which of its expert denoisers, it steers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bottega.checkpoint.manifest import Manifest, load_manifest
from bottega.checkpoint.store import load_module, save_module
from bottega.config import from_json, to_json
from bottega.errors import CheckpointError, ConfigError
from bottega.models.controlnet import ControlNet, ControlNetConfig
from bottega.rundir import exported

CONTROLNET_KIND = "controlnet"
_NAME = "controlnet"


@dataclass(frozen=True, kw_only=True)
class ControlNetFacts:
    """What a ControlNet is built from and was made for: the ``stage`` of a model, its ``parts`` or all of it.

    ``reads`` says in a word what its control pictures show.
    """

    controlnet: ControlNetConfig
    stage: str
    parts: tuple[str, ...] = ()
    reads: str = "edges"
    model: str = ""
    model_digest: str = ""


def save_controlnet(
    folder: Path | str,
    state: Mapping[str, Tensor],
    facts: ControlNetFacts,
    *,
    images_seen: int = 0,
    parent: str | None = None,
    dtype: torch.dtype | None = torch.bfloat16,
) -> Manifest:
    """Write a ControlNet's ``state_dict()``, in bfloat16 unless asked otherwise."""
    return save_module(
        folder,
        state,
        kind=CONTROLNET_KIND,
        config=to_json(facts),
        images_seen=images_seen,
        dtype=dtype,
        name=_NAME,
        parent=parent,
    )


def load_controlnet(folder: Path | str) -> tuple[ControlNet, ControlNetFacts, str]:
    """Read a ControlNet, or a run's that trained one: in float32 and ready to paint, what it is for, and its digest.

    Raises:
        CheckpointError: When it is missing, damaged, or of another kind.
    """
    folder = exported(folder)
    manifest = load_manifest(folder)
    if manifest.kind != CONTROLNET_KIND:
        raise CheckpointError(f"{folder} holds a {manifest.kind}, not a {CONTROLNET_KIND}")
    try:
        facts = from_json(ControlNetFacts, manifest.config, where=f"{folder}: config")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    with torch.random.fork_rng(devices=[]):  # the weights it starts from are overwritten
        net = ControlNet(facts.controlnet)
    load_module(net, folder, _NAME)
    return net.requires_grad_(False).eval(), facts, manifest.digest


__all__ = ["CONTROLNET_KIND", "ControlNetFacts", "load_controlnet", "save_controlnet"]
