"""The routes of a prompt: which expert every word takes in each block and where it acts, and which the noise takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bottega.condition import Condition
from bottega.conditioning import Encoders
from bottega.diffusion import Denoiser, DenoiserLike, TimestepDenoiser
from bottega.errors import InputError
from bottega.models import UNet
from bottega.models.attention import AttentionMap, Logits, Reading, RowBias
from bottega.models.context import Context
from bottega.pipelines.residency import LazyDenoiser
from bottega.seeding import generator

Cells = Bool[Tensor, "height width"]
"""Where something acts."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block with experts: its cross-attention's layer, and how many experts words and noise choose from (0: none)."""

    layer: int
    space_experts: int
    time_experts: int


@dataclass(frozen=True, kw_only=True)
class Token:
    """A real token of the prompt, in one stream.

    ``text`` is what it stands for: a word or a part of one, or ``(start)``, ``(end)``, ``(space)`` and ``(null)``.
    ``word`` says which word of the prompt it is of, from 0; None for those. ``key`` is its place among all tokens that
    the network reads. ``experts`` and ``probabilities`` have an entry per block with experts that words choose.
    """

    stream: str
    text: str
    word: int | None
    key: int
    experts: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where a token's expert acts in one block at one noise level: rows of the layer's positions, ``1`` where it does.

    ``block`` counts the blocks with experts that words choose.
    """

    sigma: float
    block: int
    key: int
    share: float
    rows: tuple[str, ...]

    def cells(self) -> Cells:
        """The rows as a picture."""
        return torch.tensor([[mark == "1" for mark in row] for row in self.rows])


@dataclass(frozen=True, kw_only=True)
class TimeChoice:
    """At one noise level, the expert of every block with experts that noise chooses, and its probability."""

    sigma: float
    experts: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Routes:
    """Everything that a prompt's routes are; plain data, which becomes JSON as it stands."""

    prompt: str
    words: tuple[str, ...]
    blocks: tuple[Block, ...]
    tokens: tuple[Token, ...]
    reaches: tuple[Reach, ...]
    times: tuple[TimeChoice, ...]

    @property
    def space_blocks(self) -> tuple[Block, ...]:
        """The blocks whose experts words choose, in order."""
        return tuple(block for block in self.blocks if block.space_experts > 0)

    @property
    def time_blocks(self) -> tuple[Block, ...]:
        """The blocks whose experts noise chooses, in order."""
        return tuple(block for block in self.blocks if block.time_experts > 0)


@dataclass(kw_only=True, eq=False)
class LayerObserver(RowBias):
    """A bias that changes nothing and keeps where each layer looked, averaged over heads."""

    rows: tuple[int, ...] = (0,)
    changes: bool = False
    maps: dict[int, AttentionMap] = field(default_factory=dict[int, AttentionMap])

    def add(self, logits: Logits, height: int, width: int, reading: Reading) -> Logits:
        """The logits as they are."""
        return logits

    def select(self, indices: Sequence[int]) -> "LayerObserver":
        """Itself: one picture is watched, alone."""
        return self

    def saw(self, weights: AttentionMap, reading: Reading) -> None:
        """Keep one layer's map."""
        self.maps[weights.layer] = AttentionMap(
            layer=weights.layer,
            height=weights.height,
            width=weights.width,
            weights=weights.weights.detach().float().mean(dim=1, keepdim=True).cpu(),
        )


def routed(denoiser: DenoiserLike) -> Denoiser | TimestepDenoiser:
    """The one denoiser whose network has experts.

    Raises:
        InputError: For an ensemble of expert denoisers, or a network in which nobody chooses an expert.
    """
    inner = denoiser.open() if isinstance(denoiser, LazyDenoiser) else denoiser
    if not isinstance(inner, (Denoiser, TimestepDenoiser)):
        raise InputError(
            "this stage is shared by several expert denoisers, and routes are those of one network; "
            "ask for those of a model with one denoiser"
        )
    if not isinstance(inner.network, UNet) or not inner.network.expert_blocks:
        raise InputError(
            "this network has no experts inside (no time-MoE, no space-MoE), so there are no routes"
        )
    return inner


def network_of(denoiser: Denoiser | TimestepDenoiser) -> UNet:
    """Its network."""
    assert isinstance(denoiser.network, UNet)  # `routed` has seen to it
    return denoiser.network


def blocks_of(network: UNet) -> tuple[Block, ...]:
    """The network's blocks with experts."""
    return tuple(
        Block(
            layer=block.cross_mix.layer,
            space_experts=0 if block.space is None else len(block.space.experts),
            time_experts=0 if block.time is None else len(block.time.experts),
        )
        for block in network.expert_blocks
    )


def noise_told(
    denoiser: Denoiser | TimestepDenoiser, sigmas: Float[Tensor, "levels"]
) -> Float[Tensor, "levels"]:
    """What a network is told of noise levels."""
    if isinstance(denoiser, Denoiser):
        return denoiser.precond(sigmas).noise
    return denoiser.schedule.timestep(sigmas)


def time_choices(
    denoiser: Denoiser | TimestepDenoiser, sigmas: Sequence[float]
) -> tuple[TimeChoice, ...]:
    """Which expert works at each noise level, whatever the prompt.

    Raises:
        InputError: For a noise level that is not above 0.
    """
    if any(not 0 < sigma < float("inf") for sigma in sigmas):
        raise InputError(f"routes are asked for at noise levels above 0, got {list(sigmas)}")
    network = network_of(denoiser)
    if not sigmas or all(block.time is None for block in network.expert_blocks):
        return ()
    levels = torch.tensor(list(sigmas), device=network.stem.weight.device)
    with torch.no_grad():
        told = network.time_routes(noise_told(denoiser, levels))
        found = [route for route in told if route is not None]
    chosen = torch.stack([route.expert for route in found], dim=1)
    certain = torch.stack([route.probabilities.amax(dim=1) for route in found], dim=1)
    return tuple(
        TimeChoice(sigma=float(sigma), experts=tuple(row), probabilities=tuple(odds))
        for sigma, row, odds in zip(sigmas, chosen.tolist(), certain.tolist(), strict=True)
    )


