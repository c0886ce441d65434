"""Studies count what is there, go on where they were stopped, and give known painters what they deserve."""

import math

import pytest
import torch

from bottega.data.emoji_world import holds_unseen, is_held_out_triple, vocabulary
from bottega.errors import InputError
from bottega.evaluation.judge import Detection, Reading
from bottega.evaluation.plot import Curve, _decade_ticks, plot
from bottega.evaluation.regions import landed, layout_prompts
from bottega.evaluation.study import REAL, Arm, Task, conduct
from bottega.evaluation.study_report import (
    save_study,
    strength_curves,
    study_table,
    tradeoff_curves,
)
from bottega.evaluation.super_resolution import inconsistency, proposed, sweep


def detection(thing: str, x: float, y: float) -> Detection:
    return Detection(thing=thing, score=1.0, x=x, y=y, size=0.3, tint=None)


def reading(*detections: Detection) -> Reading:
    return Reading(detections=detections, background="white", style="plain", word=None)


class Grey:
    """Calls bright pictures cats; the features are their mean colours."""

    digest = "grey"

    def read(self, images):
        return [
            reading(detection("cat" if image.mean() > 0 else "dog", 0.5, 0.5)) for image in images
        ]

    def features(self, images):
        return images.mean((2, 3))


def flat(values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4).clone()


def arm(name: str, level: float, calls: list | None = None) -> Arm:
    def paint(items, seeds):
        if calls is not None:
            calls.extend((name, i, s) for i, s in zip(items, seeds, strict=True))
        return flat([level + 0.01 * (i + 3 * s) for i, s in zip(items, seeds, strict=True)])

    return Arm(name=name, paint=paint)


TASKS = [Task(name=str(i), verdict=lambda r: {"cat": ["cat" in r.counts()]}) for i in range(4)]


def run(calls=None, **options):
    arms = [arm("m @ 1", 0.5, calls), arm("m @ 2", -0.5, calls)]
    given = {"card": {}, "seeds": (0, 1), "real": arm(REAL, 0.5, calls)} | options
    return conduct("toy", arms, TASKS, Grey(), **given)


def test_shares_and_distances_are_those_of_the_pictures(tmp_path):
    study = run()
    assert study.arm("m @ 1").shares["cat"].value == 1
    assert study.arm("m @ 2").shares["cat"].value == 0
    assert study.arm(REAL).distance is None
    assert study.arm("m @ 1").distance == pytest.approx(0, abs=1e-6)
    assert study.arm("m @ 2").distance == pytest.approx(
        3.0, rel=1e-4
    )  # three colours, each one off
    (curve,) = tradeoff_curves(study, "cat")
    assert curve.labels == ("1", "2") and curve.points[1] == (0.0, study.arm("m @ 2").distance)
    save_study(study, tmp_path / "s.json")
    assert '"share": 1.0' in (tmp_path / "s.json").read_text()
    assert study_table(study).row_count == 3
    with pytest.raises(InputError, match="no arm"):
        study.arm("other")


