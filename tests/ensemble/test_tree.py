import math
from itertools import pairwise

import pytest
import torch

from bottega.config import from_json, to_json
from bottega.diffusion import LogNormal, karras
from bottega.ensemble import (
    Between,
    Complement,
    Node,
    find_tile,
    leftmost,
    parse_part,
    probability_intervals,
    rightmost,
    sigma_bounds,
    tiles,
)
from bottega.errors import ConfigError

NOISE = LogNormal()
OTHER_NOISE = LogNormal(mean=-0.8, std=1.4)
CONFIG_D = (Node(9, 511), Node(3, 0), Complement((Node(9, 511), Node(3, 0))))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("level", "inner"),
    [
        (1, [0.3012]),
        (2, [0.1341, 0.3012, 0.6766]),
        (3, [0.0757, 0.1341, 0.2055, 0.3012, 0.4415, 0.6766, 1.1977]),
    ],
)
def test_the_bounds_of_a_level_are_ediff_is(level, inner):
    bounds = [sigma_bounds(Node(level, index), NOISE) for index in range(2**level)]
    assert all(len(intervals) == 1 for intervals in bounds)
    edges = [bounds[0][0][0], *(intervals[0][1] for intervals in bounds)]
    assert edges == pytest.approx([0, *inner, math.inf], abs=5e-5)


@pytest.mark.parametrize(
    ("level", "leftmost_below", "rightmost_above"),
    [
        (3, "0.0757", "1.198"),
        (4, "0.0478", "1.898"),
        (5, "0.0322", "2.816"),
        (6, "0.0227", "3.993"),
        (7, "0.0166", "5.480"),
        (8, "0.0124", "7.331"),
        (9, "0.00944", "9.610"),
    ],
)
def test_the_outermost_leaves_are_ediff_is_in_every_digit(level, leftmost_below, rightmost_above):
    ((low, high),) = sigma_bounds(Node(level, 0), NOISE)
    assert low == 0
    assert f"{high:.{len(leftmost_below) - 2}f}" == leftmost_below
    ((low, high),) = sigma_bounds(Node(level, 2**level - 1), NOISE)
    assert f"{low:.3f}" == rightmost_above
    assert high == math.inf


def test_bounds_are_quantiles_of_the_noise_the_parent_was_trained_with():
    node = Node(2, 2)
    for noise in (NOISE, OTHER_NOISE):
        ((low, high),) = sigma_bounds(node, noise)
        assert (noise.cdf(low), noise.cdf(high)) == pytest.approx((0.5, 0.75))


def test_a_quarter_of_the_steps_of_a_painting_are_the_outer_experts():
    """What section 3.3 of our notes on the paper counts: 9 and 5 of 25 steps."""
    owners = [find_tile(tiles(CONFIG_D, NOISE), sigma).part for sigma in karras(25)[:-1]]
    assert owners == [0] * 9 + [2] * 11 + [1] * 5


def test_family_ties():
    node = Node(9, 511)
    assert node.parent == Node(8, 255)
    assert node.ancestors == (*reversed(rightmost(8)), Node(0, 0))
    assert Node(0, 0).parent is None
    assert Node(0, 0).ancestors == ()
    assert Node(2, 1).children == (Node(3, 2), Node(3, 3))
    assert all(child.parent == Node(2, 1) for child in Node(2, 1).children)
    assert leftmost(3) == (Node(1, 0), Node(2, 0), Node(3, 0))
    assert rightmost(3) == (Node(1, 1), Node(2, 3), Node(3, 7))
    assert Node(1, 1).contains(Node(3, 4))
    assert Node(1, 1).contains(Node(1, 1))
    assert not Node(1, 1).contains(Node(3, 3))
    assert not Node(3, 4).contains(Node(1, 1))


def test_children_halve_their_parents_noise():
    (whole,) = Node(3, 5).probability
    (low,), (high,) = (child.probability for child in Node(3, 5).children)
    assert (low[0], low[1], high[1]) == (whole[0], sum(whole) / 2, whole[1])
    assert high[0] == low[1]


