"""One training step, forward and back without the optimiser: ours against diffusers' U-Net of the same shapes.

Memory is what each network keeps for the way back, counted by the hooks of autograd: the same on every machine. The
peaks of whole processes are `memory.py`'s.
"""

import torch
from contenders import (
    DTYPES,
    Race,
    arguments,
    flops,
    ours,
    parameters,
    report,
    run_race,
    theirs,
    training,
)


def kept_bytes(work, network) -> int:
    """Bytes kept for the way back, weights apart; views of one storage count once."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
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
        our_network, their_network = ours(race), theirs(race)
        print(f"{name}: ours {parameters(our_network):,}, theirs {parameters(their_network):,}")
        step_ours, step_theirs = training(our_network, race), training(their_network, race)
        kept = [kept_bytes(step_ours, our_network), kept_bytes(step_theirs, their_network)]
        laps = run_race(race, step_ours, step_theirs, options.rounds)
        counts = [flops(build, race, training) for build in (ours, theirs)]
        report(f"training step {name}", laps, *counts)
        print(
            f"training step {name}: kept for the way back, ours {kept[0] / 2**20:.0f} MiB, "
            f"diffusers {kept[1] / 2**20:.0f} MiB, ratio {kept[0] / kept[1]:.3f}"
        )


if __name__ == "__main__":
    main()
