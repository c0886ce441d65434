"""What leaves a run is the average that was asked for, complete, in the precision asked for."""

import pytest
import torch
from toy import ToyNetwork, ToySource, denoise_a_little

from bottega.checkpoint import list_checkpoints, load_manifest, load_module, load_tensors
from bottega.errors import CheckpointError
from bottega.rundir import RunDir
from bottega.training import EmaConfig, TrainConfig, averaged_weights, export_ema, fit, load_ema


class Tied(ToyNetwork):
    def __init__(self):
        super().__init__()
        self.again = self.second


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = RunDir(tmp_path_factory.mktemp("run"))
    config = TrainConfig(
        total_images=96,
        batch_size=16,
        checkpoint_images=48,
        ema=EmaConfig(stds=(0.05, 0.1), halflife_images=32, every_images=16),
    )
    return run, fit(Tied(), denoise_a_little, ToySource(), config, run)


def test_an_export_holds_the_average_under_every_name_in_bfloat16(trained, tmp_path):
    run, state = trained
    manifest = export_ema(run, tmp_path / "base", std=0.1, config={"network": "toy"})
    assert manifest.kind == "denoiser"
    assert manifest.config == {"network": "toy"}
    assert manifest.images_seen == 96
    assert manifest.parent == load_manifest(list_checkpoints(run.checkpoints)[-1]).digest
    tensors = load_tensors(tmp_path / "base")
    average = dict(zip(state.masters.names, state.ema.averages["0.1"], strict=True))
    assert torch.equal(tensors["first.weight"], average["first.weight"].bfloat16())
    assert torch.equal(tensors["again.weight"], tensors["second.weight"])
    assert tensors["frozen"].dtype == torch.bfloat16
    assert tensors["calls"].dtype == torch.int64
    network = Tied()
    load_module(network, tmp_path / "base")


@pytest.mark.parametrize("std", [0.05, "halflife", None])
def test_each_average_and_the_weights_themselves_can_be_had_in_float32(trained, std):
    run, state = trained
    network = Tied()
    manifest = load_ema(network, run, std=std)
    assert manifest.images_seen == 96
    names = {0.05: "0.05", "halflife": "halflife"}
    expected = state.masters.tensors if std is None else state.ema.averages[names[std]]
    for name, tensor in zip(state.masters.names, expected, strict=True):
        assert torch.equal(network.get_parameter(name), tensor)


def test_an_earlier_checkpoint_can_be_asked_for(trained):
    run, _ = trained
    assert load_ema(Tied(), run, std=0.05, images_seen=48).images_seen == 48
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_ema(Tied(), run, std=0.05, images_seen=1)


def test_an_average_that_was_not_kept_is_refused_and_the_kept_ones_named(trained):
    run, _ = trained
    with pytest.raises(
        CheckpointError, match=r"keeps no average 0\.2; it keeps: 0\.05, 0\.1, halflife"
    ):
        load_ema(Tied(), run, std=0.2)


def test_what_is_no_training_state_is_refused(trained, tmp_path):
    run, _ = trained
    export_ema(run, tmp_path / "base", std=0.1, config=None)
    with pytest.raises(CheckpointError, match="holds a denoiser, not the state"):
        averaged_weights(tmp_path / "base", 0.1)
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        load_ema(Tied(), RunDir(tmp_path / "empty"), std=0.1)
