"""A study as a file, as a table for a terminal, and as curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottega import config as configs
from bottega.errors import InputError
from bottega.evaluation.plot import Curve
from bottega.evaluation.study import ArmScore, Study
from bottega.rundir import write_atomically

if TYPE_CHECKING:
    from rich.table import Table


def save_study(study: Study, path: Path | str) -> None:
    """Write a study as JSON, with every share worked out for other readers."""
    data = configs.to_json(study)
    for row, arm in zip(data["arms"], study.arms, strict=True):
        for claim, share in arm.shares.items():
            row["shares"][claim]["share"] = share.value
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    write_atomically(Path(path), text.encode())


def study_table(study: Study) -> "Table":
    """A row per arm: every claim with its 95% interval, the distance from real pictures, and the time."""
    from rich.table import Table

    claims = list(dict.fromkeys(claim for arm in study.arms for claim in arm.shares))
    facts = "95% intervals; distance = Frechet distance from real pictures in the judge's features"
    table = Table(title=study.kind, caption=facts, caption_justify="left")
    for name in ("arm", *claims, "distance", "s per picture"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm in study.arms:
        shares = [str(arm.shares[c]) if c in arm.shares else "-" for c in claims]
        table.add_row(
            arm.name,
            *shares,
            "-" if arm.distance is None else f"{arm.distance:.4g}",
            f"{arm.seconds:.3g}",
        )
    return table


def tradeoff_curves(study: Study, claim: str = "right") -> list[Curve]:
    """For arms named ``model @ scale``, a curve per model: alignment to the right, distance upwards.

    Raises:
        InputError: When an arm has no distance.
    """
    models: dict[str, list[tuple[str, ArmScore]]] = {}
    for arm in study.arms:
        model, at, scale = arm.name.rpartition(" @ ")
        if at:
            models.setdefault(model, []).append((scale, arm))
    return [
        Curve(
            name=model,
            points=tuple((arm.shares[claim].value, _distance(arm)) for _, arm in rows),
            labels=tuple(scale for scale, _ in rows),
        )
        for model, rows in models.items()
    ]


def strength_curves(study: Study, claims: Sequence[str]) -> list[Curve]:
    """For arms named ``weighting strength``, a curve per weighting and claim over the strength, with intervals."""
    rows: dict[str, list[tuple[float, ArmScore]]] = {}
    for arm in study.arms:
        weighting, _, strength = arm.name.rpartition(" ")
        if weighting:
            rows.setdefault(weighting, []).append((float(strength), arm))
    curves: list[Curve] = []
    for weighting, arms in rows.items():
        for claim in claims:
            here = [(strength, arm.shares[claim]) for strength, arm in arms if claim in arm.shares]
            if here:
                curves.append(
                    Curve(
                        name=f"{claim}, {weighting}",
                        points=tuple((strength, share.value) for strength, share in here),
                        bands=tuple((share.low, share.high) for _, share in here),
                    )
                )
    return curves


def _distance(arm: ArmScore) -> float:
    if arm.distance is None:
        raise InputError(f"arm {arm.name} has no distance from real pictures")
    return arm.distance


__all__ = ["save_study", "strength_curves", "study_table", "tradeoff_curves"]
