"""How the judge learns: the layout of each drawn picture, as targets on its grid."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bottega.data import Batch
from bottega.data.emoji_world.plan import PlacedObject, PlacedWord, Plan, Style
from bottega.errors import InputError, nearest
from bottega.evaluation.degrade import Degradation, resized
from bottega.evaluation.expectation import COLOURLESS
from bottega.evaluation.judge_network import STRIDE, JudgeConfig, Seen
from bottega.training.objective import Loss

# A cell this close to a centre (the height of the heat map there) learns its thing's name.
_NAMED_ABOVE = 0.4

_UNSEEN = -100
_AS_PAINTED = Degradation()


class Targets(NamedTuple):
    """What the network should have said; each cell speaks of the thing nearest to it.

    Tints and backgrounds that the picture's style hides are marked, and nobody is blamed for them.
    """

    heat: Float[Tensor, "batch rows columns"]
    centres: Bool[Tensor, "batch rows columns"]
    thing: Int64[Tensor, "batch rows columns"]
    tint: Int64[Tensor, "batch rows columns"]
    offset: Float[Tensor, "batch 2 rows columns"]
    log_size: Float[Tensor, "batch rows columns"]
    background: Int64[Tensor, "batch"]
    style: Int64[Tensor, "batch"]
    sign: Int64[Tensor, "batch"]


class JudgeObjective:
    """The loss of a judge on a batch of drawn pictures, whose examples carry their plans."""

    def __init__(
        self, config: JudgeConfig, *, degradation: Degradation | None = _AS_PAINTED
    ) -> None:
        """Train for ``config``; ``degradation`` None shows every picture as it was drawn."""
        self._config = config
        self._degradation = degradation

    def __call__(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        """Spoil the pictures, look at them, and compare with how they were laid out.

        Raises:
            InputError: When the batch comes without plans, or names what this judge does not know.
        """
        if len(batch.examples) != len(batch):
            raise InputError("a judge learns from drawn pictures, whose batches carry examples")
        images = resized(batch.clean(), self._config.size_px)
        if self._degradation is not None:
            images = self._degradation(images, generator)
        seen: Seen = network(images)
        targets = targets_of([example.plan for example in batch.examples], self._config)
        targets = Targets(*(part.to(images.device) for part in targets))
        parts = _losses(seen, targets)
        per_image = torch.stack(list(parts.values())).sum(0)
        metrics = {name: part.mean().detach() for name, part in parts.items()}
        return Loss(total=per_image.mean(), per_image=per_image.detach(), metrics=metrics)


def targets_of(plans: Sequence[Plan], config: JudgeConfig) -> Targets:
    """Lay plans out on the judge's grid."""
    cells = config.size_px // STRIDE
    most = max([1, *(len(plan.objects) for plan in plans)])
    # Rows of x, y, size, thing, tint; a row too many lies far outside every picture.
    objects = torch.full((len(plans), most, 5), -1e3)
    objects[..., 2:] = 0
    indices = _Indices(config)
    for i, plan in enumerate(plans):
        for j, placed in enumerate(plan.objects):
            objects[i, j] = torch.tensor(indices.of_object(placed, plan.style))
    x, y = objects[..., 0] * cells, objects[..., 1] * cells
    along = torch.arange(cells) + 0.5
    to_x = x[..., None, None] - along
    to_y = y[..., None, None] - along[:, None]
    away = to_x.square() + to_y.square()
    spread = (objects[..., 2] * cells / 6).clamp(min=0.8)[..., None, None]
    heat, owner = torch.exp(-away / (2 * spread.square())).max(1)
    return Targets(
        heat=heat,
        centres=((to_x.abs() <= 0.5) & (to_y.abs() <= 0.5)).any(1),
        thing=_owned(objects[..., 3].long(), owner),
        tint=_owned(objects[..., 4].long(), owner),
        offset=torch.stack(
            [along_axis.gather(1, owner[:, None])[:, 0] for along_axis in _both(to_x, to_y)], 1
        ),
        log_size=_owned(objects[..., 2].clamp(min=1e-3).log(), owner),
        background=torch.tensor([indices.of_ground(plan) for plan in plans]),
        style=torch.tensor([indices.style[plan.style] for plan in plans]),
        sign=torch.tensor([indices.of_word(plan.word) for plan in plans]),
    )


