"""Scores through CLIP agree with transformers' own CLIP, and a chain of linear layers with torch's."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_model import WIDTH, tiny_folder
from torch import nn

from bottega.data.decoding import Shape
from bottega.data.samples import Sample
from bottega.errors import CheckpointError
from bottega.evaluation.picture_scores import Aesthetic, ClipScores, LinearHead, Watermark

__all__ = ["tiny_folder"]

CAPTIONS = ("a pizza to the left of a cat", "a red car", "a dog")


def drawn(number: int, shape: tuple[int, int] = (16, 16), caption: str | None = None) -> Sample:
    pixels = np.random.default_rng(number).integers(0, 255, (*shape, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Sample(
        name=f"{number}.png",
        caption=CAPTIONS[number % 3] if caption is None else caption,
        shape=Shape(*shape),
        read=buffer.getvalue,
    )


@pytest.fixture(scope="module")
def clip(tiny_folder: Path) -> ClipScores:
    return ClipScores(tiny_folder / "clip")


def chain(path: Path, widths: tuple[int, ...], prefix: str = "layers.") -> nn.Sequential:
    """Layers numbered as LAION numbers them: with gaps, where dropout stood."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    numbers = [2 * n for n in range(len(layers))]
    tensors = {
        f"{prefix}{number}.{kind}": getattr(layer, kind).detach()
        for number, layer in zip(numbers, layers, strict=True)
        for kind in ("weight", "bias")
    }
    save_file(tensors, path)
    return nn.Sequential(*layers)


def test_a_chain_of_linear_layers_is_one_head(tmp_path: Path):
    network = chain(tmp_path / "head.safetensors", (WIDTH, 64, 16, 12, 8, 4, 1))
    head = LinearHead.load(tmp_path / "head.safetensors")
    vectors = nn.functional.normalize(torch.randn(5, WIDTH), dim=1)
    assert head.width == WIDTH
    expected = network.double()(vectors.double())[:, 0].tolist()
    assert head(vectors) == pytest.approx(expected, abs=1e-12)


def test_layers_past_the_ninth_are_taken_in_order(tmp_path: Path):
    network = chain(tmp_path / "head.safetensors", (WIDTH, 7, 7, 7, 7, 7, 7, 1), prefix="mlp.")
    vectors = torch.eye(3, WIDTH)
    expected = network.double()(vectors.double())[:, 0].tolist()
    assert LinearHead.load(tmp_path / "head.safetensors")(vectors) == pytest.approx(expected)


def test_a_single_layer_needs_no_prefix_and_no_bias(tmp_path: Path):
    weight = torch.randn(1, WIDTH)
    save_file({"weight": weight}, tmp_path / "head.safetensors")
    found = LinearHead.load(tmp_path / "head.safetensors")(torch.eye(2, WIDTH))
    assert found == pytest.approx(weight[0, :2].tolist())


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(2, 4)}, "end in one number"),
        ({"bias": torch.zeros(1)}, "no head of linear layers"),
        ({"0.weight": torch.zeros(3, 4), "1.weight": torch.zeros(1, 5)}, "takes 5 numbers, but 3"),
        ({"weight": torch.zeros(1, 4, 1)}, "no head of linear layers"),
        ({"weight": torch.zeros(1, 4), "scale": torch.zeros(1)}, "it holds scale"),
        ({}, "it holds nothing"),
        ({"weight": torch.zeros(1, 4), "bias": torch.zeros(3)}, "makes no numbers"),
        ({"weight": torch.full((1, 4), float("nan"))}, "makes no numbers"),
    ],
)
def test_what_is_no_head_is_refused(tmp_path: Path, tensors, words: str):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=words):
        LinearHead.load(tmp_path / "head.safetensors")


