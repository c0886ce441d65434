"""Condition dropout: streams fall silent at random, so that one network learns to paint with any."""

from dataclasses import dataclass

import torch

from bottega.condition import Condition
from bottega.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConditionDropout:
    """The probability with which each stream falls silent, for each picture and each stream on its own.

    Source: eDiff-I (arXiv:2211.01324), section 4.2 and Table 7. All three silent, 4.5% of pictures, is the
    unconditional case that guidance needs. We zero the pooled vector with the tokens, which the paper leaves open.
    """

    t5: float = 0.25
    clip_text: float = 0.2
    clip_image: float = 0.9

    def __post_init__(self) -> None:
        for name, probability in self._probabilities().items():
            if not 0 <= probability <= 1:
                raise ConfigError(f"dropout of {name} must be in [0, 1], got {probability}")

    def __call__(self, condition: Condition, generator: torch.Generator) -> Condition:
        """Silence streams of ``condition``; streams without a probability here are left alone.

        One number is drawn per picture and known stream whether or not the stream is there, so that removing a
        stream does not change what happens to the others.
        """
        size = condition.batch_size
        device = generator.device
        drop = {
            name: torch.rand(size, generator=generator, device=device) < probability
            for name, probability in self._probabilities().items()
        }
        return condition.dropped(
            {
                name: drop[name].to(stream.tokens.device)
                for name, stream in condition.streams.items()
                if name in drop
            }
        )

    def _probabilities(self) -> dict[str, float]:
        return {"t5": self.t5, "clip_text": self.clip_text, "clip_image": self.clip_image}


__all__ = ["ConditionDropout"]