def tokens_in(
    network: UNet,
    context: Context,
    prompt: str,
    encoders: Encoders,
    words: Sequence[tuple[int, int]],
) -> tuple[Token, ...]:
    """The real tokens of a prompt with their paths, in the order in which the network reads them.

    Args:
        network: What reads them.
        context: What it was prepared with: the prompt alone.
        prompt: As it was written.
        encoders: What it hears.
        words: Where each word stands in the prompt.
    """
    blocks = [i for i, block in enumerate(network.expert_blocks) if block.space is not None]
    routes = [route for route in (context.routes[i] for i in blocks) if route is not None]
    real = torch.ones(context.layers[0].keys.shape[2], dtype=torch.bool)
    if context.mask is not None:
        real = context.mask[0, 0, 0].cpu()
    tokens: list[Token] = []
    for stream, start, end in context.segments:
        spans: Sequence[tuple[int, int]] = ()
        if stream in encoders.texts:
            spans = encoders.texts[stream].tokenize([prompt]).offsets[0]
        keys = [key for key in range(start, end) if bool(real[key])]
        for key in keys:
            first, last = spans[key - start] if spans else (0, 0)
            within = [i for i, (left, right) in enumerate(words) if first < right and last > left]
            text = prompt[first:last] if last > first else _special(stream, key, keys)
            tokens.append(
                Token(
                    stream=stream,
                    text=text,
                    word=within[0] if within else None,
                    key=key,
                    experts=tuple(int(route.expert[0, key]) for route in routes),
                    probabilities=tuple(float(route.probability[0, key]) for route in routes),
                )
            )
    return tuple(tokens)


def _special(stream: str, key: int, keys: Sequence[int]) -> str:
    if stream == "null":
        return "(null)"
    if len(keys) > 1 and key == keys[0]:
        return "(start)"
    return "(end)" if key == keys[-1] else "(space)"


def reaches_at(
    denoiser: Denoiser | TimestepDenoiser,
    clean: Float[Tensor, "1 channels height width"],
    context: Context,
    tokens: Sequence[Token],
    sigmas: Sequence[float],
    *,
    seed: int = 0,
) -> tuple[Reach, ...]:
    """Where every token's expert acts, in a picture with noise put on it.

    Source: RAPHAEL (arXiv:2305.18295), section 3.1: where the attention to a token reaches alpha times its largest.
    """
    network = network_of(denoiser)
    blocks = [block for block in network.expert_blocks if block.space is not None]
    eps = torch.randn(clean.shape, generator=generator(seed, "probe", "routes")).to(clean)
    found: list[Reach] = []
    for sigma in sigmas if blocks else ():
        observer = LayerObserver()
        level = torch.full((1,), float(sigma), device=clean.device)
        with torch.no_grad():
            denoiser(clean + sigma * eps, level, context.with_bias(observer))
        for place, block in enumerate(blocks):
            assert block.space is not None  # as chosen above
            seen = observer.maps[block.cross_mix.layer]
            looked = seen.weights[0, 0]
            mask = looked >= block.space.config.alpha * looked.amax(dim=0, keepdim=True)
            for token in tokens:
                cells = mask[:, token.key].view(seen.height, seen.width)
                found.append(
                    Reach(
                        sigma=float(sigma),
                        block=place,
                        key=token.key,
                        share=float(cells.float().mean()),
                        rows=tuple("".join("01"[int(c)] for c in row) for row in cells.tolist()),
                    )
                )
    return tuple(found)


def trace(
    denoiser: DenoiserLike,
    prompt: str,
    encoders: Encoders,
    condition: Condition,
    clean: Float[Tensor, "1 channels height width"],
    *,
    looks: Sequence[float],
    sigmas: Sequence[float],
    words: Sequence[tuple[int, int]],
    seed: int = 0,
) -> Routes:
    """All routes of one prompt.

    Args:
        denoiser: With experts inside.
        prompt: What is said.
        encoders: What the network hears.
        condition: The prompt as they say it, one row.
        clean: The picture in which words act, as the network is to paint it (latents, where it works in these).
        looks: Noise levels at which to see where words act.
        sigmas: Noise levels at which to see which experts the noise chooses.
        words: Where each word stands in the prompt.
        seed: Of the noise put on.

    Raises:
        InputError: For several expert denoisers, a network without experts, or a noise level that is not above 0.
    """
    inner = routed(denoiser)
    network = network_of(inner)
    choices = time_choices(inner, sigmas)
    if any(not 0 < sigma < float("inf") for sigma in looks):
        raise InputError(f"words are looked at with noise above 0, got {list(looks)}")
    with torch.no_grad():
        context = network.prepare(condition)
    tokens = tokens_in(network, context, prompt, encoders, words)
    return Routes(
        prompt=prompt,
        words=tuple(prompt[start:end] for start, end in words),
        blocks=blocks_of(network),
        tokens=tokens,
        reaches=reaches_at(inner, clean, context, tokens, looks, seed=seed),
        times=choices,
    )


__all__ = [
    "Block",
    "Cells",
    "LayerObserver",
    "Reach",
    "Routes",
    "TimeChoice",
    "Token",
    "blocks_of",
    "network_of",
    "noise_told",
    "reaches_at",
    "routed",
    "time_choices",
    "tokens_in",
    "trace",
]
