"""A LoRA on disk, in `peft`'s format: ``adapter_config.json`` and ``adapter_model.safetensors``.

Beside them a manifest says for which stage of which model, and for which of its expert denoisers, it was trained. A
folder that `peft` alone has written has no manifest, and can be painted with all the same.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bottega.checkpoint.foreign_files import check_safetensors
from bottega.checkpoint.manifest import MANIFEST_NAME, Manifest
from bottega.checkpoint.store import save_checkpoint, verify
from bottega.config import from_json, to_json
from bottega.errors import CheckpointError, ConfigError
from bottega.models.lora import PREFIX, LoraPlan, LowRank, LowRanks, peft_config
from bottega.rundir import exported

LORA_KIND = "lora"
CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model"

_PLAIN: Mapping[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "layer_replication": None,
    "lora_bias": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
}
"""Settings of `peft` that would make more of a LoRA than a product beside a layer, as they have to be."""

_CHANGED_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""How `peft` may have begun a LoRA so that it fits weights that were changed along with it, and not the model's own."""


@dataclass(frozen=True, kw_only=True)
class LoraFacts:
    """What a LoRA was made for: the ``stage`` of a model, and those of its expert denoisers in ``parts``, or all."""

    stage: str
    parts: tuple[str, ...] = ()
    model: str = ""
    model_digest: str = ""
    plan: LoraPlan = field(default_factory=LoraPlan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora:
    """A LoRA that has been read: what it adds to which layer. ``facts`` is None where only `peft` wrote it."""

    name: str
    layers: LowRanks
    facts: LoraFacts | None
    digest: str


def save_lora(
    folder: Path | str,
    tensors: Mapping[str, Tensor],
    facts: LoraFacts,
    *,
    images_seen: int = 0,
    parent: str | None = None,
    dtype: torch.dtype | None = None,
) -> Manifest:
    """Write a LoRA's matrices, named as `bottega.models.lora.lora_parameters` has them.

    Raises:
        CheckpointError: If the folder holds something else, or cannot be written.
    """
    names = sorted({name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in tensors})
    settings = peft_config(facts.plan, names, facts.model).to_dict()
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in settings.items()}
    plain["inference_mode"] = True
    plain.pop("runtime_config", None)
    text = json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n"
    return save_checkpoint(
        folder,
        {WEIGHTS_NAME: {name: tensor.to(dtype) for name, tensor in tensors.items()}},
        kind=LORA_KIND,
        config=to_json(facts),
        images_seen=images_seen,
        parent=parent,
        files={CONFIG_NAME: text.encode()},
    )


def load_lora(folder: Path | str) -> Lora:
    """Read a LoRA, ours or one that `peft` wrote, or a run's that trained one; no code of `peft`'s is needed.

    Raises:
        CheckpointError: When it is missing, damaged, or more than a LoRA.
    """
    folder = exported(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(f"{folder} is not a LoRA: it holds no {CONFIG_NAME}")
    path, pickled = (folder / f"{WEIGHTS_NAME}.{ending}" for ending in ("safetensors", "bin"))
    if pickled.is_file() and not path.is_file():
        check_safetensors(pickled)  # which says what to do
    facts, digest = None, _digest(folder)
    if (folder / MANIFEST_NAME).is_file():
        manifest = verify(folder)
        if manifest.kind != LORA_KIND:
            raise CheckpointError(f"{folder} holds a {manifest.kind}, not a {LORA_KIND}")
        try:
            facts = from_json(LoraFacts, manifest.config, where=f"{folder}: config")
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        digest = manifest.digest
    settings = _settings(folder / CONFIG_NAME)
    check_safetensors(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    layers = _layers(path, tensors, settings)
    return Lora(name=adapter_name(folder), layers=layers, facts=facts, digest=digest)


def adapter_name(folder: Path | str) -> str:
    """What something in a folder is called: the folder's name, or its run's for the ``export`` of a run."""
    place = Path(folder).absolute()
    return place.parent.name if place.name == "export" else place.name


def _settings(path: Path) -> dict[str, Any]:
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(read, dict):
        raise CheckpointError(f"{path} is damaged: expected an object")
    settings = cast(dict[str, Any], read)
    for key, plain in _PLAIN.items():
        value = settings.get(key, plain)
        if value != plain and value not in (None, False, [], {}):
            raise CheckpointError(
                f"{path}: {key} is {value!r}; only plain LoRAs can be painted with ({key} {plain!r})"
            )
    begun = settings.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower().startswith(_CHANGED_BASE):
        raise CheckpointError(
            f"{path}: init_lora_weights is {begun!r}, which changes the model's own weights too; let peft convert it "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    return settings


def _layers(path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> LowRanks:
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, dot, rest = key.removeprefix(PREFIX).rpartition(".lora_")
        if not dot or rest not in ("A.weight", "B.weight"):
            raise CheckpointError(f"{path} holds {key}, which is no part of a LoRA")
        pairs.setdefault(name, {})[rest[0]] = tensor
    if not pairs:
        raise CheckpointError(f"{path} holds no LoRA")
    layers: dict[str, LowRank] = {}
    for name, pair in pairs.items():
        if len(pair) < 2:
            raise CheckpointError(f"{path} is damaged: {name} has only one of its two matrices")
        down, up = pair["A"], pair["B"]
        thin = up.ndim >= 2 and math.prod(up.shape[2:]) == 1
        rank = down.shape[0] if down.ndim >= 2 else 0
        if rank == 0 or not thin or up.shape[1] != rank:
            raise CheckpointError(
                f"{path} is damaged: the matrices of {name} are {list(down.shape)} and {list(up.shape)}"
            )
        if not all(one.is_floating_point() and bool(one.isfinite().all()) for one in (down, up)):
            raise CheckpointError(
                f"{path} is damaged: {name} holds values that are not finite numbers"
            )
        layers[name] = LowRank(down=down, up=up, factor=_factor(path, name, rank, settings))
    return layers


def _factor(path: Path, name: str, rank: int, settings: Mapping[str, Any]) -> float:
    """``lora_alpha`` over the rank, or over its root as rank-stabilised LoRA has it.

    A layer's own alpha stands under a regular expression for the end of its name, of which, as with `peft`, the first
    that matches counts.
    """
    where = path.parent / CONFIG_NAME
    alpha = settings.get("lora_alpha", rank)
    own: Any = settings.get("alpha_pattern")
    if own is None:
        own = {}
    if not isinstance(own, dict):
        raise CheckpointError(f"{where}: alpha_pattern is no object")
    try:
        for end, value in cast(dict[str, Any], own).items():
            if re.match(rf"(.*\.)?({end})$", name):
                alpha = value
                break
    except re.error as error:
        raise CheckpointError(f"{where}: alpha_pattern is no expression: {error}") from None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"{where}: lora_alpha is {alpha!r}, no number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in (folder / CONFIG_NAME, folder / f"{WEIGHTS_NAME}.safetensors"):
        try:
            total.update(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    return total.hexdigest()


__all__ = [
    "CONFIG_NAME",
    "LORA_KIND",
    "WEIGHTS_NAME",
    "Lora",
    "LoraFacts",
    "adapter_name",
    "load_lora",
    "save_lora",
]
