"""What an evaluation found, with the card that says how; figures with different cards are never put side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega import config as configs
from bottega.errors import InputError
from bottega.evaluation.intervals import share_ratio, wilson
from bottega.rundir import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

_COMPARED = ("prompts_digest", "num_prompts", "seeds", "size", "judge_digest")


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a figure was made. ``settings`` are the painter's, as plain JSON."""

    model: str
    model_digest: str
    settings: Any
    prompts_digest: str
    num_prompts: int
    seeds: tuple[int, ...]
    size: int
    judge_digest: str
    bottega: str

    def mismatch(self, other: "Card") -> list[str]:
        """What keeps two figures from being compared, as sentences; models and their settings may differ."""
        return [
            f"{name} is {getattr(self, name)} in one and {getattr(other, name)} in the other"
            for name in _COMPARED
            if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many pictures of how many, with the ends of the 95% interval."""

    successes: int
    trials: int
    low: float
    high: float

    @staticmethod
    def of(successes: int, trials: int, effect: float = 1.0) -> "Share":
        """Count, with Wilson's interval widened by the design effect of several seeds to a prompt."""
        interval = wilson(successes, trials, design_effect=effect)
        return Share(successes=successes, trials=trials, low=interval.low, high=interval.high)

    @property
    def value(self) -> float:
        """The share itself."""
        return self.successes / self.trials

    def __str__(self) -> str:
        return f"{self.value:6.1%} [{self.low:5.1%}, {self.high:6.1%}]"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One claim in one category: how often it holds in paintings, and in real pictures of the same prompts.

    ``by_seed`` is the share for each seed of the card, in its order.
    """

    category: str
    claim: str
    painted: Share
    ceiling: Share
    by_seed: tuple[float, ...]

    @property
    def of_ceiling(self) -> float | None:
        """The score as a share of the judge's own; None where the judge is never right."""
        return self.painted.value / self.ceiling.value if self.ceiling.successes else None

    @property
    def of_ceiling_interval(self) -> tuple[float, float]:
        """The 95% interval of `of_ceiling`, for independent pictures."""
        painted, ceiling = self.painted, self.ceiling
        interval = share_ratio(painted.successes, painted.trials, ceiling.successes, ceiling.trials)
        return interval.low, interval.high


@dataclass(frozen=True, kw_only=True)
class Report:
    """All scores of one model, under one card."""

    card: Card
    scores: tuple[Score, ...]

    def score(self, category: str, claim: str = "right") -> Score:
        """One score by its name.

        Raises:
            InputError: When the report has none of that name.
        """
        for score in self.scores:
            if (score.category, score.claim) == (category, claim):
                return score
        raise InputError(f"this report holds no {claim!r} of {category!r}")

    def save(self, path: Path | str) -> None:
        """Write the report as JSON, with the ratios worked out for other readers."""
        data = configs.to_json(self)
        for row, score in zip(data["scores"], self.scores, strict=True):
            row["of_ceiling"] = score.of_ceiling
        text = json.dumps(data, indent=2, allow_nan=False) + "\n"
        write_atomically(Path(path), text.encode())

    @staticmethod
    def load(path: Path | str) -> "Report":
        """Read a report that `save` wrote.

        Raises:
            InputError: When it cannot be read or is no report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            for row in data["scores"]:
                row.pop("of_ceiling")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a report of bottega: {error}") from None
        return configs.from_json(Report, data)

    def table(self) -> "Table":
        """The report for a terminal."""
        table = _table(f"alignment of {self.card.model}", _facts(self.card))
        for name in ("category", "claim", "pictures", "painted", "real", "of real", "by seed"):
            table.add_column(name, justify="left" if name in ("category", "claim") else "right")
        before = ""
        for score in self.scores:
            if before and score.category != before:
                table.add_section()
            table.add_row(
                "" if score.category == before else score.category,
                score.claim,
                str(score.painted.trials),
                str(score.painted),
                str(score.ceiling),
                _percent(score.of_ceiling),
                f"{min(score.by_seed):.0%} to {max(score.by_seed):.0%}",
            )
            before = score.category
        return table


def compare(reports: Sequence[Report], *, claim: str = "right") -> "Table":
    """Several reports side by side, one column each.

    Raises:
        InputError: When their cards differ in more than the model and its settings, or there are none.
    """
    if not reports:
        raise InputError("there is nothing to compare: give at least one report")
    first = reports[0]
    for other in reports[1:]:
        reasons = first.card.mismatch(other.card)
        if reasons:
            raise InputError(
                f"{first.card.model} and {other.card.model} cannot be compared: "
                f"{'; '.join(reasons)}; evaluate both in the same way"
            )
    table = _table(f"alignment, {claim}", _facts(first.card))
    table.add_column("category")
    for report in reports:
        table.add_column(report.card.model, justify="right")
    table.add_column("real", justify="right")
    for score in (score for score in first.scores if score.claim == claim):
        shares = [str(report.score(score.category, claim).painted) for report in reports]
        table.add_row(score.category, *shares, str(score.ceiling))
    return table


def _table(title: str, caption: str) -> "Table":
    from rich.table import Table

    return Table(title=title, caption=caption, caption_justify="left")


def _facts(card: Card) -> str:
    seeds = ", ".join(map(str, card.seeds))
    return (
        f"{card.num_prompts} prompts ({card.prompts_digest[:12]}), seeds {seeds}, {card.size} px, "
        f"judge {card.judge_digest[:12]}; 95% intervals; real = the judge on real pictures"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


__all__ = ["Card", "Report", "Score", "Share", "compare"]
