"""Find the Noto Color Emoji font on this machine."""

import os
from pathlib import Path

from bottega.errors import DataError

FONT_VARIABLE = "BOTTEGA_EMOJI_FONT"
"""An environment variable that names the font file where the usual places do not hold it."""

_FILE_NAMES = ("NotoColorEmoji.ttf", "NotoColorEmoji-Regular.ttf")
_PLACES = (
    "/usr/share/fonts/truetype/noto",
    "/usr/share/fonts/google-noto-color-emoji-fonts",
    "/usr/share/fonts/google-noto-emoji",
    "/usr/share/fonts/noto",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/opt/homebrew/share/fonts",
)
_ADVICE = (
    "install it: Debian and Ubuntu: apt install fonts-noto-color-emoji; "
    "Fedora: dnf install google-noto-color-emoji-fonts; "
    "macOS: brew install --cask font-noto-color-emoji; "
    f"or name the file in the environment variable {FONT_VARIABLE}"
)


def find_font(places: tuple[str, ...] = _PLACES) -> Path:
    """The path of Noto Color Emoji, from ``BOTTEGA_EMOJI_FONT`` or the systems' usual font folders.

    Raises:
        DataError: When there is none; the message says which package brings it on each system.
    """
    named = os.environ.get(FONT_VARIABLE)
    if named is not None:
        path = Path(named).expanduser()
        if path.is_file():
            return path
        raise DataError(f"{FONT_VARIABLE} names {named}, which is not a file; {_ADVICE}")
    folders = [Path(place).expanduser() for place in places]
    for folder in folders:
        for name in _FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    for folder in folders:
        found = sorted(folder.rglob(_FILE_NAMES[0])) if folder.is_dir() else []
        if found:
            return found[0]
    raise DataError(
        f"the font Noto Color Emoji is missing, which Emoji World draws with; {_ADVICE}"
    )


__all__ = ["FONT_VARIABLE", "find_font"]
