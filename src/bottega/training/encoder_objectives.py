"""How the small encoders learn: T5 by filling hidden spans and by marking places, CLIP by matching pairs."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bottega.conditioning.misspelling import misspell
from bottega.conditioning.pictures import PicturePreparation
from bottega.data import Batch
from bottega.errors import ConfigError
from bottega.training.objective import Loss

_IGNORED = -100  # the label that torch's cross-entropy skips
SIDES = ("left", "right", "top", "bottom")
"""What the small T5 has to know of a thing whose place a caption states."""

_SIDES_OF = {"left of": (0, 1), "right of": (1, 0), "above": (2, 3), "below": (3, 2)}
_MAX_LOGIT_SCALE = math.log(100)  # CLIP's cap on the learned inverse temperature


class SpanCorruption:
    """T5's objective: some spans of a text are hidden behind sentinels, and the decoder writes them.

    Filling spans teaches which words go together, but never who stands on which side: "a cat left of a dog" reads as
    well the other way round. A T5 of billions of words knows all the same; this small one is told, where a batch has
    plans: the encoder's features at a thing's words, read with the vocabulary's own embeddings, have to say its side.

    Source: Raffel et al. 2019 (arXiv:1910.10683), section 3.1.4: 15% of tokens in spans of mean length 3. We misspell
    some texts first, and add names and keywords to the captions. Marking sides is ours.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        texts: Sequence[str] = (),
        texts_frac: float = 0.25,
        hidden_frac: float = 0.15,
        mean_span: float = 3.0,
        misspelt_frac: float = 0.1,
        sides_weight: float = 1.0,
    ) -> None:
        """Learn with this tokenizer.

        Args:
            tokenizer: From `train_tokenizer` with kind ``t5``.
            texts: Names, keywords and whatever else the encoder should have read.
            texts_frac: How many of ``texts`` join a batch, as a fraction of its captions.
            hidden_frac: Share of a text's tokens that is hidden.
            mean_span: Mean length of a hidden span, in tokens.
            misspelt_frac: Share of texts with a misspelt word.
            sides_weight: How much the marking of sides counts beside the filling of spans; 0 leaves it out.
        """
        if not 0 <= sides_weight < math.inf:
            raise ConfigError(f"sides_weight must be 0 or more, got {sides_weight}")
        for name, value in (("texts_frac", texts_frac), ("misspelt_frac", misspelt_frac)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {value}")
        if not 0 < hidden_frac < 1 or mean_span < 1:
            raise ConfigError(
                f"hidden_frac must be in (0, 1) and mean_span at least 1, got {hidden_frac} and {mean_span}"
            )
        self._backend = _plain_backend(tokenizer)
        self._end = int(tokenizer.eos_token_id)
        self._pad = int(tokenizer.pad_token_id)
        self._sentinels = _sentinels(tokenizer)
        self._max_tokens = int(tokenizer.model_max_length)
        self._texts = tuple(texts)
        self._texts_frac = texts_frac if self._texts else 0.0
        self._hidden_frac = hidden_frac
        self._mean_span = mean_span
        self._misspelt_frac = misspelt_frac
        self._sides_weight = sides_weight
        self._sides = [
            int(tokenizer(side, add_special_tokens=False).input_ids[-1]) for side in SIDES
        ]

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean cross-entropy of hidden tokens, each token weighing the same, and that of the sides."""
        rng = _fork(generator)
        extra = round(len(batch) * self._texts_frac)
        texts = [*batch.captions, *(rng.choice(self._texts) for _ in range(extra))]
        texts = [misspell(t, rng) if rng.random() < self._misspelt_frac else t for t in texts]
        device = next(network.parameters()).device
        inputs, labels = self.corrupt(texts, rng)
        inputs, labels = inputs.to(device), labels.to(device)
        logits = network(
            input_ids=inputs, attention_mask=(inputs != self._pad).long(), labels=labels
        ).logits.float()
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none"
        )
        real = labels.flatten() != _IGNORED
        total = losses.sum() / real.sum()
        with torch.no_grad():
            right = (logits.flatten(0, 1).argmax(dim=1) == labels.flatten()) & real
        metrics = {"token_accuracy": right.sum() / real.sum()}
        if self._sides_weight > 0 and batch.examples:
            sides, metrics["side_accuracy"] = self._mark_sides(network, batch.examples, device)
            total = total + self._sides_weight * sides
        return Loss(total=total, metrics=metrics)

    def _mark_sides(
        self, network: Any, examples: Sequence[Any], device: torch.device
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of each thing's side at each of its tokens, and how many are right; 0 and 1 without any."""
        encodings = self._backend.encode_batch(
            [example.caption for example in examples], add_special_tokens=False
        )
        rows = [[*e.ids[: self._max_tokens - 1], self._end] for e in encodings]
        targets = [
            _token_sides(encoding.offsets[: self._max_tokens - 1], stated_sides(example))
            for encoding, example in zip(encodings, examples, strict=True)
        ]
        ids = _padded(rows, self._pad).to(device)
        wanted = _padded([[*row, _IGNORED] for row in targets], _IGNORED).to(device)
        features = network.encoder(
            input_ids=ids, attention_mask=(ids != self._pad).long()
        ).last_hidden_state
        marked = wanted != _IGNORED
        if not marked.any():
            return features.new_zeros((), dtype=torch.float32), torch.ones((), device=device)
        words = network.get_input_embeddings().weight[self._sides]
        logits = (features[marked] @ words.T).float() * features.shape[-1] ** -0.5
        with torch.no_grad():
            right = (logits.argmax(dim=1) == wanted[marked]).float().mean()
        return F.cross_entropy(logits, wanted[marked]), right

    def corrupt(
        self, texts: Sequence[str], rng: random.Random
    ) -> tuple[Int[Tensor, "batch inputs"], Int[Tensor, "batch labels"]]:
        """Hide spans of each text: what the encoder reads, and what the decoder writes (padded with -100)."""
        inputs: list[list[int]] = []
        labels: list[list[int]] = []
        for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False):
            ids = encoding.ids[: self._max_tokens - 1]
            hidden = hidden_spans(
                len(ids),
                rng,
                hidden_frac=self._hidden_frac,
                mean_span=self._mean_span,
                max_spans=len(self._sentinels),
            )
            seen, wanted = self._split(ids, hidden)
            inputs.append(seen)
            labels.append(wanted)
        return _padded(inputs, self._pad), _padded(labels, _IGNORED)

    def _split(self, ids: list[int], hidden: list[bool]) -> tuple[list[int], list[int]]:
        seen: list[int] = []
        wanted: list[int] = []
        spans = 0
        for at, token in enumerate(ids):
            if not hidden[at]:
                seen.append(token)
                continue
            if at == 0 or not hidden[at - 1]:
                seen.append(self._sentinels[spans])
                wanted.append(self._sentinels[spans])
                spans += 1
            wanted.append(token)
        return [*seen, self._end], [*wanted, self._end]


