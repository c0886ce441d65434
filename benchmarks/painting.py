"""Painting: 20 steps with guidance, ours against diffusers' U-Net of the same shapes.

Both walk the same Euler steps with both halves of guidance in one call. What we do once per prompt is timed too.
"""

import torch
from contenders import (
    DTYPES,
    Race,
    arguments,
    as_condition,
    matmul_rate,
    noise,
    ours,
    parameters,
    report,
    run_race,
    text,
    theirs,
)
from torch.utils.flop_counter import FlopCounterMode

GUIDANCE_SCALE = 5.0


def walk(predict, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Euler steps over falling noise levels, guided."""
    for step in range(steps):
        uncond, cond = predict(torch.cat([x, x]), 1 - step / steps).chunk(2)
        x = x - (uncond + GUIDANCE_SCALE * (cond - uncond)) / steps
    return x


def main() -> None:
    options = arguments(__doc__)
    for name in options.dtypes:
        race = Race(DTYPES[name], options.size, options.images, options.device)
        our_network, their_network = ours(race).eval(), theirs(race).eval()
        x, tokens = noise(race, race.images), text(race, 2 * race.images)

        def paint_ours(network=our_network, x=x, tokens=tokens):
            context = network.prepare(as_condition(tokens))

            def predict(both, level):
                return network(both, both.new_full((len(both),), level).float(), context)

            with torch.inference_mode():
                return walk(predict, x, options.steps)

        def paint_theirs(network=their_network, x=x, tokens=tokens):
            def predict(both, level):
                return network(both, 1000 * level, encoder_hidden_states=tokens).sample

            with torch.inference_mode():
                return walk(predict, x, options.steps)

        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            picture = paint_ours()
        assert picture.shape == x.shape
        assert paint_theirs().shape == x.shape
        print(f"{name}: ours {parameters(our_network):,}, theirs {parameters(their_network):,}")
        clocks = run_race(paint_ours, paint_theirs, options.rounds)
        report(f"painting {name}", *clocks, counter.get_total_flops(), matmul_rate(race))


if __name__ == "__main__":
    main()
