"""Optimisers agree with their references, decay what should decay, and their state survives the disk."""

import pytest
import torch

from bottega.errors import CheckpointError, ConfigError
from bottega.training import Adafactor, AdamW
from bottega.training.optim import (
    build_optimizer,
    fill_optimizer,
    optimizer_tensors,
    set_learning_rate,
)


def run(optimizer, tensors, gradients):
    for step in gradients:
        for tensor, gradient in zip(tensors, step, strict=True):
            tensor.grad = gradient.clone()
        optimizer.step()


def problem(shapes, steps=5):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=generator) for s in shapes]
    gradients = [[torch.randn(s, generator=generator) for s in shapes] for _ in range(steps)]
    return tensors, gradients


def test_adamw_follows_its_formula_and_decays_matrices_alone():
    (matrix, vector), gradients = problem([(4, 3), (3,)])
    expected = [matrix.clone().double(), vector.clone().double()]
    moments = [(torch.zeros_like(e), torch.zeros_like(e)) for e in expected]
    for t, step in enumerate(gradients, start=1):
        for e, (m, v), gradient, decay in zip(expected, moments, step, (0.1, 0.0), strict=True):
            m.mul_(0.8).add_(0.2 * gradient)
            v.mul_(0.9).add_(0.1 * gradient**2)
            e.mul_(1 - 0.01 * decay)
            e.sub_(0.01 * (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8))
    config = AdamW(betas=(0.8, 0.9), weight_decay=0.1)
    run(build_optimizer(config, [matrix, vector], learning_rate=0.01), [matrix, vector], gradients)
    torch.testing.assert_close(matrix.detach().double(), expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(vector.detach().double(), expected[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_adafactor_agrees_with_transformers(momentum):
    from transformers.optimization import Adafactor as Reference

    tensors, gradients = problem([(6, 4), (5,)])
    theirs = [t.clone().requires_grad_() for t in tensors]
    options = {"lr": 0.05, "scale_parameter": True, "relative_step": False, "warmup_init": False}
    reference = Reference(
        theirs,
        beta1=momentum,
        **options,
    )
    config = Adafactor(min_dim_to_factor=1, momentum=momentum)
    run(build_optimizer(config, tensors, learning_rate=0.05), tensors, gradients)
    run(reference, theirs, gradients)
    for ours, other in zip(tensors, theirs, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-5)


def test_adafactor_decays_matrices_by_the_rate_times_the_decay():
    (matrix, vector), gradients = problem([(6, 4), (5,)], steps=1)
    plain, before = [matrix.clone(), vector.clone()], matrix.clone()
    run(build_optimizer(Adafactor(), plain, learning_rate=0.05), plain, gradients)
    decaying = Adafactor(weight_decay=0.1)
    run(
        build_optimizer(decaying, [matrix, vector], learning_rate=0.05), [matrix, vector], gradients
    )
    torch.testing.assert_close(plain[0] - matrix, 0.05 * 0.1 * before)
    assert torch.equal(plain[1], vector)


def test_adafactor_factors_the_two_largest_dimensions_and_keeps_little():
    tensors, gradients = problem([(8, 6, 3, 3)], steps=1)
    optimizer = build_optimizer(Adafactor(min_dim_to_factor=4), tensors, learning_rate=0.01)
    run(optimizer, tensors, gradients)
    state = optimizer.state[tensors[0]]
    assert state["row"].shape == (1, 6, 3, 3)
    assert state["column"].shape == (8, 1, 3, 3)
    small = build_optimizer(Adafactor(min_dim_to_factor=7), tensors, learning_rate=0.01)
    run(small, tensors, gradients)
    assert small.state[tensors[0]]["square"].shape == (8, 6, 3, 3)


def test_the_first_adafactor_step_has_the_size_that_was_asked_for():
    (tensor,), gradients = problem([(64,)], steps=1)
    before, rms = tensor.clone(), tensor.square().mean().sqrt()
    run(build_optimizer(Adafactor(), [tensor], learning_rate=0.01), [tensor], gradients)
    moved = (tensor.detach() - before).square().mean().sqrt()
    assert moved == pytest.approx(float(0.01 * rms), rel=1e-4)
    plain = before.clone()
    config = Adafactor(scale_by_parameter=False, clip_rms=0.5)
    run(build_optimizer(config, [plain], learning_rate=0.01), [plain], gradients)
    assert (plain.detach() - before).square().mean().sqrt() == pytest.approx(0.005, rel=1e-4)


def test_a_tensor_without_a_gradient_does_not_move():
    for config in (AdamW(), Adafactor()):
        still, moving = torch.ones(3), torch.ones(3)
        optimizer = build_optimizer(config, [still, moving], learning_rate=0.1)
        moving.grad = torch.ones(3)
        optimizer.step()
        assert torch.equal(still.detach(), torch.ones(3))
        assert not torch.equal(moving.detach(), torch.ones(3))


def test_a_closure_is_called_with_gradients_on():
    tensor = torch.ones(3)
    optimizer = build_optimizer(Adafactor(), [tensor], learning_rate=0.1)

    def closure():
        optimizer.zero_grad()
        loss = tensor.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0
    assert not torch.equal(tensor.detach(), torch.ones(3))


@pytest.mark.parametrize("config", [AdamW(), Adafactor(min_dim_to_factor=1, momentum=0.9)])
def test_state_that_went_through_names_goes_on_bit_for_bit(config):
    shapes = [(8, 4, 3, 3), (4, 3), (5,)]
    tensors, gradients = problem(shapes, steps=6)
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    whole, halves = [t.clone() for t in tensors], [t.clone() for t in tensors]
    run(build_optimizer(config, whole, learning_rate=0.01), whole, gradients)
    first = build_optimizer(config, halves, learning_rate=0.01)
    run(first, halves, gradients[:3])
    names = ["conv", "linear", "bias"]
    saved = {
        k: v.clone(memory_format=torch.contiguous_format)
        for k, v in optimizer_tensors(first, dict(zip(names, halves, strict=True))).items()
    }
    second = build_optimizer(config, halves, learning_rate=0.5)
    set_learning_rate(second, 0.01)
    fill_optimizer(second, dict(zip(names, halves, strict=True)), saved)
    run(second, halves, gradients[3:])
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)


def test_state_of_an_unknown_weight_is_refused():
    tensor = torch.ones(3)
    optimizer = build_optimizer(AdamW(), [tensor], learning_rate=0.1)
    with pytest.raises(CheckpointError, match="names other, which the network lacks"):
        fill_optimizer(optimizer, {"w": tensor}, {"exp_avg:other": torch.ones(3)})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AdamW(betas=(1.0, 0.9)),
        lambda: AdamW(eps=-1.0),
        lambda: AdamW(weight_decay=float("nan")),
        lambda: Adafactor(decay_rate=0.0),
        lambda: Adafactor(clip_rms=0.0),
        lambda: Adafactor(momentum=1.0),
        lambda: Adafactor(min_dim_to_factor=0),
        lambda: Adafactor(weight_decay=-0.1),
        lambda: Adafactor(eps=-1.0),
        lambda: Adafactor(min_scale=float("nan")),
    ],
)
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()
