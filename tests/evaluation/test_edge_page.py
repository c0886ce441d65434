"""A look at edges says how true they are, and refuses what cannot be seen."""

import pytest
import torch
from tiny_networks import awake, some_condition, tiny

from bottega.diffusion import Denoiser
from bottega.errors import InputError
from bottega.evaluation.edge_page import agreement, look_at_edges
from bottega.models.edge_head import EdgeHeadConfig, EdgeSupervised
from bottega.seeding import generator


def some_edges(n=2, size=16):
    draw = torch.rand(n, size, size, generator=generator(4))
    return (draw > 0.7).to(torch.uint8) * 255


def supervised():
    return EdgeSupervised(awake(tiny()), EdgeHeadConfig(width=4)).eval()


def clean_pictures(n=2, size=16):
    return torch.rand(n, 3, size, size, generator=generator(5)) * 2 - 1


def test_drawn_edges_that_are_the_true_ones_agree_fully_and_their_opposite_not_at_all():
    edges = some_edges()
    logits = torch.where(edges[:, None] > 0, 4.0, -4.0)
    assert agreement(logits, edges) == pytest.approx(1)
    assert agreement(-logits, edges) == pytest.approx(-1)
    assert agreement(torch.zeros(2, 1, 16, 16), edges) == 0
    assert agreement(logits, torch.zeros_like(edges)) == 0


def test_agreement_is_that_of_numpy():
    edges, logits = some_edges(), torch.randn(2, 1, 16, 16, generator=generator(6))
    expected = torch.corrcoef(torch.stack([logits.sigmoid().flatten(), edges.float().flatten()]))[
        0, 1
    ]
    assert agreement(logits, edges) == pytest.approx(expected.item(), abs=1e-5)


def test_a_row_shows_picture_edges_and_three_planes_per_size_of_layer():
    network, edges = supervised(), some_edges()
    seen = look_at_edges(network, Denoiser, clean_pictures(), some_condition(), edges, 0.5)
    assert len(seen.scores) == len(network.edge_heads)
    again = look_at_edges(network, Denoiser, clean_pictures(), some_condition(), edges, 0.5)
    assert again.page.tobytes() == seen.page.tobytes()
    other = look_at_edges(network, Denoiser, clean_pictures(), some_condition(), edges, 0.5, seed=1)
    assert other.page.tobytes() != seen.page.tobytes()
    assert other.page.size == seen.page.size
    assert seen.page.convert("L").getextrema() == (0, 255)


def test_what_is_shown_may_be_other_than_what_is_painted():
    shown = -torch.ones(2, 3, 32, 32)
    plain = look_at_edges(
        supervised(), Denoiser, clean_pictures(), some_condition(), some_edges(), 0.5
    )
    black = look_at_edges(
        supervised(),
        Denoiser,
        clean_pictures(),
        some_condition(),
        some_edges(),
        0.5,
        pictures=shown,
    )
    assert black.scores == plain.scores
    assert black.page.tobytes() != plain.page.tobytes()


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf")])
def test_noise_that_is_none_is_refused(sigma):
    with pytest.raises(InputError, match="above 0 and finite"):
        look_at_edges(
            supervised(), Denoiser, clean_pictures(), some_condition(), some_edges(), sigma
        )


def test_a_picture_without_its_text_is_refused():
    condition = some_condition().dropped({"clip_text": torch.tensor([False, True])})
    with pytest.raises(InputError, match="needs a text of the stream clip_text"):
        look_at_edges(supervised(), Denoiser, clean_pictures(), condition, some_edges(), 0.5)
