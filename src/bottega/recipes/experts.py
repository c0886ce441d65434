"""Experts in a run: their loads join the loss, and the journal has them."""

from bottega.models import UNetConfig
from bottega.training import Hook, Objective
from bottega.training.experts import ExpertsHook, ExpertsObjective


def with_experts(objective: Objective, network: UNetConfig, balance: float) -> Objective:
    """The objective with gates that explore and are evened out, where the network has experts."""
    if not network.has_experts:
        return objective
    return ExpertsObjective(objective=objective, balance=balance)


def expert_hooks(objective: Objective | None, every_images: int) -> list[Hook]:
    """What watches the experts of a run, if its objective, or one inside it, has any."""
    while objective is not None and not isinstance(objective, ExpertsObjective):
        objective = getattr(objective, "objective", None)
    if objective is None:
        return []
    return [ExpertsHook(objective.progress, every_images=every_images)]


__all__ = ["expert_hooks", "with_experts"]
