import pytest
import torch

from bottega.condition import Condition, Stream
from bottega.conditioning import ConditionDropout
from bottega.errors import ConfigError

COUNT = 20_000


def condition(count=COUNT, names=("t5", "clip_text", "clip_image")):
    return Condition(
        streams={
            name: Stream(
                tokens=torch.ones(count, 2, 3),
                mask=torch.ones(count, 2, dtype=torch.bool),
                pooled=torch.ones(count, 4),
            )
            for name in names
        }
    )


def silent(dropped):
    return {name: ~stream.mask.any(dim=1) for name, stream in dropped.streams.items()}


def test_each_stream_falls_silent_at_its_own_rate():
    gone = silent(ConditionDropout()(condition(), torch.Generator().manual_seed(0)))
    for name, rate in {"t5": 0.25, "clip_text": 0.2, "clip_image": 0.9}.items():
        spread = (rate * (1 - rate) / COUNT) ** 0.5
        assert abs(float(gone[name].float().mean()) - rate) < 4 * spread


def test_streams_fall_silent_independently_of_each_other():
    gone = silent(ConditionDropout()(condition(), torch.Generator().manual_seed(1)))
    table = torch.stack(list(gone.values())).float()
    correlation = torch.corrcoef(table)
    assert (correlation - torch.eye(3)).abs().max() < 4 / COUNT**0.5
    everything = float(table.prod(dim=0).mean())
    assert abs(everything - 0.25 * 0.2 * 0.9) < 4 * (0.045 * 0.955 / COUNT) ** 0.5


def test_a_silent_stream_is_zero_and_masked_whole():
    dropped = ConditionDropout()(condition(100), torch.Generator().manual_seed(2))
    for stream in dropped.streams.values():
        gone = ~stream.mask.any(dim=1)
        assert torch.equal(stream.mask, ~gone[:, None].expand(-1, 2))
        assert (stream.tokens[gone] == 0).all()
        assert (stream.pooled[gone] == 0).all()
        assert (stream.tokens[~gone] == 1).all()


def test_the_generator_alone_decides_and_the_input_stays():
    before = condition(50)
    first = ConditionDropout()(before, torch.Generator().manual_seed(3))
    second = ConditionDropout()(before, torch.Generator().manual_seed(3))
    assert all(torch.equal(first.streams[n].mask, second.streams[n].mask) for n in first.streams)
    assert all(stream.mask.all() for stream in before.streams.values())


def test_a_missing_stream_does_not_change_the_others():
    whole = silent(ConditionDropout()(condition(200), torch.Generator().manual_seed(4)))
    part = condition(200, names=("clip_image",))
    alone = silent(ConditionDropout()(part, torch.Generator().manual_seed(4)))
    assert torch.equal(whole["clip_image"], alone["clip_image"])


def test_streams_of_other_names_are_left_alone():
    dropout = ConditionDropout(t5=1.0, clip_text=1.0, clip_image=1.0)
    gone = silent(dropout(condition(10, ("t5", "other")), torch.Generator()))
    assert gone["t5"].all()
    assert not gone["other"].any()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_rates_that_are_no_probabilities_are_refused(value):
    with pytest.raises(ConfigError, match="clip_text"):
        ConditionDropout(clip_text=value)
