"""Whole guided sampling loops on the same random weights: diffusers' pipeline loop against ours, alternating.

A network of the asked shape is made by diffusers' own class, saved, and read by both. Each run takes ``--steps`` steps
of DDIM from the same noise with guidance on the same embeddings, through the own loop of `StableDiffusionPipeline` or
`IFPipeline` on their side and a stage's on ours; autoencoder and text encoder are left out of both. The results are
compared before anything is timed. Peak memory is that of a process of its own for each side (``--memory``).

    python benchmarks/foreign.py --shape sd-142m --dtype fp32 --rounds 5
    python benchmarks/foreign.py --shape if-144m --dtype bf16 --compile
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.checkpoint.foreign import load_foreign_unet
from bottega.condition import Condition, Stream
from bottega.diffusion import TimestepPlan
from bottega.pipelines import Stage, StageSettings
from bottega.pipelines.space import Space

GUIDANCE = 7.5
TOKENS = 77
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SD = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
}
IF = {
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "addition_embed_type": "text",
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
SHAPES: dict[str, dict[str, Any]] = {
    "sd-tiny": SD
    | {"sample_size": 16, "block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32},
    "sd-142m": SD
    | {"sample_size": 64, "block_out_channels": (128, 256, 512, 512), "cross_attention_dim": 768},
    "sd15": SD
    | {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
    "if-tiny": IF
    | {
        "sample_size": 16,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "encoder_hid_dim": 32,
        "addition_embed_type_num_heads": 2,
    },
    "if-144m": IF
    | {
        "sample_size": 64,
        "block_out_channels": (128, 256, 384, 512),
        "layers_per_block": 2,
        "attention_head_dim": 64,
        "cross_attention_dim": 512,
        "encoder_hid_dim": 1024,
        "addition_embed_type_num_heads": 64,
    },
}


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


def make(shape: str, folder: Path) -> None:
    """Save a random network of that shape."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SHAPES[shape])
    for parameter in unet.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    unet.save_pretrained(folder)


def inputs(shape: str, images: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The first noise, and what guidance is told with and without a prompt."""
    settings = SHAPES[shape]
    width = settings.get("encoder_hid_dim", settings["cross_attention_dim"])
    generator = torch.Generator().manual_seed(1)
    side, channels = settings["sample_size"], settings["in_channels"]
    noise = torch.randn(images, channels, side, side, generator=generator)
    texts = torch.randn(2, images, TOKENS, width, generator=generator)
    return noise.to(device), texts[0].to(device), texts[1].to(device)


def their_loop(args: argparse.Namespace, folder: Path) -> Callable[[], Tensor]:
    """The pipeline's own call, in the memory layout that is faster for its modules."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        IFPipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    dtype = DTYPES[args.dtype]
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype).eval().to(args.device)
    unet.to(memory_format=torch.channels_last)
    if args.compile:
        unet.compile()
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
    )
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
        pipeline: Any = StableDiffusionPipeline(vae=vae, unet=unet, scheduler=scheduler, **nothing)
        side = SHAPES[args.shape]["sample_size"]
        asked |= {"latents": noise.to(dtype), "output_type": "latent", "height": 8 * side}
        asked |= {"width": 8 * side}
        pipeline.vae_scale_factor = 8
    else:
        pipeline = IFPipeline(unet=unet, scheduler=scheduler, watermarker=None, **nothing)
        pipeline.prepare_intermediate_images = lambda *_: noise.to(dtype)
        asked |= {"output_type": "pt"}
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(**asked).images


def our_loop(args: argparse.Namespace, folder: Path) -> Callable[[], Tensor]:
    """A stage's walk over the same levels."""
    unet, info = load_foreign_unet(folder, dtype=DTYPES[args.dtype])
    unet.to(args.device)
    if args.compile:
        unet.compile()
    plan = TimestepPlan(betas="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    settings = SHAPES[args.shape]
    space: Space | None = Latents(4) if settings["in_channels"] == 4 else None
    stage = Stage(
        name="base",
        denoiser=plan.denoiser(unet),
        size=settings["sample_size"],
        space=space,
        timestep_plan=plan,
    )
    sampled = StageSettings(
        steps=args.steps,
        sampler="ddim",
        grid="leading",
        guidance_scale=GUIDANCE,
        thresholding=None,
    )
    noise, cond, uncond = inputs(args.shape, args.images, args.device)
    mask = torch.ones(args.images, TOKENS, dtype=torch.bool, device=args.device)
    told = [Condition(streams={info.stream: Stream(tokens=t, mask=mask)}) for t in (cond, uncond)]

    def run() -> Tensor:
        from unittest.mock import patch

        with patch("bottega.pipelines.stage.ImageNoise", lambda *_, **__: lambda: noise):
            *_, last = stage.paint(
                *told, list(range(args.images)), sampled, device=torch.device(args.device)
            )
        return last.x

    return run


LOOPS = {"theirs": their_loop, "ours": our_loop}


def timed(loop: Callable[[], Tensor], device: str) -> float:
    start = time.perf_counter()
    loop()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def race(args: argparse.Namespace, folder: Path) -> None:
    """Compare once, then time in turns."""
    loops = {name: make_loop(args, folder) for name, make_loop in LOOPS.items()}
    theirs, ours = loops["theirs"]().float(), loops["ours"]().float()
    gap = float((theirs - ours).abs().max() / theirs.abs().max())
    allowed = {"fp32": 1e-2, "bf16": 0.5}[args.dtype]  # a random network magnifies roundings
    if not gap < allowed:
        raise SystemExit(f"the two disagree by {gap:.1e}, so their times mean nothing")
    print(
        f"{args.shape}, {args.dtype}, {args.images} pictures, {args.steps} steps: differ {gap:.1e}"
    )
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(args.rounds):
        for name in sorted(loops, reverse=bool(turn % 2)):
            times[name].append(timed(loops[name], args.device))
    for name, seconds in times.items():
        print(
            f"  {name:7} {statistics.median(seconds):8.3f} s, {min(seconds):.3f} to {max(seconds):.3f}"
        )
    pairs = [ours / theirs for ours, theirs in zip(times["ours"], times["theirs"], strict=True)]
    print(f"  ratio   {statistics.median(pairs):8.3f}, {min(pairs):.3f} to {max(pairs):.3f}")


def peak(args: argparse.Namespace, folder: Path) -> None:
    """Each side's largest memory, in a process of its own."""
    for name in LOOPS:
        command = [sys.executable, __file__, "--alone", name, "--folder", str(folder)]
        command += ["--shape", args.shape, "--dtype", args.dtype, "--device", args.device]
        command += ["--images", str(args.images), "--steps", "2"]
        command += ["--compile"] if args.compile else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  {name:7} {float(done.stdout.split()[-1]):8.0f} MiB at most")


def alone(args: argparse.Namespace) -> None:
    """One side, for its memory."""
    LOOPS[args.alone](args, Path(args.folder))()
    if args.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="sd-142m")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile both networks")
    parser.add_argument("--memory", action="store_true", help="measure peaks, too")
    parser.add_argument("--alone", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="__array__ implementation")
    if args.alone:
        alone(args)
        return
    with tempfile.TemporaryDirectory() as place:
        make(args.shape, Path(place))
        race(args, Path(place))
        if args.memory:
            peak(args, Path(place))


if __name__ == "__main__":
    main()