def stated_sides(example: Any) -> list[tuple[int, int, int]]:
    """Where an Emoji World caption speaks of a thing whose side it states: first character, last, place in `SIDES`."""
    sides: dict[int, int] = {}
    for relation in example.plan.relations:
        here, there = _SIDES_OF.get(relation.name, (None, None))
        if here is not None and there is not None:
            sides |= {relation.subject: here} | dict.fromkeys(relation.others, there)
    return [
        (phrase.start, phrase.end, sides[phrase.objects[0]])
        for phrase in example.phrases
        if phrase.kind == "object" and phrase.objects[0] in sides
    ]


def _token_sides(
    offsets: Sequence[tuple[int, int]], stated: Sequence[tuple[int, int, int]]
) -> list[int]:
    """The side of the thing that each token speaks of, -100 for all others."""
    return [
        next((side for first, last, side in stated if start < last and first < end), _IGNORED)
        for start, end in offsets
    ]


def hidden_spans(
    length: int, rng: random.Random, *, hidden_frac: float, mean_span: float, max_spans: int
) -> list[bool]:
    """Which of ``length`` tokens to hide: spans that do not touch, anywhere in the text.

    Source: ``random_spans_noise_mask`` of the T5 code, which cuts the hidden and the seen tokens into equally many
    random pieces that alternate. There a text starts seen and ends hidden; captions are so short that they mostly have
    one span, which would then always be their end. Here seen tokens, or none, stand at both ends.
    """
    if length == 0:
        return []
    if length == 1:
        return [True]
    num_hidden = min(max(round(length * hidden_frac), 1), length - 1)
    num_seen = length - num_hidden
    num_spans = min(max(round(num_hidden / mean_span), 1), max_spans, num_seen + 1)
    hidden = _pieces(num_hidden, num_spans, rng)
    seen = _pieces(num_seen + 2, num_spans + 1, rng)
    mask = [False] * (seen[0] - 1)  # the two that were added make the outer pieces possibly empty
    for covered, visible in zip(hidden, seen[1:], strict=True):
        mask += [True] * covered + [False] * visible
    return mask[:length]


