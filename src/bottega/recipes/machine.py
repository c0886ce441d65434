"""The machine a run finds itself on: one process or several, and whether curves can be drawn."""

import os
from importlib.util import find_spec

from bottega.pipelines.devices import find_device
from bottega.training import AccelerateEngine, Engine, Hook, LocalEngine, TensorBoardHook


def engine_here() -> Engine:
    """One process on the best device there is, or the processes that ``accelerate launch`` or ``torchrun`` started."""
    device = find_device("auto")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Told of no GPU, accelerate takes the processes of `torchrun` for strangers, each the first of its own.
        return AccelerateEngine(cpu=device.type == "cpu")
    return LocalEngine(device)


def curve_hooks(every_images: int) -> list[Hook]:
    """TensorBoard's curves, where tensorboard is installed (it comes with the extra ``train``)."""
    if find_spec("tensorboard") is None:
        return []
    return [TensorBoardHook(every_images=every_images)]


__all__ = ["curve_hooks", "engine_here"]
