"""Hooks fire when due, and what they report is what happened."""

import io
import math

import pytest
import torch
from rich.console import Console
from toy import ToyNetwork, ToySource, denoise_a_little

from bottega.errors import ConfigError
from bottega.journal import Journal
from bottega.rundir import RunDir
from bottega.training import (
    Hook,
    JournalHook,
    LocalEngine,
    PreviewHook,
    ProgressHook,
    StepReport,
    TensorBoardHook,
    TrainConfig,
    fit,
)
from bottega.training.meter import Meter
from bottega.training.progress import duration


def train(path, hooks, total=160, **options):
    config = TrainConfig(total_images=total, batch_size=16, checkpoint_images=64)
    return fit(
        ToyNetwork(), denoise_a_little, ToySource(), config, RunDir(path), hooks=hooks, **options
    )


def report(images_seen, loss, sigma):
    return StepReport(
        images_seen=images_seen,
        loss=loss.mean(),
        grad_norm=torch.tensor(2.0),
        learning_rate=0.1,
        per_image=loss,
        sigma=sigma,
        metrics={"brightness": torch.tensor(0.5)},
        captions=("x",) * len(loss),
        indices=tuple(range(len(loss))),
    )


class Note(Hook):
    def __init__(self, every_images):
        super().__init__(every_images=every_images)
        self.said = []

    def begin(self, state):
        self.said.append(("begin", state.images_seen))

    def fire(self, state):
        self.said.append(("fire", state.images_seen))

    def end(self, state):
        self.said.append(("end", state.images_seen))

    def close(self):
        self.said.append("close")


def test_hooks_fire_when_their_distance_is_passed_and_at_the_end(tmp_path):
    note = Note(every_images=40)  # no multiple of the batch: it fires at the first step past each
    train(tmp_path, [note])
    fired = [("fire", n) for n in (48, 80, 128, 160)]
    assert note.said == [("begin", 0), *fired, ("end", 160), "close"]
    with pytest.raises(ConfigError, match="every_images must be at least 1"):
        Note(every_images=0)


def test_a_meter_means_over_steps_and_orders_losses_by_noise():
    meter = Meter()
    assert meter.take_local() is None
    sigma = torch.tensor([3.0, 0.1, 2.0, 1.0, 0.5, 5.0, 4.0, 0.2])
    meter.add(report(8, sigma * 10, sigma))
    meter.add(report(16, sigma * 10, sigma))
    summary = meter.take_local()
    assert summary is not None
    assert summary.images_seen == 16
    assert summary.loss == summary.loss_ema == pytest.approx(float(sigma.mean() * 10), rel=1e-6)
    assert summary.by_sigma == pytest.approx((1.5, 7.5, 25.0, 45.0))
    assert summary.sigma_bounds == pytest.approx((0.5, 2.0, 4.0))
    assert summary.metrics == {"brightness": 0.5}
    assert summary.grad_norm == 2.0
    assert summary.images_per_s > 0
    meter.add(report(24, sigma * 20, sigma))
    later = meter.take(LocalEngine())
    assert later is not None
    assert later.loss_ema == pytest.approx(0.9 * summary.loss + 0.1 * 2 * summary.loss)


def test_quartiles_need_noise_levels_and_at_least_four_pictures():
    meter = Meter()
    meter.add(report(2, torch.ones(2), torch.ones(2)))
    summary = meter.take_local()
    assert summary is not None
    assert summary.by_sigma == ()
    assert "loss_by_sigma" not in summary.as_record()


def test_the_journal_has_one_line_per_distance_with_everything_worth_a_curve(tmp_path):
    train(tmp_path, [JournalHook(every_images=64)])
    records = Journal(tmp_path / "journal.jsonl").read()
    assert [(r["event"], r["images_seen"]) for r in records] == [
        ("start", 0),
        ("train", 64),
        ("train", 128),
        ("train", 160),
        ("end", 160),
    ]
    for record in records[1:-1]:
        assert len(record["loss_by_sigma"]) == 4
        assert len(record["sigma_bounds"]) == 3
        for name in ("loss", "loss_ema", "grad_norm", "learning_rate", "images_per_s"):
            assert math.isfinite(record[name])
        assert abs(record["metrics"]["brightness"]) < 0.1


def test_a_resumed_journal_says_nothing_twice(tmp_path):
    class Crash(Hook):
        def fire(self, state):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [JournalHook(every_images=16), Crash(every_images=112)])
    train(tmp_path, [JournalHook(every_images=16)], resume=True)
    records = Journal(tmp_path / "journal.jsonl").read()
    trained = [r for r in records if r["event"] == "train"]
    assert [r["images_seen"] for r in trained] == list(range(16, 161, 16))
    assert [r["images_seen"] for r in records if r["event"] == "start"] == [0, 64]
    train(tmp_path / "whole", [JournalHook(every_images=16)])
    whole = [r for r in Journal(tmp_path / "whole" / "journal.jsonl").read() if "loss_ema" in r]
    for found, expected in zip(trained, whole, strict=True):
        assert found["loss"] == expected["loss"]
        assert found["loss_ema"] == pytest.approx(expected["loss_ema"], rel=1e-5)


