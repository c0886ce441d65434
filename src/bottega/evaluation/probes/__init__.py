"""Looking inside a denoiser: when it listens, what it looks at, and where its tasks conflict."""

from bottega.evaluation.probes.attention import TextShare as TextShare
from bottega.evaluation.probes.attention import look as look
from bottega.evaluation.probes.experts import Misrouted as Misrouted
from bottega.evaluation.probes.experts import misroute as misroute
from bottega.evaluation.probes.intervals import Split as Split
from bottega.evaluation.probes.intervals import best_split as best_split
from bottega.evaluation.probes.intervals import denoising_loss as denoising_loss
from bottega.evaluation.probes.intervals import gradient_cosines as gradient_cosines
from bottega.evaluation.probes.switch import PromptPair as PromptPair
from bottega.evaluation.probes.switch import Switched as Switched
from bottega.evaluation.probes.switch import Switching as Switching
from bottega.evaluation.probes.switch import probe_switch as probe_switch

__all__ = [
    "Misrouted",
    "PromptPair",
    "Split",
    "Switched",
    "Switching",
    "TextShare",
    "best_split",
    "denoising_loss",
    "gradient_cosines",
    "look",
    "misroute",
    "probe_switch",
]
