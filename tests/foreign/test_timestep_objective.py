"""An imported network is trained further in its own terms: the loss is that of eps, v or x0, and falls."""

import numpy as np
import pytest
import torch

from bottega.condition import Condition, Stream
from bottega.data import Batch
from bottega.diffusion import TimestepPlan
from bottega.ensemble import Node, probability_intervals, sigma_bounds
from bottega.errors import ConfigError
from bottega.training.timestep_objective import TimestepObjective


class Oracle(torch.nn.Module):
    """Says what ``answer`` says of the noisy pictures and the timestep."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def prepare(self, condition):
        return condition

    def forward(self, z, timestep, context):
        return self.answer(z, timestep, context)


def batch_of(count=4, value=None, condition=None):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Batch(
        images=pictures,
        captions=tuple(f"caption {i}" for i in range(count)),
        indices=tuple(range(count)),
        condition=condition,
    )


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_network_that_knows_the_picture_has_no_loss_left(prediction):
    plan = TimestepPlan(prediction=prediction)
    batch = batch_of()
    clean = batch.clean()

    def answer(z, timestep, _):
        sigma = torch.tensor([plan.schedule.sigma(round(float(t))) for t in timestep])
        level = sigma.view(-1, 1, 1, 1)
        signal = 1 / (1 + level.square()).sqrt()
        eps = (z / signal - clean) / level
        known = {"eps": eps, "v": signal * (eps - level * clean), "x0": clean}
        return torch.cat([known[prediction], torch.ones_like(z)], dim=1)  # and a variance

    loss = TimestepObjective(plan=plan, dropout=0.0)(Oracle(answer), batch, draws())
    assert float(loss.total) < 1e-6
    assert loss.per_image.shape == loss.sigma.shape == (4,)


def test_timesteps_are_drawn_evenly_and_stay_within_an_intervals_noise():
    plan = TimestepPlan()
    zero = Oracle(lambda z, *_: torch.zeros_like(z))
    batch = batch_of(200)
    sigmas = TimestepObjective(plan=plan, dropout=0.0)(zero, batch, draws()).sigma
    steps = plan.schedule.timestep(sigmas).round()
    assert torch.equal((steps // 5).sort().values, torch.arange(200.0))  # one of each five
    upper = TimestepObjective(plan=plan, dropout=0.0, intervals=((0.5, 0.75), (0.9, 1.0)))
    steps = plan.schedule.timestep(upper(zero, batch, draws()).sigma).round()
    inside = ((steps >= 500) & (steps < 750)) | (steps >= 900)
    assert bool(inside.all())
    assert 135 <= int((steps < 750).sum()) <= 150  # in proportion to their lengths


def test_an_expert_draws_evenly_those_timesteps_that_it_is_called_at():
    """Though the ends of its share lie inside timesteps: 37 cannot be halved, let alone divided by eight."""
    plan = TimestepPlan(num_timesteps=37, beta_start=0.01, beta_end=0.2)
    zero = Oracle(lambda z, *_: torch.zeros_like(z))
    seen = []
    for index in range(8):
        part = Node(3, index)
        shares = probability_intervals(part, plan)
        ((low, high),) = sigma_bounds(part, plan)
        objective = TimestepObjective(plan=plan, dropout=0.0, intervals=shares)
        sigmas = objective(zero, batch_of(60), draws()).sigma
        assert bool(((sigmas >= low) & (sigmas < high)).all())
        steps, counts = plan.schedule.timestep(sigmas).round().unique(return_counts=True)
        assert int(counts.max() - counts.min()) <= 1
        seen += steps.tolist()
    assert seen == list(range(37))


def stream(value, count):
    return Stream(
        tokens=torch.full((count, 3, 2), value),
        mask=torch.ones(count, 3, dtype=torch.bool),
        pooled=torch.full((count, 2), value),
    )


def test_dropped_texts_are_what_an_empty_text_says_and_numbers_stay():
    condition = Condition(streams={"clip_text": stream(1.0, 40)})
    empty = Condition(streams={"clip_text": stream(-1.0, 1)})
    seen = []

    def answer(z, _, context):
        seen.append(context)
        return torch.zeros_like(z)

    objective = TimestepObjective(
        plan=TimestepPlan(), dropout=0.5, empty=empty, numbers=(8.0, 8.0, 0.0, 0.0, 8.0, 8.0)
    )
    objective(Oracle(answer), batch_of(40, condition=condition), draws())
    (told,) = seen
    rows = told.streams["clip_text"].tokens[:, 0, 0]
    assert set(rows.tolist()) == {1.0, -1.0} and 10 <= int((rows < 0).sum()) <= 30
    assert torch.equal(told.streams["clip_text"].pooled[:, 0], rows)
    assert told.numbers.shape == (40, 6)
    assert bool((condition.streams["clip_text"].tokens == 1).all())  # what came in is as it was


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="dropout must be"):
        TimestepObjective(plan=TimestepPlan(), dropout=2.0)
    with pytest.raises(ConfigError, match="empty text"):
        TimestepObjective(plan=TimestepPlan(), dropout=0.1)
    with pytest.raises(ConfigError, match="none of the timesteps"):
        TimestepObjective(plan=TimestepPlan(), dropout=0.0, intervals=((0.0, 1e-4),))
    with pytest.raises(ConfigError, match="must rise"):
        TimestepObjective(plan=TimestepPlan(), dropout=0.0, intervals=((0.5, 0.2),))


def test_an_imported_model_learns_pictures_in_its_latents(folders, tmp_path):
    from bottega.pipelines import load
    from bottega.pipelines.convert import import_model
    from bottega.pipelines.stored import load_timestep_denoiser

    import_model(folders("sd"), tmp_path / "model")
    painter = load(tmp_path / "model", device="cpu", dtype="float32")
    network = load_timestep_denoiser(tmp_path / "model" / "base")[0].network.requires_grad_(True)
    space = painter.stages[0].space
    said = painter.encoders.condition(["a red dog"] * 4)
    pixels = torch.full((4, 3, 16, 16), 200, dtype=torch.uint8)
    batch = Batch(images=pixels, captions=("a red dog",) * 4, indices=(0, 1, 2, 3), condition=said)
    objective = TimestepObjective(
        plan=painter.stages[0].timestep_plan,
        encode=space.encode,
        empty=painter.encoders.condition([""]),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = objective(network, batch, draws())
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.8 * losses[0]
