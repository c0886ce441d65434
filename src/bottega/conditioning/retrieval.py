"""How well CLIP's towers find each other: the share of pictures and captions whose partner comes first, or in five."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bottega.conditioning.bundle import Encoders
from bottega.errors import InputError
from bottega.shapes import Images


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Shares of ``num_pairs`` queries whose partner was found.

    Equal captions count as partners of each other's pictures.
    """

    num_pairs: int
    text_to_image_top1: float
    text_to_image_top5: float
    image_to_text_top1: float
    image_to_text_top5: float


def retrieval_accuracy(
    encoders: Encoders, images: Images, captions: Sequence[str], *, rows: int = 64
) -> Retrieval:
    """Let CLIP match pictures in [-1, 1] with their captions, each among all.

    Raises:
        InputError: Without a CLIP, or with numbers of pictures and captions that differ.
    """
    text_encoder = encoders.texts.get("clip_text")
    if text_encoder is None or encoders.image is None:
        raise InputError("retrieval needs both towers of a CLIP")
    if len(images) != len(captions) or not captions:
        raise InputError(f"expected a caption per picture, got {len(captions)} and {len(images)}")
    text = text_encoder.encode(captions, rows=rows).stream.pooled
    image = encoders.image.encode(images, rows=rows).pooled
    if text is None or image is None:
        raise InputError("retrieval needs encoders with pooled vectors")
    similarity = F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
    keys = [" ".join(caption.lower().split()) for caption in captions]
    partners = torch.tensor([[a == b for b in keys] for a in keys], device=similarity.device)
    return Retrieval(
        num_pairs=len(captions),
        text_to_image_top1=_found(similarity, partners, 1),
        text_to_image_top5=_found(similarity, partners, 5),
        image_to_text_top1=_found(similarity.T, partners, 1),
        image_to_text_top5=_found(similarity.T, partners, 5),
    )


def _found(
    similarity: Float[Tensor, "queries answers"], partners: Bool[Tensor, "queries answers"], k: int
) -> float:
    best = similarity.topk(min(k, len(similarity)), dim=1).indices
    return float(partners.gather(1, best).any(dim=1).float().mean())


__all__ = ["Retrieval", "retrieval_accuracy"]
