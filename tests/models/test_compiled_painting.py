"""A compiler of a network that paints is given what it cannot do better as one operation, and writes out the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bottega.models.fast_cpu import attend_by_head, attend_in_blocks, product

PROGRAM = Path(__file__).with_name("painted_compiled.py")


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heads(dtype=torch.float32):
    turned = [drawn(2, count, 3, 8, seed=count, dtype=dtype) for count in (5, 7, 8)]
    query, keys, _ = (part.transpose(1, 2) for part in turned)
    return query, keys, keys + 1


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(
    ("dtype", "kinds", "error"),
    [
        ("float32", {"bottega.product", "bottega.attend_by_head"}, 1e-5),
        ("bfloat16", {"bottega.attend_in_blocks"}, 0.05),
    ],
)
def test_a_network_that_paints_is_one_graph_with_our_attention_in_it(dtype, kinds, error):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), dtype],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["graphs"] == 1  # nothing broke it
    assert set(said["ops"]) == kinds
    assert said["apart"] < error
    assert said["recorded"] == []  # what learns is left to the compiler, which knows its gradient


def test_the_operations_a_compiler_is_given_are_ours():
    query, keys, values = heads()
    with torch.no_grad():
        assert torch.equal(
            torch.ops.bottega.attend_by_head(query, keys, values),
            attend_by_head(query, keys, values),
        )
        rows, weight, bias = drawn(2, 5, 8), drawn(6, 8, seed=1), drawn(6, seed=2)
        for given in (bias, None):
            said = torch.ops.bottega.product(rows, weight, given)
            assert torch.equal(said, product(rows, weight, given))
        mask = torch.tensor([[True] * 3 + [False] * 4, [True] * 7])[:, None, None]
        query, keys, values = heads(torch.bfloat16)
        for hidden in (mask, None):
            said = torch.ops.bottega.attend_in_blocks(query, keys, values, hidden)
            assert torch.equal(said, attend_in_blocks(query, keys, values, hidden))


def test_a_compiler_knows_shape_and_memory_of_what_they_give():
    query, keys, values = heads()
    rows, weight = drawn(2, 5, 8), drawn(6, 8)
    ops = torch.ops.bottega
    with torch.no_grad():
        real = ops.attend_by_head(query, keys, values), ops.product(rows, weight, None)
        with FakeTensorMode() as mode:
            query, keys, values, rows, weight = map(
                mode.from_tensor, (query, keys, values, rows, weight)
            )
            fake = ops.attend_by_head(query, keys, values), ops.product(rows, weight, None)
            blocks = ops.attend_in_blocks(query, keys, values, None)
    for is_real, is_fake in zip((*real, real[0]), (*fake, blocks), strict=True):
        assert is_fake.shape == is_real.shape and is_fake.stride() == is_real.stride()
        assert is_fake.dtype == is_real.dtype
