"""The training loop and everything that turns with it."""