class ClipContrast:
    """CLIP's objective: of all captions in the batch, which one belongs to this picture, and the other way round.

    Equal captions in a batch are all right answers for each other's pictures, sharing the probability evenly, so that
    no pair is punished for being told apart from its twin.

    Source: Radford et al. 2021 (arXiv:2103.00020), Figure 3, with the temperature capped at 100 as there.
    """

    def __init__(
        self, tokenizer: Any, preparation: PicturePreparation, *, misspelt_frac: float = 0.1
    ) -> None:
        """Learn with this tokenizer and this way of preparing pictures.

        Args:
            tokenizer: From `train_tokenizer` with kind ``clip``.
            preparation: The image tower's.
            misspelt_frac: Share of captions with a misspelt word.
        """
        if not 0 <= misspelt_frac <= 1:
            raise ConfigError(f"misspelt_frac must be in [0, 1], got {misspelt_frac}")
        self._backend = _plain_backend(tokenizer)
        self._backend.enable_truncation(int(tokenizer.model_max_length))
        self._pad = int(tokenizer.pad_token_id)
        self._preparation = preparation
        self._misspelt_frac = misspelt_frac

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean of both directions' cross-entropies."""
        rng = _fork(generator)
        captions = [
            misspell(text, rng) if rng.random() < self._misspelt_frac else text
            for text in batch.captions
        ]
        weight = next(network.parameters())
        ids = _padded([e.ids for e in self._backend.encode_batch(captions)], self._pad)
        pixels = self._preparation(batch.clean()).to(weight.device, weight.dtype)
        text, image = _embeddings(network, ids.to(weight.device), pixels)
        scale = network.logit_scale.float().clamp(max=_MAX_LOGIT_SCALE).exp()  # pyright: ignore
        logits = scale * text @ image.T
        same = _same_captions(batch.captions).to(weight.device)
        per_image = (_cross_entropy(logits, same) + _cross_entropy(logits.T, same)) / 2
        with torch.no_grad():
            right = same.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return Loss(
            total=per_image.mean(),
            per_image=per_image.detach(),
            metrics={"accuracy": right, "scale": scale.detach()},
        )


def _embeddings(
    network: Any, ids: Int[Tensor, "batch tokens"], pixels: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch features"]]:
    text = network.get_text_features(input_ids=ids).pooler_output
    image = network.get_image_features(pixel_values=pixels).pooler_output
    return F.normalize(text.float(), dim=1), F.normalize(image.float(), dim=1)


def _cross_entropy(
    logits: Float[Tensor, "batch batch"], same: Bool[Tensor, "batch batch"]
) -> Float[Tensor, "batch"]:
    """Cross-entropy against the even distribution over all right answers."""
    target = same.float() / same.sum(dim=1, keepdim=True)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1)


def _same_captions(captions: Sequence[str]) -> Bool[Tensor, "batch batch"]:
    numbers: dict[str, int] = {}
    keys = [" ".join(caption.lower().split()) for caption in captions]
    groups = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
    return groups[:, None] == groups[None, :]


def _pieces(total: int, count: int, rng: random.Random) -> list[int]:
    """Cut ``total`` into ``count`` random parts of at least one."""
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    return [cuts[i + 1] - cuts[i] for i in range(count)]


def _fork(generator: torch.Generator) -> random.Random:
    """A quick source of Python randomness that follows from the generator."""
    seed = torch.randint(0, 2**62, (1,), generator=generator, device=generator.device)
    return random.Random(int(seed))


def _plain_backend(tokenizer: Any) -> Any:
    """A copy of the fast tokenizer that neither pads nor cuts."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return backend


def _sentinels(tokenizer: Any) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    while (token := f"<extra_id_{len(found)}>") in vocabulary:
        found.append(vocabulary[token])
    if not found:
        raise ConfigError("span corruption needs a tokenizer with sentinels <extra_id_0>, ...")
    return found


def _padded(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "batch length"]:
    length = max(len(row) for row in rows)
    table = np.full((len(rows), length), value, dtype=np.int64)
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    return torch.from_numpy(table)


__all__ = ["SIDES", "ClipContrast", "SpanCorruption", "hidden_spans", "stated_sides"]
