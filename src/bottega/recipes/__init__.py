"""Whole configurations by name, and what trains them."""

from collections.abc import Callable, Mapping

from bottega.errors import ConfigError, nearest
from bottega.recipes import adapters, autoencoder, finetune, larger, piccolo, raphael, srgan
from bottega.recipes.branch import begin_child as begin_child
from bottega.recipes.branch import read_config as read_config
from bottega.recipes.run import RunConfig as RunConfig
from bottega.recipes.train import train as train

RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    "controlnet": adapters.controlnet,
    "ediffi-base64": larger.ediffi_base64,
    "ediffi-sr1024": larger.ediffi_sr1024,
    "ediffi-sr256": larger.ediffi_sr256,
    "finetune": finetune.finetune,
    "imagen-base64": larger.imagen_base64,
    "imagen-sr1024": larger.imagen_sr1024,
    "imagen-sr256": larger.imagen_sr256,
    "lab": piccolo.lab,
    "lab-latent": piccolo.lab_latent,
    "lab-raphael": raphael.lab_raphael,
    "lab-raphael-dense": raphael.lab_raphael_dense,
    "lab-raphael-space": raphael.lab_raphael_space,
    "lab-raphael-time": raphael.lab_raphael_time,
    "lora": adapters.lora,
    "lora-style": adapters.lora_style,
    "medio-base": larger.medio_base,
    "medio-sr": larger.medio_sr,
    "piccolo-autoencoder": autoencoder.piccolo_autoencoder,
    "piccolo-base": piccolo.piccolo_base,
    "piccolo-clip": piccolo.piccolo_clip,
    "piccolo-judge": piccolo.piccolo_judge,
    "piccolo-raphael": raphael.piccolo_raphael,
    "piccolo-sr": piccolo.piccolo_sr,
    "piccolo-srgan": srgan.piccolo_srgan,
    "piccolo-t5": piccolo.piccolo_t5,
    "raphael": raphael.raphael,
}
"""Every recipe; a recipe is a function that returns a whole configuration."""


def recipe(name: str) -> RunConfig:
    """The configuration of a recipe.

    Raises:
        ConfigError: For an unknown name; the message suggests the nearest.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()


__all__ = ["RECIPES", "RunConfig", "begin_child", "read_config", "recipe", "train"]
