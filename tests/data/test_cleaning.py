"""What a web page left in a caption goes, and what the caption says stays."""

import random

import pytest

from bottega.data.cleaning import clean_caption


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a red car", "a red car"),
        ("  a\n red\tcar ", "a red car"),
        ("a <b>red</b> car", "a red car"),
        ('<a href="https://x.org/y">a red car</a>', "a red car"),
        ("a red car<br/>", "a red car"),
        ("a car <!-- not shown --> in the rain", "a car in the rain"),
        ("<script>alert('x')</script>a car", "a car"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("&lt;i&gt;a car&lt;/i&gt;", "a car"),
        ("a car &amp;quot;fast&amp;quot;", 'a car "fast"'),
        ("a car http://example.org/a?b=c#d", "a car"),
        ("see https://example.org/a, a car", "see a car"),
        ("a car (www.example.org)", "a car"),
        ("a car | shop.example.com/cars", "a car"),
        ("a car, mail me@example.co.uk now", "a car, mail now"),
        ("mailto:me@example.com a car", "a car"),
        ("a\u200bcar\u00ad", "a car"),
        ("cafe\u0301 at night", "caf\u00e9 at night"),
        ("5 < 7 and 8 > 3", "5 < 7 and 8 > 3"),
        ("f/2.8 at 1/100 s", "f/2.8 at 1/100 s"),
        ("Mr. Smith of St. Louis vs. the U.S.A.", "Mr. Smith of St. Louis vs. the U.S.A."),
        ("e-mail at home @ night", "e-mail at home @ night"),
        ("https://example.org/only", ""),
        ("<div></div>", ""),
    ],
)
def test_a_caption_is_cleaned_to_what_it_says(dirty: str, clean: str):
    assert clean_caption(dirty) == clean


def test_cleaning_twice_changes_nothing():
    pieces = ["a car", "<b>", "</b>", "&amp;", "lt;", "http://", "x.com", "me@x.org", "(", ")", "<", ">", " - ", "|",
              "&#60;", "www.", "/", '"', ", ", "\u200b", "e\u0301"]  # fmt: skip
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 12)))
        once = clean_caption(text)
        assert clean_caption(once) == once
        assert once == " ".join(once.split())


def test_a_very_long_caption_takes_no_longer_than_its_length_explains():
    for piece in ("<", "<!--", "<script>", "a@", "http://", "x.", "&amp;", "(", "- "):
        assert isinstance(clean_caption(piece * 3_000), str)
