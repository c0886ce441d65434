"""Every error that bottega raises on purpose.

The tree::

    BottegaError
    ├── ConfigError       a setting is unknown, of the wrong type, or contradicts another
    ├── InputError        something a user passed in cannot be used
    ├── CheckpointError   a checkpoint or weight file is missing, damaged, or of another kind
    ├── DataError         a data set or a font cannot be read
    └── TrainingError     a run cannot go on (a loss that is not finite, a lost data source)

Messages say what was expected, what came, and what to do. The command line prints them in one line and exits with 2.
"""

import difflib
from collections.abc import Iterable


class BottegaError(Exception):
    """Anything that bottega refuses; catch this to catch them all."""


class ConfigError(BottegaError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class InputError(BottegaError, ValueError):
    """Something a user passed in cannot be used."""


class CheckpointError(BottegaError, ValueError):
    """A checkpoint or weight file is missing, damaged, or of another kind."""


class DataError(BottegaError, ValueError):
    """A data set, a picture or a font cannot be read."""


class TrainingError(BottegaError, RuntimeError):
    """A training run cannot go on."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest the valid name that looks most like ``name``, as the tail of an error message.

    Returns:
        ``"; did you mean heun?"`` or, when nothing is close, ``"; choose from: euler, heun"``.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; choose from: {', '.join(names)}"
