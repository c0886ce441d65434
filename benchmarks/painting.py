"""Painting: 20 steps with guidance, ours against diffusers' U-Net of the same shapes.

Both walk the same Euler steps with both halves of guidance in one call. What we do once per prompt is timed too.
"""

from contenders import (
    DTYPES,
    Race,
    arguments,
    flops,
    ours,
    painting,
    parameters,
    report,
    run_race,
    theirs,
)


def main() -> None:
    options = arguments(__doc__)
    for name in options.dtypes:
        race = Race(DTYPES[name], options.size, options.images, options.device)
        our_network, their_network = ours(race), theirs(race)
        print(f"{name}: ours {parameters(our_network):,}, theirs {parameters(their_network):,}")
        laps = run_race(
            race,
            painting(our_network, race, options.steps),
            painting(their_network, race, options.steps),
            options.rounds,
        )
        counts = [flops(build, race, painting, options.steps) for build in (ours, theirs)]
        report(f"painting {name}", laps, *counts)


if __name__ == "__main__":
    main()
