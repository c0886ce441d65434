"""Painting that begins with a picture: changing it, or painting only a part of it anew."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from PIL import Image, ImageOps
from torch import Tensor

from bottega.diffusion import Denoise
from bottega.errors import InputError
from bottega.pipelines import given
from bottega.pipelines.masks import MaskLike, StoredMask, store
from bottega.pipelines.style import style_digest, style_tensor
from bottega.shapes import Images, Sigmas

PAINTED = 128
"""Of 255: a mask pixel this light or lighter is painted anew."""

Keep = Bool[Tensor, "#batch 1 height width"]
"""True where a picture stays as it is."""


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """What a description keeps of a picture that painting began with: its digest, never the picture itself."""

    picture: str
    strength: float
    mask: StoredMask | None = None

    def __post_init__(self) -> None:
        _check_strength(self.strength)


@dataclass(frozen=True, eq=False)
class FromPicture:
    """Begin with a picture, and change it.

    Attributes:
        picture: Of any size; what does not fit the shape of the painting is cut off on both sides.
        strength: How much of the way from noise is walked, above 0 to 1: little changes little, 1 changes everything.
    """

    picture: Image.Image
    strength: float = 0.6

    def __post_init__(self) -> None:
        given.picture(self.picture, "a picture to begin with")
        _check_strength(self.strength)

    @property
    def stored_mask(self) -> StoredMask | None:
        """All of it is painted."""
        return None


@dataclass(frozen=True, eq=False)
class Inpaint:
    """Paint a part of a picture anew, and keep every other pixel as it is.

    Attributes:
        picture: What to keep, exactly when it has the size of the painting.
        mask: White where to paint; as large as the picture.
        strength: How far what stood there is forgotten, above 0 to 1; 1 forgets all of it.

    Raises:
        InputError: For a mask that is none, has another size, or paints nothing.
    """

    picture: Image.Image
    mask: MaskLike | StoredMask
    strength: float = 1.0

    def __post_init__(self) -> None:
        given.picture(self.picture, "a picture to paint a part of")
        _check_strength(self.strength)
        mask = self.mask if isinstance(self.mask, StoredMask) else _two_tone(self.mask)
        object.__setattr__(self, "mask", mask)
        if (mask.width, mask.height) != self.picture.size:
            raise InputError(
                f"the mask is {mask.width} x {mask.height}, the picture {self.picture.width} x "
                f"{self.picture.height}; they need one size"
            )
        if not bool(mask.tensor().any()):
            raise InputError("the mask paints nothing: it is black everywhere, white is painted")

    @property
    def stored_mask(self) -> StoredMask | None:
        """Where to paint, as it is kept."""
        return self.mask if isinstance(self.mask, StoredMask) else None


Start = FromPicture | Inpaint


def record(start: Start | None) -> StartRecord | None:
    """What a description keeps of it."""
    if start is None:
        return None
    return StartRecord(
        picture=style_digest(start.picture), strength=start.strength, mask=start.stored_mask
    )


def restart(start: StartRecord | None, picture: Image.Image | None) -> Start | None:
    """The same beginning again.

    Args:
        start: What the description keeps.
        picture: The picture itself.

    Raises:
        InputError: When it is missing, is another one, or none was used.
    """
    if start is None:
        if picture is not None:
            raise InputError("it was not painted from a picture")
        return None
    if picture is None:
        raise InputError("it needs the picture it was painted from again")
    if style_digest(picture) != start.picture:
        raise InputError("it was painted from another picture")
    if start.mask is None:
        return FromPicture(picture, start.strength)
    return Inpaint(picture, start.mask, start.strength)


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginnings:
    """Where the pictures of a batch begin, at the size of the last stage: what they show, and where that stays."""

    clean: Images
    keep: Keep | None
    strength: float

    @classmethod
    def of(
        cls, starts: "list[Start | None]", height: int, width: int, device: torch.device | str
    ) -> "Beginnings | None":
        """Pictures and masks at one size.

        Args:
            starts: One per picture of a batch; all of one kind and strength, as one call of the painter has them.
            height: Of the painting.
            width: Of the painting.
            device: Where to.
        """
        begun = [start for start in starts if start is not None]
        if not begun:
            return None
        fitted = [_fitted(start.picture.convert("RGB"), (width, height)) for start in begun]
        clean = torch.stack([style_tensor(picture) for picture in fitted]).to(device)
        keeps = [_keep(start, height, width) for start in begun]
        masks = [keep for keep in keeps if keep is not None]
        keep = torch.stack(masks).to(device) if masks else None
        if keep is not None and begun[0].strength == 1:
            clean = torch.where(keep, clean, 0.0)  # what stood there is forgotten
        return cls(clean=clean, keep=keep, strength=begun[0].strength)

    def at(self, height: int, width: int) -> "Beginnings":
        """The same, smaller, by area: a position is kept only where every pixel of it is."""
        if self.clean.shape[2:] == (height, width):
            return self
        clean = F.adaptive_avg_pool2d(self.clean, (height, width))
        keep = self.keep
        if keep is not None:
            keep = F.adaptive_max_pool2d((~keep).float(), (height, width)) == 0
        return Beginnings(clean=clean, keep=keep, strength=self.strength)

    def completed(self, images: Images) -> Images:
        """Finished pictures with every pixel that was to be kept put back."""
        return images if self.keep is None else torch.where(self.keep, self.clean, images)


def kept(denoise: Denoise, clean: Images, keep: Keep) -> Denoise:
    """A denoiser that knows some of the picture: there it answers with what is known.

    A walk that began in that picture plus noise then stays there, at every noise level and with every sampler, so that
    the rest is painted to fit.

    Args:
        denoise: Paints the rest.
        clean: What is known.
        keep: Where.

    Source: the replacement of Song et al. 2021 (arXiv:2011.13456, section 5) and RePaint (arXiv:2201.09865), on the
    estimate instead of on the noisy picture, and without RePaint's going back and forth.
    """

    def denoise_rest(x: Images, sigma: Sigmas) -> Images:
        return torch.where(keep, clean, denoise(x, sigma))

    return denoise_rest


def _keep(start: Start, height: int, width: int) -> Bool[Tensor, "1 height width"] | None:
    stored = start.stored_mask
    if stored is None:
        return None
    mask = _fitted(stored.picture(), (width, height))
    pixels = style_tensor(mask.convert("RGB"))[:1]
    return pixels <= -1


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at that size, its middle where the shapes differ; the same pixels where nothing has to change."""
    if picture.size == size:
        return picture
    how = Image.Resampling.BOX if picture.mode == "L" else Image.Resampling.LANCZOS
    return ImageOps.fit(picture, size, method=how)


def _two_tone(mask: MaskLike) -> StoredMask:
    grey = store(mask).picture()
    return store(grey.point([0] * PAINTED + [255] * (256 - PAINTED)))


def _check_strength(strength: float) -> None:
    if not 0 < given.number(strength, "strength") <= 1:
        raise InputError(f"strength is above 0 and at most 1, got {strength:g}")


__all__ = [
    "Beginnings",
    "FromPicture",
    "Inpaint",
    "Start",
    "StartRecord",
    "kept",
    "record",
    "restart",
]
