"""What a space-MoE layer costs: against its own work done densely, a dense pass per expert, and the printed sum.

Three peers run in turns with it, on the same widths and in one process:

- ``pairs``: a dense feed-forward over as many rows as there are active (expert, position) pairs;
- ``dense``: as many dense feed-forwards as experts, each over all positions, and their sum;
- ``literal``: the printed sum, for every token its expert over the whole masked picture.

Every round has a map of its own, as every step of a sampler has, so that the number of active pairs is new each time.
The first rounds are not counted: oneDNN makes a kernel for every new number of rows, and a sampler's hundreds of calls
have soon met them all. The layer's output is compared with the printed sum's before anything is timed.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from contenders import DTYPES, Clock
from torch import Tensor

from bottega.models import SpaceMoE, SpaceMoEConfig, SpaceRoute
from bottega.models.attention_config import PlainFeedForward
from bottega.models.transformer import feed_forward

TEXT_WIDTH = 1024
SHARPNESS = {"broad": 0.5, "usual": 2.0, "sharp": 6.0}
"""How peaked the attention is: logits are smooth fields of this standard deviation."""


def some_map(options: argparse.Namespace, sharpness: float, seed: int, device: str) -> Tensor:
    """Attention that a picture could have: every token's logits are a smooth field."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(options.images, options.tokens, 8, 8, generator=draw)
    size = (options.size, options.size)
    fields = F.interpolate(coarse, size=size, mode="bicubic").flatten(2).transpose(1, 2)
    return (sharpness * fields).softmax(dim=-1).to(device)


def literal(moe: SpaceMoE, x: Tensor, attention_map: Tensor, route: SpaceRoute) -> Tensor:
    """The printed sum over tokens."""
    total = torch.zeros_like(x, dtype=torch.float32)
    seen = attention_map.detach()
    masks = (seen >= moe.config.alpha * seen.amax(dim=1, keepdim=True)).to(x.dtype)
    for i in range(attention_map.shape[-1]):
        k = int(route.expert[0, i])
        masked = x * masks[..., i, None]
        total = total + moe.experts[k](masked.flatten(0, 1)).view_as(x) * route.weights[:, i, k]
    return total.to(x.dtype)


def work(run: Callable[[], Tensor], leaf: Tensor, train: bool) -> Callable[[], None]:
    """One run, and the way back where that is wanted too."""

    def forward() -> None:
        with torch.inference_mode():
            run()

    def both() -> None:
        leaf.grad = None
        run().float().square().mean().backward()

    return both if train else forward


def race(options: argparse.Namespace, kind: str, sharpness: float, dtype: torch.dtype) -> None:
    """Time the layer and its peers for one precision and one sharpness of attention."""
    torch.manual_seed(0)
    config = SpaceMoEConfig(
        experts=options.experts,
        alpha=options.alpha,
        ratio=options.ratio,
        bias=not options.no_bias,
    )
    moe = SpaceMoE(options.width, TEXT_WIDTH, config).to(options.device, dtype)
    dense = [
        feed_forward(PlainFeedForward(ratio=options.ratio), options.width).to(options.device, dtype)
        for _ in range(options.experts)
    ]
    tokens = torch.randn(1, options.tokens, TEXT_WIDTH, device=options.device, dtype=dtype)
    real = torch.ones(1, options.tokens, dtype=torch.bool, device=options.device)
    with torch.no_grad():
        route = moe.route(20 * tokens, real)
    positions = options.size**2
    x = torch.randn(options.images, positions, options.width, device=options.device, dtype=dtype)
    if options.train:
        x.requires_grad_()
    clocks = {name: Clock([], []) for name in ("ours", "pairs", "dense", "literal")}
    shares = []
    for turn in range(-options.warmup, options.rounds):
        seen = some_map(options, sharpness, turn + options.warmup, options.device)
        active = int((moe.cover(seen, route) > 0).sum())
        if turn == -options.warmup:
            check(moe(x, seen, route), literal(moe, x, seen, route), dtype)
        rows = torch.randn(1, active, options.width, device=options.device, dtype=dtype)
        rows.requires_grad_(options.train)
        runs = {
            "ours": work(lambda seen=seen: moe(x, seen, route), x, options.train),
            "pairs": work(lambda rows=rows: dense[0](rows), rows, options.train),
            "dense": work(lambda: sum(part(x) for part in dense), x, options.train),
            "literal": work(lambda seen=seen: literal(moe, x, seen, route), x, options.train),
        }
        for name, run in runs.items():
            if name != "literal" and turn < 0:
                run()
            elif name != "literal" or 0 <= turn < options.literal_rounds:
                clocks[name].time(run)
        shares.append(active / (options.images * positions * options.experts))
    way = "forward and back" if options.train else "forward"
    loads = sorted(torch.bincount(route.expert[0], minlength=options.experts).tolist())
    print(f"{kind} attention, {dtype}, {way}: {statistics.mean(shares):.0%} of pairs active")
    print(f"  tokens per expert {loads}")
    report(clocks)


def check(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Both forms are one function, up to the rounding of the precision."""
    error = (ours.float() - theirs.float()).abs().max() / theirs.float().abs().max()
    if not error < (0.02 if dtype == torch.bfloat16 else 1e-4):
        raise SystemExit(f"the counted form differs from the printed sum by {error:.1e}")


def report(clocks: dict[str, Clock]) -> None:
    """Ratios of our time to each peer's; below 1 we are faster."""
    for kind in ("wall", "cpu"):
        ours = getattr(clocks["ours"], kind)
        line = [f"ours {1e3 * statistics.median(ours):.1f} ms"]
        for name in ("pairs", "dense", "literal"):
            theirs = getattr(clocks[name], kind)
            ratios = sorted(a / b for a, b in zip(ours, theirs, strict=False))
            if ratios:
                line.append(
                    f"{statistics.median(ratios):.3f} of {name} "
                    f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
                )
        print(f"  {kind}: " + ", ".join(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=77)
    parser.add_argument("--size", type=int, default=32, help="height and width in positions")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--ratio", type=float, default=4.0, help="how much wider inside")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--no-bias", action="store_true")
    parser.add_argument("--train", action="store_true", help="the way back too")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=10, help="rounds that are not counted")
    parser.add_argument("--literal-rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--attention", nargs="+", choices=SHARPNESS, default=list(SHARPNESS))
    options = parser.parse_args()
    for name in options.dtypes:
        for kind in options.attention:
            race(options, kind, SHARPNESS[kind], DTYPES[name])


if __name__ == "__main__":
    main()
