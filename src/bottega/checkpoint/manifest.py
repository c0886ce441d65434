"""The manifest of a checkpoint: what it is, what made it, and the digest of each of its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bottega.errors import CheckpointError

FORMAT_VERSION = 1
"""The newest checkpoint format this version reads, and the one it writes."""

MANIFEST_NAME = "manifest.json"

_FIELDS = {
    "format_version": int,
    "kind": str,
    "images_seen": int,
    "digests": dict,
    "bottega": str,
}
_OPTIONAL_FIELDS = {"parent": str, "extra": dict}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint folder says about itself.

    ``kind`` tells what the tensors are for (``train``, ``denoiser``, ``judge``); ``config`` is plain JSON; ``parent``
    is the `digest` of the checkpoint this one grew from and ``node`` its place in a tree of expert denoisers;
    ``digests`` maps file names to the SHA-256 of their bytes; ``extra`` holds what only this kind needs.
    """

    kind: str
    config: Any = None
    images_seen: int = 0
    parent: str | None = None
    node: Any = None
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    bottega: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """One SHA-256 for the whole checkpoint: its configuration and the bytes of all its files."""
        facts = {"kind": self.kind, "config": self.config, "digests": dict(self.digests)}
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def dumps(self) -> str:
        """The manifest as indented JSON text."""
        return json.dumps(self._facts(), indent=2, allow_nan=False) + "\n"

    def _facts(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "bottega": self.bottega,
            "kind": self.kind,
            "images_seen": self.images_seen,
            "parent": self.parent,
            "node": self.node,
            "digests": dict(self.digests),
            "extra": dict(self.extra),
            "config": self.config,
        }


def load_manifest(folder: Path | str) -> Manifest:
    """Read a checkpoint's manifest; the files it lists are not looked at.

    Raises:
        CheckpointError: If there is none, it is damaged, or a newer version of bottega wrote it.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a checkpoint: it holds no {MANIFEST_NAME}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    try:
        loaded: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} is damaged: expected an object, got {type(loaded).__name__}")
    facts = cast(dict[str, Any], loaded)
    _check(facts, path)
    return Manifest(
        format_version=facts["format_version"],
        bottega=facts["bottega"],
        kind=facts["kind"],
        images_seen=facts["images_seen"],
        parent=facts.get("parent"),
        node=facts.get("node"),
        digests=facts["digests"],
        extra=facts.get("extra", {}),
        config=facts.get("config"),
    )


def _refuse_constant(name: str) -> Any:
    raise CheckpointError(f"{name} is no JSON number")


def _check(facts: dict[str, Any], path: Path) -> None:
    version = facts.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path.parent} has format {version}, this version reads up to {FORMAT_VERSION}; upgrade bottega"
        )
    if "stages" in facts and "images_seen" not in facts:
        raise CheckpointError(
            f"{path.parent} is a whole model, and one checkpoint is wanted: name a folder inside it"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(facts.get(name), kind):
            raise CheckpointError(f"{path} is damaged: {name} is missing or not {kind.__name__}")
    for name, kind in _OPTIONAL_FIELDS.items():
        if facts.get(name) is not None and not isinstance(facts[name], kind):
            raise CheckpointError(f"{path} is damaged: {name} is not {kind.__name__}")
    if not all(isinstance(digest, str) for digest in facts["digests"].values()):
        raise CheckpointError(f"{path} is damaged: a digest is not a str")


__all__ = ["FORMAT_VERSION", "MANIFEST_NAME", "Manifest", "load_manifest"]
