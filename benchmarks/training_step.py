"""One training step, forward and back without the optimiser: ours against diffusers' U-Net of the same shapes.

Memory is what each network keeps for the way back, counted by the hooks of autograd: the same on every machine.
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


def kept_bytes(work, networks) -> int:
    """Bytes kept for the way back, weights apart; views of one storage count once."""
    weights = {p.untyped_storage().data_ptr() for n in networks for p in n.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(kept.values())


def main() -> None:
    options = arguments(__doc__)
    for name in options.dtypes:
        race = Race(DTYPES[name], options.size, options.images, options.device)
        our_network, their_network = ours(race).train(), theirs(race).train()
        x, tokens = noise(race, race.images), text(race, race.images)
        level = torch.full((race.images,), 0.5, device=race.device)

        def step_ours(network=our_network, x=x, tokens=tokens, level=level):
            network.zero_grad(set_to_none=True)
            said = network(x, level, network.prepare(as_condition(tokens)))
            (said - x).square().mean().backward()

        def step_theirs(network=their_network, x=x, tokens=tokens, level=level):
            network.zero_grad(set_to_none=True)
            said = network(x, 1000 * level, encoder_hidden_states=tokens).sample
            (said - x).square().mean().backward()

        with FlopCounterMode(display=False) as counter:
            step_ours()
        print(f"{name}: ours {parameters(our_network):,}, theirs {parameters(their_network):,}")
        kept = [kept_bytes(step_ours, [our_network]), kept_bytes(step_theirs, [their_network])]
        clocks = run_race(step_ours, step_theirs, options.rounds)
        report(f"training step {name}", *clocks, counter.get_total_flops(), matmul_rate(race))
        print(
            f"training step {name}: kept for the way back, ours {kept[0] / 2**20:.0f} MiB, "
            f"diffusers {kept[1] / 2**20:.0f} MiB, ratio {kept[0] / kept[1]:.3f}"
        )


if __name__ == "__main__":
    main()
