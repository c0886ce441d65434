"""Attention over a picture: its rows normed, mixed, and added to it."""

from torch import nn

from bottega.models.attention import CrossMixer, FusedMixer, Reading, SelfMixer
from bottega.models.attention_config import Norm
from bottega.models.layers import Features, group_norm, to_picture, to_rows


class PictureSelfAttention(nn.Module):
    """Norm, self-attention, residual (ADM)."""

    def __init__(self, width: int, head_width: int, norm: Norm) -> None:
        super().__init__()
        self.norm = group_norm(norm, width)
        self.mix = SelfMixer(width, head_width)

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what other positions know."""
        mixed = self.mix(to_rows(self.norm(x)))
        return x + to_picture(mixed, x.shape[2], x.shape[3])


class PictureTextAttention(nn.Module):
    """Norm, an attention that reads text, residual."""

    def __init__(self, width: int, mixer: CrossMixer | FusedMixer, norm: Norm) -> None:
        super().__init__()
        self.norm = group_norm(norm, width)
        self.mix = mixer

    def forward(self, x: Features, reading: Reading) -> Features:
        """Add what the text says here."""
        height, width = x.shape[2:]
        mixed = self.mix(to_rows(self.norm(x)), height, width, reading)
        return x + to_picture(mixed, height, width)


class InTurn(nn.Module):
    """Two attentions, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Features, reading: Reading) -> Features:
        """Apply both in order."""
        return self.second(self.first(x, reading), reading)


__all__ = ["InTurn", "PictureSelfAttention", "PictureTextAttention"]
