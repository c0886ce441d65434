"""The one U-Net: built from a block plan, told its prompt once, called once per step."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.errors import ConfigError, InputError
from bottega.models.attention import AttentionMap, BlockRoutes, Reading, TextReader
from bottega.models.blocks import ResidualBlock, attention, downsampler, upsampler
from bottega.models.context import Context, ContextReader
from bottega.models.control import Skips
from bottega.models.foreseen import ForeseenTimes, TimeRoutes
from bottega.models.layers import (
    Changed,
    Embedding,
    Features,
    NoiseEmbedding,
    activate,
    conv,
    enlarge,
    fold_patches,
    group_norm,
    unfold_patches,
    zeroed,
)
from bottega.models.moe_gates import Exploring, SpaceRoute
from bottega.models.recomputed import recomputed
from bottega.models.transformer import ExpertBlock
from bottega.models.unet_config import (
    AddSkips,
    Attention,
    ConcatSkips,
    Level,
    NoAttention,
    Residual,
    UNetConfig,
)
from bottega.shapes import Images

LOW_RES_SIGMA_FLOOR = 0.002
"""Keeps the logarithm of an absent augmentation finite."""


class Stage(nn.Module):
    """A residual block and the attention after it."""

    def __init__(
        self,
        config: UNetConfig,
        in_width: int,
        width: int,
        plan: Attention,
        residual: Residual | None = None,
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(config, in_width, width, residual=residual)
        self.attention = attention(config, plan, width)

    def forward(self, x: Features, embedding: Embedding, reading: Reading) -> Changed:
        """Refine ``x``."""
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x, reading)


class UNet(nn.Module):
    """A U-Net in two phases: `prepare` once per prompt, then one call per step.

    Set ``checkpointing`` to trade time for memory in training: blocks are then computed again on the way back.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        folded = config.patch**2
        self.stem = conv(config.in_channels * folded, config.first_width)
        self.embed_noise = _noise_embedding(config)
        self.reader = ContextReader(config) if config.streams else None
        self.low_res_stem: nn.Conv2d | None = None
        if config.low_res is not None:
            self.low_res_stem = conv(config.low_res.channels * folded, config.first_width)
            self.embed_low_res = _noise_embedding(config)
        self._build_levels(config)
        self.norm = group_norm(config.norm, self._last_width)
        self.head = zeroed(conv(self._last_width, config.out_channels * folded))
        self._number_layers()
        _channels_last(self)

    def _number_layers(self) -> None:
        """Tell layers their places in what `prepare` makes for them; experts in the order a picture passes them."""
        for layer, module in enumerate(self._text_readers()):
            module.layer = layer
        ways = [self.down, self.middle, *([self.up] if hasattr(self, "up") else [])]
        inside = (module for way in ways for module in way.modules())
        self.expert_blocks = tuple(m for m in inside if isinstance(m, ExpertBlock))
        for place, block in enumerate(self.expert_blocks):
            block.place = place

    def _build_levels(self, config: UNetConfig) -> None:
        self.downsamplers = nn.ModuleDict()
        self.upsamplers = nn.ModuleDict()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        width = config.first_width
        skip_widths: list[list[int]] = []
        for i, level in enumerate(config.levels):
            if level.stride > 1:
                self.downsamplers[str(i)] = downsampler(config, width, level.width)
                width = level.width if config.resample_widens else width
            skip_widths.append([width] + [level.width] * level.down_blocks)
            stages = nn.ModuleList()
            for b in range(level.down_blocks):
                plan = _attention_after(level, b, level.down_blocks)
                stages.append(Stage(config, width, level.width, plan))
                width = level.width
            self.down.append(stages)
        self.middle = nn.ModuleList()
        if config.middle is not None:
            residual = config.middle.residual
            self.middle.append(Stage(config, width, width, config.middle.attention, residual))
            self.middle.append(Stage(config, width, width, NoAttention(), residual))
        for i, level in reversed(list(enumerate(config.levels))):
            stages = nn.ModuleList()
            for b in range(level.up_blocks):
                skip = _skip_index(config, i, b)
                joined = width if skip is None else _joined(config, width, skip_widths[i][skip])
                plan = _attention_after(level, b, level.up_blocks)
                stages.append(Stage(config, joined, level.width_up, plan))
                width = level.width_up
            self.up.append(stages)
            if level.stride > 1:
                above = config.levels[i - 1].width if i > 0 else config.first_width
                self.upsamplers[str(i)] = upsampler(config, width, above)
                width = above if config.resample_widens else width
        self._last_width = width

    def _text_readers(self) -> list[TextReader]:
        return [module for module in self.modules() if isinstance(module, TextReader)]

    @property
    def dtype(self) -> torch.dtype:
        """The precision the network computes in."""
        return self.stem.weight.dtype

    def prepare(self, condition: Condition, exploring: Exploring | None = None) -> Context:
        """Everything of ``condition`` that does not depend on the noisy picture.

        Gates of experts that are ``exploring``, as they do in training, choose with some noise.

        Raises:
            InputError: When the condition lacks the picture to enlarge, or has one and the network takes none, or its
                streams have another width than the network was built for.
        """
        vector, layers, mask, segments = None, (), None, ()
        routes: tuple[SpaceRoute | None, ...] = (None,) * len(self.expert_blocks)
        if self.reader is not None:
            rows, real, vector, segments = self.reader(condition, self.stem.weight.detach())
            layers = tuple(module.read(rows) for module in self._text_readers())
            routes = tuple(b.space_route(rows, real, exploring) for b in self.expert_blocks)
            if self.config.null_token or not _all_real(real):
                mask = real[:, None, None]
        enlarged = self._enlarged(condition)
        low_res, sigma_vector = self._read_low_res(enlarged, condition)
        if sigma_vector is not None:
            vector = sigma_vector if vector is None else vector + sigma_vector
        return Context(
            layers=layers,
            mask=mask,
            vector=vector,
            low_res=low_res,
            enlarged=enlarged,
            segments=segments,
            routes=routes,
        )

    def time_routes(
        self, c_noise: Float[Tensor, "batch"], exploring: Exploring | None = None
    ) -> TimeRoutes:
        """The expert that each noise level goes to, per block that has experts; the prompt has no say in it."""
        if not self.expert_blocks:
            return ()
        return self._time_routes(self.embed_noise(c_noise), exploring)

    def foresee(self, context: Context, c_noise: Float[Tensor, "levels"]) -> Context:
        """The context for calls at these noise levels, whose experts are worked out at once, here."""
        if all(block.time is None for block in self.expert_blocks):
            return context
        return replace(context, foreseen=ForeseenTimes.of(c_noise, self.time_routes(c_noise)))

    def _time_routes(self, embedding: Embedding, exploring: Exploring | None = None) -> TimeRoutes:
        return tuple(block.time_route(embedding, exploring) for block in self.expert_blocks)

    def _enlarged(self, condition: Condition) -> Images | None:
        plan = self.config.low_res
        if plan is None:
            if condition.low_res is not None:
                raise InputError("this network enlarges nothing; give a condition without low_res")
            return None
        if condition.low_res is None:
            raise InputError("this network enlarges a picture; give low_res and low_res_sigma")
        return enlarge(condition.low_res, plan.scale)

    def _read_low_res(
        self, enlarged: Images | None, condition: Condition
    ) -> tuple[Changed | None, Embedding | None]:
        plan = self.config.low_res
        if plan is None or enlarged is None or self.low_res_stem is None:
            return None, None
        assert condition.low_res_sigma is not None  # goes with low_res, see Condition
        level = condition.low_res_sigma.float()
        if plan.level == "log_sigma":
            level = level.square().add(LOW_RES_SIGMA_FLOOR**2).log() / 8
        features = self.low_res_stem(_folded(enlarged.to(self.dtype), self.config.patch))
        return features, self.embed_low_res(level)

    def forward(
        self,
        x: Images,
        c_noise: Float[Tensor, "batch"],
        context: Context,
        *,
        maps: list[AttentionMap] | None = None,
    ) -> Changed:
        """The raw network F(c_in x; c_noise) of EDM.

        Args:
            x: The scaled noisy picture; height and width are multiples of ``config.downsampling``.
            c_noise: ln(sigma) / 4 per picture, or what else ``config.sinusoid`` was made for.
            context: What `prepare` gave.
            maps: When given, every layer that reads text appends where it looked.
        """
        config = self.config
        embedding, reading = self._told(x, c_noise, context, maps)
        h = self._entered(x, context)
        h, skips = self._descend(h, embedding, reading)
        for control in context.controls:
            h, skips = control(x, c_noise).onto(h, skips)
        h = self._ascend(h, skips, embedding, reading)
        h = self.head(activate(config.activation, self.norm(h)))
        return unfold_patches(h, config.patch)

    def _told(
        self,
        x: Images,
        c_noise: Float[Tensor, "batch"],
        context: Context,
        maps: list[AttentionMap] | None,
    ) -> tuple[Embedding, Reading]:
        """What every block is told besides the picture."""
        config = self.config
        if x.shape[2] % config.downsampling or x.shape[3] % config.downsampling:
            raise InputError(
                f"height and width must be multiples of {config.downsampling}, got "
                f"{x.shape[2]} x {x.shape[3]}"
            )
        embedding = self.embed_noise(c_noise)
        times = context.times_at(c_noise)
        if times is None:
            times = self._time_routes(embedding)
        reading = Reading(
            layers=context.layers,
            mask=context.mask,
            bias=context.bias,
            maps=maps,
            segments=context.segments,
            routes=tuple(BlockRoutes(*pair) for pair in zip(context.routes, times, strict=True)),
        )
        if context.vector is not None:
            embedding = embedding + context.vector
        return activate(config.activation, embedding), reading

    def _entered(self, x: Images, context: Context) -> Changed:
        """The noisy picture at the first width, with the picture to enlarge."""
        h = self.stem(_folded(x.to(self.dtype), self.config.patch))
        return h if context.low_res is None else h + context.low_res

    def _descend(
        self, h: Features, embedding: Embedding, reading: Reading
    ) -> tuple[Changed, Skips]:
        """Down all levels and through the middle: what comes up again, and what is joined on the way."""
        levels = self.config.levels
        skips: list[list[Tensor]] = []
        for i, stages in enumerate(self.down):
            if levels[i].stride > 1:
                h = self.downsamplers[str(i)](h, embedding)
            here = [h]
            for stage in _stages(stages):
                h = self._run(stage, h, embedding, reading)
                here.append(h)
            skips.append(here)
        for stage in self.middle:
            h = self._run(stage, h, embedding, reading)
        return h, skips

    def _ascend(self, h: Features, skips: Skips, embedding: Embedding, reading: Reading) -> Changed:
        levels = self.config.levels
        for i, stages in zip(reversed(range(len(levels))), self.up, strict=True):
            for b, stage in enumerate(_stages(stages)):
                skip = _skip_index(self.config, i, b)
                if skip is not None:
                    h = self._join(h, skips[i][skip])
                h = self._run(stage, h, embedding, reading)
            if levels[i].stride > 1:
                h = self.upsamplers[str(i)](h, embedding)
        return h

    def _join(
        self, h: Features, skip: Float[Tensor, "batch skip_channels height width"]
    ) -> Changed:
        scale = self.config.skips.scale
        if isinstance(self.config.skips, AddSkips):
            return h.add(skip, alpha=scale)
        return torch.cat([h, skip if scale == 1 else skip * scale], dim=1)

    def _run(
        self, stage: nn.Module, h: Features, embedding: Embedding, reading: Reading
    ) -> Changed:
        if self.checkpointing and torch.is_grad_enabled():
            return recomputed(stage, h, embedding, reading)
        return stage(h, embedding, reading)


