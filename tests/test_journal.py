"""The journal keeps whole lines, and forgets what a resumed run will live again."""

from bottega.journal import Journal


def test_records_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    assert journal.read() == []
    for n in range(3):
        journal.append({"images_seen": n, "loss": 0.5, "by": (1.0, 2.0), "more": {"a": None}})
    assert [r["images_seen"] for r in journal.read()] == [0, 1, 2]
    assert journal.read()[0] == {
        "images_seen": 0,
        "loss": 0.5,
        "by": [1.0, 2.0],
        "more": {"a": None},
    }


def test_numbers_that_are_not_finite_become_null(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append({"loss": float("nan"), "all": [float("inf"), 1.0]})
    assert journal.read() == [{"loss": None, "all": [None, 1.0]}]


def test_a_line_cut_short_by_a_crash_is_ignored(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append({"images_seen": 1})
    with journal.path.open("a") as stream:
        stream.write('{"images_seen": 2')
    assert [r["images_seen"] for r in journal.read()] == [1]


def test_rewinding_forgets_the_future_and_a_torn_line(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.rewind(0)
    for n in (1, 2, 3):
        journal.append({"images_seen": n})
    with journal.path.open("a") as stream:
        stream.write('{"images_')
    journal.rewind(2)
    journal.append({"images_seen": 3, "again": True})
    assert journal.read() == [
        {"images_seen": 1},
        {"images_seen": 2},
        {"images_seen": 3, "again": True},
    ]


def test_rewinding_keeps_what_fits_and_stops_at_garbage(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append({"images_seen": 1})
    with journal.path.open("ab") as stream:
        stream.write(b"\xff\x00garbage\n[1]\n")
    journal.rewind(5)
    assert journal.path.read_text() == '{"images_seen": 1}\n'
