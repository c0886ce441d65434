"""The font is found in its usual places, and its absence is explained."""

import pytest

from bottega.data.emoji_world import EmojiWorld, EmojiWorldConfig
from bottega.data.emoji_world.font import FONT_VARIABLE, find_font
from bottega.errors import DataError


def test_a_missing_font_is_named_with_the_packages_that_bring_it(monkeypatch, tmp_path):
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    with pytest.raises(DataError) as missing:
        find_font(places=(str(tmp_path),))
    for package in (
        "fonts-noto-color-emoji",
        "google-noto-color-emoji-fonts",
        "font-noto-color-emoji",
    ):
        assert package in str(missing.value)
    monkeypatch.setenv(FONT_VARIABLE, str(tmp_path / "none.ttf"))
    with pytest.raises(DataError, match=FONT_VARIABLE):
        EmojiWorld(EmojiWorldConfig())


def test_the_font_is_found_by_name_in_a_folder_below_or_by_variable(monkeypatch, tmp_path):
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    deep = tmp_path / "noto" / "emoji"
    deep.mkdir(parents=True)
    font = deep / "NotoColorEmoji.ttf"
    font.write_bytes(b"font")
    assert find_font(places=(str(tmp_path),)) == font
    assert find_font(places=(str(deep),)) == font
    monkeypatch.setenv(FONT_VARIABLE, str(font))
    assert find_font(places=()) == font
