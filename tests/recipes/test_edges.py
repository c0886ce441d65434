"""A run with edge supervision trains, shows its edges, and leaves a network without heads."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_latents import EPS, tiny_autoencoder, toy_latent
from toy_runs import toy_base, toy_sr

from bottega.checkpoint import load_module, load_tensors
from bottega.cli.main import run as run_command
from bottega.data import Canny
from bottega.errors import ConfigError, InputError
from bottega.journal import Journal
from bottega.models import UNet
from bottega.models.edge_head import EdgeHeadConfig, EdgeSupervised
from bottega.pipelines import open_picture
from bottega.recipes.edges import look_at_run
from bottega.recipes.raphael import BELOW_TIMESTEP_500, raphael
from bottega.recipes.run import Branch, FolderConfig
from bottega.recipes.train import build, load_encoders, train
from bottega.rundir import RunDir
from bottega.training import Hook
from bottega.training.edge_objective import EdgeObjective, EdgeSupervision
from bottega.training.edge_targets import HedEdges, WorldEdges
from bottega.training.export import averaged_weights, find_checkpoint

__all__ = ["tiny_autoencoder"]

EDGES = EdgeSupervision(head=EdgeHeadConfig(width=4), below_sigma=2.0)


def with_edges(config, edges=EDGES):
    return dataclasses.replace(config, task=dataclasses.replace(config.task, edges=edges))


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    config = with_edges(toy_base(tiny_folder))
    folder = tmp_path_factory.mktemp("runs") / "base"
    return config, folder, train(config, folder)


def test_the_run_has_heads_and_its_export_has_none(trained):
    config, folder, state = trained
    assert isinstance(state.network, EdgeSupervised)
    assert any(name.startswith("edge_heads.") for name in state.masters.names)
    weights = load_tensors(folder / "export")
    assert weights.keys() == UNet(config.task.network).state_dict().keys()
    load_module(UNet(config.task.network), folder / "export")
    checkpoint = find_checkpoint(RunDir(folder))
    bare = averaged_weights(checkpoint, 0.1)
    whole = averaged_weights(checkpoint, 0.1, heads=True)
    assert torch.equal(bare["stem.weight"], whole["network.stem.weight"])
    assert len(whole) > len(bare)


def test_heads_move_and_the_journal_has_both_losses(trained):
    config, folder, state = trained
    before, _ = build(config)
    moved = [
        not torch.equal(p, q)
        for (name, p), q in zip(before.named_parameters(), state.masters.tensors, strict=True)
        if name.startswith("edge_heads.")
    ]
    assert moved and all(moved)
    records = [record for record in Journal(folder / "journal.jsonl").read() if "metrics" in record]
    metrics = records[-1]["metrics"]
    assert metrics["edge_loss"] > 0
    assert records[-1]["loss"] == pytest.approx(
        metrics["denoising_loss"] + metrics["edge_loss"], rel=1e-3
    )


def test_pages_of_edges_stand_beside_the_other_previews(trained):
    _, folder, _ = trained
    names = sorted(path.name for path in (folder / "previews").glob("*.png"))
    assert "images-000000016.png" in names
    assert "edges-images-000000016.png" in names
    assert open_picture(folder / "previews" / "edges-images-000000016.png").width > 400


def test_a_run_can_be_looked_at_afterwards(trained, tmp_path, capsys):
    config, folder, _ = trained
    seen = look_at_run(folder, load_encoders(config.task.encoders), 0.2)
    assert len(seen.scores) == len(EdgeSupervised(UNet(config.task.network), EDGES.head).edge_heads)
    assert all(-1 <= score <= 1 for score in seen.scores)
    page, facts = tmp_path / "edges.png", tmp_path / "edges.json"
    arguments = ["probe", "edge-heads", str(folder), "--maps", str(page), "-o", str(facts)]
    assert run_command(arguments) == 0, capsys.readouterr().err
    assert json.loads(facts.read_text())["agreement"] == pytest.approx(list(seen.scores))
    assert open_picture(page).tobytes() == seen.page.tobytes()


class StopAt(Hook):
    """Stops a run on its way."""

    def observe(self, state, report):
        if report.images_seen == self.every_images:
            state.stopped_by = "a test"


def test_a_look_at_no_pictures_or_no_noise_is_one_clear_line(trained, capsys):
    _, folder, _ = trained
    for option, words in (("--pictures", "at least 1"), ("--sigma", "above 0")):
        assert run_command(["probe", "edge-heads", str(folder), option, "0"]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_a_resumed_run_is_the_run_that_never_stopped(trained, tmp_path):
    config, _, state = trained
    train(config, tmp_path / "base", hooks=[StopAt(every_images=8)])
    resumed = train(config, tmp_path / "base", resume=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(resumed.masters.tensors, state.masters.tensors, strict=True)
    )


@pytest.mark.parametrize("cached", [False, True])
def test_a_denoiser_of_latents_learns_edges_of_its_pictures(
    tiny_folder, tiny_autoencoder, tmp_path, cached
):
    config = toy_latent(tiny_folder, tiny_autoencoder, plan=EPS, cached=cached)
    edges = dataclasses.replace(EDGES, below_sigma=BELOW_TIMESTEP_500)
    folder = tmp_path / "latent"
    state = train(with_edges(config, edges), folder)
    assert isinstance(state.network, EdgeSupervised)
    page = open_picture(folder / "previews" / "edges-images-000000016.png")
    assert page.width > 400
    load_module(UNet(config.task.network), folder / "export")


def test_the_network_itself_begins_as_it_would_without_edges(tiny_folder):
    config = toy_base(tiny_folder)
    plain, _ = build(config)
    network, objective = build(with_edges(config))
    assert isinstance(objective, EdgeObjective)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.network.state_dict()[name], tensor)


def test_runs_that_cannot_learn_edges_are_refused(tiny_folder, trained):
    config = with_edges(toy_base(tiny_folder))
    with pytest.raises(ConfigError, match=r"task\.edges=none"):
        dataclasses.replace(config, branch=Branch(ensemble="e", parent_part="0/1", parent="x"))
    folder = FolderConfig(path="pictures")
    with pytest.raises(ConfigError, match="take Canny or HedEdges"):
        dataclasses.replace(config, data=folder)
    by_canny = dataclasses.replace(EDGES, targets=Canny())
    assert dataclasses.replace(with_edges(config, by_canny), data=folder).data == folder
    assert isinstance(EDGES.targets, WorldEdges)
    by_hed = dataclasses.replace(EDGES, targets=HedEdges(weights="hed.safetensors"))
    with pytest.raises(ConfigError, match="16 px and more, got size 8"):
        with_edges(config, by_hed)
    assert with_edges(dataclasses.replace(config, size=16), by_hed).size == 16
    with pytest.raises(ConfigError, match="learns no edges"):
        with_edges(toy_sr(tiny_folder))


def test_a_run_without_edges_has_nothing_to_show(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "plain"
    folder.mkdir()
    from bottega.config import dumps

    (folder / "config.json").write_text(dumps(toy_base(tiny_folder)))
    with pytest.raises(InputError, match="learned no edges"):
        look_at_run(folder, load_encoders(str(tiny_folder)), 0.2)
    assert run_command(["probe", "edge-heads", str(Path(folder)), "--sigma", "0.1"]) == 2
    assert "learned no edges" in capsys.readouterr().err


def test_raphael_learns_edges_at_the_papers_timesteps():
    task = raphael().task
    sigma = task.timestep_plan.schedule.sigma
    assert sigma(499) < task.edges.below_sigma < sigma(500)
    assert (task.edges.weight, task.edges.alpha, task.edges.gamma) == (1.0, 0.5, 2.0)
    assert task.edges.head.stream in {stream.name for stream in task.network.streams}
