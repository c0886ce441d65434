"""Whole guided sampling loops on the same random weights: diffusers' pipeline loop against ours, alternating.

A network of the asked shape is made by diffusers' own class, saved, and read by both. Each run takes ``--steps`` steps
of DDIM, or for IF of DDPM, from the same noise with guidance on the same embeddings, through the own loop of
`StableDiffusionPipeline` or `IFPipeline` on their side and a stage's on ours; autoencoder and text encoder are left out
of both. The results are compared before anything is timed. Theirs runs in whichever memory layout is the faster one for
it, unless ``--layout`` says. With ``--compile`` both networks are compiled, on a CPU with their weights frozen. Peak
memory is that of a process of its own for each side. The share of the matrix rate counts each side's own operations, on
the meta device, against a product of two large matrices in the same precision, measured beside the runs.

    python benchmarks/foreign.py --shape sd-142m --dtype fp32 --rounds 5 --memory
    python benchmarks/foreign.py --shape if-144m --dtype bf16 --compile
    python benchmarks/foreign.py --suite --minutes 8
    python benchmarks/foreign.py --suite compiled --minutes 20

The suite races the two networks of 150M in both precisions, with memory, then whatever of the compiled networks and of
Stable Diffusion's full size there is still time for, and prints one table; or only those that are compiled, or not.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from foreign_shapes import SHAPES, TOKENS, inputs, make
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bottega.checkpoint.foreign import load_foreign_unet
from bottega.condition import Condition, Stream
from bottega.diffusion import TimestepPlan
from bottega.models import UNet
from bottega.pipelines import Stage, StageSettings
from bottega.pipelines.space import Space

GUIDANCE = 7.5
BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """One contest: seconds of a run of theirs and of ours, in turns, and what it takes to judge them."""

    name: str
    theirs: list[float]
    ours: list[float]
    shares: tuple[float, float]
    gap: float
    peaks: tuple[float, float] | None = None

    def __str__(self) -> str:
        pairs = [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        ratio = f"{statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"
        seconds = f"{statistics.median(self.ours):.2f} / {statistics.median(self.theirs):.2f} s"
        shares = " / ".join(f"{share:.0%}" for share in self.shares)
        peaks = "-" if self.peaks is None else " / ".join(f"{peak:,.0f}" for peak in self.peaks)
        return f"| {self.name} | {ratio} | {seconds} | {shares} | {peaks} | {self.gap:.0e} |"


HEAD = """| network, all figures ours / theirs | time | a run | matrix rate | peak MiB | differ by |
|---|---|---|---|---|---|"""


class Latents:
    """A space of the right shape whose pictures nobody asks for."""

    factor = 1

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def encode(self, images: Tensor) -> Tensor:
        """As they are."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents


def their_loop(args: argparse.Namespace, folder: Path) -> Callable[[], Tensor]:
    """The pipeline's own call, in the memory layout that is faster for its modules."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DDPMScheduler,
        IFPipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    dtype = DTYPES[args.dtype]
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype).eval().to(args.device)
    arrange(unet, args)
    if args.compile:
        compiled(unet, args.device)
    nothing: dict[str, Any] = {
        "tokenizer": None,
        "text_encoder": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    noise, cond, uncond = inputs(args.shape, args.images, args.device)
    asked: dict[str, Any] = {
        "prompt_embeds": cond.to(dtype),
        "negative_prompt_embeds": uncond.to(dtype),
        "num_inference_steps": args.steps,
        "guidance_scale": GUIDANCE,
    }
    if args.shape.startswith("sd"):
        # One block, so that a latent is as wide as a picture; it is never called.
        vae = AutoencoderKL(latent_channels=4, block_out_channels=(32,))
        scheduler = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1)
        pipeline: Any = StableDiffusionPipeline(vae=vae, unet=unet, scheduler=scheduler, **nothing)
        side = SHAPES[args.shape]["sample_size"]
        asked |= {"latents": noise.to(dtype), "output_type": "latent", "height": 8 * side}
        asked |= {"width": 8 * side}
        pipeline.vae_scale_factor = 8
    else:
        learned = DDPMScheduler(**BETAS, clip_sample=False, variance_type="learned_range")
        pipeline = IFPipeline(unet=unet, scheduler=learned, watermarker=None, **nothing)
        pipeline.prepare_intermediate_images = lambda *_: noise.to(dtype)
        asked |= {"output_type": "pt"}
    pipeline.set_progress_bar_config(disable=True)

    drawn = noise.to(dtype)  # as `randn_tensor` would: in the type of what the network said

    def run() -> Tensor:
        with patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: drawn):
            return pipeline(**asked).images

    return run


def our_loop(args: argparse.Namespace, folder: Path) -> Callable[[], Tensor]:
    """A stage's walk over the same levels."""
    unet, info = load_foreign_unet(folder, dtype=DTYPES[args.dtype])
    unet.to(args.device)
    if args.compile:
        compiled(unet.requires_grad_(False), args.device)
    settings = SHAPES[args.shape]
    is_latent = settings["in_channels"] == 4
    plan = TimestepPlan(
        betas="scaled_linear",
        beta_start=BETAS["beta_start"],
        beta_end=BETAS["beta_end"],
        steps_offset=int(is_latent),
        learned_variance=not is_latent,
    )
    space: Space | None = Latents(4) if is_latent else None
    stage = Stage(
        name="base",
        denoiser=plan.denoiser(unet),
        size=settings["sample_size"],
        space=space,
        timestep_plan=plan,
    )
    sampled = StageSettings(
        steps=args.steps,
        sampler="ddim" if is_latent else "ddpm",
        grid="leading",
        guidance_scale=GUIDANCE,
        thresholding=None,
    )
    noise, cond, uncond = inputs(args.shape, args.images, args.device)
    mask = torch.ones(args.images, TOKENS, dtype=torch.bool, device=args.device)
    told = [Condition(streams={info.stream: Stream(tokens=t, mask=mask)}) for t in (cond, uncond)]

    def run() -> Tensor:
        with patch("bottega.pipelines.stage.ImageNoise", lambda *_, **__: lambda: noise):
            *_, last = stage.paint(
                *told, list(range(args.images)), sampled, device=torch.device(args.device)
            )
        return last.x

    return run


