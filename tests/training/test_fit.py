"""The loop learns, resumes to the bit, refuses what would lose work, and stops on what is not a number."""

import dataclasses
import json
import signal
import threading

import pytest
import torch
from torch import nn
from toy import ToyNetwork, ToySource, denoise_a_little, reconstruct

from bottega.checkpoint import Retention, list_checkpoints, load_manifest
from bottega.errors import CheckpointError, ConfigError, InputError, TrainingError
from bottega.journal import Journal
from bottega.rundir import RunDir
from bottega.training import (
    Adafactor,
    CheckpointHook,
    EmaConfig,
    Hook,
    JournalHook,
    Loss,
    Muon,
    StepReport,
    TrainConfig,
    fit,
)
from bottega.training.finite import FiniteGuard
from bottega.training.limits import StopHook

CONFIG = TrainConfig(
    total_images=160,
    batch_size=16,
    microbatch=8,
    checkpoint_images=48,
    ema=EmaConfig(every_images=32),
    retention=Retention(keep_last=9),
)


def train(path, config=CONFIG, objective=denoise_a_little, network=None, **options):
    network = ToyNetwork() if network is None else network
    return fit(network, objective, ToySource(), config, RunDir(path), **options)


class StopAt(Hook):
    def __init__(self, images_seen, action):
        super().__init__(every_images=1)
        self.images_seen, self.action = images_seen, action

    def observe(self, state, report):
        if state.images_seen == self.images_seen:
            self.action(state)


def crash(_state):
    raise KeyboardInterrupt


def test_a_network_learns_to_reconstruct(tmp_path):
    config = TrainConfig(total_images=16 * 150, batch_size=16, learning_rate=1e-2)
    train(tmp_path, config, reconstruct, hooks=[JournalHook(every_images=160)])
    losses = [
        r["loss"] for r in Journal(tmp_path / "journal.jsonl").read() if r["event"] == "train"
    ]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "optimizer", [None, Adafactor(min_dim_to_factor=3, momentum=0.9), Muon(min_dim=3)]
)
def test_a_run_that_crashed_and_resumed_ends_with_the_same_bits(tmp_path, precision, optimizer):
    config = dataclasses.replace(CONFIG, precision=precision)
    if optimizer is not None:
        config = dataclasses.replace(config, optimizer=optimizer)
    whole = train(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "crashed", config, hooks=[StopAt(128, crash)])
    resumed = train(tmp_path / "crashed", config, network=ToyNetwork(seed=9), resume=True)
    assert resumed.digest() == whole.digest()
    assert resumed.parent == whole.parent
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert resumed.network.calls == whole.network.calls


def test_layers_with_chance_in_them_resume_to_the_bit_and_spare_the_callers_randomness(tmp_path):
    class Forgetful(ToyNetwork):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.5, training=self.training))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    network, other = Forgetful(), Forgetful()
    torch.set_rng_state(before)
    whole = train(tmp_path / "whole", network=network)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "crashed", network=other, hooks=[StopAt(64, crash)])
    torch.manual_seed(3)
    assert train(tmp_path / "crashed", network=Forgetful(), resume=True).digest() == whole.digest()
    assert whole.digest() != train(tmp_path / "plain").digest()


def test_the_average_is_part_of_what_is_restored_and_of_the_digest(tmp_path):
    state = train(tmp_path)
    digest = state.digest()
    state.ema.averages["0.05"][0][0, 0, 0, 0] += 1e-6
    assert state.digest() != digest


def test_microbatches_give_the_gradient_of_the_whole_batch(tmp_path):
    config = dataclasses.replace(CONFIG, total_images=16, precision="fp32", clip_norm=None)
    split = train(tmp_path / "a", config, reconstruct)
    whole = train(tmp_path / "b", dataclasses.replace(config, microbatch=None), reconstruct)
    for a, b in zip(split.masters.gradients(), whole.masters.gradients(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-4)


def test_examples_come_in_the_order_of_their_positions_after_a_resume_too(tmp_path):
    seen = []

    def note(network, batch, generator):
        seen.extend(batch.indices)
        return denoise_a_little(network, batch, generator)

    train(tmp_path / "whole", objective=note)
    whole = list(seen)
    assert sorted(whole[:100]) == list(range(100))
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "crashed", objective=note, hooks=[StopAt(64, crash)])
    seen.clear()
    train(tmp_path / "crashed", objective=note, resume=True)
    assert seen == whole[48:]


