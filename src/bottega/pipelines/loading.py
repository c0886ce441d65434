"""From the name of a model to a painter."""

from pathlib import Path

from bottega.conditioning import Encoders
from bottega.pipelines.cascade import find_model, load_stages, read_manifest, verify_files
from bottega.pipelines.devices import find_device, find_dtype
from bottega.pipelines.painter import Painter


def load(
    model: str | Path = "piccolo", *, device: str = "auto", dtype: str = "auto", lanes: int = 1
) -> Painter:
    """Load a painter.

    Args:
        model: The name of a model that ships with bottega, or a model folder.
        device: ``auto`` takes a CUDA device where there is one; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` takes bfloat16 where the hardware multiplies it fast; or ``float32``, ``bfloat16``.
        lanes: Pictures that go through a network together; see `Painter`.

    Raises:
        InputError: For an unknown model, device or dtype, naming the nearest.
        CheckpointError: For a model that is missing, incomplete or damaged, naming the file.
    """
    where = find_device(device)
    precision = find_dtype(dtype, where)
    folder = find_model(model)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    paths = {f"folder_{kind}": folder / inner for kind, inner in manifest.encoders.items()}
    return Painter(
        manifest=manifest,
        stages=load_stages(folder, manifest),
        encoders=Encoders.load(
            folder_t5=paths.get("folder_t5"), folder_clip=paths.get("folder_clip")
        ),
        device=where,
        dtype=precision,
        lanes=lanes,
        folder=folder,
    )


__all__ = ["load"]
