"""Muon agrees with PyTorch's, leaves small tensors to AdamW, and its iteration makes matrices orthogonal."""

import pytest
import torch

from bottega.errors import ConfigError
from bottega.training import AdamW, Muon
from bottega.training.muon import MuonOptimizer, orthogonal
from bottega.training.optim import (
    build_optimizer,
    fill_optimizer,
    optimizer_tensors,
    set_learning_rate,
)


def drawn(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(optimizer, tensors, steps=4):
    for step in range(steps):
        for tensor, gradient in zip(
            tensors, drawn(*(t.shape for t in tensors), seed=step + 1), strict=True
        ):
            tensor.grad = gradient
        optimizer.step()


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_the_iteration_brings_every_singular_value_near_one_and_keeps_the_directions(shape):
    (matrix,) = drawn(shape)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonal(matrix[None], 5)[0]
    lengths = torch.linalg.svdvals(result)
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3
    in_old_directions = u.T @ result @ vh.T
    off_diagonal = in_old_directions - torch.diag(in_old_directions.diagonal())
    assert off_diagonal.abs().max() < 0.05


def test_updates_agree_with_pytorchs_muon_on_matrices():
    ours = drawn((24, 16), (16, 24), (24, 16))
    theirs = [t.clone().requires_grad_() for t in ours]
    config = Muon(min_dim=8, weight_decay=0.1)
    run(build_optimizer(config, ours, learning_rate=0.01), ours)
    reference = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    run(reference, theirs)
    for one, other in zip(ours, theirs, strict=True):
        # Both iterate in bfloat16, in another order of products.
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-3)


def test_a_kernel_moves_as_the_matrix_of_its_output_channels_in_either_memory_layout():
    (kernel,) = drawn((16, 12, 3, 3))
    matrix = kernel.clone().flatten(1)
    last = kernel.clone().contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(5))
    for tensor in (kernel, matrix, last):
        tensor.grad = gradient.reshape(tensor.shape).clone()
        build_optimizer(Muon(min_dim=4), [tensor], learning_rate=0.01).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    torch.testing.assert_close(last, kernel)


def test_small_matrices_and_vectors_are_left_to_adamw():
    ours, theirs = drawn((32, 32), (4, 32), (32,)), drawn((4, 32), (32,))
    theirs = [t.clone() for t in ours[1:]]
    run(build_optimizer(Muon(min_dim=16), ours, learning_rate=0.01), ours)
    reference = build_optimizer(AdamW(betas=(0.9, 0.99)), theirs, learning_rate=0.01)
    for step in range(4):
        gradients = drawn(*(t.shape for t in ours), seed=step + 1)[1:]
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = gradient
        reference.step()
    for one, other in zip(ours[1:], theirs, strict=True):
        torch.testing.assert_close(one, other)
    alone = build_optimizer(Muon(min_dim=64), theirs, learning_rate=0.01)
    assert not isinstance(alone, MuonOptimizer)


def test_the_state_goes_to_disk_and_back_and_the_walk_goes_on_as_if_nothing_had_happened():
    names = ("kernel", "bias")
    ours = drawn((32, 8, 2, 2), (32,))
    optimizer = build_optimizer(Muon(min_dim=16), ours, learning_rate=0.01)
    run(optimizer, ours)
    masters = dict(zip(names, ours, strict=True))
    saved = {k: v.clone() for k, v in optimizer_tensors(optimizer, masters).items()}
    assert set(saved) == {"momentum:kernel", "step:bias", "exp_avg:bias", "exp_avg_sq:bias"}
    again = [t.detach().clone() for t in ours]
    fresh = build_optimizer(Muon(min_dim=16), again, learning_rate=0.01)
    fill_optimizer(fresh, dict(zip(names, again, strict=True)), saved)
    for o, tensors in ((optimizer, ours), (fresh, again)):
        set_learning_rate(o, 0.02)
        run(o, tensors, steps=2)
    for one, other in zip(ours, again, strict=True):
        assert torch.equal(one, other)


def test_the_closure_is_called_and_tensors_without_a_gradient_stay():
    (moved, still) = drawn((16, 16), (16, 16))
    before = still.clone()
    optimizer = build_optimizer(Muon(min_dim=8), [moved, still], learning_rate=0.01)
    moved.grad = torch.ones_like(moved)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(still, before)


@pytest.mark.parametrize(
    "wrong", [{"momentum": 1.0}, {"betas": (0.9, -1.0)}, {"iterations": 0}, {"min_dim": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="must be"):
        Muon(**wrong)