def test_a_pickle_or_nothing_is_no_head(tmp_path: Path):
    torch.save({"weight": torch.zeros(1, 4)}, tmp_path / "head.pth")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name, words in (
        ("head.pth", "is a pickle, which could run code"),
        ("text.safetensors", "no safetensors file"),
        ("gone.safetensors", "cannot be read: No such file"),
    ):
        with pytest.raises(CheckpointError, match=words):
            LinearHead.load(tmp_path / name)


def test_pictures_of_one_name_in_two_data_sets_are_two(clip):
    first, other = drawn(1), replace(drawn(2), name="1.png")
    apart = ClipScores.pictures(clip, [other])
    assert not torch.equal(clip.pictures([first]), apart)
    assert torch.equal(clip.pictures([other]), apart)
    assert torch.equal(clip.pictures([first, other])[1:], apart)


def test_the_score_of_picture_and_caption_is_the_cosine_of_transformers(clip, tiny_folder: Path):
    from transformers import CLIPModel, PreTrainedTokenizerFast

    folder = tiny_folder / "clip"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    samples = [drawn(number) for number in range(3)]
    pixels = torch.stack(
        [torch.from_numpy(np.asarray(s.picture(), np.float32) / 127.5 - 1) for s in samples]
    ).permute(0, 3, 1, 2)
    with torch.no_grad():
        for row, sample in enumerate(samples):
            tokens = tokenizer([sample.caption], return_tensors="pt")
            out = model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=pixels[row : row + 1],
            )
            cosine = (out.logits_per_image / model.logit_scale.exp()).item()
            assert clip.fit([sample])[0] == pytest.approx(cosine, abs=2e-5)


def test_a_score_does_not_depend_on_company_or_order(clip):
    samples = [drawn(number, (20 + number, 30)) for number in range(4)]
    alone = [clip.fit([sample])[0] for sample in samples]
    assert clip.fit(samples) == pytest.approx(alone, abs=1e-6)
    assert clip.fit(samples[::-1]) == pytest.approx(alone[::-1], abs=1e-6)


def test_a_picture_is_looked_at_once_for_all_scores(clip, tmp_path: Path, monkeypatch):
    save_file({"weight": torch.randn(1, WIDTH)}, tmp_path / "head.safetensors")
    samples = [drawn(number) for number in range(10, 13)]
    looks: list[str] = []
    picture = Sample.picture
    monkeypatch.setattr(Sample, "picture", lambda s: (looks.append(s.name), picture(s))[1])
    Aesthetic(clip, tmp_path / "head.safetensors")(samples)
    Watermark(clip, tmp_path / "head.safetensors")(samples)
    clip.fit(samples)
    assert looks == [sample.name for sample in samples]


def test_heads_read_the_vector_of_unit_length_and_watermarks_are_likelihoods(clip, tmp_path: Path):
    weight, bias = torch.randn(1, WIDTH) * 30, torch.tensor([0.5])
    save_file({"weight": weight, "bias": bias}, tmp_path / "head.safetensors")
    samples = [drawn(number) for number in range(3)]
    vectors = clip.pictures(samples)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    expected = (vectors @ weight.T + bias)[:, 0]
    found = Aesthetic(clip, tmp_path / "head.safetensors")(samples)
    assert found == pytest.approx(expected.tolist(), abs=1e-4)
    likely = Watermark(clip, tmp_path / "head.safetensors")(samples)
    assert likely == pytest.approx(expected.sigmoid().tolist(), abs=1e-4)


def test_a_head_for_another_clip_is_refused(clip, tmp_path: Path):
    save_file({"weight": torch.zeros(1, 768)}, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=f"vectors of 768 numbers, the CLIP in .* {WIDTH}"):
        clip.head(tmp_path / "head.safetensors")


def test_a_huge_picture_scores_like_itself_made_smaller(clip):
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
    scores = []
    for side in (64, 512):
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.NEAREST).save(buffer, "PNG")
        one = Sample(name=f"{side}", caption="a dog", shape=Shape(side, side), read=buffer.getvalue)
        scores += clip.fit([one])
    assert scores[0] == pytest.approx(scores[1], abs=5e-3)
