"""The painter: prompts in, pictures out, each the same whatever company it is painted in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import PIL
import torch
from PIL import Image

from bottega.condition import Condition
from bottega.conditioning import Encoders
from bottega.diffusion import Dynamic, Static
from bottega.errors import ConfigError, InputError, nearest
from bottega.models import PlacedPhrase, RegionWeight
from bottega.pipelines.cascade import CascadeManifest
from bottega.pipelines.commission import Commission, Regions, Styles, commissions
from bottega.pipelines.edit import Beginnings, Start
from bottega.pipelines.explain import Explanation
from bottega.pipelines.output import CHUNK, to_pictures
from bottega.pipelines.provenance import Machine, Provenance, Request, StageRecord
from bottega.pipelines.regions import find_tokens, placed
from bottega.pipelines.stage import Stage, StageSettings
from bottega.pipelines.style import style_tensor
from bottega.shapes import Images

T = TypeVar("T")
PerStage = T | Mapping[str, T]
"""One value for every stage, or a value for each of the stages named."""


class Overrides(TypedDict, total=False):
    """Settings of `StageSettings` to change for one painting."""

    steps: PerStage[int]
    sampler: PerStage[str]
    guidance_scale: PerStage[float]
    guidance_interval: PerStage[tuple[float, float] | None]
    sigma_min: PerStage[float]
    sigma_max: PerStage[float]
    rho: PerStage[float]
    thresholding: PerStage[Static | Dynamic | None]
    low_res_sigma: PerStage[float]
    grid: PerStage[str]
    region_strength: PerStage[float]
    region_weight: PerStage[RegionWeight]


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintStep:
    """Where a painting stands: which pictures, which stage, which of its steps, and the newest estimate.

    ``pictures`` holds the finished pictures of ``indices`` on the last step of the last stage, and nothing before.
    """

    indices: tuple[int, ...]
    stage: str
    step: int
    num_steps: int
    sigma: float
    denoised: Images
    pictures: tuple[Image.Image, ...] = ()

    def previews(self) -> list[Image.Image]:
        """The estimates as pictures, at the size of the stage."""
        return to_pictures(self.denoised)


class Painter:
    """A cascade with its encoders, ready to paint.

    **Every picture is a function of its own prompt, seed and settings alone**, to the last bit: noise comes from one
    generator per picture, no statistic is taken over a batch, and every network is called for ``lanes`` pictures at a
    time, by default for one (with guidance that is a batch of two, with the prompt and without). Matrix products of
    another batch size may round differently, so more lanes are faster on large devices and exact only to rounding.
    """

    def __init__(
        self,
        *,
        manifest: CascadeManifest,
        stages: Sequence[Stage],
        encoders: Encoders,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        lanes: int = 1,
        folder: Path | None = None,
    ) -> None:
        """Take loaded parts, and move them; `load` is the usual way."""
        if lanes < 1:
            raise InputError(f"lanes must be at least 1, got {lanes}")
        self.manifest = manifest
        self.stages = tuple(stages)
        self.folder = folder
        self.device = torch.device(device)
        self.dtype = dtype
        self.lanes = lanes
        for stage in self.stages:
            stage.denoiser.to(device=self.device, dtype=dtype)
        self._encoders = encoders.to(self.device, torch.float32)

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """A fingerprint of everything that paints."""
        return self.manifest.digest

    @property
    def settings(self) -> dict[str, StageSettings]:
        """How each stage is sampled unless asked otherwise."""
        return {entry.name: entry.settings for entry in self.manifest.stages}

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """The streams the model hears."""
        return self._encoders.names

    def paint(
        self,
        prompts: str | Sequence[str],
        *,
        negative: str | Sequence[str | None] | None = None,
        seeds: int | Sequence[int] | None = None,
        encoders: Sequence[str] | None = None,
        style: Styles | None = None,
        regions: Regions | None = None,
        start: Start | None = None,
        settings: Mapping[str, StageSettings] | None = None,
        on_step: Callable[[PaintStep], None] | None = None,
        watch: Explanation | None = None,
        **overrides: Unpack[Overrides],
    ) -> list[Image.Image]:
        """Paint one picture per prompt.

        Args:
            prompts: What to paint; an empty one paints whatever comes.
            negative: What to keep away from, one for all pictures or one each.
            seeds: One per picture, or one number s for s, s + 1, ...; by default 0, 1, ...
            encoders: The encoders to hear, any of ``t5``, ``clip_text``, ``clip_image``, and ``clip`` for both of the
                latter; all by default. A style picture is heard in any case.
            style: A reference picture whose style to take, for all pictures or one (or None) each; with an empty prompt
                variations of it are painted.
            regions: Where in the picture phrases of the prompt are wanted: one list for all, or one list each.
            start: A picture to change (`FromPicture`) or to paint a part of anew (`Inpaint`).
            settings: Settings by stage, in place of the model's own.
            on_step: Called after every step of every stage.
            watch: Told what every layer made of the regions; see `Explanation`.
            **overrides: Single settings to change (`Overrides`): ``steps=30`` for every stage, or
                ``steps={"base": 30}`` for some.

        Returns:
            RGB pictures with what made them as JSON in ``info["bottega"]``.

        Raises:
            InputError: For what should be one per prompt and does not match in number, an unknown encoder, or a region
                whose phrase is not in its prompt.
            ConfigError: For a setting that makes no sense.
        """
        done: dict[int, Image.Image] = {}
        for step in self.paint_steps(
            prompts,
            negative=negative,
            seeds=seeds,
            encoders=encoders,
            style=style,
            regions=regions,
            start=start,
            settings=settings,
            watch=watch,
            **overrides,
        ):
            if on_step is not None:
                on_step(step)
            if step.pictures:
                done |= dict(zip(step.indices, step.pictures, strict=True))
        return [done[index] for index in sorted(done)]

    def paint_steps(
        self,
        prompts: str | Sequence[str],
        *,
        negative: str | Sequence[str | None] | None = None,
        seeds: int | Sequence[int] | None = None,
        encoders: Sequence[str] | None = None,
        style: Styles | None = None,
        regions: Regions | None = None,
        start: Start | None = None,
        settings: Mapping[str, StageSettings] | None = None,
        watch: Explanation | None = None,
        **overrides: Unpack[Overrides],
    ) -> Iterator[PaintStep]:
        """The same as `paint`, step by step: for progress, previews, and stopping early.

        What was asked for is checked at once, before the first step is taken.
        """
        resolved = self.resolve(settings, overrides)
        asked = commissions(
            prompts, negative=negative, seeds=seeds, regions=regions, style=style, start=start
        )
        heard = self._heard(encoders)
        for one in asked:
            self._with_style(heard, one)
            for stage in reversed(self.stages):  # what is wrong is said of the finished size
                self._placed(one, heard, stage, resolved[stage.name])
        origin = self._origin(asked[0].request, resolved, heard)
        return self._walk(asked, resolved, origin, watch)

    def resolve(
        self, settings: Mapping[str, StageSettings] | None, overrides: Mapping[str, Any]
    ) -> dict[str, StageSettings]:
        """The settings of every stage: the model's own, then ``settings``, then single overrides.

        Raises:
            ConfigError: For an unknown stage or setting, naming the nearest, or a value that makes no sense.
        """
        resolved = self.settings
        for name, value in ({} if settings is None else settings).items():
            resolved[self.stage_named(name)] = value
        for key, value in overrides.items():
            if key not in Overrides.__annotations__:
                raise ConfigError(
                    f"{key} is not a setting of a stage{nearest(key, Overrides.__annotations__)}"
                )
            by_stage = value if isinstance(value, Mapping) else dict.fromkeys(resolved, value)
            for name, item in by_stage.items():
                name = self.stage_named(name)
                resolved[name] = replace(resolved[name], **{key: item})
        return resolved

    def stage_named(self, name: str) -> str:
        """The name itself, if a stage is called so.

        Raises:
            ConfigError: If none is; the message suggests the nearest.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise ConfigError(f"{self.name} has no stage {name!r}{nearest(name, names)}")
        return name

    def _heard(self, encoders: Sequence[str] | None) -> tuple[str, ...]:
        if encoders is None:
            return self.encoder_names
        known = {name: (name,) for name in self.encoder_names}
        both = tuple(name for name in self.encoder_names if name.startswith("clip"))
        known |= {"clip": both} if both else {}
        for name in encoders:
            if name not in known:
                raise InputError(f"encoder {name!r} is not known here{nearest(name, known)}")
        wanted = {stream for name in encoders for stream in known[name]}
        return tuple(name for name in self.encoder_names if name in wanted)

    def _with_style(self, heard: tuple[str, ...], asked: Commission) -> tuple[str, ...]:
        """A style picture is heard whatever texts are."""
        image = self._encoders.image
        if asked.style is None:
            return heard
        if image is None:
            raise InputError(f"{self.name} has no encoder for pictures, so it takes no style")
        return tuple(name for name in self.encoder_names if name in (*heard, image.name))

    def _placed(
        self, one: Commission, heard: Sequence[str], stage: Stage, settings: StageSettings
    ) -> tuple[PlacedPhrase, ...]:
        """The regions of a picture as a stage is told of them."""
        regions = one.request.regions
        tokens = find_tokens(one.request.prompt, regions, self._encoders, heard)
        return placed(regions, tokens, stage.size, stage.size, settings.region_strength)

    def _origin(
        self,
        request: Request,
        settings: Mapping[str, StageSettings],
        heard: tuple[str, ...],
    ) -> Provenance:
        from bottega import __version__

        machine = Machine(
            device=self.device.type,
            dtype=str(self.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            lanes=self.lanes,
            torch=torch.__version__,
            pillow=PIL.__version__,
        )
        return Provenance(
            bottega=__version__,
            model=self.name,
            model_digest=self.digest,
            requests=(request,),
            stages=tuple(StageRecord(name=n, settings=s) for n, s in settings.items()),
            encoders=heard,
            machine=machine,
        )

    def _walk(
        self,
        asked: Sequence[Commission],
        settings: Mapping[str, StageSettings],
        origin: Provenance,
        watch: Explanation | None,
    ) -> Iterator[PaintStep]:
        known: dict[tuple[object, ...], Condition] = {}

        def told(text: str, heard: tuple[str, ...], style: Image.Image | None) -> Condition:
            """What the networks are told of one text, worked out once however often it is painted."""
            key = (text, heard, None if style is None else id(style))
            if key not in known:
                pictures = [None if style is None else style_tensor(style)]
                said = self._encoders.condition([text], pictures=pictures, use=heard)
                known[key] = said.to(device=self.device)
            return known[key]

        hearing = [self._with_style(origin.encoders, one) for one in asked]
        # Every text before the first stroke, so that no encoder has to come back into memory.
        cond = [
            told(one.request.prompt, heard, one.style)
            for one, heard in zip(asked, hearing, strict=True)
        ]
        uncond = [
            told("" if r.negative is None else r.negative, origin.encoders, None)
            for r in (one.request for one in asked)
        ]
        for first in range(0, len(asked), self.lanes):
            here = slice(first, first + self.lanes)
            group = asked[here]
            both = (Condition.cat(cond[here]), Condition.cat(uncond[here]))
            indices = tuple(range(first, first + len(group)))
            for step in self._paint_group(both, group, indices, settings, origin.encoders, watch):
                for image, one, heard in zip(step.pictures, group, hearing[here], strict=False):
                    made = replace(
                        origin, requests=(one.request,), encoders=heard, style=one.style_digest
                    )
                    image.info[CHUNK] = made.dumps()
                yield step

    def _paint_group(
        self,
        both: tuple[Condition, Condition],
        group: Sequence[Commission],
        indices: tuple[int, ...],
        settings: Mapping[str, StageSettings],
        heard: tuple[str, ...],
        watch: Explanation | None,
    ) -> Iterator[PaintStep]:
        painted: dict[str, Images] = {}
        size = self.stages[-1].size
        start = Beginnings.of([one.start for one in group], size, size, self.device)
        for stage in self.stages:
            low_res = None if stage.low_res_from is None else painted[stage.low_res_from]
            chosen = settings[stage.name]
            walk = stage.paint(
                *both,
                [one.request.seed for one in group],
                chosen,
                low_res=low_res,
                regions=[self._placed(one, heard, stage, chosen) for one in group],
                start=start,
                watch=None if watch is None else watch.at(stage.name, indices),
                device=self.device,
            )
            is_last = stage is self.stages[-1]
            for number, step in enumerate(walk, start=1):
                done = number == chosen.steps
                if done:
                    _check_finite(step.x, stage.name)
                    done_here = stage.pictures(step.x).clamp(-1, 1)
                    if start is not None:
                        done_here = start.at(stage.size, stage.size).completed(done_here)
                    painted[stage.name] = done_here
                yield PaintStep(
                    indices=indices,
                    stage=stage.name,
                    step=number,
                    num_steps=chosen.steps,
                    sigma=step.sigma,
                    denoised=stage.preview(step.denoised),
                    pictures=tuple(to_pictures(painted[stage.name])) if done and is_last else (),
                )


def _check_finite(images: Images, stage: str) -> None:
    if not bool(images.isfinite().all()):
        raise InputError(
            f"stage {stage} painted values that are not finite; settings nearer to the model's own avoid that "
            "(a lower guidance_scale, a lower sigma_max, or dtype float32)"
        )


__all__ = [
    "Overrides",
    "PaintStep",
    "Painter",
    "PerStage",
]
