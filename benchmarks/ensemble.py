"""An ensemble of three expert denoisers against one of them: time to paint, and peak memory.

Time: both paint in turn in this process, the same guided steps from the same noise, with all experts resident; beside
it the time with one resident at a time, whose changes of hands are then paid for. First, an ensemble of copies must
give the single denoiser's picture bit for bit.

Memory: every figure is the peak of a process of its own that has loaded from disk and paints twice, and the ensemble's
and the single one's take turns. ``added`` is that peak less what the process held with its libraries loaded: weights
plus activations. ``whole`` is everything. On a CPU it is resident memory as Linux counts its high-water mark (VmHWM),
mapped pages of the weights' files included. What the system keeps of a file in its own cache, where the next expert is
fetched to, belongs to no process and can be dropped at any time. With ``--device cuda`` it is what PyTorch's allocator
handed out on the device; the next expert's weights wait in pinned memory of the host, which is printed beside it.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contenders import DTYPES, Clock, Race, argument_parser, as_condition, check, noise, text
from memory import resident
from safetensors.torch import save_file
from torch import nn

from bottega.condition import Condition
from bottega.diffusion import Denoiser, LogNormal, dpmpp_2m, guided_jointly, karras
from bottega.ensemble import Complement, Expert, Mixture, Node, StoredDenoiser, steps_per_expert
from bottega.ensemble import steps_table as table_of
from bottega.models import UNet, UNetConfig
from bottega.models.plans import sd_like
from bottega.models.unet_config import Transformer

PARTS = {"9/511": Node(9, 511), "3/0": Node(3, 0)}
MIDDLE = Complement(tuple(PARTS.values()))
NAMES = ("9/511", "complement", "3/0")
GUIDANCE_SCALE = 5.0
KINDS = ("single", "active", "all")


def plan(width: int) -> UNetConfig:
    """Stable Diffusion's form with three levels, from ``width`` to four times that: 99 million parameters at 128."""
    head_width = min(64, width & -width)
    levels = tuple(
        replace(level, width=width * 2**i, attention=Transformer(head_width=head_width))
        for i, level in enumerate(sd_like().levels)
    )
    return replace(sd_like(), levels=levels)


def build(config: UNetConfig) -> Denoiser:
    """A denoiser in which every layer works on numbers, as after training."""
    network = UNet(config)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return Denoiser(network).requires_grad_(False).eval()


def mixture_of(sources: dict[str, Any], residency: str) -> Mixture:
    experts = [
        Expert(name=name, part=PARTS.get(name, MIDDLE), denoiser=source)
        for name, source in sources.items()
    ]
    return Mixture(experts, LogNormal(), residency=residency)


def painting(denoiser: Denoiser | Mixture, race: Race, steps: int) -> Callable[[], torch.Tensor]:
    """A whole walk; the prompt is prepared in it, for every expert that is called."""
    start = noise(race, race.images).float() * 80
    told = text(race, 2 * race.images)
    both, alone = as_condition(told), as_condition(told[: race.images])

    def bound(condition: Condition):
        return denoiser.bind(denoiser.prepare(condition))

    def work() -> torch.Tensor:
        with torch.inference_mode():
            denoise = guided_jointly(bound(both), bound(alone), GUIDANCE_SCALE)
            *_, last = dpmpp_2m(denoise, start, karras(steps))
            return last.x

    return work


def stored(folder: Path, width: int) -> dict[str, StoredDenoiser]:
    config = plan(width)
    files = {name: folder / f"{index}.safetensors" for index, name in enumerate(NAMES)}
    return {name: StoredDenoiser(file, config, build) for name, file in files.items()}


def write_experts(folder: Path, width: int, dtype: torch.dtype) -> int:
    """Three files of weights; gives the number of parameters of each."""
    count = 0
    for index in range(len(NAMES)):
        torch.manual_seed(index)
        state = build(plan(width)).network.to(dtype).state_dict()
        save_file({k: t.contiguous() for k, t in state.items()}, folder / f"{index}.safetensors")
        count = sum(t.numel() for t in state.values())
    return count


def loaded(kind: str, sources: dict[str, StoredDenoiser], race: Race) -> Denoiser | Mixture:
    denoiser = sources["complement"]() if kind == "single" else mixture_of(sources, kind)
    assert isinstance(denoiser, Denoiser | Mixture)
    return denoiser.to(device=race.device, dtype=race.dtype)