def test_tensorboard_gets_the_same_curves_over_images(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, [TensorBoardHook(every_images=64), JournalHook(every_images=64)])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    expected = {
        *("loss", "learning_rate", "grad_norm", "images_per_s", "brightness"),
        *(f"loss_by_sigma/quartile_{n}" for n in (1, 2, 3, 4)),
    }
    assert set(events.Tags()["scalars"]) == expected
    journal = [r for r in Journal(tmp_path / "journal.jsonl").read() if r["event"] == "train"]
    curve = [(e.step, e.value) for e in events.Scalars("loss")]
    assert curve == [(r["images_seen"], pytest.approx(r["loss"], rel=1e-4)) for r in journal]


def test_previews_are_painted_in_evaluation_mode_and_training_goes_on_in_its_own(tmp_path):
    seen = []

    def paint(state, path):
        seen.append((path.name, state.network.training))
        path.write_bytes(b"png")

    state = train(tmp_path, [PreviewHook(paint, every_images=80)])
    assert seen == [("images-000000080.png", False), ("images-000000160.png", False)]
    assert state.network.training
    assert (tmp_path / "previews" / "images-000000160.png").exists()


def lines(console_text):
    return [line for line in console_text.splitlines() if line.strip()]


def test_without_a_terminal_progress_is_a_plain_line_now_and_then(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=200)
    train(tmp_path, [ProgressHook(console=console, every_s=1e-9)])
    said = lines(text.getvalue())
    assert len(said) == 10
    assert said[0].startswith("16/160 images | ")
    for part in (" images/s | ", " left | loss ", "by sigma "):
        assert part in said[0]
    quiet = io.StringIO()
    train(tmp_path / "quiet", [ProgressHook(console=Console(file=quiet), every_s=3600.0)])
    assert len(lines(quiet.getvalue())) <= 2  # only how it ended


def test_progress_repeats_what_a_hook_remarks(tmp_path):
    class Remark(Hook):
        def begin(self, state):
            state.remark = "as good as its parent"

    text = io.StringIO()
    console = Console(file=text, width=200)
    remark = Remark(every_images=1000)
    train(tmp_path, [remark, ProgressHook(console=console, every_s=1e-9)])
    assert all(line.endswith("| as good as its parent") for line in lines(text.getvalue()))


def test_on_a_terminal_progress_is_a_live_bar_with_absolute_counts(tmp_path):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    train(tmp_path, [ProgressHook(console=console, live_s=1e-9)], total=64)
    console = Console(file=text, force_terminal=True, width=160)
    train(tmp_path, [ProgressHook(console=console, live_s=1e-9)], total=96, resume=True)
    assert "64/64 images" in text.getvalue()
    assert "resuming at 64 images" in text.getvalue()
    assert "96/96 images" in text.getvalue()


def test_whatever_ends_a_run_what_hooks_opened_is_closed(tmp_path):
    class Crash(Hook):
        def fire(self, state):
            raise KeyboardInterrupt

    text = io.StringIO()
    display = ProgressHook(console=Console(file=text, force_terminal=True, width=160))
    curves = TensorBoardHook(every_images=16)
    note = Note(every_images=160)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [display, curves, note, Crash(every_images=32)])
    assert note.said == [("begin", 0), "close"]
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")  # cursor shown
    assert curves._writer is None


def test_progress_says_what_stopped_the_run_and_what_was_passed_over(tmp_path):
    class Stop(Hook):
        def observe(self, state, report):
            state.stopped_by = "SIGTERM"

    text = io.StringIO()
    train(tmp_path, [Stop(every_images=1), ProgressHook(console=Console(file=text, width=200))])
    assert "stopped by SIGTERM at 16 images; resume to go on" in text.getvalue()
    (tmp_path / "checkpoints" / "images-000000016" / "network.safetensors").write_bytes(b"x")
    broken = tmp_path / "checkpoints" / "images-000000016"
    broken.rename(broken.with_name("images-000000099"))
    train(tmp_path / "other", [], total=16)
    (tmp_path / "other" / "checkpoints" / "images-000000016").rename(broken)
    train(tmp_path, [ProgressHook(console=Console(file=text, width=300))], resume=True)
    assert "is damaged" in text.getvalue()
    with pytest.raises(ConfigError, match="must be positive"):
        ProgressHook(every_s=0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (60.0, "1 min"),
        (3599.0, "1 h 00 min"),
        (11_100.0, "3 h 05 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text
