"""Files are written whole or not at all, and nothing but files is replaced."""

import os

import pytest

from minigrad.errors import UsageError
from minigrad.files import write_whole


def test_a_file_is_replaced_and_gets_the_usual_mode(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    assert write_whole(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    plain = tmp_path / "b.txt"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_link_keeps_pointing_at_its_file(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_what_is_no_file_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="no regular file"):
        write_whole(pipe, b"x")
    with pytest.raises(UsageError, match="directory"):
        write_whole(tmp_path, b"x")
    with pytest.raises(UsageError, match="cannot write"):
        write_whole(tmp_path / "missing" / "a", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipe"]
    assert pipe.is_fifo()


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"precious")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
