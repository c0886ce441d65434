"""Build the vocabulary of Emoji World from Unicode's English annotations and the hand-made core list.

Needs the Noto Color Emoji font and CLDR's ``annotations/en.xml`` (Debian: ``fonts-noto-color-emoji`` and
``unicode-cldr-core``). Run it only when the core list or the sources change; its output is in the repository::

    python scripts/build_emoji_vocabulary.py /usr/share/unicode/cldr/common/annotations/en.xml
"""

import argparse
import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from bottega.data.emoji_world.font import find_font

HERE = Path(__file__).resolve().parent
CORE = HERE / "emoji_core.txt"
OUTPUT = HERE.parent / "src" / "bottega" / "data" / "emoji_world" / "vocabulary.json"

VOWELS = "aeiou"
PLURAL_ENDINGS = ("ss", "us", "is", "as", "os")
ALREADY_PLURAL = {
    "sunglasses", "glasses", "goggles", "jeans", "gloves", "socks", "grapes", "cherries", "scissors",
    "chopsticks", "clinking glasses", "footprints", "eyes", "lungs", "beans", "fries",
}  # fmt: skip
IRREGULAR = {
    "man": "men", "woman": "women", "mouse": "mice", "fish": "fish", "sheep": "sheep", "wolf": "wolves",
    "foot": "feet", "tooth": "teeth", "goose": "geese", "leaf": "leaves", "knife": "knives", "deer": "deer",
    "person": "people", "child": "children", "shrimp": "shrimp", "squid": "squid", "bison": "bison", "ox": "oxen",
    "tomato": "tomatoes", "potato": "potatoes", "mango": "mangoes", "dress": "dresses", "loaf": "loaves",
    "scarf": "scarves", "volcano": "volcanoes", "half": "halves", "elf": "elves", "moose": "moose",
}  # fmt: skip


def head_of(name: str) -> str:
    """The noun that a phrase is about: "pile" of "pile of poo", "person" of "person taking bath"."""
    for_people = re.match(r"(woman|man|person|people|men|women)( \w+ing\b.*)", name)
    if for_people:
        return for_people[1]
    return re.split(r" (?:of|with|in|on|at|and|without|for|behind|showing|pointing) ", name)[0]


def plural_of(name: str) -> str:
    """The regular English plural of a noun phrase's last word, or of the noun before ``of``, ``with`` and so on."""
    head = head_of(name)
    if head != name:
        return plural_of(head) + name[len(head) :]
    first, _, last = name.rpartition(" ")
    if last in IRREGULAR:
        changed = IRREGULAR[last]
    elif last.endswith("y") and len(last) > 1 and last[-2] not in VOWELS:
        changed = last[:-1] + "ies"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        changed = last + "es"
    else:
        changed = last + "s"
    return f"{first} {changed}" if first else changed


def article_of(name: str) -> str:
    """The article a name takes: ``a``, ``an``, or ``some`` for what is already plural."""
    head = head_of(name)
    if (
        name in ALREADY_PLURAL
        or head == "people"
        or (head.endswith("s") and not head.endswith(PLURAL_ENDINGS))
    ):
        return "some"
    word = name.split()[0].lower()
    if word.startswith(("uni", "ukulele", "euro", "one", "use", "ufo")):
        return "a"
    if word.startswith(("hour", "honest")) or word == "x-ray":
        return "an"
    return "an" if word[0] in VOWELS else "a"


def covered(font: Path) -> set[int]:
    """Every code point for which the font has a glyph, read from its ``cmap`` table (format 12)."""
    data = font.read_bytes()
    (num_tables,) = struct.unpack_from(">H", data, 4)
    start = next(
        struct.unpack_from(">I", data, 12 + 16 * i + 8)[0]
        for i in range(num_tables)
        if data[12 + 16 * i : 16 + 16 * i] == b"cmap"
    )
    points: set[int] = set()
    (num_encodings,) = struct.unpack_from(">H", data, start + 2)
    for i in range(num_encodings):
        (offset,) = struct.unpack_from(">I", data, start + 4 + 8 * i + 4)
        (form,) = struct.unpack_from(">H", data, start + offset)
        if form == 12:
            (groups,) = struct.unpack_from(">I", data, start + offset + 12)
            for g in range(groups):
                first, last, _ = struct.unpack_from(">III", data, start + offset + 16 + 12 * g)
                points.update(range(first, last + 1))
    return points


