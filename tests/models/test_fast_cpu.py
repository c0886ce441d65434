"""The faster ways give the numbers of the plain ones, and stand aside where they may not be taken."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import awake, some_condition, some_noise, tiny

from bottega.models import fast_cpu, transformer
from bottega.models.attention import attend
from bottega.models.fast_cpu import (
    Convolution,
    Linear,
    attend_by_head,
    attend_in_blocks,
    attends_by_head,
    needs_no_gradient,
    product,
    product_gated,
    product_gelu,
)
from bottega.models.transformer import Gated
from bottega.models.unet_config import Transformer

SHAPES = [(2, 3, 16, 16, 8), (1, 2, 40, 7, 4), (3, 1, 5, 33, 16)]


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heads(batch, number, positions, keys, width, *, shared=False, dtype=torch.float32):
    told = 1 if shared else batch
    return (
        drawn(batch, number, positions, width, seed=1, dtype=dtype),
        drawn(told, number, keys, width, seed=2, dtype=dtype),
        drawn(told, number, keys, width, seed=3, dtype=dtype),
    )


@pytest.mark.parametrize("block", [2**20, 200, 64, 1], ids=lambda b: f"block of {b}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["own text", "one text for all"])
def test_attention_in_blocks_is_attention(monkeypatch, shape, block, shared):
    monkeypatch.setattr(fast_cpu, "BLOCK", block)
    query, keys, values = heads(*shape, shared=shared)
    mask = torch.arange(shape[3]) < torch.tensor([[3], [1], [shape[3]]])[: len(keys)]
    mask = mask[:, None, None]
    for hidden in (None, mask):
        expected = F.scaled_dot_product_attention(
            query,
            keys.expand(shape[0], -1, -1, -1),
            values.expand(shape[0], -1, -1, -1),
            attn_mask=hidden,
        )
        torch.testing.assert_close(attend_in_blocks(query, keys, values, hidden), expected)


def test_bf16_takes_blocks_and_stays_as_near_the_truth_as_before():
    query, keys, values = heads(2, 2, 64, 64, 16, dtype=torch.bfloat16)
    exact = F.scaled_dot_product_attention(query.double(), keys.double(), values.double())
    with torch.inference_mode():
        fast = attend(query, keys, values)
    slow = attend(query.requires_grad_(), keys, values)
    assert slow.requires_grad
    assert torch.equal(fast, slow.detach())
    assert (fast.double() - exact).abs().max() < 0.02


@pytest.mark.parametrize("block", [2**21, 4096, 64], ids=lambda b: f"block of {b}")
@pytest.mark.parametrize("told", [1, 3, 31, 45, 64])
@pytest.mark.parametrize("shared", [False, True], ids=["own text", "one text for all"])
def test_keys_that_fill_a_row_are_looked_at_by_nobody(monkeypatch, told, block, shared):
    monkeypatch.setattr(fast_cpu, "BLOCK", block)
    filled = fast_cpu._filled(told, 2 * 256, torch.bfloat16)
    assert filled == {1: 31, 3: 29, 31: 1, 45: 19, 64: 0}[told]
    query, keys, values = heads(2, 2, 256, told, 16, shared=shared, dtype=torch.bfloat16)
    values = values + 10  # nothing of it may be lost to keys that are not there
    mask = (torch.arange(told) < torch.tensor([[told], [1 + told // 2]])[: len(keys)])[
        :, None, None
    ]
    for hidden in (None, mask):
        exact = F.scaled_dot_product_attention(
            query.double(),
            keys.double().expand(2, -1, -1, -1),
            values.double().expand(2, -1, -1, -1),
            attn_mask=hidden,
        )
        said = attend_in_blocks(query, keys, values, hidden)
        torch.testing.assert_close(said.double(), exact, rtol=1e-2, atol=1e-2)
        one = attend_in_blocks(
            query[1:], keys[-1:], values[-1:], hidden if hidden is None else hidden[-1:]
        )
        assert torch.equal(said[1:], one)


def test_rows_are_filled_where_it_pays_whatever_the_batch():
    assert fast_cpu._filled(77, fast_cpu.FEW_ROWS, torch.bfloat16) == 19
    assert fast_cpu._filled(77, fast_cpu.FEW_ROWS - 1, torch.bfloat16) == 0
    assert fast_cpu._filled(77, fast_cpu.FEW_ROWS, torch.float32) == 0
    assert fast_cpu._filled(96, fast_cpu.FEW_ROWS, torch.bfloat16) == 0


def test_a_picture_gets_the_same_alone_and_in_a_batch():
    query, keys, values = heads(3, 2, 64, 64, 16, dtype=torch.bfloat16)
    x, weight, bias = drawn(3, 64, 96), drawn(80, 96, seed=1), drawn(80, seed=2)
    with torch.inference_mode():
        together, rows = attend(query, keys, values), product(x, weight, bias)
        for i in range(3):
            one = slice(i, i + 1)
            assert torch.equal(together[one], attend(query[one], keys[one], values[one]))
            assert torch.equal(rows[one], product(x[one], weight, bias))


@pytest.mark.parametrize("block", [2**20, 3000, 64], ids=lambda b: f"block of {b}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["own text", "one text for all"])
def test_attention_head_by_head_is_attention(monkeypatch, shape, block, shared):
    monkeypatch.setattr(fast_cpu, "FLOAT_BLOCK", block)
    query, keys, values = heads(*shape, shared=shared)
    whole = (query, *(part.expand(shape[0], -1, -1, -1) for part in (keys, values)))
    expected = F.scaled_dot_product_attention(*whole)
    with torch.inference_mode():
        torch.testing.assert_close(attend_by_head(query, keys, values), expected)


def test_wide_heads_over_large_pictures_go_head_by_head_and_no_others():
    def chosen(*shape, **options):
        return attends_by_head(*heads(*shape, **options))

    with torch.inference_mode():
        assert chosen(1, 2, 256, 300, 32)
        assert not chosen(1, 2, 256, 300, 16)
        assert not chosen(1, 2, 256, 77, 64)
        assert not chosen(1, 2, 128, 300, 64)
        assert not chosen(1, 2, 256, 300, 32, dtype=torch.bfloat16)
        query, keys, values = heads(1, 2, 256, 300, 32)
        assert not attends_by_head(query, keys, values, torch.ones(1, 1, 1, 300, dtype=torch.bool))
        expected = F.scaled_dot_product_attention(query, keys, values)
        torch.testing.assert_close(attend(query, keys, values), expected)
    learning = heads(1, 2, 256, 300, 32)[2].requires_grad_()
    assert not attends_by_head(*heads(1, 2, 256, 300, 32)[:2], learning)
    attend(*heads(1, 2, 256, 300, 32)[:2], learning).sum().backward()
    assert learning.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_feed_forward_in_blocks_is_the_same_for_every_row(monkeypatch, dtype):
    torch.manual_seed(0)
    layer = Gated(16, 4.0).to(dtype)
    rows = drawn(3, 50, 16, dtype=dtype)
    plain = layer(rows)
    assert plain.requires_grad
    monkeypatch.setattr(transformer, "WIDENED", 128 * 7)
    with torch.inference_mode():
        blocks = layer(rows)
        alone = layer(rows[1:2])
    near = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(blocks, plain.detach(), **near)
    assert torch.equal(blocks[1:2], alone)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
def test_a_gated_product_is_one_half_times_the_gelu_of_the_other(dtype, error):
    rows, weight = drawn(3, 40, 16, dtype=dtype), drawn(48, 16, seed=1, dtype=dtype) / 4
    bias = drawn(48, seed=2, dtype=dtype)
    value, gate = F.linear(rows.double(), weight.double(), bias.double()).chunk(2, dim=-1)
    wanted = value * F.gelu(gate)
    with torch.inference_mode():
        said = product_gated(rows, weight, bias)
        alone = product_gated(rows[1:2], weight, bias)
    assert (said.double() - wanted).abs().max() < error * wanted.abs().max()
    assert torch.equal(said[1:2], alone)
    assert product_gated(rows[:0], weight, bias).shape == (0, 40, 24)
    learned = product_gated(rows, weight.requires_grad_(), bias)
    learned.sum().backward()
    assert weight.grad is not None
    assert (learned.detach().double() - wanted).abs().max() < error * wanted.abs().max()


@pytest.mark.parametrize("widened", [2**21, 64], ids=["at once", "in blocks"])
def test_a_feed_forward_asks_what_stands_in_the_place_of_its_layer(monkeypatch, widened):
    class Doubled(Linear):
        def forward(self, input):  # noqa: A002
            return 2 * super().forward(input)

    monkeypatch.setattr(transformer, "WIDENED", widened)
    layer, rows = Gated(8, 4.0), drawn(2, 6, 8)
    changed = Doubled(8, 64)
    changed.load_state_dict(layer.up.state_dict())
    layer.up = changed
    value, gate = changed(rows).chunk(2, dim=-1)
    with torch.inference_mode():
        torch.testing.assert_close(layer(rows), layer.down(value * F.gelu(gate)))


def test_a_feed_forward_that_learns_is_not_cut(monkeypatch):
    monkeypatch.setattr(transformer, "WIDENED", 1)
    layer, rows = Gated(8, 4.0), drawn(1, 4, 8)
    monkeypatch.setattr(layer, "_in_blocks", None)
    layer(rows).sum().backward()
    assert layer.up.weight.grad is not None
    with torch.no_grad(), pytest.raises(TypeError):
        layer(rows)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_product_is_a_linear_layer(dtype, bias):
    layer = Linear(24, 40, bias=bias).to(dtype)
    assert set(layer.state_dict()) == set(torch.nn.Linear(24, 40, bias=bias).state_dict())
    for x in (drawn(2, 7, 24, dtype=dtype), drawn(5, 24, dtype=dtype), drawn(0, 24, dtype=dtype)):
        with torch.inference_mode():
            fast = layer(x)
        torch.testing.assert_close(fast, F.linear(x, layer.weight, layer.bias).detach())
    turned = drawn(2, 24, 3, 5, dtype=dtype).permute(0, 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(layer(turned), F.linear(turned, layer.weight, layer.bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(2, 2), (1, 4), (3, 2), (16, 16)], ids=str)
def test_a_convolution_of_a_small_picture_is_a_convolution(size, dtype):
    layer = Convolution(24, 64, 3, padding=1).to(dtype)
    x = drawn(2, 24, *size, dtype=dtype)
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    for memory in (torch.channels_last, torch.contiguous_format):
        layer.to(memory_format=memory)
        with torch.inference_mode():
            said = layer(x.contiguous(memory_format=memory))
            one = layer(x[1:].contiguous(memory_format=memory))
        assert (said - exact).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)
        if size != (16, 16):  # PyTorch's own convolution does not promise this
            assert torch.equal(said[1:], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_wide_convolution_gives_a_picture_the_same_in_every_batch(dtype):
    layer = Convolution(256, 256, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
    x = drawn(5, 256, 4, 4, dtype=dtype)
    with torch.inference_mode():
        assert layer._is_product(x)
        together = layer(x)
        for i in range(5):
            assert torch.equal(together[i : i + 1], layer(x[i : i + 1]))


def test_other_convolutions_stay_convolutions():
    with torch.inference_mode():
        for layer, size in (
            (Convolution(4, 64, 3, stride=2, padding=1), 2),
            (Convolution(4, 64, 1), 2),
            (Convolution(4, 8, 3, padding=1), 2),
            (Convolution(4, 64, 3, padding=1), 16),
        ):
            assert not layer._is_product(drawn(1, 4, size, size))
        assert Convolution(4, 64, 3, padding=1)._is_product(drawn(1, 4, 2, 2))
        assert not Convolution(4, 64, 3, padding=1)._is_product(drawn(0, 4, 2, 2))


def test_gradients_autocast_and_other_devices_keep_the_plain_way():
    x, weight = drawn(4, 8), drawn(6, 8, seed=1)
    assert needs_no_gradient(x, weight, None)
    learning = weight.clone().requires_grad_()
    assert not needs_no_gradient(x, learning)
    with torch.no_grad():
        assert needs_no_gradient(x, learning)
    assert not needs_no_gradient(x, weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(x, weight).dtype == torch.bfloat16
    product(x, learning).square().sum().backward()
    torch.testing.assert_close(learning.grad, (2 * (x @ weight.T)).T @ x)


def test_where_onednn_is_switched_off_the_plain_way_is_taken(monkeypatch):
    x, weight = drawn(4, 8), drawn(6, 8, seed=1)
    monkeypatch.setattr(fast_cpu, "_HAS_ONEDNN", False)
    assert torch.equal(product(x, weight), F.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_whole_network_says_the_same_with_and_without_gradients(dtype):
    network = awake(tiny(attention=Transformer(depth=2, head_width=16))).to(dtype)
    x, c_noise = some_noise()
    with torch.no_grad():
        fast = network(x, c_noise, network.prepare(some_condition()))
    slow = network(x, c_noise, network.prepare(some_condition()))
    assert slow.requires_grad
    apart = (fast.float() - slow.detach().float()).abs().max() / fast.float().abs().max()
    assert apart < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gelu_are_one(bias, dtype, error):
    rows, weight = drawn(2, 5, 16, dtype=dtype), drawn(24, 16, seed=1, dtype=dtype)
    added = drawn(24, seed=2, dtype=dtype) if bias else None
    wanted = F.gelu(F.linear(rows, weight, added))
    torch.testing.assert_close(product_gelu(rows, weight, added), wanted, rtol=0, atol=error)
    assert product_gelu(rows[:0], weight, added).shape == (0, 5, 24)
    learned = product_gelu(rows, weight.requires_grad_(), added)
    assert torch.equal(learned, wanted)  # what records gradients goes the plain way
    assert learned.requires_grad
