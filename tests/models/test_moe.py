from dataclasses import replace

import pytest
import torch

from bottega.errors import ConfigError, InputError
from bottega.models.moe import SpaceMoE
from bottega.models.moe_config import GatePath, SpaceMoEConfig

WIDTH, TEXT_WIDTH, TOKENS, POSITIONS, BATCH = 8, 5, 11, 12, 3
CONFIG = SpaceMoEConfig(experts=4, ratio=2.0, gate_width=7)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(config: SpaceMoEConfig = CONFIG, seed: int = 0) -> SpaceMoE:
    torch.manual_seed(seed)
    moe = SpaceMoE(WIDTH, TEXT_WIDTH, config).double()
    for name, parameter in moe.named_parameters():
        if name.startswith("gate"):
            parameter.data *= 4  # so that tokens differ in where they go
    return moe


def padding() -> torch.Tensor:
    """Three prompts of 11, 6 and 1 real tokens."""
    return torch.arange(TOKENS) < torch.tensor([11, 6, 1])[:, None]


def some_map(seed: int = 1, sharpness: float = 2.0) -> torch.Tensor:
    return (sharpness * some(BATCH, POSITIONS, TOKENS, seed=seed)).softmax(dim=-1)


def literal(
    moe: SpaceMoE, x: torch.Tensor, attention_map: torch.Tensor, tokens: torch.Tensor, mask
) -> torch.Tensor:
    """The printed sum: for every token its expert over the whole masked picture."""
    config = moe.config
    pictures = []
    for b in range(len(x)):
        total = torch.zeros_like(x[b])
        counted = [i for i in range(TOKENS) if config.average == "all_tokens" or mask[b, i]]
        for i in counted:
            probabilities = moe.gate(tokens[b, i])
            k = int(probabilities.argmax())
            column = attention_map[b, :, i]
            place = (column >= config.alpha * column.max()).double()
            factor = torch.ones(()).double()
            if config.gate_path == "probability":
                factor = probabilities[k]
            if config.gate_path == "straight_through":
                factor = 1 + probabilities[k] - probabilities[k].detach()
            total = total + factor * moe.experts[k](x[b] * place[:, None])
        pictures.append(total / len(counted))
    return torch.stack(pictures)


def counted(moe: SpaceMoE, x, attention_map, tokens, mask) -> torch.Tensor:
    return moe(x, attention_map, moe.route(tokens, mask))


def zeros_if_none(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone()


@pytest.mark.parametrize("path", GatePath.__args__)
@pytest.mark.parametrize("average", ["all_tokens", "real_tokens"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.7, 1.5])
def test_the_counted_form_is_the_printed_sum_forward_and_backward(alpha, bias, average, path):
    config = replace(CONFIG, alpha=alpha, bias=bias, average=average, gate_path=path)
    moe = layer(config)
    tokens, mask, attention_map = some(BATCH, TOKENS, TEXT_WIDTH), padding(), some_map()
    direction = some(BATCH, POSITIONS, WIDTH, seed=3)
    results = []
    for form in (counted, literal):
        leaves = {"x": some(BATCH, POSITIONS, WIDTH, seed=2), "tokens": tokens.clone()}
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        moe.zero_grad()
        said = form(moe, leaves["x"], attention_map, leaves["tokens"], mask)
        if said.requires_grad:
            (said * direction).sum().backward()
        leaves |= dict(moe.named_parameters())
        results.append([said] + [zeros_if_none(leaf) for leaf in leaves.values()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_bad_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"space_moe\.experts must be positive, got 0"):
        SpaceMoEConfig(experts=0)
    with pytest.raises(ConfigError, match="alpha must be 0 or more"):
        SpaceMoEConfig(alpha=-0.1)


def test_a_map_of_other_tokens_is_refused():
    moe = layer()
    route = moe.route(some(BATCH, TOKENS, TEXT_WIDTH), padding())
    with pytest.raises(InputError, match="12 tokens, the route was made for 11"):
        moe(some(BATCH, POSITIONS, WIDTH), some(BATCH, POSITIONS, 12), route)
