import json
import os
import resource
import signal

import pytest
from data import head

import bundle.writing
from bundle.errors import OutputError
from bundle.io import write_json, write_volume
from bundle.writing import remove_left_over, replacing, together


def _killed_while_writing(folder):
    """What a process leaves that is killed in the middle of a write."""
    child = os.fork()
    if child == 0:
        with replacing(folder / "a.json") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = os.listdir(folder)
    assert left.startswith(".") and left.endswith(".part")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out.json"] and '"a": 1' in path.read_text()


def test_a_new_file_has_the_rights_that_new_files_have(tmp_path):
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    _killed_while_writing(tmp_path)
    write_json(tmp_path / "b.json", {})
    assert os.listdir(tmp_path) == ["b.json"]


def test_the_temporary_file_of_a_writer_that_lives_is_left_alone(tmp_path):
    with replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        remove_left_over(tmp_path)
        write_json(tmp_path / "b.json", {})
        assert temporary.exists()
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]


def test_hidden_files_of_others_are_left_alone(tmp_path):
    for name in ("._a.nii.gz", ".DS_Store", ".part", ".spcdd"):
        (tmp_path / name).touch()
    write_json(tmp_path / "b.json", {})
    assert len(os.listdir(tmp_path)) == 5


def test_a_temporary_file_that_another_run_removes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, tries = bundle.writing.fcntl.flock, []

    def late(file, how):
        if how == bundle.writing.fcntl.LOCK_EX and not tries:
            tries.append(1)
            remove_left_over(tmp_path)
        lock(file, how)

    monkeypatch.setattr(bundle.writing.fcntl, "flock", late)
    write_json(tmp_path / "a.json", {"b": 1})
    assert tries and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.nii.gz"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="out.nii.gz: cannot be written .*; make room or choose another"):
            write_volume(path, head(), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], (1, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["out.nii.gz"] and path.read_text() == "old"


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="a.json: cannot be written .No such file or directory.; look at the folder"):
        write_json(tmp_path / "gone" / "a.json", {})


def test_a_file_is_whole_at_every_moment(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"rows": [0] * 1000})
    child = os.fork()
    if child == 0:
        for k in range(10**9):
            write_json(path, {"rows": [k] * 1000})
    for _ in range(500):
        assert len(json.loads(path.read_text())["rows"]) == 1000
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(json.loads(path.read_text())["rows"]) == 1000


def test_files_that_belong_together_get_their_names_together_in_order_or_not_at_all(tmp_path, monkeypatch):
    renamed, rename = [], os.replace
    monkeypatch.setattr(bundle.writing.os, "replace", lambda a, b: (renamed.append(b.name), rename(a, b)))
    with together():
        write_json(tmp_path / "b.json", {})
        write_json(tmp_path / "a.json", {"a": 1})
        remove_left_over(tmp_path)
        assert not list(tmp_path.glob("*.json"))
    assert renamed == ["b.json", "a.json"] and sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]
    with pytest.raises(RuntimeError), together():
        write_json(tmp_path / "a.json", {"a": 2})
        raise RuntimeError
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1} and len(os.listdir(tmp_path)) == 2
