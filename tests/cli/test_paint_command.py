"""``bottega paint`` and ``bottega replay`` as a user meets them."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bottega.pipelines import open_picture, read_provenance, save_picture


@pytest.fixture
def paint(bottega, tiny_folder):
    def call(*arguments):
        return bottega("paint", *arguments, "--model", tiny_folder, "--dtype", "float32")

    return call


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_one_line_gives_one_picture_that_can_be_made_again(paint, bottega, tiny_folder):
    done = paint("a pizza to the left of a cat", "-o", "cat.png")
    assert (done.code, done.out, done.err) == (0, "cat.png\n", "")
    assert files() == ["cat.png"]
    again = bottega("replay", "cat.png", "--model", tiny_folder, "-o", "again.png")
    assert (again.code, again.err) == (0, "")
    assert again.out == "cat.png: identical, byte for byte\n"
    assert Path("again.png").read_bytes() == Path("cat.png").read_bytes()


def test_options_reach_the_picture(paint):
    done = paint(
        *("a dog", "-o", "a.png", "--seed", 7, "--steps", 2, "--guidance", 0, "--sampler", "heun"),
        *("--negative", "a cat", "--encoders", "t5, clip_text", "--set", "sr16.sigma_max=9"),
    )
    assert done.code == 0, done.err
    origin = read_provenance("a.png")
    (request,) = origin.requests
    assert (request.prompt, request.negative, request.seed) == ("a dog", "a cat", 7)
    assert origin.encoders == ("t5", "clip_text")
    for record in origin.stages:
        assert (record.settings.steps, record.settings.sampler) == (2, "heun")
        assert record.settings.guidance_scale == 0
        assert record.settings.sigma_max == (9 if record.name == "sr16" else 80)


def test_several_pictures_are_numbered_and_equal_those_painted_alone(paint):
    done = paint("a dog", "a red car", "-n", 2, "--seed", 3, "-o", "many.png")
    assert done.out.split() == [f"many-{i}.png" for i in (1, 2, 3, 4)]
    origins = [read_provenance(f"many-{i}.png").requests[0] for i in (1, 2, 3, 4)]
    assert [(o.prompt, o.seed) for o in origins] == [
        ("a dog", 3), ("a dog", 4), ("a red car", 5), ("a red car", 6),
    ]  # fmt: skip
    paint("a red car", "--seed", 6, "-o", "alone.png")
    assert Path("alone.png").read_bytes() == Path("many-4.png").read_bytes()


def test_a_grid_is_one_sheet_that_can_be_replayed(paint, bottega, tiny_folder):
    done = paint("a dog", "", "a red car", "--grid", "--columns", 2, "-o", "grid.png")
    assert (done.code, files()) == (0, ["grid.png"])
    assert read_provenance("grid.png").sheet.columns == 2
    assert bottega("replay", "grid.png", "--model", tiny_folder).code == 0


def test_a_preview_grows_while_painting_and_is_never_half_written(paint, monkeypatch):
    from bottega.cli import paint as module

    monkeypatch.setattr(module, "_PREVIEW_SECONDS", 0.0)
    seen = []

    def note(picture, path, *, metadata=True):
        written = save_picture(picture, path, metadata=metadata)
        if Path(path).name == "live.png":
            seen.append(open_picture(path))
        return written

    monkeypatch.setattr("bottega.pipelines.save_picture", note)
    done = paint("a dog", "-o", "a.png", "--watch", "live.png")
    assert done.code == 0, done.err
    assert len(seen) == 5 and {p.size for p in seen} == {(16, 16)}
    assert len({p.tobytes() for p in seen}) > 2
    assert seen[-1].tobytes() == open_picture("a.png").tobytes()
    seen.clear()
    paint("a dog", "-n", 2, "-o", "a.png", "--watch", "live.png")
    assert seen[0].size < seen[-1].size
    assert files() == ["a-1.png", "a-2.png", "a.png", "live.png"]


def test_without_a_name_nothing_is_overwritten(paint):
    assert paint("a dog").out == "painting.png\n"
    assert paint("a dog").out == "painting-2.png\n"


def test_metadata_can_be_left_out_and_is_then_missed(paint, bottega):
    paint("a dog", "-o", "a.png", "--no-metadata")
    done = bottega("replay", "a.png")
    assert done.code == 2
    assert "does not say how it was made" in done.err and done.err.count("\n") == 1


def test_a_blank_prompt_paints_as_an_empty_one_does(paint):
    for name, prompt in {"a.png": "", "b.png": " \n\t ", "c.png": "a cat"}.items():
        assert paint(prompt, "-o", name).code == 0
    a, b, c = (open_picture(f"{name}.png").tobytes() for name in "abc")
    assert a == b != c


def test_any_writing_can_be_a_prompt_and_comes_back_from_the_file(paint, bottega, tiny_folder):
    prompt = "eine Katze\nüber der 🍕, كتب \0 猫"
    assert paint(prompt, "a dog", "--grid", "-o", "a.png").code == 0
    assert read_provenance("a.png").requests[0].prompt == prompt
    assert bottega("replay", "a.png", "--model", tiny_folder).code == 0


def test_files_that_may_not_be_written_are_left_alone(paint, monkeypatch):
    Path("full.png").symlink_to("/dev/full")
    done = paint("a", "-o", "full.png")
    assert done.code == 2 and "no ordinary file" in done.err and done.err.count("\n") == 1
    assert Path("full.png").is_symlink()
    Path("mine.png").write_bytes(b"precious")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # for root, too
    done = paint("a", "-o", "mine.png")
    assert done.code == 2 and "may only be read" in done.err and done.err.count("\n") == 1
    assert Path("mine.png").read_bytes() == b"precious"


def test_a_strangers_picture_names_no_folder_of_ours(paint, bottega, tiny_folder):
    assert paint("a dog", "-o", "a.png").code == 0
    origin = read_provenance("a.png")
    picture = open_picture("a.png")
    for name in ("tiny", str(tiny_folder), "\x1b[2J"):
        picture.info["bottega"] = replace(origin, model=name).dumps()
        save_picture(picture, "b.png")
        done = bottega("replay", "b.png")
        assert done.code == 2 and "does not come with bottega" in done.err
        assert "\x1b" not in done.err
    assert bottega("replay", "b.png", "--model", tiny_folder).out.startswith("b.png: ")


def test_a_long_prompt_is_cut_with_one_line_per_encoder(paint):
    done = paint("cat " * 10_000, "-o", "a.png", "--encoders", "t5")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("bottega: warning: ") and "are not seen" in line


def test_a_style_picture_is_used_and_asked_for_again(paint, bottega, tiny_folder):
    Image.new("RGB", (20, 20), "red").save("style.png")
    assert paint("a dog", "-o", "a.png", "--style", "style.png").code == 0
    done = bottega("replay", "a.png", "--model", tiny_folder)
    assert done.code == 2 and "needs its style picture" in done.err
    again = bottega("replay", "a.png", "--model", tiny_folder, "--style", "style.png")
    assert again.code == 0, again.err


def test_regions_are_painted_kept_and_explained(paint, bottega, tiny_folder):
    half = Image.new("L", (32, 32))
    half.paste(255, (16, 0, 32, 32))
    half.save("cat.png")
    prompt, names = "a pizza to the left of a cat", ("--region", "pizza@0,0,0.5,1*2")
    more = ("--region", "cat=cat.png*2", "--region", "pizza@0.5,0,1,1*-1")
    done = paint(prompt, *names, *more, "-o", "a.png", "--explain", "why.png")
    assert (done.code, done.out, done.err) == (0, "a.png\nwhy.png\n", "")
    assert open_picture("why.png").width > 300
    Path("cat.png").unlink()  # the mask is kept in the picture
    assert bottega("replay", "a.png", "--model", tiny_folder).out.endswith("byte for byte\n")
    assert [r.phrase for r in read_provenance("a.png").requests[0].regions] == [
        "pizza", "cat", "pizza",
    ]  # fmt: skip
    assert paint(prompt, "-o", "b.png").code == 0
    assert open_picture("a.png").tobytes() != open_picture("b.png").tobytes()
    assert paint(prompt, prompt, *names, "--grid", "-o", "grid.png").code == 0
    assert bottega("replay", "grid.png", "--model", tiny_folder).code == 0


def test_a_picture_to_begin_with_is_named_and_asked_for_again(paint, bottega, tiny_folder):
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save("old.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    mask.save("mask.png")
    assert paint("a dog", "-o", "a.png", "--from", "old.png", "--strength", 0.3).code == 0
    assert paint("a dog", "-o", "b.png", "--inpaint", "old.png", "--mask", "mask.png").code == 0
    kept = [open_picture(name).crop((8, 0, 16, 16)).tobytes() for name in ("old.png", "b.png")]
    assert kept[0] == kept[1]
    for name in ("a.png", "b.png"):
        done = bottega("replay", name, "--model", tiny_folder)
        assert done.code == 2 and "needs the picture it was painted from" in done.err
        done = bottega("replay", name, "--model", tiny_folder, "--from", "mask.png")
        assert done.code == 2 and "from another picture" in done.err
        done = bottega("replay", name, "--model", tiny_folder, "--from", "old.png")
        assert done.out.endswith("byte for byte\n")
    assert paint("a dog", "-o", "c.png").code == 0
    done = bottega("replay", "c.png", "--model", tiny_folder, "--from", "old.png")
    assert done.code == 2 and "not painted from a picture" in done.err


def test_encoders_may_be_added_up_and_a_style_alone_gives_variations(paint):
    Image.new("RGB", (20, 20), "red").save("style.png")
    assert paint("a dog", "-o", "a.png", "--encoders", "t5+clip").code == 0
    assert read_provenance("a.png").encoders == ("t5", "clip_text", "clip_image")
    assert paint("", "-o", "b.png", "--encoders", "t5", "--style", "style.png").code == 0
    assert read_provenance("b.png").encoders == ("t5", "clip_image")


BAD_TO_BEGIN_WITH = [
    (["--style", "words.txt"], "cannot read words.txt as a picture"),
    (["--region", "cat@0,0,1,1"], "'cat' does not occur in the prompt; its words are: a, dog"),
    (["--region", "dog@0,0,2,1"], "0 <= left < right <= 1"),
    (["--region", "dog=gone.png"], "no such file"),
    (["--region", "dog=words.txt"], "cannot read words.txt as a picture"),
    (["--region", "dog=wide.png"], "has the shape 20 x 10, the picture 16 x 16"),
    (["--region", "dog=colour.png"], "got a picture in colour"),
    (["--region", "dog"], "PHRASE@left,top,right,bottom"),
    (["--region", "dog@0,0,1,1", "--encoders", "clip_image"], "an encoder that reads"),
    (["--explain", "b.png"], "give --region too"),
    (["--region", "dog@0,0,1,1", "--explain", "gone/b.png"], "there is no folder"),
    (["--region", "dog@0,0,1,1", "--set", "base.region_strength=-1"], "region_strength must be"),
    (["--from", "words.txt"], "cannot read words.txt as a picture"),
    (["--from", "colour.png", "--strength", "1.5"], "strength is above 0 and at most 1"),
    (["--from", "colour.png", "--strength", "0"], "strength is above 0 and at most 1"),
    (["--from", "colour.png", "--strength", "nan"], "strength is above 0 and at most 1"),
    (["--strength", "0.5"], "give --from or --inpaint too"),
    (["--inpaint", "colour.png"], "--inpaint and --mask go together"),
    (["--mask", "wide.png"], "--inpaint and --mask go together"),
    (["--inpaint", "colour.png", "--from", "colour.png"], "give one of them"),
    (["--inpaint", "colour.png", "--mask", "wide.png"], "the mask is 20 x 10, the picture 16 x 16"),
    (["--inpaint", "colour.png", "--mask", "colour.png"], "got a picture in colour"),
]


@pytest.mark.parametrize(
    ("arguments", "words"), BAD_TO_BEGIN_WITH, ids=[" ".join(a) for a, _ in BAD_TO_BEGIN_WITH]
)
def test_a_bad_region_mask_or_picture_is_one_line_too(paint, arguments, words):
    Path("words.txt").write_text("no picture")
    Image.new("L", (20, 10), 255).save("wide.png")
    Image.new("RGB", (16, 16), "red").save("colour.png")
    before = files()
    done = paint("a dog", "-o", "a.png", *arguments)
    assert done.code == 2 and words in done.err
    assert done.err.startswith("bottega: ") and done.err.count("\n") == 1
    assert not done.out and files() == before


def test_a_picture_that_differs_is_told_and_exits_with_one(paint, bottega, tiny_folder):
    paint("a dog", "-o", "a.png")
    picture, origin = open_picture("a.png"), read_provenance("a.png")
    other = replace(origin, requests=(replace(origin.requests[0], seed=1),))
    picture.info["bottega"] = other.dumps()
    save_picture(picture, "a.png")
    done = bottega("replay", "a.png", "--model", tiny_folder)
    assert done.code == 1
    assert "pixels differ" in done.out


BAD = [
    (["a", "--steps", "-3"], "steps must be between 1"),
    (["a", "--steps", "0"], "steps must be between 1"),
    (["a", "--steps", "many"], "--steps"),
    (["a", "--guidance", "nan"], "guidance_scale must be a finite"),
    (["a", "--guidance", "inf"], "guidance_scale must be a finite"),
    (["a", "--guidance", "-1"], "guidance_scale must be a finite"),
    (["a", "--steps", "1000000000"], "steps must be between 1"),
    (["a", "--set", "base.sigma_max=3e38"], "not finite"),
    (["a", "--set", "base.guidance_interval=[0.1, 1e999]"], "guidance_interval"),
    (["\udcff"], "not valid Unicode"),
    (["é" * 900_000], "shorten the prompts"),
    (["a" * 50_000, "-n", "100", "--grid"], "paint fewer on a sheet"),
    (["a", "--sampler", "huen"], "did you mean heun"),
    (["a", "--encoders", "clip_txt"], "did you mean clip_text"),
    (["a", "--device", "cudda"], "did you mean cuda"),
    (["a", "--set", "base.stepz=3"], "did you mean steps"),
    (["a", "--set", "bas.steps=3"], "did you mean base"),
    (["a", "--set", "steps=3"], "name the stage"),
    (["a", "--set", "steps"], "a.b=value"),
    (["a", "-n", "0"], "--count must be at least 1"),
    (["a", "-n", "-1"], "--count must be at least 1"),
    (["a", "-n", "5000"], "at most 4096"),
    (["a", "--columns", "0", "--grid"], "--columns must be at least 1"),
    (["a", "--columns", "2"], "give --grid too"),
    (["a", "--seed", str(2**63)], "63 bits"),
    (["a", "--watch", "gone/x.png"], "there is no folder"),
    (["a", "-o", "gone/x.png"], "there is no folder"),
    (["a", "-o", "x.jpg"], "name the output x.png"),
    (["a", "-o", "x.png", "--watch", "./x.png"], "x.png is named for two outputs"),
    (["a", "-n", "3", "-o", "x.png", "--watch", "x-2.png"], "x-2.png is named for two outputs"),
    (["a", "--region", "a@0,0,1,1", "-o", "x.png", "--explain", "x.png"], "for two outputs"),
    (["a", "--encoders", ""], "expected names with commas"),
    (["a", "--style", "."], "it is a folder"),
    (["a", "-o", "."], "written as PNG"),
    (["a", "--style", "gone.png"], "no such file"),
    (["a", "--stps", "3"], "--steps"),
    ([], "PROMPT"),
]


@pytest.mark.parametrize(
    ("arguments", "words"),
    BAD,
    ids=[" ".join(a)[:40].encode("ascii", "replace").decode() for a, _ in BAD],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(paint, arguments, words):
    done = paint(*arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.startswith("bottega: ") and done.err.count("\n") == 1
    assert "Traceback" not in done.err and not done.out
    assert files() == []


def test_a_damaged_weight_file_is_named(bottega, tiny_folder):
    import shutil

    shutil.copytree(tiny_folder, "model")
    weights = Path("model/base/denoiser.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = bottega("paint", "a dog", "-o", "a.png", "--model", "model")
    assert done.code == 2 and "base/denoiser.safetensors is damaged" in done.err
    assert done.err.count("\n") == 1 and files() == ["model"]
    done = bottega("paint", "a dog", "--model", "picolo")
    assert done.code == 2 and "did you mean piccolo" in done.err


def test_stopping_is_130_and_keeps_what_was_finished(paint, monkeypatch):
    from bottega.cli import paint as module

    def interrupt(picture, target, *, metadata):
        write(picture, target, metadata=metadata)
        raise KeyboardInterrupt

    write = module._write
    monkeypatch.setattr(module, "_write", interrupt)
    done = paint("a dog", "-n", 3, "-o", "a.png")
    assert (done.code, done.err) == (130, "bottega: stopped\n")
    assert files() == ["a-1.png"]


def test_the_bar_shows_only_where_somebody_watches(paint, monkeypatch):
    assert paint("a dog", "-o", "a.png").err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    done = paint("a dog", "-n", 2, "-o", "a.png")
    assert done.code == 0


def hear_interrupts():
    """Children of a shell's background jobs ignore interrupts, which is not what is tested."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_real_process_paints_and_dies_of_an_interrupt_in_words(tiny_folder, tmp_path):
    script = Path(sys.executable).parent / "bottega"
    command = [str(script), "paint", "a dog", "-o", "a.png", "--model", str(tiny_folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.png\n", "")
    slow = [*command, "--steps", "10000"]
    running = subprocess.Popen(
        slow,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=8)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == "bottega: stopped\n"
