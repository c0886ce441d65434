"""A run over pictures of several shapes resumes bit for bit, and splits into microbatches and processes as ever."""

import zlib

import torch
from toy import ToyNetwork, ToySource, denoise_a_little, reconstruct

from bottega.data import Batch
from bottega.rundir import RunDir
from bottega.training import EmaConfig, TrainConfig, fit
from bottega.training.limits import StopHook

SHAPES = ((8, 8), (6, 10), (10, 6))


class Shaped(ToySource):
    """Noise in three shapes, by index."""

    groups = tuple(tuple(range(first, 60, 3)) for first in range(3))

    def batch(self, indices) -> Batch:
        (shape,) = {SHAPES[index % 3] for index in indices}
        self.asked.extend(indices)
        pictures = [
            torch.randint(
                0, 256, (3, *shape), dtype=torch.uint8,
                generator=torch.Generator().manual_seed(zlib.crc32(b"%d" % index)),
            )
            for index in indices
        ]  # fmt: skip
        return Batch(
            images=torch.stack(pictures),
            captions=tuple(f"picture {index}" for index in indices),
            indices=tuple(indices),
        )


def config(**changes) -> TrainConfig:
    return TrainConfig(
        **{
            "total_images": 96,
            "batch_size": 8,
            "checkpoint_images": 24,
            "precision": "fp32",
            "ema": EmaConfig(stds=(0.1,), every_images=16),
            **changes,
        }
    )


def run(folder, source, objective=denoise_a_little, hooks=(), resume=False, **changes):
    return fit(
        ToyNetwork(),
        objective,
        source,
        config(**changes),
        RunDir(folder),
        hooks=hooks,
        resume=resume,
    )


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    whole_source, source = Shaped(60), Shaped(60)
    whole = run(tmp_path / "whole", whole_source)
    first = run(tmp_path / "parts", source, hooks=[StopHook(images=40)])
    assert not first.finished
    seen = source.asked[: first.images_seen]
    source.asked.clear()
    second = run(tmp_path / "parts", source, resume=True)
    assert second.finished and second.digest() == whole.digest()
    assert seen + source.asked[: 96 - len(seen)] == whole_source.asked[:96]
    assert {index % 3 for index in whole_source.asked[:96]} == {0, 1, 2}


def test_microbatches_change_no_more_than_rounding(tmp_path):
    whole = run(tmp_path / "whole", Shaped(60), reconstruct)
    parts = run(tmp_path / "parts", Shaped(60), reconstruct, microbatch=2)
    ours, theirs = whole.network.state_dict(), parts.network.state_dict()
    for name in ("first.weight", "second.weight"):
        assert torch.allclose(ours[name], theirs[name], atol=1e-5)
