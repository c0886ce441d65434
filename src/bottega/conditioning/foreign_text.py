"""Text encoders as the pipelines of Stable Diffusion and DeepFloyd IF use them: every position counts.

Those networks were trained on a fixed number of tokens without a mask, so that padding is attended to and an empty
text says something: it is encoded like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from bottega.conditioning.encoders import (
    EncodedText,
    TextEncoder,
    TokenizedText,
    fast_tokenizer,
)
from bottega.conditioning.pretrained import folder_digest, load_frozen, read_json
from bottega.errors import CheckpointError, InputError
from bottega.shapes import Pooled, TokenMask, Tokens

Layer = Literal["last", "before_last"]
"""Which hidden states are the features: the last with the final norm, or those of the layer before it, unnormed."""

_CLASSES = {
    "CLIPTextModel": "hidden_size",
    "CLIPTextModelWithProjection": "hidden_size",
    "T5EncoderModel": "d_model",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPart:
    """One text model of a pipeline.

    ``model`` opens it, or gives the one that is open; ``kind`` is the class it is read as.
    """

    folder: Path
    tokenizer: Path
    kind: str
    model: Callable[[], Any]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.kind not in _CLASSES:
            known = ", ".join(_CLASSES)
            raise CheckpointError(
                f"{self.folder} is a {self.kind}, which is not supported; supported are {known}"
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the model's ``config.json`` says."""
        return read_json(self.folder / "config.json")

    @property
    def width(self) -> int:
        """Features per token."""
        return self._number(_CLASSES[self.kind])

    @property
    def projects(self) -> bool:
        """Whether it gives one vector for the whole text."""
        return self.kind == "CLIPTextModelWithProjection"

    @property
    def projection(self) -> int:
        """Features of that vector; 0 without one."""
        return self._number("projection_dim") if self.projects else 0

    def _number(self, key: str) -> int:
        value = self.config.get(key)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{self.folder / 'config.json'} lacks the number {key}")
        return value


class ForeignTextEncoder(TextEncoder):
    """One or two text models that read the same text; their features stand side by side.

    With ``silent`` an empty text is all zeros, as SDXL's configuration asks for.

    Source: the pipelines of the diffusers library. IF lowers its texts' case and cleans them of markup; we lower the
    case only, so that every token can be traced back to the prompt.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[TextPart],
        *,
        max_tokens: int | None = None,
        layer: Layer = "last",
        silent: bool = False,
    ) -> None:
        """Read the tokenizers; models are opened when a text is encoded.

        Raises:
            CheckpointError: When two models do not share their words.
        """
        self.name = name
        self._parts = tuple(parts)
        self._layer: Layer = layer
        self._silent = silent
        self.width = sum(part.width for part in parts)
        self.pooled_width = parts[-1].projection
        tokenizers = [fast_tokenizer(part.tokenizer) for part in parts]
        if any(other.get_vocab() != tokenizers[0].get_vocab() for other in tokenizers[1:]):
            raise CheckpointError(
                f"{parts[1].tokenizer} knows other words than {parts[0].tokenizer}"
            )
        self._pads = tuple(int(tokenizer.pad_token_id) for tokenizer in tokenizers)
        limit = int(tokenizers[0].model_max_length)
        self.max_tokens = limit if max_tokens is None else max_tokens
        if not 2 <= self.max_tokens <= _MOST_TOKENS:
            raise InputError(
                f"max_tokens must be between 2 and {_MOST_TOKENS}, got {self.max_tokens}"
            )
        self._device = torch.device("cpu")
        self._take_tokenizer(tokenizers[0])

    @cached_property
    def digest(self) -> str:
        """A fingerprint of weights, tokenizers and settings."""
        precision = ",".join(str(part.dtype) for part in self._parts)
        settings = f"{self.name}:{self.max_tokens}:{self._layer}:{self._silent}:{precision}"
        places = [place for part in self._parts for place in (part.folder, part.tokenizer)]
        for place in places:
            settings = folder_digest(place, settings)
        return settings

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return self._device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "ForeignTextEncoder":
        """Compute there from now on; precision is settled by whoever opens the models."""
        if device is not None:
            self._device = torch.device(device)
        return self

    def tokenize(self, texts: Sequence[str]) -> TokenizedText:
        """Cut texts into tokens; every position is real."""
        if self._parts[0].kind == "T5EncoderModel":
            texts = [_lower(text) for text in texts]
        tokenized = super().tokenize(texts)
        return replace(tokenized, mask=torch.ones_like(tokenized.mask))

    def encode(self, texts: Sequence[str], *, rows: int = 1) -> EncodedText:
        """Encode texts; see `TextEncoder.encode`."""
        encoded = super().encode(texts, rows=rows)
        if self._silent:
            blank = torch.tensor([not text.strip() for text in texts], device=self.device)
            silenced = encoded.stream.dropped(blank)
            encoded = replace(encoded, stream=replace(silenced, mask=encoded.stream.mask))
        return encoded

    def features(
        self, ids: Int[Tensor, "batch tokens"], mask: TokenMask
    ) -> tuple[Tokens, Pooled | None]:
        """Hidden states of every model, side by side, and the last model's vector."""
        real = self._before_padding(ids)
        tokens: list[Tensor] = []
        pooled: Tensor | None = None
        for part, pad in zip(self._parts, self._pads, strict=True):
            model = part.model().to(self._device)
            own = torch.where(real, ids, pad)
            if part.kind == "T5EncoderModel":
                tokens.append(model(input_ids=own, attention_mask=real.long()).last_hidden_state)
                continue
            output = model(input_ids=own, output_hidden_states=True)
            last = output.last_hidden_state
            tokens.append(last if self._layer == "last" else output.hidden_states[-2])
            pooled = output.text_embeds if part.projects else None
        return torch.cat([t.float() for t in tokens], dim=-1), pooled

    def _before_padding(self, ids: Int[Tensor, "batch tokens"]) -> TokenMask:
        """True up to the end token, which closes every text."""
        is_end = ids == self._tokenizer.eos_token_id
        return is_end.cumsum(1) - is_end.long() == 0


_MOST_TOKENS = 4096


def text_part(folder: Path, tokenizer: Path, kind: str, *, dtype: torch.dtype) -> TextPart:
    """A text model that is opened anew each time it is asked for, in ``dtype``.

    Raises:
        CheckpointError: For a class that is not supported.
    """
    import transformers

    def open_model() -> Any:
        return load_frozen(getattr(transformers, kind), folder, dtype=dtype)

    return TextPart(folder=folder, tokenizer=tokenizer, kind=kind, model=open_model, dtype=dtype)


def _lower(text: str) -> str:
    """Lower case, letter by letter, so that places in the text stay where they are."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


__all__ = ["ForeignTextEncoder", "Layer", "TextPart", "text_part"]
