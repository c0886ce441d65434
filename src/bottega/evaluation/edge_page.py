"""What edge supervision does, to be seen: where the text is looked at, the edges drawn from it, and the true ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from bottega.condition import Condition
from bottega.diffusion import DenoiserLike
from bottega.errors import InputError
from bottega.models.edge_head import EdgeSupervised, Plane, Watching, last_token
from bottega.pipelines import sheet
from bottega.pipelines.output import to_pictures
from bottega.seeding import generator
from bottega.shapes import Images
from bottega.training.edge_objective import edges_at
from bottega.training.edge_targets import EdgeBatch

_CELL_PX = 96


class EdgeLook(NamedTuple):
    """What was seen: the page, and for every layer that reads text how well drawn edges go with true ones."""

    page: Image.Image
    scores: tuple[float, ...]


def look_at_edges(
    network: EdgeSupervised,
    as_denoiser: Callable[[nn.Module], DenoiserLike],
    clean: Float[Tensor, "batch clean_channels clean_height clean_width"],
    condition: Condition,
    edges: EdgeBatch,
    sigma: float,
    *,
    pictures: Images | None = None,
    seed: int = 0,
) -> EdgeLook:
    """Draw edges from where a text is looked at, and lay them beside the true ones.

    The page has a row per picture: the picture, its edges, and for each size of layer a map, the edges its head drew,
    and the true ones there. Of the layers of one size the last is shown. Maps are shares of their largest value.

    Args:
        network: With its heads.
        as_denoiser: Makes a denoiser of a network.
        clean: What the network is to paint: pictures, or their latents.
        condition: The words of each.
        edges: The true edges, at any size.
        sigma: How much noise is put on.
        pictures: What to show, where ``clean`` is latents.
        seed: Of the noise.

    Raises:
        InputError: For a noise level that is not above 0, or a picture whose text the network was not told.
    """
    if not 0 < sigma < float("inf"):
        raise InputError(f"the noise to look at is above 0 and finite, got {sigma}")
    watching = Watching(network)
    denoiser = as_denoiser(watching)
    eps = torch.randn(clean.shape, generator=generator(seed, "probe", "edges")).to(clean)
    level = torch.full((len(clean),), sigma, device=clean.device)
    with torch.no_grad():
        denoiser(clean + sigma * eps, level, denoiser.prepare(condition))
        assert watching.context is not None  # it has been prepared
        token = last_token(watching.context, network.config.stream, len(clean))
        if not bool(token.present.all()):
            raise InputError(f"every picture needs a text of the stream {network.config.stream}")
        drawn = network.draw(watching.maps, token, torch.arange(len(clean), device=clean.device))
    shown = {tuple(plane.shape[2:]): place for place, (plane, _) in enumerate(drawn)}
    columns: list[list[Image.Image]] = [
        [_fitted(picture) for picture in to_pictures(clean if pictures is None else pictures)],
        _planes(edges[:, None].float() / 255),
    ]
    titles = ["picture", "edges"]
    for (height, width), place in sorted(shown.items(), reverse=True):
        plane, logits = drawn[place]
        columns += [_planes(plane), _planes(logits.sigmoid())]
        columns += [_planes(edges_at(edges, height, width))]
        size = f"{height} x {width}"
        layer = watching.maps[place].layer
        titles += [f"attention, layer {layer}, {size}", "drawn from it", f"edges at {size}"]
    cells = [column[row] for row in range(len(clean)) for column in columns]
    page = sheet(cells, len(columns), titles * len(clean))
    return EdgeLook(page=page, scores=tuple(agreement(logits, edges) for _, logits in drawn))


def agreement(logits: Plane, edges: EdgeBatch) -> float:
    """The correlation of drawn edges with true ones, over all positions of all pictures; 0 where either is even."""
    found = logits.float().sigmoid().flatten().double()
    true = edges_at(edges, *logits.shape[-2:]).to(found).flatten()
    found, true = found - found.mean(), true - true.mean()
    spread = (found.square().sum() * true.square().sum()).sqrt()
    return float((found * true).sum() / spread) if float(spread) > 0 else 0.0


def _planes(planes: Plane) -> list[Image.Image]:
    grey = (planes[:, 0].float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return [_fitted(Image.fromarray(plane.numpy()).convert("RGB")) for plane in grey]


def _fitted(picture: Image.Image) -> Image.Image:
    """As large as a cell, with every position plain to see."""
    scale = _CELL_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST)


__all__ = ["EdgeLook", "agreement", "look_at_edges"]