def test_a_stopped_study_goes_on_and_paints_nothing_twice(tmp_path):
    journal = tmp_path / "j.jsonl"
    whole = run(journal=journal)
    text = journal.read_text()
    cut = text[: text.rfind("\n", 0, len(text) // 2) + 20]
    journal.write_text(cut)
    calls: list = []
    again = run(calls, journal=journal)
    assert 0 < len(calls) < 24 and len(set(calls)) == len(calls)
    for one, other in zip(whole.arms, again.arms, strict=True):
        assert (one.shares, one.distance) == (other.shares, other.distance)
    with pytest.raises(InputError, match="another study"):
        run(journal=journal, card={"a": 1})
    journal.write_text("{\n")
    with pytest.raises(InputError, match="damaged"):
        run(journal=journal)


def test_a_study_refuses_what_it_cannot_count():
    for options in ({"seeds": ()}, {"seeds": (1, 1)}, {"batch_size": 0}):
        with pytest.raises(InputError):
            run(**options)


def test_layouts_are_unseen_do_not_overlap_and_say_nothing_of_places():
    prompts = layout_prompts(vocabulary("core", 60), 40)
    assert [len(p.places) for p in prompts[:4]] == [2, 3, 2, 3]
    assert prompts == layout_prompts(vocabulary("core", 60), 40)
    for prompt in prompts:
        boxes = [box for _, box in prompt.places]
        for i, one in enumerate(boxes):
            assert min(one) >= 0 and max(one) <= 1
            for other in boxes[:i]:
                assert (
                    one[2] <= other[0]
                    or other[2] <= one[0]
                    or one[3] <= other[1]
                    or other[3] <= one[1]
                )
        assert all(thing in prompt.text for thing, _ in prompt.places)
        assert not any(word in prompt.text for word in ("left", "above", "background"))
        assert not holds_unseen(prompt.plan)  # the plan states no relation; its layout has one
        (a, first), (b, second) = prompt.places[:2]
        relations = {
            "left of": first[0] < second[0],
            "right of": first[0] > second[0],
            "above": first[1] < second[1],
            "below": first[1] > second[1],
        }
        assert any(there and is_held_out_triple(a, name, b) for name, there in relations.items())


def test_a_thing_has_landed_when_its_middle_is_inside_its_own_box():
    places = (
        ("cat", (0.0, 0.0, 0.5, 0.5)),
        ("dog", (0.5, 0.5, 1.0, 1.0)),
        ("car", (0.5, 0.0, 1.0, 0.5)),
    )
    held = landed(places, reading(detection("cat", 0.2, 0.4), detection("dog", 0.2, 0.8)))
    assert held["found"] == [True, True, False]
    assert held["landed"] == [True, False, False]
    assert held["landed of found"] == [True, False]
    assert held["all landed"] == [False]


def test_curves_of_strength_are_sorted_out_by_weighting():
    arms = [arm("without", 0.1), arm("largest 0", 0.2), arm("largest 0.5", 0.3), arm("std 1", 0.1)]
    study = conduct("toy", arms, TASKS, Grey(), card={})
    curves = strength_curves(study, ("cat",))
    assert [curve.name for curve in curves] == ["cat, largest", "cat, std"]
    assert [x for x, _ in curves[0].points] == [0.0, 0.5]


def test_a_logarithmic_axis_counts_in_round_numbers():
    def shown(low: float, high: float) -> list[float]:
        return [round(10**value, 4) for value in _decade_ticks(math.log10(low), math.log10(high))]

    assert shown(1.4, 9.5) == [1.5, 2, 3, 4, 6, 8]
    assert shown(0.9, 21) == [1, 2, 5, 10, 20]
    assert shown(1, 10) == [1, 2, 5, 10]
    assert shown(0.02, 90) == [0.1, 1, 10]
    assert shown(1e-3, 1e9) == [1e-3, 1e-1, 10, 1e3, 1e5, 1e7, 1e9]
    assert len(shown(5.0, 5.5)) > 2  # and in any where there are none


def test_a_plot_shows_every_curve_where_its_points_are():
    low = Curve(name="low", points=((1.0, 0.0), (10.0, 0.0)), bands=((0.0, 0.1), (0.0, 0.1)))
    high = Curve(name="high", points=((1.0, 1.0), (10.0, 1.0)), labels=("a", "b"))
    page = plot([low, high], title="t", x_name="x", y_name="y", log_x=True)
    rows = {
        colour: [y for y in range(60, 480) if page.getpixel((400, y)) == colour]
        for colour in ((0x1F, 0x5F, 0xBF), (0xD1, 0x49, 0x5B))
    }
    assert min(rows[0x1F, 0x5F, 0xBF]) > max(rows[0xD1, 0x49, 0x5B])
    with pytest.raises(InputError, match="needs points"):
        plot([], title="t", x_name="x", y_name="y")
    with pytest.raises(InputError, match="above 0"):
        plot([Curve(name="c", points=((0.0, 1.0),))], title="t", x_name="x", y_name="y", log_x=True)


def test_what_shrinks_back_to_the_small_picture_is_consistent():
    small = torch.rand(2, 3, 4, 4)
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.allclose(inconsistency(large, small), torch.zeros(2), atol=1e-6)
    assert torch.allclose(inconsistency(large + 0.2, small), torch.full((2,), 0.2), atol=1e-5)
    with pytest.raises(InputError, match="evenly"):
        inconsistency(large, torch.zeros(2, 3, 5, 5))


def test_the_level_proposed_is_the_one_that_comes_nearest_to_real_pictures():
    from bottega.evaluation.fid import gaussian

    real = [flat([0.1 * i]).repeat_interleave(2, 2).repeat_interleave(2, 3) for i in range(4)]
    small = [picture[..., ::2, ::2] for picture in real]

    def enlarge(low_res, level, seeds):
        return low_res.repeat_interleave(2, 2).repeat_interleave(2, 3) + abs(level - 0.3)

    features = Grey().features
    scores = sweep("own", small, [0.0, 0.3, 0.5], enlarge, features, gaussian(map(features, real)))
    assert proposed(scores, "own").low_res_sigma == 0.3
    assert [score.inconsistency for score in scores] == pytest.approx([0.3, 0.0, 0.2], abs=1e-5)
    with pytest.raises(InputError, match="nothing was measured"):
        proposed(scores, "clean")
    with pytest.raises(InputError, match="a sweep needs"):
        sweep("own", small[:1], [0.0], enlarge, features, gaussian(map(features, real)))
