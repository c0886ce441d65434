"""What the experts of a test are built from."""

from dataclasses import dataclass

from tiny_networks import awake, tiny

from bottega.diffusion import Denoiser


@dataclass(frozen=True)
class Form:
    """One of the networks that differ in their weights alone."""

    seed: int = 0


def build(form: Form) -> Denoiser:
    """The denoiser of that form, ready to paint."""
    return Denoiser(awake(tiny(), form.seed)).requires_grad_(False).eval()