def race_for_time(folder: Path, race: Race, width: int, steps: int, rounds: int) -> None:
    """Paint in turn, and print the ratios to the single denoiser."""
    sources = stored(folder, width)
    single = loaded("single", sources, race)
    copies = mixture_of(dict.fromkeys(NAMES, single), "all")
    picture, copied = painting(single, race, steps)(), painting(copies, race, steps)()
    if not torch.equal(picture, copied):
        raise SystemExit("an ensemble of copies gave another picture than the single denoiser")
    works = {kind: painting(loaded(kind, sources, race), race, steps) for kind in KINDS[1:]}
    works["single"] = painting(single, race, steps)
    clocks = {kind: Clock([], []) for kind in KINDS}
    for work in works.values():
        check(work(), race)
    for number in range(rounds):
        for kind in KINDS if number % 2 else reversed(KINDS):
            clocks[kind].time(works[kind])
    for kind in KINDS[1:]:
        for clock in ("wall", "cpu"):
            ours, theirs = getattr(clocks[kind], clock), getattr(clocks["single"], clock)
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            print(
                f"time, {kind} {clock}: ratio {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f}), ensemble {min(ours):.3f} s, "
                f"single {min(theirs):.3f} s"
            )


def measure(kind: str, folder: Path, race: Race, width: int, steps: int) -> dict[str, int]:
    """Load, paint twice, and look at this process's highest memory while it paints."""
    before = settled(race)
    work = painting(loaded(kind, stored(folder, width), race), race, steps)
    forget_peak(race)  # a network is built in float32 and cast, whichever kind it is for
    for _ in range(2):
        check(work(), race)
    if race.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        return {"added": peak - before, "whole": peak, "host": resident("VmHWM")}
    return {"added": resident("VmHWM") - before, "whole": resident("VmHWM")}


def settled(race: Race) -> int:
    """The memory of this process once its libraries have done some work."""
    a = torch.randn(256, 256, device=race.device, dtype=race.dtype)
    nn.functional.conv2d((a @ a)[None, None], a[None, None, :3, :3])
    forget_peak(race)
    return torch.cuda.memory_allocated() if race.device == "cuda" else resident("VmRSS")


def forget_peak(race: Race) -> None:
    """Count the highest memory from here on."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    if race.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def race_for_memory(folder: Path, dtype: str, rounds: int) -> None:
    """Each kind in a process of its own, round after round, and the ratios to the single denoiser."""
    runs: dict[str, list[dict[str, int]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, found in runs.items():
            options = [*sys.argv[1:], "--dtypes", dtype, "--only", kind, str(folder)]
            done = subprocess.run(
                [sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    for kind in KINDS[1:]:
        for figure in runs["single"][0]:
            ours, theirs = ([run[figure] / 2**20 for run in runs[k]] for k in (kind, "single"))
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            print(
                f"memory, {kind} {figure}: ratio {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f}), ensemble {statistics.median(ours):.0f} "
                f"MiB, single {statistics.median(theirs):.0f} MiB"
            )


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0], only=True)
    parser.add_argument("--width", type=int, default=128, help="channels of the first level")
    parser.add_argument("--skip", choices=("time", "memory"))
    options = parser.parse_args()
    if options.only is not None:
        kind, folder = options.only
        race = Race(DTYPES[options.dtypes[0]], options.size, options.images, options.device)
        print(json.dumps(measure(kind, Path(folder), race, options.width, options.steps)))
        return
    parts = {name: PARTS.get(name, MIDDLE) for name in NAMES}
    counts = steps_per_expert(table_of(parts, LogNormal(), karras(options.steps)))
    for name in options.dtypes:
        race = Race(DTYPES[name], options.size, options.images, options.device)
        with tempfile.TemporaryDirectory() as folder:
            count = write_experts(Path(folder), options.width, race.dtype)
            print(f"{name}: three experts of {count:,} parameters, steps {counts}")
            if options.skip != "time":
                race_for_time(Path(folder), race, options.width, options.steps, options.rounds)
            if options.skip != "memory":
                race_for_memory(Path(folder), name, options.rounds)


if __name__ == "__main__":
    main()
