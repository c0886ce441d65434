"""A programme is data that fits together, tells its cost truly, and comes back from its file as it was."""

import json
from dataclasses import replace

import pytest

from bottega.errors import ConfigError, InputError
from bottega.models.counting import describe
from bottega.recipes import recipe
from bottega.recipes.forecast import rate_here, try_network, with_forecast
from bottega.recipes.programme import (
    PlannedNode,
    Programme,
    plan_stage,
    plan_text,
    read_plan,
    same_work,
)

BASE, SR = recipe("piccolo-base"), recipe("piccolo-sr")


def programme(*stages) -> Programme:
    return Programme(name="all", shape="ediffi", stages=stages)


def nodes_of(shape: str, **options) -> dict[str, str]:
    stage = plan_stage("base", BASE, shape, **options)
    return {node.part: node.parent for node in stage.nodes}


def test_the_published_shape_has_two_leaves_and_what_is_between():
    expected = {"9/511": "0/0", "3/0": "0/0", "complement(3/0,9/511)": "0/0"}
    assert nodes_of("ediffi") == expected
    halves = plan_stage("sr", SR, "ediffi").nodes
    assert [(node.part, node.parent) for node in halves] == [("1/0", "0/0"), ("1/1", "0/0")]


def test_levels_grow_one_from_the_other():
    assert nodes_of("levels", depth=2) == {
        "1/0": "0/0",
        "1/1": "0/0",
        "2/0": "1/0",
        "2/1": "1/0",
        "2/2": "1/1",
        "2/3": "1/1",
    }
    stage = plan_stage("base", BASE, "levels", depth=2)
    assert [stage.wave(part) for part in stage.parts] == [0, 1, 1, 2, 2, 2, 2]


def test_two_experts_share_the_noise_at_a_sigma():
    expected = {"between(0.0,0.9)": "0/0", "between(0.9,inf)": "0/0"}
    assert nodes_of("two", sigma=0.9) == expected


def test_custom_nodes_find_the_narrowest_around_them_whatever_their_order():
    chain = ("9/511", "1/1", "3/7")
    assert nodes_of("custom", nodes=chain) == {"1/1": "0/0", "3/7": "1/1", "9/511": "3/7"}


def test_figure_7_is_reckoned_as_the_paper_does():
    """500k shared, 50k on each of two, 50k on each of four: as many images as a baseline of 800k."""
    run = replace(BASE, train=replace(BASE.train, total_images=500_000, warmup_images=0))
    stage = plan_stage("base", run, "levels", depth=2, images=50_000)
    forecast = with_forecast(programme(stage), {"base": 100.0}).forecast
    assert forecast is not None
    books = forecast.ledgers[0]
    assert (books.images, books.path_images) == (800_000, 600_000)
    cost = describe(BASE.task.network, BASE.size)
    assert books.ensemble_call_flops == books.call_flops == 2 * cost.macs
    assert books.num_experts == 4
    assert forecast.flops == books.flops == 800_000 * cost.training_flops
    assert forecast.seconds_in_a_row == pytest.approx(8000)
    assert forecast.seconds_side_by_side == pytest.approx(6000)
    assert forecast.num_machines == 4


def test_a_finished_root_costs_nothing_more_and_an_unknown_speed_no_time():
    stage = plan_stage("base", BASE, "ediffi", images=64_000, root_run="runs/base")
    forecast = with_forecast(programme(stage), {"base": 10.0}).forecast
    assert forecast is not None and forecast.nodes[0].flops == 0
    assert forecast.seconds_in_a_row == pytest.approx(3 * 6400)
    assert forecast.nodes[1].path_images == BASE.train.total_images + 64_000
    blind = with_forecast(programme(stage), {}).forecast
    assert (
        blind is not None and blind.seconds_in_a_row is None and blind.seconds_side_by_side is None
    )


def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path):
    stages = (plan_stage("base", BASE, "ediffi"), plan_stage("sr", SR, "ediffi"))
    plan = with_forecast(programme(*stages), {"base": 3.0, "sr": 4.0})
    (tmp_path / "plan.json").write_text(plan_text(plan))
    assert read_plan(tmp_path / "plan.json") == plan
    assert same_work(plan, programme(*stages)) and plan != programme(*stages)


def test_a_network_is_tried_where_it_can_be_and_a_finished_root_is_believed(tmp_path):
    lab = recipe("lab")
    rate = try_network(replace(lab, size=8), lab.task)
    assert rate is not None and rate > 0
    large = recipe("imagen-base64")
    assert try_network(large, large.task) is None
    (tmp_path / "journal.jsonl").write_text('{"images_per_s": 12.5}\n')
    assert rate_here(plan_stage("lab", lab, "ediffi", root_run=str(tmp_path))) == 12.5


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("1/0", "0/0"), ("1/0", "0/0")], "has the node 1/0 twice"),
        ([("2/3", "1/1")], "grows from 1/1, which comes nowhere before it"),
        ([("1/0", "0/0"), ("2/3", "1/0")], "2/3 is not below 1/0"),
        ([("1/0", "0/0"), ("between(0.1,9.0)", "0/0")], "neither lies inside the other"),
    ],
    ids=str,
)
def test_nodes_that_do_not_fit_together_are_refused(nodes, words):
    stage = plan_stage("base", BASE, "ediffi")
    planned = tuple(PlannedNode(part=part, parent=parent, images=64) for part, parent in nodes)
    with pytest.raises(ConfigError, match=words):
        replace(stage, nodes=planned)


def test_a_node_cannot_change_what_it_shares_with_its_parent():
    stage = plan_stage("base", BASE, "ediffi")
    for settings, words in (
        ({"task.noise.mean": "0.0"}, "task.noise cannot be set for a child"),
        ({"train.bacth_size": "8"}, "did you mean batch_size"),
        ({"train.total_images": "8"}, "with images, not settings"),
    ):
        with pytest.raises(ConfigError, match=words):
            node = PlannedNode(part="1/0", parent="0/0", images=64, settings=settings)
            replace(stage, nodes=(node,))
    with pytest.raises(ConfigError, match="the root learns all noise"):
        child = replace(BASE, task=replace(BASE.task, part=stage.task.part.children[0]))
        replace(stage, run=child)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "judge"}, "is no plan"),
        ({"format_version": 2}, "upgrade bottega"),
        ({"stages": []}, "at least one stage"),
        ({"stagse": 1}, "did you mean stages"),
        ({"name": "../x"}, "a plan's name is a folder's name"),
    ],
    ids=str,
)
def test_files_that_make_no_sense_are_refused(tmp_path, changes, words):
    path = tmp_path / "plan.json"
    facts = json.loads(plan_text(programme(plan_stage("base", BASE, "ediffi"))))
    path.write_text(json.dumps(facts | changes))
    with pytest.raises(ConfigError, match=words):
        read_plan(path)
    for text in ("{", "[]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is no plan"):
            read_plan(path)


def test_an_unknown_stage_names_the_nearest():
    with pytest.raises(InputError, match="did you mean base"):
        programme(plan_stage("base", BASE, "ediffi")).stage("bass")
