"""What a painter's stage is probed with: prompts as conditions, and unseen pictures of the world with their words."""

from collections.abc import Sequence

from bottega.checkpoint import load_manifest
from bottega.condition import Condition
from bottega.config import from_json
from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig, WorldSource
from bottega.diffusion import Denoiser, LogNormal
from bottega.errors import InputError
from bottega.evaluation.expectation import check
from bottega.evaluation.probes.switch import Follows, PromptPair
from bottega.evaluation.prompts import Prompt
from bottega.pipelines import DenoiserConfig, Painter, Stage
from bottega.shapes import Images


def told(painter: Painter, texts: Sequence[str]) -> Condition:
    """What the painter's networks are told of these texts."""
    return painter.encoders.condition(list(texts)).to(device=painter.device)


def prompt_pairs(painter: Painter, prompts: Sequence[Prompt]) -> list[PromptPair]:
    """Each prompt, and the next one of another thing as what it is switched to.

    Raises:
        InputError: With fewer than two prompts.
    """
    if len(prompts) < 2:
        raise InputError(f"switching needs at least 2 prompts, got {len(prompts)}")
    silence = told(painter, [""])
    pairs: list[PromptPair] = []
    for first, second in zip(prompts, [*prompts[1:], prompts[0]], strict=True):
        pairs.append(
            PromptPair(
                first=told(painter, [first.text]),
                second=told(painter, [second.text]),
                uncond=silence,
                follows_first=_follows(first),
                follows_second=_follows(second),
            )
        )
    return pairs


def unseen(painter: Painter, stage: Stage, start: int, count: int) -> tuple[Images, Condition]:
    """Pictures of held-out scenes as the stage's denoiser sees them, and their captions as conditions."""
    source = WorldSource(EmojiWorld(EmojiWorldConfig(split="held_out")), stage.size)
    batch = source.batch(range(start, start + count))
    pictures = batch.clean().to(painter.device)
    clean = pictures if stage.space is None else stage.space.encode(pictures)
    return clean, stage.numbered(told(painter, batch.captions))


def training_noise(painter: Painter, stage: Stage) -> tuple[Denoiser, LogNormal]:
    """The one denoiser of a stage, and the noise it was trained with.

    Raises:
        InputError: For a stage of several expert denoisers, which share no weights, or one of another kind.
    """
    if stage.timestep_plan is not None:
        raise InputError(
            f"stage {stage.name} was trained with timesteps; the gradients of noise levels are compared for networks "
            "that were trained with a log-normal of noise"
        )
    if not isinstance(stage.denoiser, Denoiser):
        raise InputError(
            f"stage {stage.name} is not one shared denoiser, so its noise levels share no gradient; probe the "
            "denoiser that its expert denoisers come from"
        )
    entry = next(entry for entry in painter.manifest.stages if entry.name == stage.name)
    if painter.folder is None:
        return stage.denoiser, LogNormal()
    config = load_manifest(painter.folder / entry.folder).config
    return stage.denoiser, from_json(DenoiserConfig, config).noise


def _follows(prompt: Prompt) -> Follows:
    return lambda reading: check(prompt.expected, reading)["things"]


__all__ = ["prompt_pairs", "told", "training_noise", "unseen"]
