"""What is learned beside a model that stays as it is: a LoRA, or a ControlNet."""

from dataclasses import dataclass, field

from bottega.conditioning import ConditionDropout
from bottega.data import Canny
from bottega.models.lora import LoraPlan
from bottega.training.edge_targets import EdgeTargets


@dataclass(frozen=True, kw_only=True)
class LoraTask:
    """Train a LoRA beside a stage of a model that stays as it is.

    ``model`` is a model folder, or the name of a model that ships with bottega. Of a stage made of expert denoisers the
    LoRA is shared by those that ``parts`` names, and by all where it names none; only their noise is drawn. ``dropout``
    silences what is heard; an imported model's text falls empty as often as it says for ``t5``.
    """

    model: str = "piccolo"
    stage: str = "base"
    parts: tuple[str, ...] = ()
    lora: LoraPlan = field(default_factory=LoraPlan)
    dropout: ConditionDropout = field(default_factory=ConditionDropout)


@dataclass(frozen=True, kw_only=True)
class ControlNetTask:
    """Train a ControlNet that steers a stage of a model by edges; the model stays as it is.

    ``model``, ``stage``, ``parts`` and ``dropout`` are those of `LoraTask`: a ControlNet is shared by the expert
    denoisers that it steers, and begins as a copy of the one for the most noise. ``edges`` are what it is to follow,
    and ``hint_width`` is the width of the first layer that sees them.

    Source: Zhang et al. 2023 (arXiv:2302.05543), section 3.3: half of the prompts are replaced by empty ones.
    """

    model: str = "piccolo"
    stage: str = "base"
    parts: tuple[str, ...] = ()
    edges: EdgeTargets = field(default_factory=Canny)
    hint_width: int = 16
    dropout: ConditionDropout = field(
        default_factory=lambda: ConditionDropout(t5=0.5, clip_text=0.5)
    )


AdapterTask = LoraTask | ControlNetTask

__all__ = ["AdapterTask", "ControlNetTask", "LoraTask"]