def test_a_complement_is_what_its_leaves_leave_over():
    assert Complement((Node(9, 511),)).probability == ((0.0, 511 / 512),)
    assert Complement((Node(9, 511), Node(3, 0))).probability == ((1 / 8, 511 / 512),)
    assert Complement((Node(2, 1),)).probability == ((0.0, 0.25), (0.5, 1.0))
    assert Complement((Node(2, 1), Node(2, 2))).probability == ((0.0, 0.25), (0.75, 1.0))


@pytest.mark.parametrize(
    "part",
    [
        Node(9, 511),
        Node(3, 0),
        Node(3, 5),
        Complement((Node(9, 511), Node(3, 0))),
        Complement((Node(3, 2), Node(5, 20))),
        Between(0.0, 0.9),
        Between(0.9),
        Between(0.3, 1.7),
    ],
    ids=str,
)
@pytest.mark.parametrize("noise", [NOISE, OTHER_NOISE], ids=["edm", "another"])
def test_in_a_million_draws_a_part_never_leaves_its_own_noise(part, noise):
    draws = noise.sample(1_000_000, generator(), probability_intervals(part, noise))
    bounds = sigma_bounds(part, noise)
    inside = torch.zeros_like(draws, dtype=torch.bool)
    for low, high in bounds:
        low32 = float(torch.tensor(low)) if isinstance(part, Between) else low
        high32 = float(torch.tensor(high)) if isinstance(part, Between) else high
        inside |= (draws.double() >= low32) & (draws.double() < high32)
    assert inside.all()


@pytest.mark.parametrize(
    "parts",
    [CONFIG_D, (Between(0.0, 0.9), Between(0.9)), tuple(Node(2, i) for i in range(4))],
    ids=["three", "two", "four"],
)
def test_every_draw_of_a_part_is_routed_to_that_part(parts):
    tiling = tiles(parts, NOISE)
    edges = torch.tensor([tile.low for tile in tiling[1:]])
    for index, part in enumerate(parts):
        draws = NOISE.sample(200_000, generator(index), probability_intervals(part, NOISE))
        places = torch.bucketize(draws, edges, right=True)
        assert {tiling[int(place)].part for place in places.unique()} == {index}


def test_what_a_part_draws_follows_the_noise_of_the_parent():
    part = Complement((Node(2, 1),))
    draws = NOISE.sample(100_000, generator(), probability_intervals(part, NOISE))
    share = NOISE.cdf(draws.double())
    assert float((share < 0.25).double().mean()) == pytest.approx(1 / 3, abs=1e-4)
    assert float(share[share > 0.5].mean()) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    ["0/0", "9/511", "complement(9/511)", "complement(3/0,9/511)", "between(0.9,inf)"],
)
def test_a_part_reads_back_what_it_writes(text):
    part = parse_part(text)
    assert str(part) == text
    assert parse_part(str(part)) == part


def test_writing_keeps_every_digit_of_a_sigma():
    part = Between(1 / 3, 2 / 3)
    assert Between.parse(str(part)) == part


def test_a_complement_is_the_same_in_any_order():
    part = Complement.parse("complement(9/511, 3/0)")
    assert part == Complement((Node(3, 0), Node(9, 511)))
    assert str(part) == "complement(3/0,9/511)"


@pytest.mark.parametrize("part", [Node(3, 1), CONFIG_D[2], Between(0.2, 3.0), Between(0.5)])
def test_a_part_survives_json(part):
    assert from_json(type(part), to_json(part)) == part