def _noise_embedding(config: UNetConfig) -> NoiseEmbedding:
    return NoiseEmbedding(
        config.sinusoid, config.first_width, config.time_width, config.time_activation
    )


def _all_real(real: Bool[Tensor, "batch keys"]) -> bool:
    """Whether no mask is needed.

    Raises:
        InputError: When a picture has nothing to look at, and so nothing could be computed.
    """
    if real.is_meta:
        return True
    if not real.any(dim=1).all():
        raise InputError(
            "this network has no null token: every picture needs at least one real token "
            "(give the encoding of an empty text instead of a dropped stream)"
        )
    return bool(real.all())


def _folded(x: Images, patch: int) -> Changed:
    x = x.contiguous(memory_format=torch.channels_last)
    return x if patch == 1 else fold_patches(x, patch)


def _attention_after(level: Level, block: int, num_blocks: int) -> Attention:
    if level.attention_after == "every_block" or block == num_blocks - 1:
        return level.attention
    return NoAttention()


def _joined(config: UNetConfig, width: int, skip_width: int) -> int:
    if isinstance(config.skips, ConcatSkips):
        return width + skip_width
    if width != skip_width:
        raise ConfigError(
            f"skips: AddSkips joins equal widths, here {width} meets {skip_width}; change "
            "levels.up_width, stem_width or resample, or use ConcatSkips"
        )
    return width


def _skip_index(config: UNetConfig, level: int, block: int) -> int | None:
    """Which of a level's pictures (0 is its entry) the given block on the way up is joined with.

    Without a middle the deepest level's last picture is what comes up anyway, and is not joined with itself.
    """
    last = config.levels[level].down_blocks
    index = last - block
    if index < 0 or (config.skips_from == "level" and block > 0):
        return None
    is_itself = config.middle is None and level == len(config.levels) - 1 and block == 0
    return None if is_itself else index


def _stages(module: nn.Module) -> Iterable[nn.Module]:
    return cast(nn.ModuleList, module)


def _channels_last(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
