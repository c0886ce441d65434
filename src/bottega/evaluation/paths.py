"""Can a word be told from its path, the experts that it takes through all blocks? Controls say what that means.

A path is found without painting: it depends on the prompt alone.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.conditioning import Encoders
from bottega.conditioning.spans import tokens_of
from bottega.errors import InputError, nearest
from bottega.evaluation.boosting import Boosting, Labels, cross_validated, folds_of
from bottega.evaluation.report import Share
from bottega.evaluation.route_sentences import Sentence
from bottega.models import UNet
from bottega.models.context import StreamReader
from bottega.models.moe_gates import Gate
from bottega.seeding import derive

FOLDS = 5
"""As in the paper."""

NUM_UNTRAINED = 3
"""Draws of gates that learned nothing: one may be luckier than another by several percent."""

_AT_ONCE = 64

Paths = Float[Tensor, "rows path"]
"""Experts along a path, as whole numbers."""


@dataclass(frozen=True, kw_only=True)
class WordTable:
    """What is known of the word in each sentence, one row per sentence.

    ``paths`` are the experts of the word's last token, block after block and stream after stream, ``untrained`` those
    that gates would choose which have learned nothing, for `NUM_UNTRAINED` draws of their weights, ``tokens`` the
    encoders' features of that token. Sentences that an encoder cuts off before their word are left out; ``left_out``
    counts them.
    """

    paths: Paths
    untrained: tuple[Paths, ...]
    tokens: Float[Tensor, "rows token_features"]
    labels: Labels
    frames: Labels
    left_out: int


@dataclass(frozen=True, kw_only=True)
class ToldApart:
    """How often trees name the right word, five folds: for paths, and for both controls.

    ``left_out`` counts the sentences that an encoder did not read as far as their word. ``mixed`` deals sentences out
    at random, as the paper does; under ``new_frames`` every frame is tested by trees that never saw it. ``chance`` is
    the share of the commonest word.
    """

    words: tuple[str, ...]
    sentences: int
    left_out: int
    distinct_paths: int
    chance: float
    mixed: Mapping[str, Share]
    new_frames: Mapping[str, Share]


def gates_of(network: UNet) -> list[Gate]:
    """The gates that words pass through, block after block.

    Raises:
        InputError: If the network has no experts that are chosen by words.
    """
    gates = [block.space.gate for block in network.expert_blocks if block.space is not None]
    if not gates:
        raise InputError("this network has no experts that words choose; take one with a space-MoE")
    return gates


def untrained_gates(gates: Sequence[Gate], seed: int = 0) -> list[Gate]:
    """The same gates as they were before they learned anything, with other random weights."""
    fresh: list[Gate] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "untrained gates"))
        for gate in gates:
            blank = copy.deepcopy(gate)
            for layer in blank.modules():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            fresh.append(blank)
    return fresh


def word_table(
    network: UNet,
    encoders: Encoders,
    sentences: Sequence[Sentence],
    *,
    streams: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> WordTable:
    """Send every sentence's word through the gates.

    Args:
        network: Whose gates.
        encoders: What it hears.
        sentences: With their words.
        streams: Whose tokens are followed; every text stream of the network by default.
        seed: Of the untrained gates, from this one on.
        progress: Told how many sentences of how many are done.

    Raises:
        InputError: For a network without such experts, a stream that it does not read, or no sentence left.
    """
    gates = gates_of(network)
    sets = [gates, *(untrained_gates(gates, seed + i) for i in range(NUM_UNTRAINED))]
    followed = _followed(network, encoders, streams)
    parts: list[tuple[Tensor, ...]] = []
    for at in range(0, len(sentences), _AT_ONCE):
        parts.append(_looked_up(network, sets, encoders, followed, sentences, at))
        if progress is not None:
            progress(min(at + _AT_ONCE, len(sentences)), len(sentences))
    kept, tokens, paths, *untrained = (torch.cat(part) for part in zip(*parts, strict=True))
    if not bool(kept.any()):
        raise InputError("the encoders cut every sentence off before its word")
    return WordTable(
        paths=paths[kept],
        untrained=tuple(one[kept] for one in untrained),
        tokens=tokens[kept],
        labels=torch.tensor([s.label for s in sentences])[kept],
        frames=torch.tensor([s.frame for s in sentences])[kept],
        left_out=len(sentences) - int(kept.sum()),
    )


def _followed(network: UNet, encoders: Encoders, streams: Sequence[str] | None) -> tuple[str, ...]:
    read = [plan.name for plan in network.config.streams if plan.name in encoders.texts]
    for name in () if streams is None else streams:
        if name not in read:
            raise InputError(f"there is no text stream {name!r} here{nearest(name, read)}")
    return tuple(read if streams is None else streams)


@torch.no_grad()
def _looked_up(
    network: UNet,
    sets: Sequence[Sequence[Gate]],
    encoders: Encoders,
    followed: tuple[str, ...],
    sentences: Sequence[Sentence],
    at: int,
) -> tuple[Tensor, ...]:
    """Of some sentences whether the word was read, its token's features, and its paths by each set of gates."""
    some = sentences[at : at + _AT_ONCE]
    encoded = encoders.encode_texts([s.text for s in some], rows=_AT_ONCE)
    like = network.stem.weight.detach()
    heard = Condition(streams={name: e.stream for name, e in encoded.items()})
    streams = heard.to(device=like.device).streams
    assert network.reader is not None  # it has gates for words
    paths: list[list[Tensor]] = [[] for _ in sets]
    tokens: list[Tensor] = []
    kept = torch.ones(len(some), dtype=torch.bool)
    index = torch.arange(len(some))
    for name in followed:
        found = [tokens_of((s.start, s.end), encoded[name].offsets[i]) for i, s in enumerate(some)]
        kept &= torch.tensor([bool(one) for one in found])
        last = torch.tensor([one[-1] if one else 0 for one in found])
        tokens.append(encoded[name].stream.tokens.cpu()[index, last])
        reader = network.reader.streams[name]
        assert isinstance(reader, StreamReader)
        rows = reader.tokens(streams[name], like.dtype)
        words = rows[index.to(rows.device), last.to(rows.device)]
        for chosen, gates in zip(paths, sets, strict=True):
            chosen += [gate(words).argmax(dim=-1).cpu().float() for gate in gates]
    columns = [torch.stack(chosen, dim=1) for chosen in paths]
    return kept, torch.cat(tokens, dim=1), *columns


