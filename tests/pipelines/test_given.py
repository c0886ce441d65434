"""What a caller passes to the painter by mistake: one clear error each, before anything is painted.

In a process of its own, since the types that the tests check here would speak before the errors do.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, warnings
import numpy as np, torch
from PIL import Image
import bottega
from bottega.errors import BottegaError
from bottega.pipelines import FromPicture, Guide, Inpaint, Region
from bottega.pipelines.adapters import loras_of

torch.set_num_threads(1)
painter = bottega.load(sys.argv[1], device=torch.device("cpu"), dtype=torch.float32)
half, grey = torch.zeros(16, 16), Image.new("L", (16, 16))
half[:, :8] = 1
box, red = (0, 0, 0.5, 1), Image.new("RGB", (16, 16), "red")


def paint(prompt="a pizza", **options):
    return lambda: painter.paint(prompt, **options)[0].tobytes().hex()


def region(where=box, phrase="pizza", **options):
    return lambda: paint(regions=[Region(phrase, where, **options)])()


asked = {
    "box": region(), "box as a list": region([0, 0, 0.5, 1]),
    "one region": lambda: paint(regions=Region("pizza", box))(),
    "float": region(half), "bfloat16": region(half.bfloat16()), "bool": region(half > 0),
    "array": region(half.numpy()), "with gradient": region(half.clone().requires_grad_()),
    "t5": paint(encoders=["t5"]), "t5 as text": paint(encoders="t5"),
    "two as text": paint(encoders="t5+clip"), "two": paint(encoders=["t5", "clip"]),
    "square": paint(size=(8, 8)), "square by one number": paint(size=8),
    "complex mask": region(half.numpy().astype(complex)), "a path as mask": region("mask.png"),
    "no mask": region(None), "nested lists": region([[0, 1], [1, 0]]),
    "words as box": region(("a", "b", "c", "d")), "strength of text": region(strength="x"),
    "no strength": region(strength=None), "occurrence of text": region(occurrence="first"),
    "no phrase": region(phrase=None), "listed phrase": region(phrase=["pizza"]),
    "region as text": paint(regions="pizza@0,0,1,1"), "regions by name": paint(regions={"pizza": box}),
    "regions are a number": paint(regions=5), "a path as style": paint(style="red.png"),
    "paths as style": paint(style=["red.png"]), "style is a number": paint(style=5),
    "start is a picture": paint(start=red), "start from a path": lambda: FromPicture("red.png"),
    "start from an array": lambda: FromPicture(half.numpy()),
    "inpaint without mask": lambda: Inpaint(red, None),
    "strength of words": lambda: FromPicture(red, "much"),
    "prompt is a number": paint(5), "no prompt": paint(None), "one prompt is a number": paint(["a", 5]),
    "negative is a number": paint(negative=5), "seed is half": paint(seeds=0.5),
    "seed is text": paint(seeds="x"), "seeds are halves": paint(seeds=[0.5]),
    "encoders are a number": paint(encoders=5), "steps of text": paint(steps="x"),
    "steps and a half": paint(steps=2.5), "guidance of text": paint(guidance_scale="x"),
    "size of one": paint(size=(8,)), "size as text": paint(size="8x8"), "size of halves": paint(size=(8.5, 8)),
    "settings are a number": paint(settings=5), "settings of numbers": paint(settings={"base": 5}),
    "interval of one end": paint(guidance_interval=(1.0,)), "interval is a number": paint(guidance_interval=3),
    "model is a number": lambda: bottega.load(5), "no model": lambda: bottega.load(None),
    "model without a name": lambda: bottega.load(""),
    "small dtype": lambda: bottega.load(sys.argv[1], dtype=torch.int8),
    "device is a number": lambda: bottega.load(sys.argv[1], device=5),
    "loras by folder": lambda: loras_of({"style": 0.5}), "loras in pairs": lambda: loras_of([("style", 0.5)]),
    "one lora": lambda: loras_of("style"), "lora at 1": lambda: loras_of(["style"]),
    "a pair as loras": lambda: loras_of(("style", 0.5)), "lora of three": lambda: loras_of([("a", 1, 2)]),
    "loras are a number": lambda: loras_of(5), "scale of text": lambda: loras_of([("style", "0.5")]),
    "no scale": lambda: loras_of([("style", float("nan"))]), "lora is a number": lambda: loras_of([(5, 1)]),
    "controlnets are a number": lambda: bottega.load(sys.argv[1], controlnets=5),
    "controlnet with scale": lambda: bottega.load(sys.argv[1], controlnets=[("net", 1)]),
    "a path as control": paint(controls="edges.png"), "paths as controls": paint(controls=["edges.png"]),
    "bare control": paint(controls=red), "guide with a path": lambda: Guide("edges.png"),
    "guide at text": lambda: Guide(red, "1"), "no controls": paint(controls=None), "plain": paint(),
}
found = {}
for name, do in asked.items():
    try:
        found[name] = do()
    except BottegaError as error:
        found[name] = f"refused: {error}"
    except Exception as error:
        found[name] = f"crashed: {type(error).__name__}: {error}"
print(json.dumps(found))
"""

