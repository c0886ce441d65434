"""A diffusers folder as a model: what its pipeline consists of, in the words of a model folder's manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bottega.checkpoint.foreign import plan_of
from bottega.checkpoint.foreign_files import read_config, weight_files
from bottega.conditioning.foreign_text import Layer
from bottega.errors import CheckpointError, nearest
from bottega.pipelines.cascade import CascadeManifest, StageEntry
from bottega.pipelines.latent import read_autoencoder
from bottega.pipelines.parts import PipelineParts, TextEntry
from bottega.pipelines.schedulers import Scheduling, read_scheduling
from bottega.pipelines.stage import StageSettings

INDEX = "model_index.json"
"""The file that makes a folder a diffusers pipeline."""

UNET = "unet"
AUTOENCODER = "vae"
SCHEDULER = "scheduler"
NOISING = "image_noising_scheduler"

_TEXT_FILES = ("*.json", "*.txt", "*.model")
_FAST_STEPS = 25
"""Steps for solvers of second order, which need fewer than a pipeline's default."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What pipelines of one kind have in common, beyond what their files say.

    ``guidance``, ``steps`` and ``low_res_timestep``, the noise on the picture to enlarge, are the defaults of their
    pipelines in diffusers.
    """

    stage: str
    stream: str
    layer: Layer = "last"
    max_tokens: int | None = None
    texts: tuple[str, ...] = ("",)
    latent: bool = True
    guidance: float
    steps: int
    enlarges: bool = False
    low_res_timestep: int = 0


_SD = Family(stage="base", stream="clip_text", guidance=7.5, steps=50)
_SDXL = Family(
    stage="base",
    stream="clip_text",
    layer="before_last",
    texts=("", "_2"),
    guidance=5.0,
    steps=50,
)
_IF = Family(stage="base", stream="t5", max_tokens=77, latent=False, guidance=7.0, steps=100)
_IF_SR = Family(
    stage="sr",
    stream="t5",
    max_tokens=77,
    latent=False,
    guidance=4.0,
    steps=50,
    enlarges=True,
    low_res_timestep=250,
)

FAMILIES: Mapping[str, Family] = {
    "IFPipeline": _IF,
    "IFSuperResolutionPipeline": _IF_SR,
    "StableDiffusionPipeline": _SD,
    "StableDiffusionXLImg2ImgPipeline": _SDXL,
    "StableDiffusionXLPipeline": _SDXL,
}
"""Every pipeline that is understood."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One diffusers folder, its configurations read and checked, its weights not yet."""

    folder: Path
    name: str
    family: Family
    index: Mapping[str, Any]
    unet: Mapping[str, Any]
    scheduling: Scheduling
    noising: Scheduling | None
    texts: tuple[TextEntry, ...]
    factor: int
    kept: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def size(self) -> int:
        """The side of its pictures, in pixels."""
        side = self.unet.get("sample_size")
        if not isinstance(side, int) or side < 1:
            raise CheckpointError(
                f"{self.folder / UNET / 'config.json'} lacks the number sample_size"
            )
        return side * self.factor

    @property
    def numbers(self) -> tuple[float, ...]:
        """What SDXL is told beside the text: sizes, crop, and in its refiner how beautiful the picture is to be."""
        if self.unet.get("addition_embed_type") != "text_time":
            return ()
        size = float(self.size)
        if self.index.get("requires_aesthetics_score"):
            return (size, size, 0.0, 0.0, 6.0)
        return (size, size, 0.0, 0.0, size, size)

    @property
    def numbers_apart(self) -> tuple[float, ...]:
        """The same for the half of guidance that is not told the prompt."""
        numbers = self.numbers
        return (*numbers[:4], 2.5) if len(numbers) == 5 else numbers

    def settings(self) -> StageSettings:
        """How it is sampled unless asked otherwise: as its folder says, as far as we have that."""
        schedule = self.scheduling.plan.schedule
        family = self.family
        threshold = self.scheduling.threshold
        if family.latent and not self.kept[SCHEDULER].get("thresholding"):
            threshold = None  # pipelines of latent models switch clipping off
        low_res = 0.0
        if self.noising is not None:
            low_res = self.noising.plan.schedule.sigma(family.low_res_timestep)
        second_order = self.scheduling.sampler in ("dpmpp_2m", "deis", "heun")
        return StageSettings(
            steps=_FAST_STEPS if second_order else family.steps,
            sampler=self.scheduling.sampler,
            guidance_scale=family.guidance,
            grid=self.scheduling.grid,
            sigma_min=schedule.sigma_min,
            sigma_max=schedule.sigma_max,
            thresholding=threshold,
            low_res_sigma=low_res,
        )

    def entry(self, folder: str, low_res_from: str | None = None) -> StageEntry:
        """Its denoiser as a stage of a model folder."""
        return StageEntry(
            name=self.family.stage,
            folder=folder,
            size=self.size,
            low_res_from=low_res_from,
            settings=self.settings(),
            numbers=self.numbers,
            numbers_apart=self.numbers_apart,
            noising=None if self.noising is None else self.noising.plan,
        )

    def parts(self, origin: str) -> PipelineParts:
        """Everything beside its denoiser."""
        return PipelineParts(
            pipeline=str(self.index["_class_name"]),
            stream=self.family.stream,
            texts=self.texts,
            layer=self.family.layer,
            max_tokens=self.family.max_tokens,
            silent=bool(self.index.get("force_zeros_for_empty_prompt", False)),
            autoencoder=AUTOENCODER if self.family.latent else None,
            origin=origin,
        )

    def component_files(self) -> list[Path]:
        """Every file that decides what it paints."""
        folders = [
            UNET,
            SCHEDULER,
            *(p for text in self.texts for p in (text.folder, text.tokenizer)),
        ]
        folders += [AUTOENCODER] if self.family.latent else []
        return sorted({path for name in folders for path in used_files(self.folder / name)})


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a diffusers pipeline."""
    return (folder / INDEX).is_file()


def read_pipeline(folder: Path, name: str | None = None) -> Pipeline:
    """Look at a diffusers folder.

    Args:
        folder: Holds ``model_index.json``.
        name: What to call the model; by default as the folder.

    Raises:
        CheckpointError: For a pipeline that is not supported, naming those that are, and for parts that are missing,
            damaged or not supported.
    """
    index = read_config(folder / INDEX)
    named = str(index.get("_class_name"))
    if named not in FAMILIES:
        raise CheckpointError(
            f"{folder} is a {named}, which is not supported{nearest(named, FAMILIES)}; "
            f"supported are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[named]
    _require_class(index, UNET, "UNet2DConditionModel", folder)
    factor, channels = 1, 3
    if family.latent:
        _require_class(index, AUTOENCODER, "AutoencoderKL", folder)
        space = read_autoencoder(folder / AUTOENCODER)
        factor, channels = space.factor, space.channels
    scheduling = read_scheduling(folder / SCHEDULER)
    unet = read_config(folder / UNET / "config.json")
    _check_channels(unet, channels, scheduling, folder)
    kept = {SCHEDULER: read_config(folder / SCHEDULER / "scheduler_config.json")}
    noising = None
    if family.enlarges:
        noising = read_scheduling(folder / NOISING)
        kept[NOISING] = read_config(folder / NOISING / "scheduler_config.json")
    return Pipeline(
        folder=folder,
        name=folder.resolve().name if name is None else name,
        family=family,
        index=index,
        unet=unet,
        scheduling=scheduling,
        noising=noising,
        texts=_texts(index, family, folder),
        factor=factor,
        kept=kept,
    )


def _check_channels(
    unet: Mapping[str, Any], channels: int, scheduling: Scheduling, folder: Path
) -> None:
    """Refuse a network of other channels than its pictures or latents have, or without the variance it is asked for."""
    where = folder / UNET / "config.json"
    plan = plan_of(unet, where=str(where))
    if plan.in_channels != channels or plan.out_channels not in (channels, 2 * channels):
        raise CheckpointError(
            f"{where} takes {plan.in_channels} channels and gives {plan.out_channels}, what it paints has {channels}; "
            "one of the configurations is another model's"
        )
    if scheduling.plan.learned_variance and plan.out_channels != 2 * channels:
        raise CheckpointError(
            f"{folder / SCHEDULER} asks for the variance that a network learned (variance_type 'learned_range'), and "
            f"{folder / UNET} gives none"
        )


def manifest_of(pipeline: Pipeline) -> CascadeManifest:
    """A diffusers folder in the words of a model folder, as it lies there.

    Raises:
        CheckpointError: For one that cannot paint by itself.
    """
    if pipeline.family.enlarges:
        raise CheckpointError(
            f"{pipeline.folder} enlarges pictures of another model; import both: "
            f"bottega import FIRST MODEL --then {pipeline.folder}"
        )
    return CascadeManifest(
        name=pipeline.name,
        stages=(pipeline.entry(UNET),),
        encoders={},
        parts=pipeline.parts(SCHEDULER),
        files={
            path.relative_to(pipeline.folder).as_posix(): _digest(path)
            for path in pipeline.component_files()
        },
    )


def used_files(folder: Path) -> list[Path]:
    """The files of a component that are read: settings, words, and weights where it has some.

    Raises:
        CheckpointError: When its weights are no whole safetensors.
    """
    texts = [path for pattern in _TEXT_FILES for path in sorted(folder.glob(pattern))]
    has_weights = (folder / "config.json").is_file()
    return [*texts, *(weight_files(folder) if has_weights else [])]


def _texts(index: Mapping[str, Any], family: Family, folder: Path) -> tuple[TextEntry, ...]:
    texts: list[TextEntry] = []
    for ending in family.texts:
        model, tokenizer = f"text_encoder{ending}", f"tokenizer{ending}"
        named = _class_of(index, model)
        if named is None:
            continue
        for part in (model, tokenizer):
            if not (folder / part).is_dir():
                raise CheckpointError(f"{folder} lacks {part}, which its {INDEX} names")
        texts.append(TextEntry(folder=model, tokenizer=tokenizer, model=named))
    if not texts and not family.enlarges:
        raise CheckpointError(
            f"{folder} has no text encoder, without which it cannot be told what to paint"
        )
    return tuple(texts)


def _class_of(index: Mapping[str, Any], component: str) -> str | None:
    entry: Any = index.get(component)
    if isinstance(entry, Sequence) and len(cast(Sequence[Any], entry)) == 2:
        named = cast(Sequence[Any], entry)[1]
        return None if named is None else str(named)
    return None


def _require_class(index: Mapping[str, Any], component: str, wanted: str, folder: Path) -> None:
    named = _class_of(index, component)
    if named != wanted:
        raise CheckpointError(
            f"{folder / INDEX} says that {component} is a {named}, which is not supported; supported is {wanted}"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


__all__ = [
    "AUTOENCODER",
    "FAMILIES",
    "INDEX",
    "NOISING",
    "SCHEDULER",
    "UNET",
    "Family",
    "Pipeline",
    "is_pipeline",
    "manifest_of",
    "read_pipeline",
    "used_files",
]
