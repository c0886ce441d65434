"""Pictures made larger in one go, tile by tile, in memory that does not grow with the picture.

A tile is shown as much of what lies around it as its pixels depend on, so it comes out as the whole picture would, but
for the last bits of float32: seams are not blended over, there are none.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from bottega import __version__
from bottega.checkpoint import load_manifest, load_module
from bottega.checkpoint.foreign.srgan import read_real_esrgan
from bottega.checkpoint.store import file_digest, load_strictly
from bottega.config import from_json
from bottega.data.decoding import as_seen
from bottega.errors import CheckpointError, ConfigError, InputError, nearest
from bottega.models.srgan import RRDBNet, RRDBNetConfig
from bottega.pipelines import given
from bottega.pipelines.devices import find_device, find_dtype
from bottega.pipelines.output import MAX_PIXELS
from bottega.pipelines.provenance import ENLARGED
from bottega.rundir import exported
from bottega.shapes import Images

ENLARGER = "enlarger"
"""The kind of an enlarger's checkpoint, and the name of its file."""

SHIPPED_ENLARGERS = ("piccolo-srgan",)
"""Enlargers that come inside the package."""

TILE_PX = 512
"""The side of a tile in small pixels."""

_PAINTED_AT_ONCE = 128
"""Positions a side that are painted at once: large maps are what takes the memory, and they look two positions far."""

