"""The painter: prompts in, pictures out, each the same whatever company it is painted in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import PIL
import torch
from PIL import Image

from bottega.condition import Condition
from bottega.conditioning import Encoders
from bottega.errors import ConfigError, InputError, nearest
from bottega.models import PlacedPhrase
from bottega.pipelines.adapters import Adapters
from bottega.pipelines.canvas import Canvas, canvas_of, check_canvas, fit_aspect, stage_canvases
from bottega.pipelines.cascade import CascadeManifest
from bottega.pipelines.commission import Commission, Regions, Styles, commissions, heard_streams
from bottega.pipelines.controls import Guides
from bottega.pipelines.edit import Beginnings, Start
from bottega.pipelines.explain import Explanation
from bottega.pipelines.output import CHUNK, to_pictures
from bottega.pipelines.paint_step import Overrides, PaintStep, PerStage, check_finite
from bottega.pipelines.provenance import Machine, Provenance, Request, StageRecord
from bottega.pipelines.regions import find_tokens, placed
from bottega.pipelines.settings import by_name
from bottega.pipelines.stage import Stage, StageSettings
from bottega.pipelines.style import style_tensor
from bottega.shapes import Images

Size = Canvas | tuple[int, int] | int
"""Height and width in pixels, or one number for a square."""


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
        adapters: Adapters | None = None,
    ) -> None:
        """Take loaded parts, and move them; `load` is the usual way.

        ``encoders`` are what turns texts and pictures into what the networks are told.
        """
        if lanes < 1:
            raise InputError(f"lanes must be at least 1, got {lanes}")
        self.manifest = manifest
        self.stages = tuple(stages)
        self.folder = folder
        self.device = torch.device(device)
        self.dtype = dtype
        self.lanes = lanes
        self.adapters = Adapters() if adapters is None else adapters
        for stage in self.stages:
            stage.denoiser.to(device=self.device, dtype=dtype)
        for used in self.adapters.controlnets:
            used.net.to(device=self.device, dtype=dtype)
        self.encoders = encoders.to(self.device, torch.float32)

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
        return self.encoders.names

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
        size: Size | None = None,
        controls: Guides = (),
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
            encoders: Any of ``t5``, ``clip_text``, ``clip_image``, or ``clip`` for both; all by default.
            style: A reference picture to take the style of, for all or one (or None) each; heard in any case.
            regions: Where in the picture phrases of the prompt are wanted: one list for all, or one list each.
            start: A picture to change (`FromPicture`) or to paint a part of anew (`Inpaint`).
            size: Height and width in pixels; by default the square that the model was trained on.
            controls: A picture for each ControlNet that was loaded, with its scale (`Guide`) or at 1; for all prompts.
            settings: Settings by stage, in place of the model's own.
            on_step: Called after every step.
            watch: Told what every layer made of the regions; see `Explanation`.
            **overrides: Single settings (`Overrides`): ``steps=30``, or ``steps={"base": 30}`` for some stages.

        Returns:
            RGB pictures with what made them as JSON in ``info["bottega"]``.

        Raises:
            InputError: For numbers that do not match, an unknown encoder, or a phrase that is not in its prompt.
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
            size=size,
            controls=controls,
            settings=settings,
            watch=watch,
            **overrides,
        ):
            if on_step is not None:
                on_step(step)
            done |= dict(zip(step.indices, step.pictures, strict=False))
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
        size: Size | None = None,
        controls: Guides = (),
        settings: Mapping[str, StageSettings] | None = None,
        watch: Explanation | None = None,
        **overrides: Unpack[Overrides],
    ) -> Iterator[PaintStep]:
        """The same as `paint`, step by step: for progress, previews, and stopping early.

        What was asked for is checked at once, before the first step is taken.
        """
        resolved = self.resolve(settings, overrides)
        canvas = self.canvas(size)
        stages = self._stages_at(canvas)[::-1]
        asked = commissions(
            prompts,
            negative=negative,
            seeds=seeds,
            regions=regions,
            style=style,
            start=start,
            controls=self.adapters.controls(controls, stages, self.device),
        )
        heard = heard_streams(encoders, self.encoder_names)
        for one in asked:
            self._with_style(heard, one)
            for stage in stages:  # what is wrong is said of the finished size
                self._placed(one, heard, stage, resolved[stage.name])
        origin = self._origin(asked[0].request, resolved, heard, canvas)
        return self._walk(asked, resolved, origin, watch)

    def canvas(self, size: Size | None) -> Canvas | None:
        """What to paint on for a size; None for the square that the model was trained on.

        Raises:
            InputError: For a size that the stages cannot paint, naming the nearest that they can.
        """
        if size is None:
            return None
        canvas = canvas_of(size)
        check_canvas(self.stages, canvas, self.name)
        side = self.stages[-1].size
        return None if (canvas.height, canvas.width) == (side, side) else canvas

    def size_for(self, aspect: float) -> Canvas:
        """The size nearest to an aspect, width over height, with about as many pixels as the model was trained on."""
        return fit_aspect(self.stages, aspect)

    def _stages_at(self, canvas: Canvas | None) -> tuple[Stage, ...]:
        if canvas is None:
            return self.stages
        sizes = stage_canvases(self.stages, canvas)
        return tuple(stage.at(size) for stage, size in zip(self.stages, sizes, strict=True))

    def resolve(
        self, settings: Mapping[str, StageSettings] | None, overrides: Mapping[str, Any]
    ) -> dict[str, StageSettings]:
        """The settings of every stage: the model's own, then ``settings``, then single overrides.

        Raises:
            ConfigError: For an unknown stage or setting, naming the nearest, or a value that makes no sense.
        """
        resolved = self.settings
        for name, value in ({} if settings is None else by_name(settings)).items():
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

    def _with_style(self, heard: tuple[str, ...], asked: Commission) -> tuple[str, ...]:
        """A style picture is heard whatever texts are."""
        image = self.encoders.image
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
        tokens = find_tokens(one.request.prompt, regions, self.encoders, heard)
        return placed(regions, tokens, stage.height, stage.width, settings.region_strength)

    def _origin(
        self,
        request: Request,
        settings: Mapping[str, StageSettings],
        heard: tuple[str, ...],
        canvas: Canvas | None,
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
            canvas=canvas,
            loras=tuple(used.record for used in self.adapters.loras),
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
                said = self.encoders.condition([text], pictures=pictures, use=heard)
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
            for step in self._paint_group(both, group, indices, settings, origin, watch):
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
        origin: Provenance,
        watch: Explanation | None,
    ) -> Iterator[PaintStep]:
        painted: dict[str, Images] = {}
        stages = self._stages_at(origin.canvas)
        last = stages[-1]
        start = Beginnings.of([one.start for one in group], last.height, last.width, self.device)
        for stage in stages:
            low_res = None if stage.low_res_from is None else painted[stage.low_res_from]
            chosen = settings[stage.name]
            walk = stage.paint(
                *both,
                [one.request.seed for one in group],
                chosen,
                low_res=low_res,
                regions=[self._placed(one, origin.encoders, stage, chosen) for one in group],
                start=start,
                controls=[one for one in group[0].controls if one.stage == stage.name],
                watch=None if watch is None else watch.at(stage.name, indices),
                device=self.device,
            )
            is_last = stage is last
            for number, step in enumerate(walk, start=1):
                done = number == chosen.steps
                if done:
                    check_finite(step.x, stage.name)
                    done_here = stage.pictures(step.x).clamp(-1, 1)
                    if start is not None:
                        done_here = start.at(stage.height, stage.width).completed(done_here)
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


__all__ = ["Overrides", "PaintStep", "Painter", "PerStage"]
