"""A run's folder is made on demand, locked while in use, and its files appear whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottega.errors import InputError
from bottega.rundir import RunDir, as_others, check_place, exported, write_atomically


def test_the_folder_is_made_and_everything_of_a_run_lies_in_it(tmp_path):
    run = RunDir(tmp_path / "a" / "b")
    assert run.path.is_dir()
    for place in (run.config, run.journal, run.checkpoints, run.previews, run.tensorboard):
        assert place.parent == run.path
    assert RunDir(str(run.path)).path == run.path


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make the run folder"):
        RunDir(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="cannot make the run folder"):
        RunDir(tmp_path / "file")


def test_a_new_folder_that_nothing_was_written_to_goes_when_the_work_fails(tmp_path):
    for name in ("a", "b"):
        run = RunDir(tmp_path / name)
        with pytest.raises(ValueError, match="refused"), run.kept_once_used(), run.locked():
            if name == "b":
                run.write_text("config.json", "{}")
            raise ValueError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        RunDir(tmp_path)


def test_a_run_stands_for_what_it_exported_and_anything_else_for_itself(tmp_path):
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    assert exported(run) == run  # an encoder's folder may well have one inside
    for name in ("config.json", "journal.jsonl"):
        (run / name).touch()
    assert exported(str(run)) == run / "export"
    (run / "export").rmdir()
    assert exported(run) == run
    assert exported(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_a_file_gets_the_rights_that_any_new_file_has(tmp_path):
    (tmp_path / "ordinary").touch()
    (tmp_path / "private").touch(mode=0o600)
    as_others(tmp_path / "private")
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_file_is_written_whole_with_ordinary_rights_and_nothing_else_stays(tmp_path):
    run = RunDir(tmp_path)
    path = run.write_text("sub/config.json", "one")
    run.write_text("sub/config.json", "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "kept").write_text("x")
    with pytest.raises(OSError):
        write_atomically(target, b"cannot replace a folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (target / "kept").read_text() == "x"


def test_two_runs_cannot_share_a_folder_but_can_follow_each_other(tmp_path):
    run = RunDir(tmp_path)
    with (
        run.locked(),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
        RunDir(tmp_path).locked(),
    ):
        pass
    with run.locked():
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    source = Path(__file__).parents[1] / "src"
    code = (
        "import os, signal, sys\n"
        "from bottega.rundir import RunDir\n"
        "with RunDir(sys.argv[1]).locked():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -9
    with RunDir(tmp_path).locked():
        pass


def test_a_place_is_known_to_be_writable_before_the_work_begins(tmp_path, monkeypatch):
    assert check_place(tmp_path / "new.json") == tmp_path / "new.json"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    assert check_place(tmp_path / "file") == tmp_path / "file"
    for place, words in {
        tmp_path: "it is a folder",
        tmp_path / "gone" / "x": "there is no folder",
        tmp_path / ("x" * 300): "too long",
        Path("/dev/null"): "no ordinary file",
    }.items():
        with pytest.raises(InputError, match=words):
            check_place(place)
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # for root, too
    with pytest.raises(InputError, match="may only be read"):
        check_place(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