SAME = (
    ("box", "box as a list"),
    ("box", "one region"),
    ("float", "bfloat16"),
    ("float", "bool"),
    ("float", "array"),
    ("float", "with gradient"),
    ("t5", "t5 as text"),
    ("two", "two as text"),
    ("square", "square by one number"),
    ("loras by folder", "loras in pairs"),
    ("one lora", "lora at 1"),
    ("no controls", "plain"),
)
REFUSED = {
    "complex mask": "numbers from 0 to 1, got complex128",
    "a path as mask": "a picture, an array or a tensor, got 'mask.png'; bottega.pipelines.open_mask(path)",
    "no mask": "an array or a tensor, got None",
    "nested lists": "a box has four numbers",
    "words as box": "an edge of the box of 'pizza' is a number, got 'a'",
    "strength of text": "the strength of 'pizza' is a number, got 'x'",
    "no strength": "is a number, got None",
    "occurrence of text": "the occurrence of 'pizza' is a whole number, got 'first'",
    "no phrase": "the phrase of a region is text, got None",
    "listed phrase": "is text, got a list",
    "region as text": "regions come as a list, got 'pizza@0,0,1,1'",
    "regions by name": "come as a list, got 'pizza'",
    "regions are a number": "regions come as a list, got 5",
    "a path as style": "style pictures come as a list, got 'red.png'",
    "paths as style": "a PIL picture, as bottega.pipelines.open_picture(path) gives",
    "style is a number": "style pictures come as a list, got 5",
    "start is a picture": "start is FromPicture(picture) or Inpaint(picture, mask), got a Image",
    "start from a path": "a picture to begin with is a PIL picture",
    "start from an array": "a PIL picture, as bottega.pipelines.open_picture(path) gives, got a ndarray",
    "inpaint without mask": "the mask is a picture, an array or a tensor",
    "strength of words": "strength is a number, got 'much'",
    "prompt is a number": "prompts come as a list, got 5",
    "no prompt": "prompts come as a list, got None",
    "one prompt is a number": "a prompt is text, got 5",
    "negative is a number": "negative prompts come as a list, got 5",
    "seed is half": "seeds, when they are no whole number, come as a list, got 0.5",
    "seed is text": "come as a list, got 'x'",
    "seeds are halves": "a seed is a whole number, got 0.5",
    "encoders are a number": "encoders come as a list, got 5",
    "steps of text": "steps is a whole number, got 'x'",
    "steps and a half": "steps is a whole number, got 2.5",
    "guidance of text": "guidance_scale is a number, got 'x'",
    "size of one": "a size is (height, width), got 1 numbers",
    "size as text": "height and width come as a list, got '8x8'",
    "size of halves": "a side of a picture is a whole number, got 8.5",
    "settings are a number": "settings are StageSettings by stage, got 5",
    "settings of numbers": "settings are StageSettings by stage",
    "interval of one end": "guidance_interval has two ends, got 1",
    "interval is a number": "the ends of guidance_interval come as a list, got 3",
    "model is a number": "a model is a name or a folder, got 5",
    "no model": "a model is a name or a folder, got None",
    "model without a name": "model '' is neither a folder nor known",
    "small dtype": "dtype 'int8' is not known",
    "device is a number": "device '5' is not known",
    "a pair as loras": "a LoRA is a folder, or a folder and its scale, as in ('style', 0.8), got 0.5",
    "lora of three": "a LoRA is a folder, or a folder and its scale",
    "loras are a number": "LoRAs come as a list, got 5",
    "scale of text": "a scale is a number, got '0.5'",
    "no scale": "a scale is a finite number, got nan",
    "lora is a number": "a LoRA is named by its folder, got 5",
    "controlnets are a number": "ControlNets come as a list, got 5",
    "controlnet with scale": "a ControlNet is named by its folder, got a tuple",
    "a path as control": "control pictures come as a list, got 'edges.png'",
    "paths as controls": "a control picture is a PIL picture, as bottega.pipelines.open_picture(path) gives",
    "bare control": "there are 0 ControlNets and 1 control pictures",
    "guide with a path": "a control picture is a PIL picture",
    "guide at text": "a scale is a number, got '1'",
}


@pytest.fixture(scope="module")
def answers(tiny_folder):
    """What the script's questions were answered with."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny_folder)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("first", "second"), SAME)
def test_two_ways_to_say_the_same_paint_the_same(answers, first, second):
    assert not str(answers[first]).startswith(("refused", "crashed")), answers[first]
    assert answers[first] == answers[second]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_in_words(answers, name):
    assert answers[name].startswith("refused: "), answers[name]
    assert REFUSED[name] in answers[name]


def test_every_question_is_answered_for(answers):
    assert set(answers) == {*REFUSED, *(name for pair in SAME for name in pair)}
