"""bottega show says how many experts a network has, where they sit and what is at work at once."""

import re

import pytest

from bottega.cli.main import run


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["show", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("target", ["piccolo_raphael", "piccolo-raphael"])
def test_a_plan_and_a_recipe_say_where_their_experts_sit(capsys, target: str):
    said = shown(capsys, target)
    assert "experts            in 16 transformer blocks" in said
    places = re.findall(r"level +(\d+) px +\d+ channels +(\d+) blocks \((.*?)\)", said)
    assert [(int(size), int(blocks)) for size, blocks, _ in places] == [(8, 10), (4, 6)]
    assert places[1][2] == "2 down, 2 middle, 2 up"
    assert said.count("6 space experts of") == said.count("4 time experts of") == 2
    assert "at work at once" in said


def test_shares_are_those_of_all_parameters(capsys):
    said = shown(capsys, "piccolo_raphael")
    shares = [
        int(share) for share in re.findall(r"^  [a-z][a-z -]+ +[\d.]+[KMB]  +(\d+)%$", said, re.M)
    ]
    assert len(shares) > 4
    assert abs(sum(shares) - 100) <= len(shares)


def test_a_network_without_experts_says_nothing_of_them(capsys):
    assert "experts" not in shown(capsys, "piccolo_base")


def test_the_full_size_recipe_stands_beside_the_paper(capsys):
    assert "the paper's figure 3B, difference -2.6%" in shown(capsys, "raphael")
    other = shown(capsys, "raphael", "--set", "task.network.levels.*.attention.space.experts=2")
    assert "paper's figure" not in other
    assert "each with 2 space experts" in other
