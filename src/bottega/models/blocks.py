"""Residual blocks, the attention after them, and the resampling between levels."""

import torch.nn.functional as F
from torch import nn

from bottega.models.attention import CrossMixer, FusedMixer
from bottega.models.layers import (
    Changed,
    Embedding,
    Features,
    Shortcut,
    activate,
    conv,
    fold_patches,
    group_norm,
    unfold_patches,
    zeroed,
)
from bottega.models.picture_attention import (
    InTurn,
    PictureSelfAttention,
    PictureTextAttention,
)
from bottega.models.transformer import PictureTransformer
from bottega.models.unet_config import (
    Attention,
    BlockResample,
    ConvResample,
    CrossOnly,
    DividedSum,
    ExpertTransformer,
    FusedAttention,
    NoAttention,
    PatchResample,
    Residual,
    SelfAttention,
    SelfThenCross,
    Transformer,
    UNetConfig,
)

INV_SQRT2 = 2**-0.5


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice; the embedding enters at the second norm.

    With ``resample`` the picture is halved or doubled between the first activation and its convolution, and on the
    shortcut, as in ADM.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_width: int,
        out_width: int,
        *,
        resample: int = 0,
        residual: Residual | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.residual: Residual = config.residual if residual is None else residual
        self.resample = resample
        self.norm_in = group_norm(config.norm, in_width)
        self.conv_in = conv(in_width, out_width)
        shifts = 2 if config.time == "scale_shift" else 1
        self.embed = nn.Linear(config.time_width, shifts * out_width)
        self.norm_out = group_norm(config.norm, out_width)
        self.conv_out = zeroed(conv(out_width, out_width))
        self.shortcut = Shortcut(in_width, out_width) if in_width != out_width else None

    def forward(self, x: Features, embedding: Embedding) -> Changed:
        """Refine ``x``; ``embedding`` has its activation behind it."""
        config = self.config
        h = activate(config.activation, self.norm_in(x))
        if self.resample != 0:
            h, x = _resize(h, self.resample), _resize(x, self.resample)
        h = self.conv_in(h)
        emb = self.embed(embedding)[:, :, None, None]
        if config.time == "scale_shift":
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + emb)
        h = activate(config.activation, h)
        if config.dropout > 0:
            h = F.dropout(h, config.dropout, training=self.training)
        h = self.conv_out(h)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        match self.residual:
            case "plain":
                return shortcut + h
            case "scaled_sum":
                return (shortcut + h) * INV_SQRT2
            case "scaled_shortcut":
                return h.add(shortcut, alpha=INV_SQRT2)
            case DividedSum(divisor=divisor):
                return (shortcut + h) / divisor


def _resize(x: Features, resample: int) -> Changed:
    if resample < 0:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest")


class PatchDown(nn.Module):
    """Fold 2 x 2 patches into channels and mix them."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.mix = Shortcut(4 * in_width, out_width)

    def forward(self, x: Features, embedding: Embedding) -> Changed:
        """Halve the picture."""
        return self.mix(fold_patches(x, 2))


class PatchUp(nn.Module):
    """Mix channels and unfold them into 2 x 2 patches."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.mix = Shortcut(in_width, 4 * out_width)

    def forward(self, x: Features, embedding: Embedding) -> Changed:
        """Double the picture."""
        return unfold_patches(self.mix(x), 2)


class ConvDown(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = conv(in_width, out_width, stride=2)

    def forward(self, x: Features, embedding: Embedding) -> Changed:
        """Halve the picture."""
        return self.conv(x)


class ConvUp(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = conv(in_width, out_width)

    def forward(self, x: Features, embedding: Embedding) -> Changed:
        """Double the picture."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def downsampler(config: UNetConfig, in_width: int, out_width: int) -> nn.Module:
    """Halve the picture on entering a level; ``out_width`` is used where resampling widens."""
    match config.resample:
        case PatchResample():
            return PatchDown(in_width, out_width)
        case ConvResample(widen=widen):
            return ConvDown(in_width, out_width if widen else in_width)
        case BlockResample():
            return ResidualBlock(config, in_width, in_width, resample=-1)


def upsampler(config: UNetConfig, in_width: int, out_width: int) -> nn.Module:
    """Double the picture on leaving a level; ``out_width`` is used where resampling widens."""
    match config.resample:
        case PatchResample():
            return PatchUp(in_width, out_width)
        case ConvResample(widen=widen):
            return ConvUp(in_width, out_width if widen else in_width)
        case BlockResample():
            return ResidualBlock(config, in_width, in_width, resample=1)


def attention(config: UNetConfig, plan: Attention, width: int) -> nn.Module | None:
    """The attention the plan names, or nothing."""
    norm, context = config.norm, config.context_width
    match plan:
        case NoAttention():
            return None
        case SelfAttention(head_width=head_width):
            return PictureSelfAttention(width, head_width, norm)
        case FusedAttention(head_width=head_width, text_norm=text_norm):
            mixer = FusedMixer(width, context, head_width, text_norm=text_norm)
            return PictureTextAttention(width, mixer, norm)
        case CrossOnly(head_width=head_width, text_norm=text_norm):
            mixer = CrossMixer(width, context, head_width, text_norm=text_norm)
            return PictureTextAttention(width, mixer, norm)
        case SelfThenCross(head_width=head_width):
            return InTurn(
                PictureSelfAttention(width, head_width, norm),
                PictureTextAttention(width, CrossMixer(width, context, head_width), norm),
            )
        case Transformer() | ExpertTransformer():
            return PictureTransformer(width, context, config.time_width, plan, norm)
