"""LoRAs and ControlNets on the command line: what they change is said, and bad input is one clear line."""

import pytest
from PIL import Image
from tiny_adapters import some_edges, write_controlnet, write_lora

from bottega.cli.beside import with_scale
from bottega.errors import InputError
from bottega.pipelines import open_picture


def test_paint_mixes_loras_and_follows_controls_and_replay_makes_it_again(
    bottega, tiny_folder, tmp_path
):
    lora = write_lora(tmp_path / "style")
    net = write_controlnet(tmp_path / "edges")
    some_edges().save(tmp_path / "edges.png")
    painted = bottega(
        *("paint", "a dog", "--model", tiny_folder, "-o", "a.png", "--device", "cpu"),
        *("--lora", f"{lora}@0.8", "--controlnet", net, "--control", "edges.png@0.5"),
    )
    assert painted.code == 0, painted.err
    assert "LoRA style at 0.8 changes base" in painted.err
    assert "ControlNet edges reads edges and steers base" in painted.err
    again = bottega(
        *("replay", "a.png", "--model", tiny_folder, "--lora", lora),
        *("--controlnet", net, "--control", "edges.png"),
    )
    assert again.code == 0, again.err
    assert "identical" in again.out


def as_run(run, make):
    """A run's folder that has exported what ``make`` writes."""
    run.mkdir()
    for name in ("config.json", "journal.jsonl"):
        (run / name).touch()
    make(run / "export")
    return run


def test_a_run_is_as_good_as_its_export(bottega, tiny_folder, tmp_path):
    lora = as_run(tmp_path / "grey", write_lora)
    net = as_run(tmp_path / "lines", write_controlnet)
    some_edges().save(tmp_path / "edges.png")
    for name, ending in (("run.png", ""), ("export.png", "/export")):
        done = bottega(
            *("paint", "a dog", "--model", tiny_folder, "-o", name, "--device", "cpu"),
            *("--lora", f"{lora}{ending}@0.8", "--control", "edges.png"),
            *("--controlnet", f"{net}{ending}"),
        )
        assert done.code == 0, done.err
        assert "LoRA grey at 0.8" in done.err and "ControlNet lines" in done.err
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "export.png").read_bytes()
    assert bottega("show", lora).out == bottega("show", lora / "export").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lora", "nowhere"], "there is no folder nowhere"),
        (["--lora", "style@much"], "a scale is a finite number after @, as in style@0.8"),
        (["--lora", "style@inf"], "a scale is a finite number after @"),
        (["--control", "edges.png"], "--controlnet and --control go together, got 0 and 1"),
        (["--controlnet", "net"], "--controlnet and --control go together, got 1 and 0"),
        (["--controlnet", "net", "--control", "none.png"], "cannot read none.png"),
        (
            ["--controlnet", "net", "--control", "large.png"],
            "the control picture is 16 x 16, but stage base paints 8 x 8",
        ),
        (["--lora", "net"], "net is not a LoRA: it holds no adapter_config.json"),
        (["--controlnet", "style", "--control", "edges.png"], "holds a lora, not a controlnet"),
        (["--controlnet", "none", "--control", "edges.png"], "none is not a checkpoint"),
        (["--controlnet", "net", "--control", "net"], "cannot read net as a picture"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    bottega, tiny_folder, tmp_path, options, words: str
):
    write_lora(tmp_path / "style")
    write_controlnet(tmp_path / "net")
    some_edges().save(tmp_path / "edges.png")
    some_edges(16).save(tmp_path / "large.png")
    done = bottega(
        "paint", "a dog", "--model", tiny_folder, "--device", "cpu", "-o", "a.png", *options
    )
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_a_path_may_hold_an_at_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style@2").mkdir()
    assert with_scale("style@2") == ("style@2", 1.0)
    assert with_scale("style@2@0.5") == ("style@2", 0.5)
    assert with_scale("style") == ("style", 1.0)
    assert with_scale("style@-1") == ("style", -1.0)
    with pytest.raises(InputError):
        with_scale("@2")


def test_edges_of_a_picture_become_a_control_picture(bottega, tmp_path):
    picture = Image.new("RGB", (64, 48), "white")
    picture.paste((200, 0, 0), (24, 16, 40, 32))
    picture.save(tmp_path / "photo.png")
    done = bottega("data", "edges", "photo.png", "-o", "edges.png", "--size", "16")
    assert done.code == 0, done.err
    drawn = Image.open(tmp_path / "edges.png").convert("L")
    assert drawn.size == (16, 16)
    assert set(drawn.tobytes()) == {0, 255}
    tall = bottega("data", "edges", "photo.png", "-o", "tall.png", "--size", "24x16")
    assert tall.code == 0, tall.err
    assert open_picture("tall.png").size == (16, 24)
    for size in ("4", "16x4", "9000"):
        refused = bottega("data", "edges", "photo.png", "--size", size)
        assert refused.code == 2
        assert "8192" in refused.err and refused.err.count("\n") == 1
    assert "HEIGHTxWIDTH" in bottega("data", "edges", "photo.png", "--size", "wide").err


def test_a_painting_of_another_shape_is_steered_by_a_picture_of_that_shape(
    bottega, tiny_folder, tmp_path
):
    net = write_controlnet(tmp_path / "net")
    Image.new("RGB", (30, 60), "white").save(tmp_path / "photo.png")
    paint = ("paint", "a dog", "--model", tiny_folder, "--device", "cpu", "-o", "a.png")
    steer = ("--controlnet", net, "--control", "edges.png", "--size", "32x16")
    assert bottega("data", "edges", "photo.png", "-o", "edges.png", "--size", "8").code == 0
    refused = bottega(*paint, *steer)
    assert refused.code == 2 and "make one of that size" in refused.err
    asked = refused.err.partition("bottega data edges --size ")[2].partition(")")[0]
    assert asked == "16x8"
    assert bottega("data", "edges", "photo.png", "-o", "edges.png", "--size", asked).code == 0
    done = bottega(*paint, *steer)
    assert done.code == 0, done.err


def test_show_says_what_an_adapter_is_for(bottega, tmp_path):
    shown = bottega("show", write_lora(tmp_path / "style", parts=("1/1",)))
    assert shown.code == 0, shown.err
    assert "checkpoint         lora" in shown.out
    assert "trained beside     stage base of tiny" in shown.out
    assert "expert denoisers   1/1" in shown.out
    assert "rank               2, on attention" in shown.out
    shown = bottega("show", write_controlnet(tmp_path / "edges"))
    assert "expert denoisers   all" in shown.out
    assert "reads              edges" in shown.out
