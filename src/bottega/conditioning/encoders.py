"""Frozen encoders behind one interface: texts and pictures in, streams of tokens out.

A stream always has ``max_tokens`` tokens, whatever its neighbours are; the mask is True where a token is real, and
features of padding are zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bottega.condition import Stream
from bottega.conditioning.pictures import PicturePreparation
from bottega.conditioning.pretrained import folder_digest, load_frozen
from bottega.conditioning.tokenizers import load_tokenizer
from bottega.errors import CheckpointError, InputError
from bottega.shapes import Images, Pooled, TokenMask, Tokens

Span = tuple[int, int]
"""First character and the one after the last; (0, 0) for tokens that stand for no character."""

_T5_MAX_TOKENS = 113  # eDiff-I's, for T5 folders whose tokenizer states no limit
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "vocab.json")
_LARGEST_LIMIT = 4096  # tokenizers without a limit state 1e30


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedText:
    """What an encoder says of some texts, where each token stands in its text, and how much was cut off.

    ``offsets`` has one span per token of the stream; ``truncated`` counts, for each text, the tokens that did not fit.
    """

    stream: Stream
    offsets: tuple[tuple[Span, ...], ...]
    truncated: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedText:
    """Texts as token numbers of one fixed length."""

    ids: Int[Tensor, "batch tokens"]
    mask: TokenMask
    offsets: tuple[tuple[Span, ...], ...]
    truncated: tuple[int, ...]


class TextEncoder(ABC):
    """A frozen language model that turns texts into features.

    Attributes:
        name: The stream it feeds: ``t5`` or ``clip_text``.
        width: Features per token.
        pooled_width: Features of the pooled vector; 0 when there is none.
        max_tokens: Tokens per text, always this many.
    """

    name: str
    width: int
    pooled_width: int
    max_tokens: int

    def __init__(self, model: Any, tokenizer: Any, folder: Path, settings: str) -> None:
        self.model = model
        self._folder = folder
        self._settings = settings
        self._take_tokenizer(tokenizer)

    def _take_tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.max_tokens)
        self._backend = backend

    @cached_property
    def digest(self) -> str:
        """A fingerprint of weights, tokenizer, settings and precision; equal ones say the same, up to rounding."""
        settings = f"{self.name}:{self.max_tokens}:{self._settings}{_precision(self.model)}"
        return folder_digest(self._folder, settings)

    @abstractmethod
    def features(
        self, ids: Int[Tensor, "batch tokens"], mask: TokenMask
    ) -> tuple[Tokens, Pooled | None]:
        """Run the model on token numbers."""

    def tokenize(self, texts: Sequence[str]) -> TokenizedText:
        """Cut texts into tokens; a blank text has none at all."""
        encodings = self._backend.encode_batch(list(texts))
        ids = torch.full((len(texts), self.max_tokens), self._tokenizer.pad_token_id)
        mask = torch.zeros(len(texts), self.max_tokens, dtype=torch.bool)
        offsets: list[tuple[Span, ...]] = []
        truncated: list[int] = []
        for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            used = len(encoding.ids)
            ids[row, :used] = torch.tensor(encoding.ids)
            mask[row, :used] = bool(text.strip())
            spans = [_trim(text, start, end) for start, end in encoding.offsets]
            offsets.append((*spans, *[(0, 0)] * (self.max_tokens - used)))
            truncated.append(
                sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)
            )
        return TokenizedText(ids=ids, mask=mask, offsets=tuple(offsets), truncated=tuple(truncated))

    @torch.no_grad()  # not inference mode: a network may train on what is said here
    def encode(self, texts: Sequence[str], *, rows: int = 1) -> EncodedText:
        """Encode texts; blank ones give an empty stream: every token masked, features zero.

        Args:
            texts: Any number of texts.
            rows: Texts per call of the model. The default 1 makes a text's features the same to the last bit in any
                company; larger is faster, and differs by rounding.

        Returns:
            Float32 features on the encoder's device, whatever dtype it computes in.
        """
        if rows < 1:
            raise InputError(f"rows must be at least 1, got {rows}")
        tokenized = self.tokenize(texts)
        device = self.device
        tokens = torch.zeros(len(texts), self.max_tokens, self.width, device=device)
        pooled = torch.zeros(len(texts), self.pooled_width, device=device)
        mask = tokenized.mask.to(device)
        real = tokenized.mask.any(dim=1).nonzero().flatten()
        for part in real.split(rows) if len(real) else ():  # split gives one empty part of nothing
            part = part.to(device)
            features, vectors = self.features(tokenized.ids.to(device)[part], mask[part])
            tokens[part] = features.float() * mask[part][..., None]
            if vectors is not None:
                pooled[part] = vectors.float()
        stream = Stream(tokens=tokens, mask=mask, pooled=pooled if self.pooled_width else None)
        return EncodedText(stream=stream, offsets=tokenized.offsets, truncated=tokenized.truncated)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "TextEncoder":
        """Move the model, and return the encoder."""
        self.model.to(device=device, dtype=dtype)
        vars(self).pop("digest", None)  # precision is part of it
        return self


class T5TextEncoder(TextEncoder):
    """The encoder half of a T5: one contextual feature per subword, no pooled vector.

    Source: Imagen (arXiv:2205.11487), section 2.1. The attention mask is given to T5, and features after the last real
    token are zeroed (the paper does not say).
    """

    name = "t5"
    pooled_width = 0

    def __init__(self, model: Any, tokenizer: Any, folder: Path, *, max_tokens: int) -> None:
        self.width = int(model.config.d_model)
        self.max_tokens = max_tokens
        super().__init__(model, tokenizer, folder, settings="last")

    def features(
        self, ids: Int[Tensor, "batch tokens"], mask: TokenMask
    ) -> tuple[Tokens, Pooled | None]:
        """The last hidden states."""
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, None


ClipLayer = Literal["penultimate", "last"]


class ClipTextEncoder(TextEncoder):
    """The text tower of a CLIP: token features before pooling, and the projected text vector.

    Source: eDiff-I (arXiv:2211.01324), Appendix A (tokens before pooling, pooled vector added to the time embedding);
    Imagen (arXiv:2205.11487), Appendix D.1 (penultimate layer). In the last layer only the end token is trained, so the
    layer before it is the default; the final norm is applied to either. The pooled vector is scaled to unit root mean
    square, because the contrast trains its direction only.
    """

    name = "clip_text"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        folder: Path,
        *,
        max_tokens: int,
        layer: ClipLayer = "penultimate",
    ) -> None:
        self.width = int(model.config.hidden_size)
        self.pooled_width = int(model.config.projection_dim)
        self.max_tokens = max_tokens
        self._layer: ClipLayer = layer
        super().__init__(model, tokenizer, folder, settings=layer)

    def features(
        self, ids: Int[Tensor, "batch tokens"], mask: TokenMask
    ) -> tuple[Tokens, Pooled | None]:
        """Normed hidden states of the chosen layer, and the projected vector."""
        # No mask: the tower is causal, so padding after the end token changes nothing before it.
        output = self.model(input_ids=ids, output_hidden_states=True)
        if self._layer == "last":
            tokens = output.last_hidden_state
        else:
            tokens = self.model.text_model.final_layer_norm(output.hidden_states[-2])
        return tokens, unit_rms(output.text_embeds)


class ImageEncoder:
    """The image tower of a CLIP: one token per picture, its projected vector scaled to unit root mean square."""

    name = "clip_image"

    def __init__(self, model: Any, preparation: PicturePreparation, folder: Path) -> None:
        self.model = model
        self.preparation = preparation
        self.width = int(model.config.projection_dim)
        self._folder = folder

    @cached_property
    def digest(self) -> str:
        """A fingerprint of weights, settings and precision."""
        return folder_digest(self._folder, f"{self.name}{_precision(self.model)}")

    @torch.no_grad()  # not inference mode: a network may train on what is said here
    def encode(self, images: Images, *, rows: int = 1) -> Stream:
        """Encode pictures in [-1, 1] of any size.

        Args:
            images: RGB.
            rows: Pictures per call of the model; 1 makes a picture's features independent of its neighbours to the
                last bit.
        """
        if rows < 1:
            raise InputError(f"rows must be at least 1, got {rows}")
        weight = next(self.model.parameters())
        vectors = torch.zeros(len(images), self.width, device=weight.device)
        for start in range(0, len(images), rows):
            part = images[start : start + rows].to(weight.device)
            pixels = self.preparation(part).to(weight.dtype)
            vectors[start : start + rows] = self.model(pixel_values=pixels).image_embeds.float()
        vectors = unit_rms(vectors)
        mask = torch.ones(len(images), 1, dtype=torch.bool, device=weight.device)
        return Stream(tokens=vectors[:, None], mask=mask, pooled=vectors)

    def absent(self, count: int) -> Stream:
        """What stands for no picture: one silent token."""
        device = next(self.model.parameters()).device
        vectors = torch.zeros(count, self.width, device=device)
        mask = torch.zeros(count, 1, dtype=torch.bool, device=device)
        return Stream(tokens=vectors[:, None], mask=mask, pooled=vectors)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "ImageEncoder":
        """Move the model, and return the encoder."""
        self.model.to(device=device, dtype=dtype)
        vars(self).pop("digest", None)  # precision is part of it
        return self


def load_t5(
    folder: Path | str, *, max_tokens: int | None = None, dtype: torch.dtype = torch.float32
) -> T5TextEncoder:
    """Read any T5 or T5 v1.1 folder, from our tiny one to T5-XXL.

    Args:
        folder: Hugging Face format.
        max_tokens: The fixed length; the tokenizer's own limit, or eDiff-I's 113 where it states none.
        dtype: Of the weights in memory.

    Raises:
        CheckpointError: When the folder cannot be read as a T5.
    """
    from transformers import T5EncoderModel

    folder = Path(folder)
    model = load_frozen(T5EncoderModel, folder, dtype=dtype)
    tokenizer = fast_tokenizer(folder)
    limit = max_tokens if max_tokens is not None else _limit(tokenizer, _T5_MAX_TOKENS)
    _check_length(limit, _LARGEST_LIMIT)
    return T5TextEncoder(model, tokenizer, folder, max_tokens=limit)


def load_clip_text(
    folder: Path | str,
    *,
    max_tokens: int | None = None,
    layer: ClipLayer = "penultimate",
    dtype: torch.dtype = torch.float32,
) -> ClipTextEncoder:
    """Read the text tower of any CLIP folder with projections, from our tiny one to L/14.

    Raises:
        CheckpointError: When the folder cannot be read as a CLIP.
    """
    from transformers import CLIPTextModelWithProjection

    folder = Path(folder)
    model = load_frozen(CLIPTextModelWithProjection, folder, dtype=dtype)
    tokenizer = fast_tokenizer(folder)
    positions = int(model.config.max_position_embeddings)
    limit = max_tokens if max_tokens is not None else min(_limit(tokenizer, positions), positions)
    _check_length(limit, positions)
    return ClipTextEncoder(model, tokenizer, folder, max_tokens=limit, layer=layer)


def load_clip_image(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> ImageEncoder:
    """Read the image tower of any CLIP folder with projections.

    Raises:
        CheckpointError: When the folder cannot be read as a CLIP.
    """
    from transformers import CLIPVisionModelWithProjection

    folder = Path(folder)
    model = load_frozen(CLIPVisionModelWithProjection, folder, dtype=dtype)
    size = int(model.config.image_size)
    return ImageEncoder(model, PicturePreparation.read(folder, image_size_px=size), folder)


def unit_rms(vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """Scale each vector to a root mean square of one."""
    vectors = vectors.float()
    return vectors * torch.rsqrt(vectors.square().mean(dim=1, keepdim=True) + 1e-12)


def _precision(model: Any) -> str:
    """What a digest adds when a model does not compute in float32."""
    dtype = next(model.parameters()).dtype
    return "" if dtype == torch.float32 else f":{str(dtype).removeprefix('torch.')}"


def fast_tokenizer(folder: Path) -> Any:
    """The tokenizer of a Hugging Face folder, of the kind that knows where each token stands.

    Raises:
        CheckpointError: When there is none that can be used.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # transformers would make up an empty tokenizer here
        raise CheckpointError(
            f"{folder} holds no tokenizer: expected one of {', '.join(_TOKENIZER_FILES)}"
        )
    try:
        tokenizer = load_tokenizer(str(folder))
    except Exception as error:  # transformers raises many kinds; all mean this folder
        raise CheckpointError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{folder} needs a fast tokenizer with a padding token")
    return tokenizer


def _limit(tokenizer: Any, otherwise: int) -> int:
    limit = int(tokenizer.model_max_length)
    return limit if limit <= _LARGEST_LIMIT else otherwise


def _check_length(max_tokens: int, limit: int) -> None:
    if not 2 <= max_tokens <= limit:
        raise InputError(f"max_tokens must be between 2 and {limit}, got {max_tokens}")


def _trim(text: str, start: int, end: int) -> Span:
    """Leave the white space out that tokenizers count to the word after it."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if end > start else (0, 0)


__all__ = [
    "ClipLayer",
    "ClipTextEncoder",
    "EncodedText",
    "ImageEncoder",
    "Span",
    "T5TextEncoder",
    "TextEncoder",
    "TokenizedText",
    "fast_tokenizer",
    "load_clip_image",
    "load_clip_text",
    "load_t5",
    "unit_rms",
]