def tell_apart(
    table: WordTable,
    words: Sequence[str],
    settings: Boosting | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ToldApart:
    """Classify words by paths, and by what the controls know, by gradient-boosted trees in five folds.

    Source: RAPHAEL (arXiv:2305.18295), section 4, with XGBoost and paths of one token through 16 blocks. The controls
    are ours: without them one cannot see what the gates have learned, for a random function of a token tells much too.

    Raises:
        InputError: For fewer frames than folds.
    """
    known = {"paths": table.paths}
    known |= {f"untrained gates {i}": one for i, one in enumerate(table.untrained, start=1)}
    known["tokens"] = table.tokens
    dealings = {
        "mixed": folds_of(table.labels, FOLDS, seed=seed),
        "new_frames": folds_of(table.labels, FOLDS, groups=table.frames, seed=seed),
    }
    shares: dict[str, dict[str, Share]] = {name: {} for name in dealings}
    done, total = 0, len(known) * len(dealings)
    for dealing, folds in dealings.items():
        for name, features in known.items():
            given = cross_validated(features, table.labels, folds, settings, seed=seed)
            right = int((given == table.labels).sum())
            shares[dealing][name] = Share.of(right, len(given))
            done += 1
            if progress is not None:
                progress(done, total)
    return ToldApart(
        words=tuple(words),
        sentences=len(table.labels),
        left_out=table.left_out,
        distinct_paths=len(table.paths.unique(dim=0)),
        chance=float(table.labels.bincount().max()) / len(table.labels),
        mixed=shares["mixed"],
        new_frames=shares["new_frames"],
    )


__all__ = [
    "FOLDS",
    "NUM_UNTRAINED",
    "ToldApart",
    "WordTable",
    "gates_of",
    "tell_apart",
    "untrained_gates",
    "word_table",
]