Pixels = UInt8[ndarray, "_ _ 3"]
Span = tuple[int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Enlarger:
    """A network that enlarges, ready to work; ``name`` and ``digest`` say which."""

    network: RRDBNet
    name: str
    digest: str
    device: torch.device

    @property
    def scale(self) -> int:
        """How many times larger pictures become."""
        return self.network.config.scale

    @property
    def halo_px(self) -> int:
        """How many small pixels around a tile have a say in it; with fewer, tiles come out almost as the whole does."""
        return self.network.body_reach * self.network.config.fold

    def whole(self, images: Images) -> Float[Tensor, "batch 3 tall wide"]:
        """Enlarge small pictures in [-1, 1] without tiles.

        Raises:
            InputError: When the network folds pixels, and the sides are no multiples of what it folds.
        """
        with torch.inference_mode():
            return self.network(images.to(self.device)).clamp(-1, 1)

    def enlarge(
        self,
        picture: Image.Image,
        *,
        tile_px: int = TILE_PX,
        halo_px: int | None = None,
        progress: Progress | None = None,
    ) -> Image.Image:
        """A picture ``scale`` times as large.

        Args:
            picture: Any; seen as `open_picture` has it, upright in RGB with what is transparent on white. Not changed.
            tile_px: The side of a tile in small pixels; memory grows with its square.
            halo_px: How much of its surroundings a tile sees; by default all that has a say in it.
            progress: Told how many tiles of how many are done.

        Raises:
            InputError: For tiles that make no sense, or a result too large to be opened again.
            CheckpointError: When the weights make no picture.
        """
        picture = as_seen(given.picture(picture, "what to enlarge"))
        fold = self.network.config.fold
        halo_px = self.halo_px if halo_px is None else halo_px
        if tile_px < fold or halo_px < 0:
            raise InputError(
                f"a tile is at least {fold} px and its halo not negative, got {tile_px} and {halo_px}"
            )
        width, height = picture.width * self.scale, picture.height * self.scale
        if width * height > MAX_PIXELS:
            raise InputError(
                f"the result would have {width} x {height} pixels, more than {MAX_PIXELS:,}; enlarge a part of it"
            )
        small = _padded(np.asarray(picture), fold)
        large = np.empty((height, width, 3), np.uint8)
        tiles = list(_tiles(small.shape[0] // fold, small.shape[1] // fold, tile_px // fold))
        with torch.inference_mode():
            for done, (rows, columns) in enumerate(tiles, start=1):
                self._tile(small, large, rows, columns, math.ceil(halo_px / fold))
                if progress is not None:
                    progress(done, len(tiles))
        return Image.fromarray(large)

    def _tile(self, small: Pixels, large: Pixels, rows: Span, columns: Span, halo: int) -> None:
        """Compute the maps of one tile once, and paint them piece by piece into ``large``."""
        network, fold = self.network, self.network.config.fold
        height, width = small.shape[0] // fold, small.shape[1] // fold
        reach = network.paint_reach
        seen = [
            _widened(span, halo + reach, limit)
            for span, limit in ((rows, height), (columns, width))
        ]
        (top, bottom), (left, right) = seen
        shown = small[top * fold : bottom * fold, left * fold : right * fold]
        maps = network.features(_images(shown).to(self.device))
        for piece_rows in _spans(rows, _PAINTED_AT_ONCE):
            for piece_columns in _spans(columns, _PAINTED_AT_ONCE):
                up, down = _widened(piece_rows, reach, height)
                west, east = _widened(piece_columns, reach, width)
                piece = maps[:, :, up - top : down - top, west - left : east - left]
                painted = network.paint(piece)
                if not bool(painted.isfinite().all()):
                    raise CheckpointError(
                        f"{self.name} paints values that are not finite: its weights are damaged; fetch them again"
                    )
                levels = _levels(painted)
                _put(large, levels, piece_rows, piece_columns, (up, west), fold * self.scale)


def load_enlarger(place: str | Path, *, device: str = "auto", dtype: str = "float32") -> Enlarger:
    """An enlarger by the name of one that ships, its folder or its run's, or a safetensors file of Real-ESRGAN's.

    Raises:
        InputError: For an unknown name, device or dtype.
        CheckpointError: When the weights are missing, damaged, or of another network.
    """
    where = find_device(device)
    network, digest = load_generator(place)
    network = network.to(device=where, dtype=find_dtype(dtype, where)).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # what convolutions want, on CPUs and tensor cores alike
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return Enlarger(network=network, name=_name(Path(place)), digest=digest, device=where)


def load_generator(place: str | Path) -> tuple[RRDBNet, str]:
    """The network alone, in float32, and its digest."""
    path = exported(_find(str(place)))
    if path.is_file():
        config, tensors = read_real_esrgan(path)
        with torch.random.fork_rng(devices=[]):
            network = RRDBNet(config)
        load_strictly(network, tensors, where=str(path))
        return network, file_digest(path)
    manifest = load_manifest(path)
    if manifest.kind != ENLARGER:
        raise CheckpointError(f"{path} holds a {manifest.kind}, not an {ENLARGER}")
    try:
        config = from_json(RRDBNetConfig, manifest.config, where=f"{path}: config")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    with torch.random.fork_rng(devices=[]):  # the weights it starts from are overwritten
        network = RRDBNet(config)
    return network, load_module(network, path, ENLARGER).digest


def _find(place: str) -> Path:
    if place in SHIPPED_ENLARGERS:
        folder = Path(str(files("bottega") / "weights" / place))
        if not folder.is_dir():
            raise CheckpointError(
                f"the weights of {place} are not in this installation; train them with bottega train {place}, "
                f"and name runs/{place}/export"
            )
        return folder
    path = Path(place)
    if path.is_dir() or path.is_file():
        return path
    raise InputError(
        f"there is no folder or file {place!r} with an enlarger{nearest(place, SHIPPED_ENLARGERS)}"
    )


def _name(place: Path) -> str:
    """What an enlarger is called: as its file, its folder, or the run that exported it."""
    if place.suffix == ".safetensors":
        return place.stem
    return place.resolve().parent.name if place.name == "export" else place.name


def bicubic(images: Images, scale: int) -> Float[Tensor, "batch channels tall wide"]:
    """Pictures enlarged as any program can, in the same range."""
    larger = F.interpolate(images, scale_factor=scale, mode="bicubic", align_corners=False)
    return larger.clamp(-1, 1)


def enlargement_note(
    enlarger: Enlarger, picture: Image.Image, *, tile_px: int, halo_px: int
) -> str:
    """What an enlarged picture's file says of its making, as JSON text."""
    facts = {
        "kind": ENLARGED,
        "bottega": __version__,
        "model": enlarger.name,
        "model_digest": enlarger.digest,
        "scale": enlarger.scale,
        "tile_px": tile_px,
        "halo_px": halo_px,
        "picture": picture_digest(picture),
    }
    return json.dumps(facts, separators=(",", ":"))


def picture_digest(picture: Image.Image) -> str:
    """A SHA-256 of a picture's pixels."""
    size = f"{picture.width}x{picture.height} ".encode()
    return hashlib.sha256(size + picture.convert("RGB").tobytes()).hexdigest()


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[Span, Span]]:
    for rows in _spans((0, height), side):
        for columns in _spans((0, width), side):
            yield rows, columns


def _spans(span: Span, side: int) -> Iterator[Span]:
    """Parts of a span of at most ``side``, one after the other."""
    for begin in range(span[0], span[1], side):
        yield begin, min(begin + side, span[1])


def _widened(span: Span, by: int, limit: int) -> Span:
    return max(0, span[0] - by), min(limit, span[1] + by)


def _padded(pixels: Pixels, unit: int) -> Pixels:
    """Sides made multiples of ``unit`` by repeating the last row and column."""
    height, width = pixels.shape[:2]
    if height % unit == 0 and width % unit == 0:
        return pixels
    return np.pad(pixels, ((0, -height % unit), (0, -width % unit), (0, 0)), mode="edge")


def _images(pixels: Pixels) -> Images:
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    return tensor[None].float() / 127.5 - 1


def _levels(images: Float[Tensor, "1 3 tall wide"]) -> Pixels:
    levels = ((images[0] + 1) * 127.5).round().clamp(0, 255).byte()
    return levels.permute(1, 2, 0).cpu().numpy()


def _put(
    large: Pixels, painted: Pixels, rows: Span, columns: Span, corner: Span, times: int
) -> None:
    """Lay what is wanted of a painted piece into the picture; what was padded is cut off."""
    top, left = rows[0] * times, columns[0] * times
    bottom = min(rows[1] * times, large.shape[0])
    right = min(columns[1] * times, large.shape[1])
    up, west = corner[0] * times, corner[1] * times
    large[top:bottom, left:right] = painted[top - up : bottom - up, left - west : right - west]


__all__ = [
    "ENLARGER",
    "SHIPPED_ENLARGERS",
    "TILE_PX",
    "Enlarger",
    "bicubic",
    "enlargement_note",
    "load_enlarger",
    "load_generator",
    "picture_digest",
]