class _Indices:
    def __init__(self, config: JudgeConfig) -> None:
        self.thing = _Words(config.things, "thing")
        self.background = _Words(config.backgrounds, "background")
        self.style = _Words(config.styles, "style")
        self.tint = _Words(config.tints, "tint")
        self.sign = _Words(config.signs, "sign")

    def of_object(self, placed: PlacedObject, style: Style) -> list[float]:
        tint = 0 if placed.tint is None else 1 + self.tint[placed.tint]
        if style in COLOURLESS:
            tint = _UNSEEN
        return [placed.x, placed.y, placed.size, float(self.thing[placed.thing]), float(tint)]

    def of_ground(self, plan: Plan) -> int:
        # Neon signs hang in the dark, whatever colour was planned.
        return _UNSEEN if plan.style == "neon" else self.background[plan.background]

    def of_word(self, word: PlacedWord | None) -> int:
        return 0 if word is None else 1 + self.sign[word.text]


class _Words(dict[str, int]):
    def __init__(self, words: Sequence[str], kind: str) -> None:
        super().__init__({word: index for index, word in enumerate(words)})
        self._kind = kind

    def __missing__(self, word: str) -> int:
        raise InputError(f"this judge knows no {self._kind} {word!r}{nearest(word, self)}")


def _both(to_x: Tensor, to_y: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(to_x.shape, to_y.shape)
    return to_x.expand(shape), to_y.expand(shape)


def _owned(values: Tensor, owner: Tensor) -> Tensor:
    return values.gather(1, owner.flatten(1)).view(owner.shape)


def _losses(seen: Seen, targets: Targets) -> Mapping[str, Float[Tensor, "batch"]]:
    """The parts of the loss, each per picture."""
    named = torch.where(targets.heat > _NAMED_ABOVE, targets.heat, torch.zeros_like(targets.heat))
    share = named / named.sum((1, 2), keepdim=True).clamp(min=1)
    place = F.smooth_l1_loss(seen.offset, targets.offset, reduction="none").sum(1)
    size = F.smooth_l1_loss(seen.log_size, targets.log_size, reduction="none")
    tint = F.cross_entropy(seen.tint, targets.tint, ignore_index=_UNSEEN, reduction="none")
    return {
        "centre": _focal(seen.centre, targets),
        "thing": (F.cross_entropy(seen.thing, targets.thing, reduction="none") * share).sum((1, 2)),
        "tint": (tint * share).sum((1, 2)),
        "place": (place * share).sum((1, 2)),
        "size": (size * share).sum((1, 2)),
        "background": F.cross_entropy(
            seen.background, targets.background, ignore_index=_UNSEEN, reduction="none"
        ),
        "style": F.cross_entropy(seen.style, targets.style, reduction="none"),
        "sign": F.cross_entropy(seen.sign, targets.sign, reduction="none"),
    }


def _focal(centre: Float[Tensor, "batch rows columns"], targets: Targets) -> Float[Tensor, "batch"]:
    """Cells that are plainly right count little, and cells beside a centre are not blamed for it.

    Source: Law and Deng 2018 (arXiv:1808.01244), eq. 1 with alpha 2 and beta 4; divided by the number of centres.
    """
    chance = centre.sigmoid()
    hit = (1 - chance).square() * F.logsigmoid(centre)
    miss = (1 - targets.heat).pow(4) * chance.square() * F.logsigmoid(-centre)
    number = targets.centres.sum((1, 2)).clamp(min=1)
    return -torch.where(targets.centres, hit, miss).sum((1, 2)) / number


__all__ = ["JudgeObjective", "Targets", "targets_of"]