LOOPS = {"theirs": their_loop, "ours": our_loop}


LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def arrange(unet: Any, args: argparse.Namespace) -> None:
    """Lay their weights out as asked, or as one call is the faster."""
    chosen = args.layout
    if chosen == "faster":
        noise, cond, _ = inputs(args.shape, 2 * args.images, args.device)
        x, tokens = noise.to(unet.dtype), cond.to(unet.dtype)
        seconds: dict[str, float] = {}
        for name in ("contiguous", "channels_last", "contiguous"):  # the first only warms up
            unet.to(memory_format=LAYOUTS[name])
            seconds[name] = timed(lambda: unet(x, 500, encoder_hidden_states=tokens), args.device)
        chosen = min(seconds, key=lambda name: seconds[name])
    unet.to(memory_format=LAYOUTS[chosen])


def compiled(unet: Any, device: str) -> None:
    """Compile a network; on a CPU its weights become constants, laid out for the kernels once."""
    import torch._inductor.config as inductor

    inductor.freezing = device == "cpu"
    unet.compile()


def timed(loop: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    with torch.no_grad():  # freezing asks for it
        loop()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def operations(args: argparse.Namespace, folder: Path) -> tuple[int, int]:
    """What a run of theirs and of ours takes, counted on the meta device, where no fused kernel hides anything."""
    from diffusers import UNet2DConditionModel

    from bottega.checkpoint.foreign import plan_of
    from bottega.checkpoint.foreign_files import read_config

    config = read_config(folder / "config.json")
    noise, cond, uncond = inputs(args.shape, args.images, "cpu")
    with torch.device("meta"), torch.inference_mode():
        theirs, ours = UNet2DConditionModel(**SHAPES[args.shape]), UNet(plan_of(config))
        x, level = torch.empty_like(torch.cat([noise, noise]), device="meta"), torch.ones(1)
        tokens = torch.empty_like(torch.cat([cond, uncond]), device="meta")
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        stream = {ours.config.streams[0].name: Stream(tokens=tokens, mask=mask)}
        context = ours.prepare(Condition(streams=stream))
        return (
            args.steps * count(lambda: theirs(x, level, encoder_hidden_states=tokens)),
            args.steps * count(lambda: ours(x, level.expand(len(x)), context))
            + count(lambda: ours.prepare(Condition(streams=stream))),
        )


def count(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def race(args: argparse.Namespace, folder: Path) -> Row:
    """Compare once, then time in turns."""
    peaks = peak(args, folder) if args.memory else None
    loops = {name: make_loop(args, folder) for name, make_loop in LOOPS.items()}
    with torch.no_grad():
        theirs, ours = loops["theirs"]().float(), loops["ours"]().float()
    gap = float((theirs - ours).abs().max() / theirs.abs().max())
    allowed = {"fp32": 1e-2, "bf16": 0.5}[args.dtype]  # a random network magnifies roundings
    if not gap < allowed:
        raise SystemExit(f"the two disagree by {gap:.1e}, so their times mean nothing")
    times: dict[str, list[float]] = {name: [] for name in loops}
    n = 8192 if args.device == "cuda" else 2048
    a = torch.randn(n, n, device=args.device, dtype=DTYPES[args.dtype])
    products = [timed(lambda: a @ a, args.device)]
    for turn in range(args.rounds):
        for name in sorted(loops, reverse=bool(turn % 2)):
            times[name].append(timed(loops[name], args.device))
        products.append(timed(lambda: a @ a, args.device))
    rate = 2 * n**3 / min(products)
    their_work, our_work = operations(args, folder)
    shares = (
        our_work / statistics.median(times["ours"]) / rate,
        their_work / statistics.median(times["theirs"]) / rate,
    )
    how = ", compiled" if args.compile else ""
    name = f"{args.shape} {args.dtype}{how}, {args.steps} steps"
    return Row(name, times["theirs"], times["ours"], shares, gap, peaks)


def peak(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Our and their largest memory in MiB, each in a process of its own."""
    found: list[float] = []
    for name in ("ours", "theirs"):
        command = [sys.executable, __file__, "--alone", name, "--folder", str(folder)]
        command += ["--shape", args.shape, "--dtype", args.dtype, "--device", args.device]
        command += ["--images", str(args.images), "--steps", "2", "--layout", "channels_last"]
        command += ["--compile"] if args.compile else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(float(done.stdout.split()[-1]))
    return found[0], found[1]


def alone(args: argparse.Namespace) -> None:
    """One side, for its memory."""
    with torch.no_grad():
        LOOPS[args.alone](args, Path(args.folder))()
    if args.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    # Not getrusage, which remembers the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (largest,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    print(int(largest) / 2**10)


SUITE: tuple[tuple[dict[str, Any], float], ...] = (
    ({"shape": "sd-142m", "dtype": "bf16", "steps": 3, "memory": True}, 0.0),
    ({"shape": "sd-142m", "dtype": "fp32", "steps": 3, "memory": True}, 0.0),
    ({"shape": "if-144m", "dtype": "bf16", "steps": 8, "memory": True}, 0.0),
    ({"shape": "if-144m", "dtype": "fp32", "steps": 8, "memory": True}, 0.0),
    ({"shape": "sd15", "dtype": "bf16", "steps": 1, "rounds": 3, "layout": "channels_last"}, 2.2),
    ({"shape": "if-144m", "dtype": "fp32", "steps": 8, "compile": True}, 4.0),
    ({"shape": "sd-142m", "dtype": "fp32", "steps": 3, "compile": True}, 5.0),
    ({"shape": "sd15", "dtype": "fp32", "steps": 1, "rounds": 3, "layout": "channels_last"}, 4.0),
    ({"shape": "if-144m", "dtype": "bf16", "steps": 8, "compile": True}, 4.0),
    ({"shape": "sd-142m", "dtype": "bf16", "steps": 3, "compile": True}, 5.0),
)
"""What a suite races, in this order, each only where so many minutes are left."""


def suite(args: argparse.Namespace) -> None:
    """One row after the other, as long as there is time."""
    end = time.monotonic() + 60 * args.minutes
    print(HEAD, flush=True)
    for changes, minutes in SUITE:
        kind = "compiled" if changes.get("compile") else "eager"
        if args.suite not in (kind, "all"):
            continue
        if minutes > 0 and time.monotonic() + 60 * minutes > end:
            continue
        contest = argparse.Namespace(**{**vars(args), **changes})
        if args.tiny:
            contest.shape = f"{contest.shape[:2]}-tiny"
            contest.steps = 2
        with tempfile.TemporaryDirectory() as place:
            make(contest.shape, Path(place))
            try:
                print(race(contest, Path(place)), flush=True)
            except (Exception, SystemExit) as error:  # the other rows are worth having
                why = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(f"| {contest.shape} {contest.dtype} | failed: {why} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="sd-142m")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--layout", choices=[*LAYOUTS, "faster"], default="faster")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile both networks")
    parser.add_argument("--memory", action="store_true", help="measure peaks, too")
    kinds = ["all", "eager", "compiled"]
    parser.add_argument("--suite", nargs="?", const="all", choices=kinds, help="several contests")
    parser.add_argument("--minutes", type=float, default=8.0, help="that the suite may take")
    parser.add_argument("--tiny", action="store_true", help="a suite of tiny networks, for a test")
    parser.add_argument("--alone", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="__array__ implementation")
    if args.alone:
        alone(args)
        return
    if args.suite:
        suite(args)
        return
    with tempfile.TemporaryDirectory() as place:
        make(args.shape, Path(place))
        print(f"{HEAD}\n{race(args, Path(place))}")


if __name__ == "__main__":
    main()
