"""Painting that begins with a picture: what is kept is kept exactly, and the rest depends on everything it should."""

import numpy as np
import pytest
import torch
from PIL import Image

from bottega.condition import Condition, Stream
from bottega.diffusion import SAMPLERS, Denoiser
from bottega.errors import InputError
from bottega.pipelines import FromPicture, Inpaint, Painter, Stage, StageSettings, load
from bottega.pipelines.edit import Beginnings, kept


def picture(size: int = 16, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def left_half(size: int = 16) -> Image.Image:
    mask = Image.new("L", (size, size))
    mask.paste(255, (0, 0, size // 2, size))
    return mask


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.int16)


def gap(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(array(one) - array(other)).mean())


def test_what_is_not_masked_is_kept_exactly(painter: Painter):
    source = picture()
    for strength in (1.0, 0.5):
        made = painter.paint("a dog", start=Inpaint(source, left_half(), strength))[0]
        assert np.array_equal(array(made)[:, 8:], array(source)[:, 8:])
        assert (array(made)[:, :8] != array(source)[:, :8]).any()
    rng = np.random.default_rng(3)
    spots = Image.fromarray((rng.random((16, 16)) < 0.3).astype(np.uint8) * 255)
    made = painter.paint("a dog", start=Inpaint(source, spots))[0]
    held = np.asarray(spots) == 0
    assert np.array_equal(array(made)[held], array(source)[held])


def test_at_full_strength_nothing_remains_of_what_stood_under_the_mask(painter: Painter):
    source, other = picture(), picture()
    other.paste(picture(8, seed=9), (0, 0))
    other.paste(picture(8, seed=8), (0, 8))
    made = {
        strength: [
            painter.paint("a dog", start=Inpaint(s, left_half(), strength))[0].tobytes()
            for s in (source, other)
        ]
        for strength in (1.0, 0.5)
    }
    assert made[1.0][0] == made[1.0][1]
    assert made[0.5][0] != made[0.5][1]


def test_what_is_painted_fits_what_is_kept(painter: Painter):
    sides = []
    for seed in (0, 1):
        source = picture(seed=seed)
        sides.append(array(painter.paint("a dog", start=Inpaint(source, left_half()))[0])[:, :8])
    assert (sides[0] != sides[1]).any()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_keeps_to_what_is_known(sampler):
    """The estimate is right where it is known, so a walk from there ends there, however noise is put back."""

    class Bright(Denoiser):
        def __init__(self):
            super().__init__(torch.nn.Identity())

        def prepare(self, condition):
            return None

        def forward(self, x, sigma, context=None):
            return x.mean(dim=(1, 2, 3), keepdim=True).tanh().expand_as(x)

    clean = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    keep = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    keep[..., 2:] = True
    stage = Stage(name="s", denoiser=Bright(), size=4)
    silent = Condition(
        streams={
            "t5": Stream(tokens=torch.zeros(1, 1, 2), mask=torch.zeros(1, 1, dtype=torch.bool))
        }
    )
    for strength in (1.0, 0.4):
        start = Beginnings(clean=clean, keep=keep, strength=strength)
        settings = StageSettings(steps=6, sampler=sampler, thresholding=None)
        *_, last = stage.paint(silent, silent, [0], settings, start=start)
        held = keep.expand_as(clean)
        torch.testing.assert_close(last.x[held], clean[held], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(last.x[~held], clean[~held], atol=0.05)


def test_a_denoiser_that_knows_answers_with_what_it_knows():
    keep = torch.tensor([[[[True, False]]]])
    clean = torch.full((1, 3, 1, 2), 0.5)
    said = kept(lambda x, sigma: x * 0, clean, keep)(torch.ones(1, 3, 1, 2), torch.ones(1))
    assert said[0, 0].tolist() == [[0.5, 0.0]]


def test_little_strength_changes_little_and_more_changes_more(painter: Painter):
    source = picture()
    gaps = [
        gap(painter.paint("a dog", start=FromPicture(source, strength), steps=8)[0], source)
        for strength in (0.02, 0.3, 0.6, 1.0)
    ]
    assert gaps == sorted(gaps)
    assert gaps[0] < 4 and gaps[-1] > 4 * gaps[0]


def test_a_picture_to_begin_with_may_have_any_size_and_shape(painter: Painter):
    source = picture(64).crop((0, 0, 64, 32))
    made = painter.paint("a dog", start=FromPicture(source, 0.05), steps=8)[0]
    middle = source.crop((16, 0, 48, 32)).resize((16, 16), Image.Resampling.LANCZOS)
    assert made.size == (16, 16) and gap(made, middle) < gap(made, picture())
    inpainted = painter.paint("a dog", start=Inpaint(picture(32), left_half(32)))[0]
    smaller = picture(32).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(array(inpainted)[:, 8:], array(smaller)[:, 8:])


def test_the_walk_takes_all_its_steps_below_the_level_it_begins_at():
    stage = Stage(name="s", denoiser=Denoiser(torch.nn.Identity()), size=4)
    settings = StageSettings(steps=10)
    whole = stage.sigmas(settings)
    assert stage.sigmas(settings, 1.0) == whole
    part = stage.sigmas(settings, 0.5)
    assert len(part) == len(whole) and part[-2:] == pytest.approx([settings.sigma_min, 0.0])
    assert 0.5 < part[0] < 5.0  # halfway in sigma^(1/7) between 80 and 0.002


def test_pictures_begun_together_are_those_begun_alone(painter: Painter):
    start = Inpaint(picture(), left_half())
    together = painter.paint(["a dog", "a red car"], start=start, seeds=3)
    alone = painter.paint("a red car", start=start, seeds=4)[0]
    assert alone.tobytes() == together[1].tobytes()


def test_several_lanes_begin_with_the_picture_too(tiny_folder, painter: Painter):
    wide = load(tiny_folder, device="cpu", dtype="float32", lanes=2)
    start = Inpaint(picture(), left_half())
    for one, other in zip(
        painter.paint(["a dog", "a cat"], start=start),
        wide.paint(["a dog", "a cat"], start=start),
        strict=True,
    ):
        assert np.abs(array(one) - array(other)).max() <= 1


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_strength_is_a_share(strength):
    for make in (
        lambda: FromPicture(picture(), strength),
        lambda: Inpaint(picture(), left_half(), strength),
    ):
        with pytest.raises(InputError, match="strength is above 0 and at most 1"):
            make()


def test_a_mask_must_fit_and_paint_something():
    with pytest.raises(InputError, match="the mask is 8 x 8, the picture 16 x 16"):
        Inpaint(picture(), left_half(8))
    with pytest.raises(InputError, match="paints nothing"):
        Inpaint(picture(), Image.new("L", (16, 16), 100))
    with pytest.raises(InputError, match="in colour"):
        Inpaint(picture(), picture())


def test_a_reference_picture_alone_gives_variations(painter: Painter):
    style = Image.new("RGB", (20, 30), "orange")
    made = [
        painter.paint("", style=style, seeds=0)[0].tobytes(),
        painter.paint("", style=style, seeds=1)[0].tobytes(),
        painter.paint("", style=picture(), seeds=0)[0].tobytes(),
        painter.paint("", seeds=0)[0].tobytes(),
    ]
    assert len(set(made)) == 4
    weak, strong = (
        painter.paint("", style=style, guidance_scale=scale)[0].tobytes() for scale in (1.0, 9.0)
    )
    assert weak != strong  # guided by the picture, away from silence


def test_any_subset_of_encoders_is_heard_and_a_style_picture_always(painter: Painter):
    style = picture(20)
    subsets = [("t5",), ("clip",), ("clip_text",), ("t5", "clip"), None]
    plain = {s: painter.paint("a red car", encoders=s)[0] for s in subsets}
    assert plain["clip",].tobytes() == plain["clip_text",].tobytes()  # no picture, so nothing more
    assert plain["t5", "clip"].tobytes() == plain[None].tobytes()
    assert len({p.tobytes() for p in plain.values()}) == 3
    styled = {s: painter.paint("a red car", encoders=s, style=style)[0] for s in subsets}
    assert styled["clip",].tobytes() == styled["clip_text",].tobytes()
    assert len({p.tobytes() for p in styled.values()} | {p.tobytes() for p in plain.values()}) == 6
    with pytest.raises(InputError, match="did you mean clip"):
        painter.paint("a red car", encoders=("clp",))


def test_every_picture_may_have_its_own_style(painter: Painter):
    style = picture(20)
    both = painter.paint(["a dog", "a dog"], style=[style, None], seeds=[5, 5])
    assert both[0].tobytes() == painter.paint("a dog", style=style, seeds=5)[0].tobytes()
    assert both[1].tobytes() == painter.paint("a dog", seeds=5)[0].tobytes()
    assert both[1].info == painter.paint("a dog", seeds=5)[0].info
    with pytest.raises(InputError, match="expected 1 style pictures"):
        painter.paint("a dog", style=[style, style])