def test_no_upper_end_may_be_written_as_infinity():
    assert Between(0.9, math.inf) == Between(0.9)
    assert sigma_bounds(Between(0.9), NOISE) == ((0.9, math.inf),)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Node(9, 512), "nodes 0 to 511"),
        (lambda: Node(-1, 0), "0 to 20"),
        (lambda: Node(21, 0), "0 to 20"),
        (lambda: Node(2, -1), "nodes 0 to 3"),
        (lambda: Node.parse("9-511"), "LEVEL/INDEX"),
        (lambda: Node.parse("9/x"), "LEVEL/INDEX"),
        (lambda: Complement(()), "at least one node"),
        (lambda: Complement((Node(1, 0), Node(3, 2))), "overlap"),
        (lambda: Complement((Node(1, 0), Node(1, 0))), "overlap"),
        (lambda: Complement((Node(1, 0), Node(1, 1))), "nothing over"),
        (lambda: Complement.parse("complement 3/0"), "complement(3/0,9/511)"),
        (lambda: Complement.parse("complement(3/9)"), "nodes 0 to 7"),
        (lambda: Between(0.9, 0.9), "sigma_low < sigma_high"),
        (lambda: Between(-0.1, 1.0), "sigma_low < sigma_high"),
        (lambda: Between(math.nan, 1.0), "sigma_low < sigma_high"),
        (lambda: Between(1.0, 1.0 + 1e-9), "no float32 sigma"),
        (lambda: Between.parse("between(0.9)"), "between(0.9,inf)"),
        (lambda: Between.parse("over(0.9,1)"), "between(0.9,inf)"),
        (lambda: parse_part("everything"), "9/511, complement(3/0,9/511) or between(0.9,inf)"),
    ],
)
def test_what_is_no_part_of_the_noise_is_refused(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)


def test_tiles_lie_side_by_side_from_zero_to_infinity():
    tiling = tiles(CONFIG_D, NOISE)
    assert [tile.part for tile in tiling] == [1, 2, 0]
    assert tiling[0].low == 0
    assert tiling[-1].high == math.inf
    assert all(a.high == b.low for a, b in pairwise(tiling))
    assert [tile.low for tile in tiling[1:]] == pytest.approx([0.0757, 9.610], rel=1e-3)


def test_a_part_may_own_several_tiles():
    tiling = tiles((Node(2, 1), Complement((Node(2, 1),))), NOISE)
    assert [tile.part for tile in tiling] == [1, 0, 1]


def test_nodes_and_sigmas_tile_together():
    cut = NOISE.quantile(0.5)
    assert [tile.part for tile in tiles((Node(1, 1), Between(0.0, cut)), NOISE)] == [1, 0]
    assert [tile.part for tile in tiles((Between(cut), Node(1, 0)), NOISE)] == [1, 0]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), "at least one part"),
        ((Node(1, 1),), "sigma from 0 to 0.301194 belongs to no expert"),
        ((Node(1, 0),), "sigma from 0.301194 up belongs to no expert"),
        ((Node(2, 0), Node(1, 1)), "sigma from 0.134071 to 0.301194 belongs to no expert"),
        ((Node(1, 0), Complement((Node(2, 0),))), "0.134071 to 0.301194 belongs to both 1/0 and"),
        ((Node(0, 0), Node(3, 3)), "belongs to both 0/0 and 3/3"),
        ((Between(0.0, 0.9), Between(1.0)), "sigma from 0.9 to 1 belongs to no expert"),
        ((Between(0.0, 1.0), Between(0.9)), "sigma from 0.9 to 1 belongs to both"),
        ((Node(0, 0), Node(0, 0)), "sigma from 0 to inf belongs to both 0/0 and 0/0"),
    ],
)
def test_a_gap_or_an_overlap_is_refused_with_its_sigma(parts, words):
    with pytest.raises(ConfigError) as caught:
        tiles(parts, NOISE)
    assert words in str(caught.value)


def test_a_sigma_on_a_written_bound_belongs_above_it():
    tiling = tiles((Between(0.0, 0.9), Between(0.9)), NOISE)
    assert find_tile(tiling, 0.9).part == 1
    assert find_tile(tiling, float(torch.tensor(0.9))).part == 1
    below = torch.nextafter(torch.tensor(0.9), torch.tensor(0.0))
    assert find_tile(tiling, float(below)).part == 0


def test_every_sigma_has_a_tile():
    tiling = tiles(CONFIG_D, NOISE)
    for sigma, part in [(0.0, 1), (1e-30, 1), (0.5, 2), (80.0, 0), (1e30, 0), (math.inf, 0)]:
        assert find_tile(tiling, sigma).part == part
    for nonsense in (-1.0, math.nan):
        with pytest.raises(ConfigError, match="0 or more"):
            find_tile(tiling, nonsense)
