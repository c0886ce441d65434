"""Which tensors of a diffusers U-Net make up each tensor of ours.

Both networks hold the same numbers. Ours keeps queries, keys and values of a layer in one product, and 1 x 1
convolutions as products over channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bottega.models import UNet
from bottega.models.attention import FusedMixer
from bottega.models.blocks import ConvDown, ConvUp, ResidualBlock
from bottega.models.context import StreamReader
from bottega.models.picture_attention import InTurn, PictureTextAttention
from bottega.models.pools import MeanTokenPool, VectorNumbersProjection
from bottega.models.transformer import PictureTransformer
from bottega.models.unet import Stage


@dataclass(frozen=True)
class Piece:
    """A layer of ours and the layers of theirs whose rows it holds, one after the other.

    ``as_convolution`` says that their weights have two further dimensions of size 1.
    """

    ours: str
    theirs: tuple[str, ...]
    as_convolution: bool = False


def pieces(unet: UNet, *, linear_projection: bool) -> Iterator[Piece]:
    """Every layer of ours with theirs, but for the first convolution of a network that enlarges."""
    if unet.low_res_stem is None:
        yield Piece("stem", ("conv_in",))
    yield from _pair("embed_noise", "time_embedding", "linear_in linear_out", "linear_1 linear_2")
    if unet.low_res_stem is not None:
        yield from _pair(
            "embed_low_res", "class_embedding", "linear_in linear_out", "linear_1 linear_2"
        )
    if unet.reader is not None:
        for name, reader in unet.reader.streams.items():
            yield from _stream(f"reader.streams.{name}", cast(StreamReader, reader))
    for i, stages in enumerate(unet.down):
        for b, stage in enumerate(cast(nn.ModuleList, stages)):
            yield from _stage(
                f"down.{i}.{b}", cast(Stage, stage), f"down_blocks.{i}", b, linear_projection
            )
        if str(i) in unet.downsamplers:
            theirs = f"down_blocks.{i - 1}.downsamplers.0"
            yield from _resampler(f"downsamplers.{i}", unet.downsamplers[str(i)], theirs)
    for b, stage in enumerate(unet.middle):
        yield from _stage(f"middle.{b}", cast(Stage, stage), "mid_block", b, linear_projection)
    last = len(unet.up) - 1
    for j, stages in enumerate(unet.up):
        for b, stage in enumerate(cast(nn.ModuleList, stages)):
            yield from _stage(
                f"up.{j}.{b}", cast(Stage, stage), f"up_blocks.{j}", b, linear_projection
            )
        if str(last - j) in unet.upsamplers:
            theirs = f"up_blocks.{j}.upsamplers.0"
            yield from _resampler(f"upsamplers.{last - j}", unet.upsamplers[str(last - j)], theirs)
    yield Piece("norm", ("conv_norm_out",))
    yield Piece("head", ("conv_out",))


def _pair(ours: str, theirs: str, our_names: str, their_names: str) -> Iterator[Piece]:
    for a, b in zip(our_names.split(), their_names.split(), strict=True):
        yield Piece(f"{ours}.{a}", (f"{theirs}.{b}",))


def _stream(ours: str, reader: StreamReader) -> Iterator[Piece]:
    if reader.project is not None:
        yield Piece(f"{ours}.project", ("encoder_hid_proj",))
    pool, added = f"{ours}.pool", "add_embedding"
    if isinstance(reader.pool, MeanTokenPool):
        yield from _pair(pool, added, "norm query out norm_out", "norm1 pool.q_proj proj norm2")
        yield Piece(f"{pool}.kv", (f"{added}.pool.k_proj", f"{added}.pool.v_proj"))
        yield Piece(f"{pool}.place", (f"{added}.pool.positional_embedding",))
    elif isinstance(reader.pool, VectorNumbersProjection):
        yield from _pair(pool, added, "linear_in linear_out", "linear_1 linear_2")


def _stage(
    ours: str, stage: Stage, theirs: str, index: int, linear_projection: bool
) -> Iterator[Piece]:
    yield from _residual(f"{ours}.block", f"{theirs}.resnets.{index}")
    ours, theirs = f"{ours}.attention", f"{theirs}.attentions.{index}"
    match stage.attention:
        case PictureTransformer():
            yield from _transformer(ours, stage.attention, theirs, linear_projection)
        case PictureTextAttention(mix=mix):
            yield Piece(f"{ours}.norm", (f"{theirs}.group_norm",))
            yield Piece(f"{ours}.mix.text_norm", (f"{theirs}.norm_cross",))
            yield Piece(f"{ours}.mix.text_kv", _each(theirs, "add_k_proj", "add_v_proj"))
            if isinstance(mix, FusedMixer):
                yield Piece(f"{ours}.mix.qkv", _each(theirs, "to_q", "to_k", "to_v"))
            else:
                yield Piece(f"{ours}.mix.query", (f"{theirs}.to_q",))
            yield Piece(f"{ours}.mix.out", (f"{theirs}.to_out.0",))
        case _:
            assert not isinstance(stage.attention, InTurn), "no foreign network has this attention"


def _residual(ours: str, theirs: str) -> Iterator[Piece]:
    yield from _pair(
        ours,
        theirs,
        "norm_in conv_in embed norm_out conv_out",
        "norm1 conv1 time_emb_proj norm2 conv2",
    )
    yield Piece(f"{ours}.shortcut", (f"{theirs}.conv_shortcut",), as_convolution=True)


def _transformer(
    ours: str, module: PictureTransformer, theirs: str, linear_projection: bool
) -> Iterator[Piece]:
    yield Piece(f"{ours}.norm", (f"{theirs}.norm",))
    yield Piece(f"{ours}.into", (f"{theirs}.proj_in",), as_convolution=not linear_projection)
    for k in range(len(module.blocks)):
        block, other = f"{ours}.blocks.{k}", f"{theirs}.transformer_blocks.{k}"
        yield from _pair(
            block,
            other,
            "norm_self self_mix.out norm_cross cross_mix.query cross_mix.out norm_feed feed.up feed.down",
            "norm1 attn1.to_out.0 norm2 attn2.to_q attn2.to_out.0 norm3 ff.net.0.proj ff.net.2",
        )
        yield Piece(f"{block}.self_mix.qkv", _each(f"{other}.attn1", "to_q", "to_k", "to_v"))
        yield Piece(f"{block}.cross_mix.text_kv", _each(f"{other}.attn2", "to_k", "to_v"))
    yield Piece(f"{ours}.out", (f"{theirs}.proj_out",), as_convolution=not linear_projection)


def _resampler(ours: str, module: nn.Module, theirs: str) -> Iterator[Piece]:
    if isinstance(module, ResidualBlock):
        yield from _residual(ours, theirs)
    else:
        assert isinstance(module, ConvDown | ConvUp)
        yield Piece(f"{ours}.conv", (f"{theirs}.conv",))


def _each(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


def to_theirs(unet: UNet, *, linear_projection: bool) -> dict[str, Tensor]:
    """All tensors of ours under their names and in their shapes; views wherever nothing is added."""
    own = unet.state_dict()
    left = set(own)
    theirs: dict[str, Tensor] = {}
    for piece in pieces(unet, linear_projection=linear_projection):
        for ours, names in _tensors(piece, own):
            left.discard(ours)
            parts = own[ours].chunk(len(names))
            for name, part in zip(names, parts, strict=True):
                widens = piece.as_convolution and name.endswith(".weight")
                theirs[name] = part[:, :, None, None] if widens else part
    if unet.low_res_stem is not None:
        left -= {"stem.weight", "stem.bias", "low_res_stem.weight", "low_res_stem.bias"}
        theirs["conv_in.weight"] = torch.cat([own["stem.weight"], own["low_res_stem.weight"]], 1)
        theirs["conv_in.bias"] = own["stem.bias"] + own["low_res_stem.bias"]
    if left:
        raise AssertionError(f"no foreign name for {sorted(left)[:3]}")
    return theirs


def to_ours(
    unet: UNet,
    theirs: Mapping[str, Tensor],
    *,
    linear_projection: bool,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Their tensors, whose names and shapes have been checked, as our state dict, converted to ``dtype`` if given.

    What stands alone stays the tensor it was; only what is stacked, laid out anew or converted is copied, one tensor
    at a time and once, so that nothing is ever held in both types beside the file itself.
    """
    own = unet.state_dict()
    ours: dict[str, Tensor] = {}
    for piece in pieces(unet, linear_projection=linear_projection):
        for name, sources in _tensors(piece, own):
            parts = [_converted(theirs[source], dtype) for source in sources]
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            if piece.as_convolution and name.endswith(".weight"):
                tensor = tensor[:, :, 0, 0]
            ours[name] = _laid_out(tensor)
    if unet.low_res_stem is not None:
        channels = unet.config.in_channels
        weight, bias = (_converted(theirs[f"conv_in.{kind}"], dtype) for kind in ("weight", "bias"))
        ours["stem.weight"] = _laid_out(weight[:, :channels])
        ours["stem.bias"] = bias
        ours["low_res_stem.weight"] = _laid_out(weight[:, channels:])
        ours["low_res_stem.bias"] = torch.zeros_like(bias)
    return ours


def _tensors(piece: Piece, own: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The tensors of a layer that ours has: weight and bias, or a bare parameter."""
    for ending in (".weight", ".bias", ""):
        if piece.ours + ending in own:
            yield piece.ours + ending, tuple(name + ending for name in piece.theirs)


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """In that type; a convolution is laid out anew in the same pass."""
    if dtype is None or tensor.dtype == dtype:
        return tensor
    last = tensor.ndim == 4
    layout = torch.channels_last if last else torch.preserve_format
    return tensor.to(dtype, memory_format=layout)


def _laid_out(tensor: Tensor) -> Tensor:
    """Convolutions channels-last, everything else contiguous; a copy only where it is not so yet."""
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()


__all__ = ["Piece", "pieces", "to_ours", "to_theirs"]