def annotations(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Unicode's short name and keywords of every annotated single character."""
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    # The file comes from a Unicode release on the builder's own disk.
    for node in ElementTree.parse(path).getroot().iter("annotation"):
        char, text = node.attrib["cp"], node.text or ""
        if len(char) != 1:
            continue
        if node.attrib.get("type") == "tts":
            names[char] = text.strip()
        else:
            keywords[char] = [word.strip() for word in text.split("|")]
    return {c: (names[c], keywords.get(c, [])) for c in names}


SIGNS = (
    (0x0000, 0x2319), (0x23E9, 0x23EF), (0x23F8, 0x23FA), (0x24C2, 0x25FF), (0x2648, 0x2653), (0x267B, 0x267F),
    (0x2695, 0x2695), (0x26A7, 0x26AB), (0x26D4, 0x26D4), (0x2705, 0x2705), (0x2714, 0x2716), (0x271D, 0x2721),
    (0x2733, 0x2734), (0x2747, 0x2757), (0x2795, 0x27BF), (0x2934, 0x2B4F), (0x2B51, 0x3299),
    (0xFE00, 0xFE0F), (0x1F100, 0x1F2FF),
    (0x1F3A6, 0x1F3A6), (0x1F3FB, 0x1F3FF), (0x1F4A0, 0x1F4A0), (0x1F4B1, 0x1F4B2), (0x1F4F3, 0x1F4F6),
    (0x1F500, 0x1F506), (0x1F51A, 0x1F524), (0x1F530, 0x1F53D), (0x1F549, 0x1F54E), (0x1F550, 0x1F567),
    (0x1F5E8, 0x1F5EF), (0x1F6AB, 0x1F6AB), (0x1F6AD, 0x1F6B1), (0x1F6B3, 0x1F6B3), (0x1F6B7, 0x1F6BC),
    (0x1F6C2, 0x1F6C5), (0x1F6D0, 0x1F6D1), (0x1F7E0, 0x1F7F0), (0xE0000, 0x10FFFF),
)  # fmt: skip
"""Code points that are signs, letters, arrows, clock hands or parts of others rather than pictures of things."""
SECOND_NAMES = {
    "☃": "snowman in snow", "🍨": "bowl of ice cream", "🚆": "commuter train", "🦐": "raw shrimp",
    "🐪": "one-hump camel",
}  # fmt: skip
"""Names for those whose own name a core thing bears; other such things are whole animals, shown "standing"."""
FLAGS = "\U0001f3f3\U0001f3f4\U0001f38c\U0001f6a9\U0001f3c1"


def is_left_out(char: str) -> bool:
    """Flags, skin tones, parts of sequences, and signs that are letters rather than pictures."""
    return char in FLAGS or any(first <= ord(char) <= last for first, last in SIGNS)


def core_lines() -> list[list[str]]:
    """The hand-made list: character, name, plural (empty: regular, ``-``: not counted), synonyms."""
    lines = [line.strip() for line in CORE.read_text(encoding="utf-8").splitlines()]
    fields = [line.split("|") for line in lines if line and not line.startswith("#")]
    return [[part.strip() for part in (*f, "", "")[:4]] for f in fields]


def build(annotation_file: Path, font: Path) -> dict[str, object]:
    """The vocabulary as it is stored: core things in their order, then all others in code order."""
    known = {
        c: v
        for c, v in annotations(annotation_file).items()
        if ord(c) in covered(font) and not is_left_out(c)
    }
    rows: list[list[object]] = []
    used: set[str] = set()
    core = core_lines()
    for char, name, plural, synonyms in core:
        if char not in known:
            raise SystemExit(f"{char} ({name}) has no glyph or no annotation")
        article = article_of(name)
        if plural == "-":
            article, plural = "some", ""
        elif not plural:
            plural = "" if article == "some" else plural_of(name)
        other = [s.strip() for s in synonyms.split(",") if s.strip()]
        rows.append([char, name, article, plural, other, known[char][1]])
        used.update([name, *other])
    chars = [row[0] for row in rows]
    if len(set(chars)) != len(chars):
        raise SystemExit(f"twice in the core: {[c for c, n in Counter(chars).items() if n > 1]}")
    once = Counter(word for _, words in known.values() for word in set(words))
    for char in sorted(set(known) - set(chars)):
        name = known[char][0].replace("\u2019", "'")
        name = re.sub(r"[“”:]", "", name)
        if name in used:
            name = SECOND_NAMES.get(char, f"standing {name}")
        used.add(name)
        article = article_of(name)
        own = [
            w
            for w in known[char][1]
            if once[w] == 1 and w not in used and w.isascii() and len(w) > 3
        ]
        plural = "" if article == "some" else plural_of(name)
        rows.append([char, name, article, plural, own[:2], known[char][1]])
    names = Counter(str(row[1]) for row in rows)
    if repeated := [name for name, n in names.items() if n > 1]:
        raise SystemExit(f"two things share a name: {repeated}")
    return {
        "source": "Unicode CLDR annotations (en); licence: UNICODE-LICENSE.txt",
        "columns": ["char", "name", "article", "plural", "synonyms", "keywords"],
        "num_core": len(core),
        "things": rows,
    }


def main() -> None:
    """Write the vocabulary file and say how much is in it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("annotations", type=Path, help="CLDR's annotations/en.xml")
    arguments = parser.parse_args()
    vocabulary = build(arguments.annotations, find_font())
    rows = vocabulary.pop("things")
    assert isinstance(rows, list)
    head = json.dumps(vocabulary, ensure_ascii=False)[:-1]
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    OUTPUT.write_text(f'{head}, "things": [\n{body}\n]}}\n', encoding="utf-8")
    print(f"{len(rows)} things, {vocabulary['num_core']} of them core -> {OUTPUT.name}")


if __name__ == "__main__":
    main()
