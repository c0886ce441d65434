"""The painter: prompts in, pictures out, each the same whatever company it is painted in."""

import operator
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
from bottega.pipelines.cascade import (
    CascadeManifest,
    find_model,
    load_stages,
    read_manifest,
    verify_files,
)
from bottega.pipelines.devices import find_device, find_dtype
from bottega.pipelines.output import CHUNK, to_pictures
from bottega.pipelines.provenance import Machine, Provenance, Request, StageRecord
from bottega.pipelines.stage import Stage, StageSettings
from bottega.pipelines.style import style_digest, style_tensor
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
        style: Image.Image | None = None,
        settings: Mapping[str, StageSettings] | None = None,
        on_step: Callable[[PaintStep], None] | None = None,
        **overrides: Unpack[Overrides],
    ) -> list[Image.Image]:
        """Paint one picture per prompt.

        Args:
            prompts: What to paint; an empty one paints whatever comes.
            negative: What to keep away from, one for all pictures or one each.
            seeds: One per picture, or one number s for s, s + 1, ...; by default 0, 1, ...
            encoders: The streams to hear, for example ``("t5",)``; all by default.
            style: A reference picture whose style to take.
            settings: Settings by stage, in place of the model's own.
            on_step: Called after every step of every stage.
            **overrides: Single settings to change (`Overrides`): ``steps=30`` for every stage, or
                ``steps={"base": 30}`` for some.

        Returns:
            RGB pictures with what made them as JSON in ``info["bottega"]``.

        Raises:
            InputError: For seeds or negative prompts that do not match in number, or an unknown stream.
            ConfigError: For a setting that makes no sense.
        """
        done: dict[int, Image.Image] = {}
        for step in self.paint_steps(
            prompts,
            negative=negative,
            seeds=seeds,
            encoders=encoders,
            style=style,
            settings=settings,
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
        style: Image.Image | None = None,
        settings: Mapping[str, StageSettings] | None = None,
        **overrides: Unpack[Overrides],
    ) -> Iterator[PaintStep]:
        """The same as `paint`, step by step: for progress, previews, and stopping early.

        What was asked for is checked at once, before the first step is taken.
        """
        resolved = self.resolve(settings, overrides)
        requests = _requests(prompts, negative, seeds)
        heard = self._heard(encoders)
        origin = self._origin(requests[0], resolved, heard, style)
        return self._walk(requests, resolved, origin, style)

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
        for name in encoders:
            if name not in self.encoder_names:
                raise InputError(
                    f"encoder {name!r} is not known here{nearest(name, self.encoder_names)}"
                )
        return tuple(name for name in self.encoder_names if name in encoders)

    def _origin(
        self,
        request: Request,
        settings: Mapping[str, StageSettings],
        heard: tuple[str, ...],
        style: Image.Image | None,
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
            style=None if style is None else style_digest(style),
        )

    def _walk(
        self,
        requests: Sequence[Request],
        settings: Mapping[str, StageSettings],
        origin: Provenance,
        style: Image.Image | None,
    ) -> Iterator[PaintStep]:
        picture = None if style is None else style_tensor(style)
        known: dict[tuple[str, bool], Condition] = {}

        def told(text: str, styled: bool) -> Condition:
            """What the networks are told of one text, worked out once however often it is painted."""
            if (text, styled) not in known:
                pictures = [picture if styled else None]
                told = self._encoders.condition([text], pictures=pictures, use=origin.encoders)
                known[text, styled] = told.to(device=self.device)
            return known[text, styled]

        for start in range(0, len(requests), self.lanes):
            group = requests[start : start + self.lanes]
            cond = Condition.cat([told(r.prompt, True) for r in group])
            uncond = Condition.cat(
                [told("" if r.negative is None else r.negative, False) for r in group]
            )
            for step in self._paint_group(cond, uncond, [r.seed for r in group], settings):
                indices = tuple(range(start, start + len(group)))
                for image, request in zip(step.pictures, group, strict=False):
                    image.info[CHUNK] = replace(origin, requests=(request,)).dumps()
                yield replace(step, indices=indices)

    def _paint_group(
        self,
        cond: Condition,
        uncond: Condition,
        seeds: Sequence[int],
        settings: Mapping[str, StageSettings],
    ) -> Iterator[PaintStep]:
        painted: dict[str, Images] = {}
        for stage in self.stages:
            low_res = None if stage.low_res_from is None else painted[stage.low_res_from]
            chosen = settings[stage.name]
            walk = stage.paint(cond, uncond, seeds, chosen, low_res=low_res, device=self.device)
            is_last = stage is self.stages[-1]
            for number, step in enumerate(walk, start=1):
                done = number == chosen.steps
                if done:
                    _check_finite(step.x, stage.name)
                    painted[stage.name] = stage.pictures(step.x).clamp(-1, 1)
                yield PaintStep(
                    indices=(),
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


def load(
    model: str | Path = "piccolo", *, device: str = "auto", dtype: str = "auto", lanes: int = 1
) -> Painter:
    """Load a painter.

    Args:
        model: The name of a model that ships with bottega, or a model folder.
        device: ``auto`` takes a CUDA device where there is one; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` takes bfloat16 where the hardware multiplies it fast; or ``float32``, ``bfloat16``.
        lanes: Pictures that go through a network together; see `Painter`.

    Raises:
        InputError: For an unknown model, device or dtype, naming the nearest.
        CheckpointError: For a model that is missing, incomplete or damaged, naming the file.
    """
    where = find_device(device)
    precision = find_dtype(dtype, where)
    folder = find_model(model)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    paths = {f"folder_{kind}": folder / inner for kind, inner in manifest.encoders.items()}
    return Painter(
        manifest=manifest,
        stages=load_stages(folder, manifest),
        encoders=Encoders.load(
            folder_t5=paths.get("folder_t5"), folder_clip=paths.get("folder_clip")
        ),
        device=where,
        dtype=precision,
        lanes=lanes,
        folder=folder,
    )


def _requests(
    prompts: str | Sequence[str],
    negative: str | Sequence[str | None] | None,
    seeds: int | Sequence[int] | None,
) -> list[Request]:
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise InputError(
            "there is nothing to paint: give at least one prompt (an empty one paints freely)"
        )
    if negative is None or isinstance(negative, str):
        negatives: list[str | None] = [negative] * len(texts)
    else:
        negatives = list(negative)
    first = 0 if seeds is None else seeds
    numbers = [first + i for i in range(len(texts))] if isinstance(first, int) else [*first]
    for what, values in (("negative prompts", negatives), ("seeds", numbers)):
        if len(values) != len(texts):
            raise InputError(f"expected {len(texts)} {what}, one per prompt, got {len(values)}")
    return [
        Request(prompt=text, negative=avoid, seed=operator.index(seed))
        for text, avoid, seed in zip(texts, negatives, numbers, strict=True)
    ]


__all__ = [
    "Overrides",
    "PaintStep",
    "Painter",
    "PerStage",
    "load",
]
