"""Training settings are checked when they are made, and survive JSON."""

import json

import pytest

from bottega.checkpoint import Retention
from bottega.config import dumps, from_json, override
from bottega.errors import ConfigError
from bottega.training import Adafactor, AdamW, Cosine, EmaConfig, InverseSqrt, TrainConfig


def test_settings_survive_json_with_every_choice_in_place():
    config = TrainConfig(
        total_images=1000,
        optimizer=Adafactor(momentum=0.9),
        schedule=InverseSqrt(reference_images=70),
        ema=EmaConfig(stds=(0.1,), halflife_images=9),
        retention=Retention(keep_last=1, keep_every_images=100),
        microbatch=8,
        clip_norm=None,
        precision="fp32",
    )
    assert from_json(TrainConfig, json.loads(dumps(config))) == config


def test_settings_can_be_changed_from_a_command_line():
    config = override(
        TrainConfig(total_images=10),
        {
            "optimizer.weight_decay": "0.1",
            "schedule": '{"kind": "Cosine"}',
            "clip_norm": "none",
            "precision": "fp32",
        },
    )
    assert config.optimizer == AdamW(weight_decay=0.1)
    assert config.schedule == Cosine()
    assert config.clip_norm is None
    with pytest.raises(ConfigError, match="did you mean bf16"):
        override(config, {"precision": "bf61"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_images": 0}, "total_images must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"microbatch": 0}, "microbatch must be at least 1"),
        ({"checkpoint_images": 0}, "checkpoint_images must be at least 1"),
        ({"prefetch": 0}, "prefetch must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive and finite"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"warmup_images": -1}, "warmup_images must not be negative"),
        ({"seed": 2**64}, "seed must be a number of 64 bits"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or none"),
        ({"clip_norm": float("nan")}, "clip_norm must be positive or none"),
    ],
)
def test_settings_without_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"total_images": 10, **options})


def test_a_batch_is_shared_out_evenly_or_not_at_all():
    config = TrainConfig(total_images=10, batch_size=24, microbatch=4)
    assert [config.microbatch_for(n) for n in (1, 2, 3)] == [4, 4, 4]
    assert TrainConfig(total_images=10, batch_size=24).microbatch_for(3) == 8
    with pytest.raises(ConfigError, match="cannot be shared by 5 processes"):
        config.microbatch_for(5)
    with pytest.raises(ConfigError, match="microbatch 4 must divide the 6 images of each process"):
        config.microbatch_for(4)
    with pytest.raises(ConfigError, match="cannot be shared by 48"):
        config.microbatch_for(48)
