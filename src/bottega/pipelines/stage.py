"""One stage of a cascade: a denoiser, the size it paints at, and how it is sampled.

Pictures are in [-1, 1]; sigma is the standard deviation of the noise in those units.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from bottega.condition import Condition, Stream
from bottega.conditioning.numbers import sized_numbers
from bottega.diffusion import (
    GRIDS,
    SPACINGS,
    Denoise,
    Denoiser,
    DenoiserLike,
    Spread,
    Step,
    TimestepDenoiser,
    TimestepPlan,
    augment_low_res,
    find_grid,
    find_sampler,
    guided_jointly,
    karras,
    thresholded,
)
from bottega.ensemble import Mixture
from bottega.errors import ConfigError, InputError
from bottega.models.regions import (
    PlacedPhrase,
    PlacedPhrases,
    Watch,
)
from bottega.pipelines.canvas import Canvas
from bottega.pipelines.controls import StageControl
from bottega.pipelines.edit import Beginnings, kept
from bottega.pipelines.residency import LazyDenoiser
from bottega.pipelines.settings import StageSettings, divided_sigmas
from bottega.pipelines.space import Latents, Space, enlarged
from bottega.seeding import ImageNoise
from bottega.shapes import Images, Sigmas


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A denoiser that paints at ``size`` pixels; ``low_res_from`` names the stage whose picture it enlarges.

    ``space`` is where the denoiser works when that is not the pixels. ``timestep_plan`` is there for a network that was
    trained with timesteps: its walks begin in noise of unit variance, as those that it learned. With ``noising`` the
    small picture is enlarged before noise is put on it, and the network is told the timestep that this noise has there,
    as in DeepFloyd IF. ``numbers`` are what SDXL is told beside the text, and ``numbers_apart`` what it is told without
    the prompt. ``multiple`` is what sides are multiples of; ``canvas`` is height and width where they are not those of
    the square, see `at`.
    """

    name: str
    denoiser: DenoiserLike
    size: int
    low_res_from: str | None = None
    space: Space | None = None
    timestep_plan: TimestepPlan | None = None
    noising: TimestepPlan | None = None
    numbers: tuple[float, ...] = ()
    numbers_apart: tuple[float, ...] = ()
    multiple: int = 1
    canvas: Canvas | None = None

    def at(self, canvas: Canvas) -> "Stage":
        """The same stage, painting this height and width; SDXL is told of them too."""
        return replace(
            self,
            canvas=canvas,
            numbers=sized_numbers(self.numbers, canvas.height, canvas.width),
            numbers_apart=sized_numbers(self.numbers_apart, canvas.height, canvas.width),
        )

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.size if self.canvas is None else self.canvas.height

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.size if self.canvas is None else self.canvas.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the denoiser sees."""
        if self.space is None:
            return (3, self.height, self.width)
        factor = self.space.factor
        return (self.space.channels, self.height // factor, self.width // factor)

    def pictures(self, x: Latents) -> Images:
        """What was sampled, as pictures in [-1, 1]; values outside are left to whoever shows them."""
        return x if self.space is None else self.space.decode(x)

    def preview(self, denoised: Latents) -> Images:
        """An estimate on the way as something to look at, at little cost."""
        return denoised if self.space is None else self.space.preview(denoised)

    def sigmas(self, settings: StageSettings, strength: float = 1.0) -> list[float]:
        """The noise levels of a walk, or with ``strength`` below 1 as many of the end of a finer one.

        Raises:
            ConfigError: For a grid of timesteps where the network knows none.
        """
        if settings.steps_per_expert:
            return self._divided(settings, strength)
        steps = max(settings.steps, round(settings.steps / strength))
        return self._grid(settings, steps)[-settings.steps - 1 :]

    def _divided(self, settings: StageSettings, strength: float) -> list[float]:
        denoiser = self.denoiser
        if isinstance(denoiser, LazyDenoiser):
            denoiser = denoiser.open()
        if not isinstance(denoiser, Mixture):
            raise ConfigError(
                f"stage {self.name} has one denoiser for all noise, so there are no steps_per_expert"
            )
        if strength < 1:
            raise ConfigError(
                "steps_per_expert divides a whole walk; a picture to begin with takes plain steps"
            )
        return divided_sigmas(settings, denoiser.parts, denoiser.noise)

    def _grid(self, settings: StageSettings, steps: int) -> list[float]:
        if settings.grid in SPACINGS:
            if self.timestep_plan is None:
                raise ConfigError(
                    f"stage {self.name} knows no timesteps, which the grid {settings.grid} goes by"
                    f"; choose from: {', '.join(GRIDS)}"
                )
            return self.timestep_plan.sigmas(steps, settings.grid)
        low, high = settings.sigma_min, settings.sigma_max
        if settings.grid == "karras":
            return karras(steps, low, high, settings.rho)
        return find_grid(settings.grid)(steps, low, high)

    def start(self, noise: Images, sigma: float) -> Images:
        """Where a walk from pure noise begins."""
        return noise * (sigma if self.timestep_plan is None else math.hypot(sigma, 1.0))

    def paint(
        self,
        cond: Condition,
        uncond: Condition,
        seeds: Sequence[int],
        settings: StageSettings,
        *,
        low_res: Images | None = None,
        regions: Sequence[Sequence[PlacedPhrase]] = (),
        start: Beginnings | None = None,
        controls: Sequence[StageControl] = (),
        watch: Watch | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[Step]:
        """Sample one picture per seed; the last step's ``x`` is the result.

        Args:
            cond: What to paint, one row per seed.
            uncond: What guidance keeps away from: silence, or a negative prompt.
            seeds: One per picture.
            settings: How to sample.
            low_res: Pictures to enlarge, for a stage that does.
            regions: Phrases and their places, for every picture if there are any.
            start: Pictures to begin with.
            controls: Control pictures to follow, each the same for every picture.
            watch: Told what the phrases of regions were attended with, at every call of the network.
            device: Where the denoiser lives.

        Yields:
            The state after each of ``settings.steps`` steps. Gradients are off inside, and untouched outside.

        Raises:
            InputError: Without pictures to enlarge where they are needed, or with some where they are not.
        """
        if (low_res is None) != (self.low_res_from is None):
            needs = "needs a picture to enlarge" if low_res is None else "enlarges nothing"
            raise InputError(f"stage {self.name} {needs}")
        noise = ImageNoise(seeds, purpose=self.name, shape=self.shape, device=device)
        sigmas = self.sigmas(settings, 1.0 if start is None else start.strength)

        def walk() -> Iterator[Step]:
            both = self._both(cond, uncond, settings)
            if low_res is not None:
                both = self._with_low_res(both, low_res, seeds, settings, device)
            phrases = PlacedPhrases(dict(enumerate(regions)), settings.region_weight, watch=watch)
            spread = self._spread(settings)
            levels = torch.tensor([s for s in sigmas if s > 0], device=device)
            denoise = self._bind(both, len(seeds), settings, phrases, controls, spread, levels)
            x = noise()
            if start is None:
                x = self.start(x, sigmas[0])
            else:
                x, denoise = self._begun(start, x, sigmas[0], denoise)
            told = {} if spread is None else {"spread": lambda: _newest(spread, len(seeds))}
            yield from find_sampler(settings.sampler)(denoise, x, sigmas, noise=noise, **told)

        return _without_gradients(walk())

    def numbered(self, cond: Condition) -> Condition:
        """A prompt with the numbers that its network is told beside it, where it is told any."""
        return _with_numbers(cond, self.numbers)

    def _both(self, cond: Condition, uncond: Condition, settings: StageSettings) -> Condition:
        """Both halves of guidance, each with its numbers."""
        apart = _with_numbers(uncond, self.numbers_apart)
        return _joined(self.numbered(cond), apart, settings)

    def _begun(
        self, start: Beginnings, eps: Images, sigma: float, denoise: Denoise
    ) -> tuple[Images, Denoise]:
        """Where a walk from pictures begins, and a denoiser that knows what stays as it is."""
        _, height, width = self.shape
        here = start.at(self.height, self.width)
        clean = here.clean if self.space is None else self.space.encode(here.clean)
        keep = here.at(height, width).keep
        x = clean + eps * sigma
        return x, denoise if keep is None else kept(denoise, clean, keep)

    def _bind(
        self,
        both: Condition,
        num_images: int,
        settings: StageSettings,
        phrases: PlacedPhrases,
        controls: Sequence[StageControl],
        spread: Spread | None,
        levels: Sigmas,
    ) -> Denoise:
        joint = self._told(both, phrases, controls, spread, levels)
        alone, scale = joint, 1.0
        if both.batch_size > num_images:
            scale = settings.guidance_scale
            if settings.guidance_interval is not None:
                first = _first(both, num_images)
                alone = self._told(first, phrases, controls, spread, levels)
        denoise = guided_jointly(joint, alone, scale, settings.guidance_interval)
        if settings.thresholding is None:
            return denoise
        return thresholded(denoise, settings.thresholding)

    def _spread(self, settings: StageSettings) -> Spread | None:
        """Where the network is to say its variance, if it learned one and the sampler goes by it."""
        plan = self.timestep_plan
        learned = plan is not None and plan.learned_variance
        return Spread() if learned and settings.sampler == "ddpm" else None

    def _told(
        self,
        condition: Condition,
        phrases: PlacedPhrases,
        controls: Sequence[StageControl],
        spread: Spread | None,
        levels: Sigmas,
    ) -> Denoise:
        """The denoiser with its condition bound; the bias of regions depends on sigma, and is bound at every call.

        What depends on the noise ``levels`` of the walk alone is done at once, where the denoiser knows how.
        """
        context = self.denoiser.prepare(condition)
        if isinstance(self.denoiser, Denoiser | TimestepDenoiser):
            context = self.denoiser.foresee(context, levels)
        for control in controls:
            context = control.onto(context, condition)
        if spread is not None:
            context = context.with_spread(spread)
        plain = self.denoiser.bind(context)
        if not phrases.pictures:
            return plain

        def denoise(x: Images, sigma: Sigmas) -> Images:
            bias = phrases.at(sigma)
            return (
                plain(x, sigma)
                if bias is None
                else self.denoiser(x, sigma, context.with_bias(bias))
            )

        return denoise

    def _with_low_res(
        self,
        both: Condition,
        low_res: Images,
        seeds: Sequence[int],
        settings: StageSettings,
        device: torch.device | str,
    ) -> Condition:
        """Add the picture to enlarge to every row, augmented with noise of its own generators."""
        if self.noising is not None:
            low_res = enlarged(low_res, self.height, self.width)
        sigma = torch.full((len(low_res),), settings.low_res_sigma, device=device)
        if settings.low_res_sigma > 0:
            _, channels, height, width = low_res.shape
            eps = ImageNoise(
                seeds,
                purpose=f"{self.name}/low_res",
                shape=(channels, height, width),
                device=device,
            )
            low_res = augment_low_res(low_res, sigma, eps())
        halves = both.batch_size // len(low_res)
        told = sigma if self.noising is None else self.noising.schedule.timestep(sigma)
        return both.with_low_res(torch.cat([low_res] * halves), torch.cat([told] * halves))


def _newest(spread: Spread, num_images: int) -> Images:
    """What was said of the pictures that are told the prompt, which come first."""
    assert spread.newest is not None  # a sampler calls the network first
    return spread.newest[:num_images]


def _joined(cond: Condition, uncond: Condition, settings: StageSettings) -> Condition:
    """Both halves of guidance as one batch; ``cond`` alone where guidance would change nothing."""
    if settings.guidance_scale == 1 or (is_silent(cond) and is_silent(uncond)):
        return cond
    return Condition.cat([cond, uncond])


def _with_numbers(condition: Condition, numbers: tuple[float, ...]) -> Condition:
    """The same for every row, or nothing for a network that is told none."""
    if not numbers:
        return condition
    like = next(iter(condition.streams.values())).tokens
    rows = torch.tensor([numbers] * condition.batch_size, device=like.device)
    return replace(condition, numbers=rows)


def is_silent(condition: Condition) -> bool:
    """Whether no stream says anything, as for an empty prompt."""
    return not any(bool(stream.mask.any()) for stream in condition.streams.values())


def _first(both: Condition, num_images: int) -> Condition:
    """The half that is told the prompt."""
    streams = {
        name: Stream(
            tokens=stream.tokens[:num_images],
            mask=stream.mask[:num_images],
            pooled=None if stream.pooled is None else stream.pooled[:num_images],
        )
        for name, stream in both.streams.items()
    }
    low_res, level, numbers, control = (
        both.low_res,
        both.low_res_sigma,
        both.numbers,
        both.control,
    )
    return Condition(
        streams=streams,
        low_res=None if low_res is None else low_res[:num_images],
        low_res_sigma=None if level is None else level[:num_images],
        numbers=None if numbers is None else numbers[:num_images],
        control=None if control is None else control[:num_images],
    )


def _without_gradients(steps: Iterator[Step]) -> Iterator[Step]:
    """Advance a walk in inference mode, and leave that mode whenever the caller holds the reins."""
    while True:
        with torch.inference_mode():
            step = next(steps, None)
        if step is None:
            return
        yield step


__all__ = ["Stage", "StageSettings", "is_silent"]
