"""The whole configuration of one training run: what is learned, from what, and how."""

import math
from dataclasses import dataclass, field

from bottega.conditioning import ConditionDropout, TinyClipConfig, TinyT5Config, TokenizerConfig
from bottega.data import Buckets, Degradations
from bottega.data.emoji_world import EmojiWorldConfig
from bottega.diffusion import (
    AugmentationLevels,
    EDMPrecond,
    LogNormal,
    TimestepPlan,
    TrainingNoise,
)
from bottega.ensemble import (
    Between,
    Complement,
    Interval,
    Node,
    probability_intervals,
    sigma_bounds,
)
from bottega.errors import ConfigError
from bottega.models import UNetConfig
from bottega.models.autoencoder import AutoencoderConfig
from bottega.models.hed import SMALLEST_PX
from bottega.models.srgan import RRDBNetConfig
from bottega.recipes.adapter_tasks import ControlNetTask, LoraTask
from bottega.training import TrainConfig
from bottega.training.edge_objective import EdgeSupervision
from bottega.training.edge_targets import HedEdges, WorldEdges
from bottega.training.srgan_objective import SrGanWeights


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """A folder of your own pictures, with captions in ``.txt`` files beside them or in a ``metadata.jsonl``.

    ``caption`` is for pictures without a text file; ``{name}`` in it is the file's name in words.
    """

    path: str
    caption_field: str = "text"
    caption: str | None = None


@dataclass(frozen=True, kw_only=True)
class T5Task:
    """Train a small T5 of our own on captions, names and keywords: hidden spans, and where things stand."""

    model: TinyT5Config = field(default_factory=TinyT5Config)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