def test_a_folder_that_holds_a_run_is_not_begun_again(tmp_path):
    train(tmp_path)
    with pytest.raises(ConfigError, match="already holds images-000000160: resume it"):
        train(tmp_path)


def test_resuming_where_there_is_nothing_begins_and_where_all_is_done_ends(tmp_path):
    first = train(tmp_path, resume=True)
    again = train(tmp_path, resume=True)
    assert again.images_seen == 160
    assert again.digest() == first.digest()


def test_a_finished_run_can_be_lengthened(tmp_path):
    train(tmp_path)
    longer = train(tmp_path, dataclasses.replace(CONFIG, total_images=192), resume=True)
    whole = train(tmp_path / "whole", dataclasses.replace(CONFIG, total_images=192))
    assert longer.digest() == whole.digest()


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path):
    whole = train(tmp_path)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    path = newest / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    resumed = train(tmp_path, resume=True, hooks=[JournalHook(every_images=64)])
    assert resumed.digest() == whole.digest()
    start = next(r for r in Journal(tmp_path / "journal.jsonl").read() if r["event"] == "start")
    assert start["images_seen"] == 144
    assert "images-000000160/optimizer.safetensors is damaged" in start["warnings"][0]


def test_when_every_checkpoint_is_damaged_nothing_is_begun_over(tmp_path):
    train(tmp_path)
    for folder in list_checkpoints(tmp_path / "checkpoints"):
        (folder / "network.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* is whole"):
        train(tmp_path, resume=True)


def test_a_checkpoint_of_another_network_or_kind_is_refused(tmp_path):
    train(tmp_path)
    other = ToyNetwork()
    other.third = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"does not fit: missing third\.bias, third\.weight"):
        train(tmp_path, network=other, resume=True)
    with pytest.raises(CheckpointError, match="keeps the averages"):
        train(tmp_path, dataclasses.replace(CONFIG, ema=EmaConfig(stds=(0.2,))), resume=True)
    path = list_checkpoints(tmp_path / "checkpoints")[-1] / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "train"', '"kind": "judge"', 1))
    with pytest.raises(CheckpointError, match="holds a judge, not the state of a training run"):
        train(tmp_path, resume=True)


def test_checkpoints_say_what_made_them_and_name_their_parent(tmp_path):
    train(tmp_path, about={"recipe": "toy"})
    folders = list_checkpoints(tmp_path / "checkpoints")
    assert [f.name for f in folders] == [f"images-{n:09d}" for n in (48, 96, 144, 160)]
    manifests = [load_manifest(f) for f in folders]
    assert manifests[0].parent is None
    assert [m.parent for m in manifests[1:]] == [m.digest for m in manifests[:-1]]
    assert manifests[-1].config["about"] == {"recipe": "toy"}
    assert manifests[-1].config["train"]["batch_size"] == 16
    about = train(tmp_path / "other", about=EmaConfig()).about
    assert about["kind"] == "EmaConfig"


def test_a_checkpoint_hook_of_ones_own_takes_the_place_of_the_standard_one(tmp_path):
    hook = CheckpointHook(every_images=80, retention=Retention(keep_last=1))
    train(tmp_path, hooks=[hook])
    assert [f.name for f in list_checkpoints(tmp_path / "checkpoints")] == ["images-000000160"]


