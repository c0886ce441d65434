"""Blocks that keep less in memory in training: they are computed again on the way back."""

from dataclasses import replace

from torch import nn
from torch.utils.checkpoint import checkpoint

from bottega.models.attention import AttentionMap, Reading
from bottega.models.layers import Changed, Embedding, Features


def recomputed(stage: nn.Module, h: Features, embedding: Embedding, reading: Reading) -> Changed:
    """What the stage gives, with its gradient, keeping only what goes into it.

    Maps are told of once, however often the stage is computed.
    """
    if reading.maps is None:
        return checkpoint(stage, h, embedding, reading, use_reentrant=False)
    first: list[list[AttentionMap]] = []

    def run(h: Features, embedding: Embedding) -> Changed:
        seen: list[AttentionMap] = []
        if not first:
            first.append(seen)
        return stage(h, embedding, replace(reading, maps=seen))

    given: Changed = checkpoint(run, h, embedding, use_reentrant=False)
    reading.maps.extend(first[0])
    return given


__all__ = ["recomputed"]
