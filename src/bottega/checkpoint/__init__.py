"""Weights on disk: a folder with a manifest and safetensors files, written whole or not at all."""

from bottega.checkpoint.lora import Lora, LoraFacts, load_lora, save_lora
from bottega.checkpoint.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest, load_manifest
from bottega.checkpoint.retention import Retention, latest_good, list_checkpoints, name_for, prune
from bottega.checkpoint.store import (
    load_module,
    load_strictly,
    load_tensors,
    save_checkpoint,
    save_module,
    verify,
)

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Lora",
    "LoraFacts",
    "Manifest",
    "Retention",
    "latest_good",
    "list_checkpoints",
    "load_lora",
    "load_manifest",
    "load_module",
    "load_strictly",
    "load_tensors",
    "name_for",
    "prune",
    "save_checkpoint",
    "save_lora",
    "save_module",
    "verify",
]
