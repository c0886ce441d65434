"""Measuring what a model paints: a judge, fixed prompts, intervals, and distances between sets of pictures."""

from bottega.evaluation.alignment import Subject as Subject
from bottega.evaluation.alignment import evaluate as evaluate
from bottega.evaluation.alignment import images_of as images_of
from bottega.evaluation.judge import Judge as Judge
from bottega.evaluation.judge import Reading as Reading
from bottega.evaluation.judge_accuracy import judge_accuracy as judge_accuracy
from bottega.evaluation.judge_network import JudgeConfig as JudgeConfig
from bottega.evaluation.judge_network import JudgeNetwork as JudgeNetwork
from bottega.evaluation.judge_objective import JudgeObjective as JudgeObjective
from bottega.evaluation.judge_world import judge_config as judge_config
from bottega.evaluation.judge_world import judge_world as judge_world
from bottega.evaluation.prompts import CATEGORIES as CATEGORIES
from bottega.evaluation.prompts import Prompt as Prompt
from bottega.evaluation.prompts import make_prompts as make_prompts
from bottega.evaluation.report import Report as Report
from bottega.evaluation.report import compare as compare

__all__ = [
    "CATEGORIES",
    "Judge",
    "JudgeConfig",
    "JudgeNetwork",
    "JudgeObjective",
    "Prompt",
    "Reading",
    "Report",
    "Subject",
    "compare",
    "evaluate",
    "images_of",
    "judge_accuracy",
    "judge_config",
    "judge_world",
    "make_prompts",
]
