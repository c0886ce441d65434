"""Writing and reading checkpoint folders. A folder appears under its name only when every byte of it is on disk."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bottega.checkpoint.manifest import MANIFEST_NAME, Manifest, load_manifest
from bottega.errors import CheckpointError
from bottega.rundir import as_others, sync_folder

_SHOWN = 5
"""How many names of wrong tensors an error message lists."""


def save_checkpoint(
    folder: Path | str,
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    kind: str,
    config: Any = None,
    images_seen: int = 0,
    parent: str | None = None,
    node: Any = None,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a checkpoint folder: one ``NAME.safetensors`` per entry of ``tensors``, further ``files``, the manifest.

    Everything is written beside the target under a temporary name, flushed to the disk and renamed, so a crash at any
    moment leaves either no new checkpoint or a whole one. An older checkpoint of the same name is replaced.

    Raises:
        CheckpointError: If the target holds something that is not a checkpoint, or cannot be written.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    temporary = folder.parent / f".{folder.name}.writing-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        digests: dict[str, str] = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file(_storable(group), path)
            as_others(path)
            _sync_file(path)
            digests[path.name] = file_digest(path)
        for name, content in ({} if files is None else files).items():
            path = temporary / name
            path.write_bytes(content)
            _sync_file(path)
            digests[name] = file_digest(path)
        manifest = Manifest(
            kind=kind,
            config=config,
            images_seen=images_seen,
            parent=parent,
            node=node,
            digests=digests,
            extra={} if extra is None else dict(extra),
            bottega=_version(),
        )
        path = temporary / MANIFEST_NAME
        path.write_text(manifest.dumps(), encoding="utf-8")
        _sync_file(path)
        sync_folder(temporary)
        _put_in_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"cannot write the checkpoint {folder}: {error}") from error
    return manifest


def save_module(
    folder: Path | str,
    state: Mapping[str, Tensor],
    *,
    kind: str,
    config: Any,
    images_seen: int = 0,
    dtype: torch.dtype | None = None,
    name: str = "denoiser",
    parent: str | None = None,
    node: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write one module's weights as a checkpoint that can be shipped: ``NAME.safetensors`` and the manifest.

    Args:
        folder: Where to; replaced when it holds an older checkpoint.
        state: The module's ``state_dict()``.
        kind: What the module is, for example ``denoiser`` or ``judge``.
        config: Plain JSON from which the module can be built again.
        images_seen: How long it trained.
        dtype: Cast floating tensors to this first.
        name: The file's name without its ending.
        parent: The digest of the checkpoint it grew from.
        node: Its place in a tree of expert denoisers.
        extra: Further plain JSON for this kind.
    """
    cast = {key: _cast(tensor, dtype) for key, tensor in state.items()}
    return save_checkpoint(
        folder,
        {name: cast},
        kind=kind,
        config=config,
        images_seen=images_seen,
        parent=parent,
        node=node,
        extra=extra,
    )


def load_tensors(
    folder: Path | str, name: str = "denoiser", *, manifest: Manifest | None = None
) -> dict[str, Tensor]:
    """Read ``NAME.safetensors`` of a checkpoint after comparing its bytes with the manifest's digest.

    Raises:
        CheckpointError: If the file is missing, was not listed, or differs by a single bit.
    """
    folder = Path(folder)
    if manifest is None:
        manifest = load_manifest(folder)
    path = folder / f"{name}.safetensors"
    _verify_file(path, manifest)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def load_module(module: nn.Module, folder: Path | str, name: str = "denoiser") -> Manifest:
    """Fill a module from a checkpoint, strictly, and return the checkpoint's manifest."""
    manifest = load_manifest(folder)
    load_strictly(module, load_tensors(folder, name, manifest=manifest), where=str(folder))
    return manifest


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a module; values are cast to the module's own dtypes.

    Raises:
        CheckpointError: Naming what is missing, surplus or of another shape. The module is not touched then.
    """
    own = module.state_dict()
    check_names(own, tensors, where=where)
    module.load_state_dict(dict(tensors), strict=True)


def check_names(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse tensors whose names or shapes are not exactly those expected."""
    problems: list[str] = []
    missing = sorted(set(expected) - set(given))
    surplus = sorted(set(given) - set(expected))
    shapes = [
        f"{key} is {list(given[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    ]
    if missing:
        problems.append(f"missing {_some(missing)}")
    if surplus:
        problems.append(f"surplus {_some(surplus)}")
    if shapes:
        problems.append(_some(shapes))
    if problems:
        raise CheckpointError(
            f"{where} does not fit: {'; '.join(problems)}; it was made for another configuration"
        )


def verify(folder: Path | str) -> Manifest:
    """Compare every file of a checkpoint with its digest and return the manifest.

    Raises:
        CheckpointError: Naming the first file that is missing or damaged.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    for name in manifest.digests:
        _verify_file(folder / name, manifest)
    return manifest


def _verify_file(path: Path, manifest: Manifest) -> None:
    expected = manifest.digests.get(path.name)
    if expected is None:
        listed = ", ".join(sorted(manifest.digests))
        raise CheckpointError(f"{path.parent} holds no {path.name}; it lists {listed or 'nothing'}")
    try:
        found = file_digest(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...; "
            "use another checkpoint, or fetch it again"
        )


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder that is more than a checkpoint, so that no file of a user's is ever lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder, choose another name")
    present = {entry.name for entry in folder.iterdir()}
    if not present:
        return
    ours = {MANIFEST_NAME, *load_manifest(folder).digests} if MANIFEST_NAME in present else set()
    if not present <= ours:
        raise CheckpointError(
            f"{folder} holds other files ({_some(sorted(present - ours))}); choose another folder"
        )


def _put_in_place(temporary: Path, folder: Path) -> None:
    if folder.exists():
        aside = folder.parent / f".{folder.name}.replaced-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside)
    else:
        temporary.rename(folder)
    sync_folder(folder.parent)


def _storable(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached contiguous CPU tensors; tied ones are copied, because the format refuses shared memory."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in group.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
        if storage in seen or not whole:
            plain = plain.clone()
        seen.add(storage)
        stored[name] = plain
    return stored


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor
    return tensor.to(dtype)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, as manifests list it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _version() -> str:
    from bottega import __version__

    return __version__


__all__ = [
    "check_names",
    "file_digest",
    "load_module",
    "load_strictly",
    "load_tensors",
    "save_checkpoint",
    "save_module",
    "verify",
]