@dataclass(frozen=True, kw_only=True)
class ClipTask:
    """Train a small CLIP of our own by contrast of captions and pictures."""

    model: TinyClipConfig = field(default_factory=TinyClipConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


@dataclass(frozen=True, kw_only=True)
class JudgeTask:
    """Train the detector that says what stands in a picture, and where; it learns to name all the world shows."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderTask:
    """Train a small autoencoder, in whose latents denoisers can then be trained.

    ``kl_weight`` and ``edge_weight`` are those of `AutoencoderObjective`. ``scale_pictures`` are drawn at the end to
    measure by what latents are shifted and scaled.
    """

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    kl_weight: float = 0.01
    edge_weight: float = 1.0
    scale_pictures: int = 1024

    def __post_init__(self) -> None:
        if self.scale_pictures < 1:
            raise ConfigError(f"task.scale_pictures must be at least 1, got {self.scale_pictures}")


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The latents that a denoiser works in.

    ``autoencoder`` is the folder of an AutoencoderKL of diffusers, of a run that trained one, or of a model that has
    one; or the name of a model that ships with bottega. ``factor`` is how many pixels a position stands for along each
    side, the autoencoder's own. ``cached`` encodes every picture once, before training begins, and keeps what came of
    it beside the runs; the pictures must then be so many.
    """

    autoencoder: str
    factor: int = 8
    cached: bool = False

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ConfigError(f"task.latents.factor must be at least 1, got {self.factor}")


@dataclass(frozen=True, kw_only=True)
class DenoiserTask:
    """Train a denoiser: a base when ``low_res_size`` is None, a super-resolution net otherwise.

    ``encoders`` is a folder that holds ``t5`` and ``clip``, or the name of a model that ships with bottega.
    ``part`` is the noise that is learned, all of it for a denoiser that is no expert; its bounds are quantiles of
    ``noise``. Within them noise is drawn as ``emphasis`` has it, where that is given: what stands where is decided at
    stronger noise than what it looks like. ``degradations`` spoil the small pictures at random, and ``crop_px`` shows
    squares of that side instead of whole pictures, which only a convolutional network can learn from. ``start_from``
    is an exported denoiser whose weights the run begins with, instead of random ones. ``latents`` are where the
    denoiser works when that is not the pixels. With ``timestep_plan`` it learns eps, v or the picture at whole
    timesteps, drawn evenly, as Imagen and RAPHAEL did; ``noise`` and ``precond`` are then not read.
    ``balance`` is how much an uneven load of the network's experts counts in the loss, where it has any. ``edges`` are
    to be seen in where the network looks, as RAPHAEL learned them; what learns to draw them is dropped afterwards.
    ``gradient_checkpointing`` computes blocks twice and keeps less of them in memory.
    """

    network: UNetConfig
    noise: LogNormal = field(default_factory=LogNormal)
    part: Node | Complement | Between = field(default_factory=lambda: Node(0, 0))
    emphasis: LogNormal | None = None
    precond: EDMPrecond = field(default_factory=EDMPrecond)
    dropout: ConditionDropout = field(default_factory=ConditionDropout)
    encoders: str = "piccolo"
    low_res_size: int | None = None
    augmentation: AugmentationLevels | None = None
    degradations: Degradations | None = None
    crop_px: int | None = None
    latents: LatentSpace | None = None
    timestep_plan: TimestepPlan | None = None
    start_from: str | None = None
    balance: float = 0.01
    edges: EdgeSupervision | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.balance < math.inf:
            raise ConfigError(f"task.balance must be finite and not negative, got {self.balance}")
        if (self.low_res_size is None) != (self.augmentation is None):
            raise ConfigError(
                "task.low_res_size and task.augmentation go together: a super-resolution net needs both, "
                f"a base neither; got low_res_size={self.low_res_size}, augmentation={self.augmentation}"
            )
        if self.low_res_size is None and (self.degradations, self.crop_px) != (None, None):
            raise ConfigError(
                "task.degradations and task.crop_px are for a super-resolution net; give task.low_res_size too"
            )
        if self.crop_px is not None and not self.network.is_convolutional:
            raise ConfigError(
                "task.crop_px: this network has self-attention, and what it learns on crops is wrong for whole "
                "pictures; use CrossOnly or NoAttention in every level, or train on whole pictures"
            )
        base_only = (self.latents, self.timestep_plan, self.edges)
        if self.low_res_size is not None and base_only != (None, None, None):
            raise ConfigError(
                "task.latents, task.timestep_plan and task.edges are for a base; a net that enlarges works on pixels "
                "in EDM's form, and learns no edges"
            )
        if self.emphasis is not None and self.timestep_plan is not None:
            raise ConfigError(
                "task.emphasis draws noise in another way than evenly over timesteps; give one of the two"
            )

    @property
    def training_noise(self) -> TrainingNoise:
        """The noise whose quantiles parts are cut from."""
        return self.noise if self.timestep_plan is None else self.timestep_plan

    @property
    def drawn_noise(self) -> LogNormal:
        """What training draws noise from."""
        return self.noise if self.emphasis is None else self.emphasis

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The shares of the noise training draws from that are learned, as intervals of probability."""
        if self.emphasis is None:
            return probability_intervals(self.part, self.training_noise)
        return tuple(
            (self.emphasis.cdf(low), self.emphasis.cdf(high))
            for low, high in sigma_bounds(self.part, self.noise)
        )


@dataclass(frozen=True, kw_only=True)
class Branch:
    """From whom an expert denoiser grows: the member ``parent_part`` of an ensemble, with that very digest.

    ``ensemble`` is the ensemble's folder, where the child will be filed too, seen from the run's own.
    """

    ensemble: str
    parent_part: str
    parent: str


@dataclass(frozen=True, kw_only=True)
class ImportedTask:
    """Train a stage of an imported model further, in its own terms, on its own encoders and in its own latents.

    ``model`` is the folder that ``bottega import`` wrote. ``part`` is the noise that is learned, all of it but for an
    expert denoiser; it is cut from the timesteps, drawn evenly, that the model was trained on. ``dropout`` is the share
    of captions replaced by an empty text. ``balance`` is how much an uneven load of experts counts in the loss, where
    the model was given some. ``gradient_checkpointing`` computes blocks twice and keeps less of them in memory.
    """

    model: str
    stage: str = "base"
    part: Node | Complement | Between = field(default_factory=lambda: Node(0, 0))
    dropout: float = 0.1
    balance: float = 0.01
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.balance < math.inf:
            raise ConfigError(f"task.balance must be finite and not negative, got {self.balance}")


@dataclass(frozen=True, kw_only=True)
class EnlargerTask:
    """Train a network that enlarges pictures in one go, against a critic that is dropped afterwards.

    ``degradations`` spoil what is to be enlarged, None for nothing; ``crop_px`` shows squares of that side of the large
    pictures. ``judge`` is a judge's folder, a model that has one, or the name of a model that ships with bottega; it is
    needed where ``weights.feature`` counts. ``start_from`` is an exported enlarger to begin with.
    """

    network: RRDBNetConfig
    discriminator_width: int = 64
    weights: SrGanWeights = field(default_factory=SrGanWeights)
    degradations: Degradations | None = field(default_factory=Degradations)
    crop_px: int | None = None
    judge: str = "piccolo"
    start_from: str | None = None


Task = (
    T5Task
    | ClipTask
    | JudgeTask
    | AutoencoderTask
    | DenoiserTask
    | ImportedTask
    | EnlargerTask
    | LoraTask
    | ControlNetTask
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run. ``size`` is the pictures' side in pixels; ``num_examples`` bounds an endless world to that many.

    A bounded world is walked in epochs of a new order each, and lets its captions' embeddings be computed once.
    ``branch`` says from whom an expert denoiser grows; its run begins with the weights in the folder ``start``. With
    ``buckets`` pictures keep their shapes, each whole in the bucket nearest its own, and every batch is of one bucket.
    """

    name: str
    data: EmojiWorldConfig | FolderConfig
    size: int
    task: Task
    train: TrainConfig
    num_examples: int | None = None
    branch: Branch | None = None
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ConfigError(
                f"size is the pictures' side in pixels and at least 8, got {self.size}"
            )
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"num_examples must be positive or none, got {self.num_examples}")
        paints = isinstance(self.task, (DenoiserTask, ImportedTask))
        sees = paints or isinstance(
            self.task, (AutoencoderTask, EnlargerTask, LoraTask, ControlNetTask)
        )
        if isinstance(self.data, FolderConfig) and not sees:
            raise ConfigError(
                f"a {type(self.task).__name__} learns from the drawn world; data must be an EmojiWorldConfig"
            )
        if self.branch is not None and not paints:
            raise ConfigError(f"only a denoiser can branch, not a {type(self.task).__name__}")
        low_res = self.task.low_res_size if isinstance(self.task, DenoiserTask) else None
        if low_res is not None and (low_res >= self.size or self.size % low_res):
            raise ConfigError(
                f"task.low_res_size must divide size and be smaller, got {low_res} for size {self.size}"
            )
        if isinstance(self.task, DenoiserTask) and low_res is not None:
            self._check_crop(self.task, self.size // low_res)
        if isinstance(self.task, DenoiserTask) and self.task.edges is not None:
            self._check_edges(self.task.edges)
        self._check_sides()
        if self.buckets is not None:
            self._check_buckets(self.buckets)

    @property
    def network_size(self) -> int:
        """The side of what the network sees: of the picture, or of its latents."""
        latents = self.task.latents if isinstance(self.task, DenoiserTask) else None
        return self.size if latents is None else self.size // latents.factor

    def _check_edges(self, edges: EdgeSupervision) -> None:
        if self.branch is not None:
            raise ConfigError(
                "task.edges: an expert denoiser grows from a network without edge heads; give task.edges=none"
            )
        if isinstance(self.data, FolderConfig) and isinstance(edges.targets, WorldEdges):
            raise ConfigError(
                "task.edges.targets: exact edges are known of the drawn world only; take Canny or HedEdges"
            )
        if isinstance(edges.targets, HedEdges) and self.size < SMALLEST_PX:
            raise ConfigError(
                f"task.edges.targets: HED sees pictures of {SMALLEST_PX} px and more, got size {self.size}; take Canny"
            )

    def _check_sides(self) -> None:
        """Latents and their halves must be whole."""
        if isinstance(self.task, EnlargerTask):
            self._check_enlarging(self.task)
            return
        if isinstance(self.task, AutoencoderTask):
            unit = self.task.model.factor
        elif isinstance(self.task, DenoiserTask) and self.task.latents is not None:
            unit = self.task.latents.factor * self.task.network.downsampling
            endless = isinstance(self.data, EmojiWorldConfig) and self.num_examples is None
            if self.task.latents.cached and endless:
                raise ConfigError(
                    "task.latents.cached keeps the latents of every picture; say with num_examples how many there are"
                )
        else:
            return
        if self.size % unit:
            raise ConfigError(
                f"size must be a multiple of {unit}, by which autoencoder and network shrink a picture; got {self.size}"
            )

    def _check_buckets(self, buckets: Buckets) -> None:
        """Only networks that paint whole pictures learn from several shapes, which they must be able to halve."""
        base = isinstance(self.task, DenoiserTask) and self.task.low_res_size is None
        if not (base or isinstance(self.task, ImportedTask)):
            raise ConfigError(
                f"buckets are for denoisers that paint whole pictures, not for this {type(self.task).__name__}; a net "
                "that enlarges learns from squares, and paints any shape"
            )
        if isinstance(self.data, EmojiWorldConfig) and self.num_examples is None:
            raise ConfigError(
                "buckets share out pictures that are known; say with num_examples how many the world shows"
            )
        if not isinstance(self.task, DenoiserTask):
            return
        latents, unit = self.task.latents, self.task.network.downsampling
        if latents is not None:
            unit *= latents.factor
        buckets.check_multiple(unit)

    def _check_enlarging(self, task: EnlargerTask) -> None:
        """The critic halves pictures three times, and a scale of 1 or 2 folds small pixels into positions."""
        unit, crop = 8, self.size if task.crop_px is None else task.crop_px
        if crop < unit or crop % unit or crop > self.size or self.size % unit:
            raise ConfigError(
                f"size and task.crop_px must be multiples of {unit}, and the crop no larger, got {self.size} and {crop}"
            )

    def _check_crop(self, task: DenoiserTask, scale: int) -> None:
        unit, crop = math.lcm(scale, task.network.downsampling), task.crop_px
        if crop is not None and (crop < unit or crop % unit or crop > self.size):
            raise ConfigError(
                f"task.crop_px must be a multiple of {unit} (whole small pixels, which the network can halve as often "
                f"as it does) and at most the size {self.size}, got {crop}"
            )


__all__ = [
    "AutoencoderTask",
    "Branch",
    "ClipTask",
    "DenoiserTask",
    "EnlargerTask",
    "FolderConfig",
    "ImportedTask",
    "JudgeTask",
    "LatentSpace",
    "RunConfig",
    "T5Task",
    "Task",
]
