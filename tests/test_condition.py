"""A condition is plain data: it drops, joins, moves and never changes what it was made from."""

import pytest
import torch

from bottega.condition import Condition, Stream
from bottega.errors import InputError


def stream(batch=3, tokens=4, width=5, *, pooled=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Stream(
        tokens=torch.randn(batch, tokens, width, generator=generator),
        mask=torch.rand(batch, tokens, generator=generator) < 0.7,
        pooled=torch.randn(batch, width, generator=generator) if pooled else None,
    )


def condition(batch=3, seed=0):
    return Condition(
        streams={
            "t5": stream(batch, pooled=False, seed=seed),
            "clip_text": stream(batch, 6, seed=seed + 1),
        }
    )


def test_dropping_silences_exactly_the_chosen_pictures():
    before = condition()
    tokens = before.streams["clip_text"].tokens.clone()
    drop = torch.tensor([True, False, True])
    after = before.dropped({"clip_text": drop})
    heard, kept = after.streams["clip_text"], before.streams["clip_text"]
    assert (
        not heard.tokens[drop].any() and not heard.mask[drop].any() and not heard.pooled[drop].any()
    )
    assert torch.equal(heard.tokens[1], kept.tokens[1])
    assert torch.equal(heard.mask[1], kept.mask[1])
    assert torch.equal(heard.pooled[1], kept.pooled[1])
    assert after.streams["t5"] is before.streams["t5"]
    assert torch.equal(before.streams["clip_text"].tokens, tokens)


def test_a_dropped_prompt_does_not_betray_its_length():
    short, long = stream(seed=1), stream(seed=2)
    everything = torch.ones(3, dtype=torch.bool)
    a, b = short.dropped(everything), long.dropped(everything)
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.mask, b.mask)


def test_dropping_an_unknown_stream_names_the_known_ones():
    with pytest.raises(InputError, match=r"cannot drop \['t6'\].*clip_text.*t5"):
        condition().dropped({"t6": torch.ones(3, dtype=torch.bool)})


def test_the_null_condition_is_silent_but_keeps_the_picture_to_enlarge():
    low_res = torch.randn(3, 3, 8, 8)
    null = condition().with_low_res(low_res, torch.zeros(3)).null()
    assert null.low_res is low_res
    assert not any(s.tokens.any() or s.mask.any() for s in null.streams.values())


def test_batch_size_counts_pictures():
    assert condition(5).batch_size == 5
    assert Condition().batch_size == 0
    assert Condition().with_low_res(torch.zeros(2, 3, 4, 4), torch.zeros(2)).batch_size == 2


def test_parts_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"one batch size, got \[2, 3\]"):
        Condition(streams={"a": stream(2), "b": stream(3)})
    with pytest.raises(InputError, match="one batch size"):
        condition(3).with_low_res(torch.zeros(2, 3, 4, 4), torch.zeros(2))
    with pytest.raises(InputError, match="go together"):
        Condition(low_res=torch.zeros(2, 3, 4, 4))
    with pytest.raises(InputError, match="go together"):
        Condition(low_res_sigma=torch.zeros(2))


def test_joined_conditions_are_the_rows_of_their_parts_in_order():
    low, sigma = torch.randn(2, 3, 4, 4), torch.rand(2)
    a, b = (
        condition(2, seed=3).with_low_res(low, sigma),
        condition(1, seed=9).with_low_res(low[:1], sigma[:1]),
    )
    both = Condition.cat([a, b])
    for name in ("t5", "clip_text"):
        assert torch.equal(both.streams[name].tokens[:2], a.streams[name].tokens)
        assert torch.equal(both.streams[name].mask[2:], b.streams[name].mask)
    assert both.streams["t5"].pooled is None
    assert torch.equal(both.streams["clip_text"].pooled[2:], b.streams["clip_text"].pooled)
    assert torch.equal(both.low_res, torch.cat([low, low[:1]]))
    assert torch.equal(both.low_res_sigma, torch.cat([sigma, sigma[:1]]))


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(InputError, match="at least one"):
        Condition.cat([])
    with pytest.raises(InputError, match="same streams"):
        Condition.cat([condition(), Condition(streams={"t5": stream()})])
    with pytest.raises(InputError, match="pooled all or none, got 1 of 2"):
        Condition.cat(
            [Condition(streams={"a": stream()}), Condition(streams={"a": stream(pooled=False)})]
        )


def test_moving_casts_features_and_leaves_masks_and_noise_levels_exact():
    moved = condition().with_low_res(torch.rand(3, 3, 4, 4), torch.rand(3)).to(dtype=torch.bfloat16)
    assert moved.streams["clip_text"].tokens.dtype == torch.bfloat16
    assert moved.streams["clip_text"].pooled.dtype == torch.bfloat16
    assert moved.streams["t5"].pooled is None
    assert moved.streams["t5"].mask.dtype == torch.bool
    assert moved.low_res.dtype == moved.low_res_sigma.dtype == torch.float32
    assert condition().to(device="cpu").low_res is None