def poisoned(network, batch, generator):
    loss = denoise_a_little(network, batch, generator)
    assert loss.per_image is not None
    bad = torch.tensor([i == 33 for i in batch.indices])
    per_image = loss.per_image.masked_fill(bad, float("nan"))
    return Loss(total=per_image.mean(), per_image=per_image, sigma=loss.sigma)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_picture(tmp_path):
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, dataclasses.replace(CONFIG, checkpoint_images=16), objective=poisoned)
    message = str(caught.value)
    assert "the loss was not finite at images_seen" in message
    assert "index 33 'picture 33' at sigma 0." in message
    assert "index 34" not in message
    report = json.loads(next(tmp_path.glob("failure-images-*.json")).read_text())
    assert len(report["pictures"]) == 16
    assert [p["index"] for p in report["pictures"] if p["loss"] == "nan"] == [33]
    checkpoint = list_checkpoints(tmp_path / "checkpoints")
    good = train(tmp_path, objective=denoise_a_little, resume=True)
    assert all(torch.isfinite(p).all() for p in good.network.parameters())
    assert len(checkpoint) == report["images_seen"] // 16 - 1


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_move(tmp_path):
    network = ToyNetwork()
    before = [p.detach().bfloat16() for p in network.parameters()]

    def steep(network, batch, generator):
        loss = reconstruct(network, batch, generator)
        return Loss(total=loss.total + (0 * network.first.bias.float().sum()).sqrt())

    with pytest.raises(TrainingError, match="the gradient was not finite at images_seen 16"):
        train(tmp_path, objective=steep, network=network)
    assert list_checkpoints(tmp_path / "checkpoints") == []
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_a_gradient_of_good_losses_blames_no_picture_and_each_process_has_its_own_list(tmp_path):
    report = StepReport(
        images_seen=16,
        loss=torch.tensor(0.5),
        grad_norm=torch.tensor(float("inf")),
        learning_rate=0.1,
        per_image=torch.tensor([0.5, 0.5]),
        sigma=None,
        metrics={},
        captions=("a", "b"),
        indices=(0, 1),
    )
    with pytest.raises(TrainingError, match=r"though each picture's own loss was\. All") as caught:
        FiniteGuard(RunDir(tmp_path), rank=1).watch(report)
    assert "index 0" not in str(caught.value)
    assert (tmp_path / "failure-images-000000016-rank1.json").is_file()


def test_two_runs_cannot_train_in_one_folder(tmp_path):
    with RunDir(tmp_path).locked(), pytest.raises(InputError, match="in use by process"):
        train(tmp_path)


def test_a_hook_can_stop_a_run_which_then_saves_where_it_is(tmp_path):
    def stop(state):
        state.stopped_by = "a hook"

    state = train(tmp_path, hooks=[StopAt(32, stop)])
    assert (state.images_seen, state.finished) == (32, False)
    assert load_manifest(list_checkpoints(tmp_path / "checkpoints")[-1]).images_seen == 32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_is_then_no_longer_caught(tmp_path, number):
    before = signal.getsignal(number)
    state = train(tmp_path, hooks=[StopAt(48, lambda _: signal.raise_signal(number))])
    assert (state.images_seen, state.stopped_by) == (48, number.name)
    assert signal.getsignal(number) is before
    resumed = train(tmp_path, resume=True)
    assert resumed.digest() == train(tmp_path / "whole").digest()


def test_a_second_interrupt_does_not_wait(tmp_path):
    def twice(_state):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, hooks=[StopAt(48, twice)])


def test_a_run_may_live_in_a_thread_where_signals_cannot_be_caught(tmp_path):
    states = []
    thread = threading.Thread(target=lambda: states.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert states[0].finished


def test_a_limit_stops_a_run_in_a_thread_too_which_can_be_resumed(tmp_path):
    states = []
    limit = StopHook(images=64)
    thread = threading.Thread(target=lambda: states.append(train(tmp_path, hooks=[limit])))
    thread.start()
    thread.join()
    assert (states[0].images_seen, states[0].stopped_by) == (64, "its limit")
    assert train(tmp_path, resume=True).digest() == train(tmp_path / "whole").digest()


@pytest.mark.parametrize("options", [{"images": 0}, {"seconds": 0}, {"seconds": float("nan")}])
def test_limits_without_sense_are_refused(options):
    with pytest.raises(ConfigError):
        StopHook(**options)


def test_the_learning_rate_of_every_step_is_the_schedules(tmp_path):
    rates = []

    class Note(Hook):
        def observe(self, state, report):
            rates.append((report.learning_rate, state.optimizer.param_groups[0]["lr"]))

    config = dataclasses.replace(CONFIG, total_images=64, warmup_images=32, learning_rate=0.5)
    train(tmp_path, config, hooks=[Note(every_images=1)])
    assert rates == [(0.25, 0.25), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)]


def test_a_network_with_tied_weights_trains_and_resumes(tmp_path):
    class Tied(ToyNetwork):
        def __init__(self):
            super().__init__()
            self.again = self.second

    whole = train(tmp_path / "whole", network=Tied())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "crashed", network=Tied(), hooks=[StopAt(64, crash)])
    assert train(tmp_path / "crashed", network=Tied(), resume=True).digest() == whole.digest()
