"""A model paints with LoRAs and ControlNets beside it, says so, and paints the same again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_adapters import some_edges, write_controlnet, write_lora
from tiny_model import tiny_network, tiny_unet

from bottega.checkpoint import load_lora
from bottega.checkpoint.ensemble import file_member
from bottega.diffusion import LogNormal
from bottega.ensemble import Mixture
from bottega.errors import CheckpointError, InputError
from bottega.models.moe_config import SpaceMoEConfig, TimeMoEConfig
from bottega.models.unet_config import ExpertTransformer, Middle
from bottega.pipelines import (
    DenoiserConfig,
    Guide,
    Painter,
    assemble,
    load,
    paint_again,
    read_manifest,
    read_provenance,
    save_denoiser,
    save_picture,
    sheet_of,
)

PROMPT = "a red car"


def opened(folder: Path, **beside) -> Painter:
    return load(folder, device="cpu", dtype="float32", **beside)


def pixels(painter: Painter, **how) -> bytes:
    return painter.paint(PROMPT, seeds=[3], **how)[0].tobytes()


def weights(painter: Painter, part: str | None = None) -> dict[str, torch.Tensor]:
    denoiser = painter.stages[0].denoiser
    if isinstance(denoiser, Mixture):
        names = [expert.name for expert in denoiser.experts]
        denoiser = denoiser.holder.get(names.index(part), names.index(part))
    return {name: tensor.clone() for name, tensor in denoiser.network.state_dict().items()}


@pytest.fixture(scope="module")
def experts(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model with a base of two expert denoisers, cut at the middle of the noise."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("experts") / "model"))
    shutil.rmtree(folder / "base")
    parent = None
    for seed, part in enumerate(("0/0", "1/0", "1/1")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = tiny_unet(tiny_network(), seed).state_dict()
        config = DenoiserConfig(network=tiny_network())
        filed = file_member(
            folder / "base",
            part,
            lambda place, state=state, config=config: save_denoiser(place, state, config),
            noise=LogNormal(),
            parent_part=None if parent is None else "0/0",
            parent=parent,
        )
        parent = filed.digest if parent is None else parent
    before = read_manifest(folder)
    assemble(folder, name="experts", stages=before.stages, encoders=before.encoders)
    return folder


def test_a_lora_at_scale_zero_paints_as_the_model_does_and_at_one_otherwise(
    painter, tiny_folder, tmp_path
):
    lora = write_lora(tmp_path / "style")
    plain = pixels(painter)
    assert pixels(opened(tiny_folder, loras=[(lora, 0.0)])) == plain
    assert pixels(opened(tiny_folder, loras=[(lora, 1.0)])) != plain


def test_what_is_merged_is_the_sum_of_all_loras_at_their_scales(painter, tiny_folder, tmp_path):
    one, two = (write_lora(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    mixed = weights(opened(tiny_folder, loras=[(one, 0.5), (two, -2.0)]))
    plain = weights(painter)
    layers = [load_lora(folder).layers for folder in (one, two)]
    changed = {name for name in mixed if not torch.equal(mixed[name], plain[name])}
    assert changed == {f"{name}.weight" for name in layers[0]}
    for name in layers[0]:
        wanted = 0.5 * layers[0][name].delta() - 2 * layers[1][name].delta()
        gained = mixed[f"{name}.weight"] - plain[f"{name}.weight"]
        torch.testing.assert_close(gained, wanted, atol=1e-5, rtol=1e-4)


def test_an_untrained_controlnet_paints_the_models_picture_to_the_last_bit(
    painter, tiny_folder, tmp_path
):
    net = write_controlnet(tmp_path / "edges", strength=0.0)
    steered = opened(tiny_folder, controlnets=[net])
    guide = Guide(some_edges(), 1.0)
    assert pixels(steered, controls=[guide]) == pixels(painter)


def test_a_control_steers_with_guidance_and_without(painter, tiny_folder, tmp_path):
    steered = opened(tiny_folder, controlnets=[write_controlnet(tmp_path / "edges")])
    blank = Image.new("L", (8, 8))
    for how in ({"guidance_scale": 1.0}, {"guidance_interval": (0.5, 5.0)}):
        plain = pixels(painter, **how)
        assert pixels(steered, controls=[Guide(some_edges())], **how) != plain
        assert pixels(steered, controls=[Guide(some_edges(), 0.0)], **how) == plain
    by_edges = pixels(steered, controls=[Guide(some_edges())])
    assert by_edges != pixels(steered, controls=[Guide(blank)])


def test_a_stage_that_enlarges_can_be_steered(painter, tiny_folder, tmp_path):
    from bottega.models.unet_config import LowRes

    large = tiny_network(LowRes(scale=2))
    net = write_controlnet(tmp_path / "edges", stage="sr16", network=large)
    steered = opened(tiny_folder, controlnets=[net])
    assert pixels(steered, controls=[Guide(some_edges(16))]) != pixels(painter)


def test_several_pictures_follow_one_control_each_as_alone(tiny_folder, tmp_path):
    steered = opened(tiny_folder, controlnets=[write_controlnet(tmp_path / "edges")])
    guide = [Guide(some_edges())]
    both = steered.paint([PROMPT, "a dog"], seeds=[3, 4], controls=guide)
    alone = steered.paint("a dog", seeds=[4], controls=guide)
    assert both[1].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("residency", ["all", "active"])
def test_on_an_ensemble_only_the_named_expert_denoiser_changes(experts, tmp_path, residency):
    lora = write_lora(tmp_path / "style", parts=("1/1",))
    plain = opened(experts)
    mixed = opened(experts, loras=[(lora, 1.0)], residency=residency)
    assert mixed.adapters.describe() == ["LoRA style at 1 changes base, expert denoisers 1/1"]
    for part, differs in (("1/1", True), ("1/0", False), ("1/1", True)):
        before, after = weights(plain, part), weights(mixed, part)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same is not differs, part


def test_both_residencies_paint_the_same_with_adapters(experts, tmp_path):
    beside = {
        "loras": [(write_lora(tmp_path / "style"), 0.7)],
        "controlnets": [write_controlnet(tmp_path / "edges", parts=("1/1",))],
    }
    painted = {
        residency: pixels(
            opened(experts, residency=residency, **beside), controls=[Guide(some_edges())]
        )
        for residency in ("all", "active")
    }
    assert painted["all"] == painted["active"] != pixels(opened(experts))


def test_a_control_steers_the_named_expert_denoisers_alone(experts, tmp_path):
    """A walk that stays in the lower half of the noise never notices a control for the upper half."""
    middle = LogNormal().quantile(0.5)
    net = write_controlnet(tmp_path / "edges", parts=("1/1",))
    steered = opened(experts, controlnets=[net])
    guide = [Guide(some_edges())]
    low = {"sigma_max": {"base": 0.9 * middle}, "sigma_min": {"base": 0.01 * middle}}
    assert pixels(steered, controls=guide, **low) == pixels(opened(experts), **low)
    assert pixels(steered, controls=guide) != pixels(opened(experts))


def test_a_lora_for_experts_reaches_those_that_wait_on_disk(tiny_folder, tmp_path):
    plan = ExpertTransformer(
        head_width=16,
        space=SpaceMoEConfig(experts=6, ratio=1.0, gate_width=8, average="real_tokens"),
        time=TimeMoEConfig(experts=2, ratio=1.0, gate_width=8),
    )
    network = replace(tiny_network(), middle=Middle(attention=plan))
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.rmtree(folder / "base")
    save_denoiser(
        folder / "base", tiny_unet(network, 0).state_dict(), DenoiserConfig(network=network)
    )
    before = read_manifest(folder)
    assemble(folder, name="raphael", stages=before.stages, encoders=before.encoders)
    lora = write_lora(tmp_path / "style", network=network, targets=("attention", "experts"))
    plain, mixed = ([], [(lora, 1.0)])
    painted = {
        (residency, bool(loras)): pixels(opened(folder, loras=loras, residency=residency))
        for residency in ("all", "active")
        for loras in (plain, mixed)
    }
    assert painted["all", True] == painted["active", True]
    assert painted["all", False] == painted["active", False] != painted["all", True]


def test_a_picture_with_adapters_is_made_again_byte_for_byte(tiny_folder, tmp_path):
    lora, net = write_lora(tmp_path / "style"), write_controlnet(tmp_path / "edges")
    painter = opened(tiny_folder, loras=[(lora, 0.8)], controlnets=[net])
    edges = some_edges()
    guides = [Guide(edges, 0.5)]
    path = save_picture(painter.paint(PROMPT, seeds=3, controls=guides)[0], tmp_path / "a.png")
    origin = read_provenance(path)
    assert [(one.name, one.scale) for one in origin.loras] == [("style", 0.8)]
    assert [(one.name, one.scale) for one in origin.requests[0].controls] == [("edges", 0.5)]
    given = {"model": tiny_folder, "loras": [lora], "controlnets": [net], "controls": [edges]}
    assert paint_again(path, **given).same_bytes
    page = sheet_of(painter.paint([PROMPT, "a dog"], seeds=3, controls=guides), columns=2)
    assert paint_again(save_picture(page, tmp_path / "b.png"), **given).same_bytes


def test_another_lora_or_control_than_then_is_refused(tiny_folder, tmp_path):
    lora, net = write_lora(tmp_path / "style"), write_controlnet(tmp_path / "edges")
    painter = opened(tiny_folder, loras=[(lora, 0.8)], controlnets=[net])
    guides = [Guide(some_edges())]
    path = save_picture(painter.paint(PROMPT, seeds=3, controls=guides)[0], tmp_path / "a.png")
    given = {
        "model": tiny_folder,
        "loras": [lora],
        "controlnets": [net],
        "controls": [some_edges()],
    }
    for change, words in (
        ({"loras": []}, r"painted with 1 LoRAs: style; give their folders"),
        ({"loras": [write_lora(tmp_path / "other", seed=2)]}, "other LoRAs than these"),
        ({"controlnets": []}, "painted with 1 ControlNets"),
        ({"controls": []}, "with 1 control pictures, got 0"),
        ({"controls": [Image.new("L", (8, 8))]}, "another control picture for edges"),
    ):
        with pytest.raises(InputError, match=words):
            paint_again(path, **(given | change))


def test_what_was_made_for_another_network_is_refused_in_one_line(tiny_folder, tmp_path):
    other = replace(tiny_network(), context_width=16)
    lora = write_lora(tmp_path / "style", network=other)
    with pytest.raises(CheckpointError, match="style is a LoRA for another network: it changes"):
        opened(tiny_folder, loras=[(lora, 1.0)])
    net = write_controlnet(tmp_path / "edges", network=other)
    with pytest.raises(CheckpointError, match="is a ControlNet for another network than base"):
        opened(tiny_folder, controlnets=[net])


def test_what_was_made_for_another_stage_or_expert_is_refused(tiny_folder, experts, tmp_path):
    lora = write_lora(tmp_path / "one", stage="bass")
    with pytest.raises(
        CheckpointError, match=r"a stage 'bass', which this model lacks; did you mean base"
    ):
        opened(tiny_folder, loras=[(lora, 1.0)])
    lora = write_lora(tmp_path / "two", parts=("1/1",))
    with pytest.raises(CheckpointError, match="but stage base has one denoiser"):
        opened(tiny_folder, loras=[(lora, 1.0)])
    net = write_controlnet(tmp_path / "three", parts=("2/1",))
    with pytest.raises(CheckpointError, match="expert denoiser 2/1, which stage base lacks"):
        opened(experts, controlnets=[net])


def test_guides_that_do_not_fit_are_refused(tiny_folder, painter, tmp_path):
    steered = opened(tiny_folder, controlnets=[write_controlnet(tmp_path / "edges")])
    with pytest.raises(InputError, match="is 16 x 16, but stage base paints 8 x 8"):
        pixels(steered, controls=[Guide(some_edges(16))])
    with pytest.raises(InputError, match="1 ControlNets and 0 control pictures"):
        pixels(steered)
    with pytest.raises(InputError, match="0 ControlNets and 1 control pictures"):
        pixels(painter, controls=[Guide(some_edges())])
    with pytest.raises(InputError, match="finite number, got nan"):
        Guide(some_edges(), float("nan"))
    with pytest.raises(InputError, match="finite number, got inf"):
        opened(tiny_folder, loras=[(write_lora(tmp_path / "style"), float("inf"))])


def test_a_controlnet_folder_says_what_is_wrong_with_it(tiny_folder, tmp_path):
    with pytest.raises(CheckpointError, match="holds a lora, not a controlnet"):
        opened(tiny_folder, controlnets=[write_lora(tmp_path / "style")])
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it holds no manifest"):
        opened(tiny_folder, controlnets=[tmp_path])
