"""A file that changed is noticed; one that was only touched, or is out of reach, is not."""

import os
from pathlib import Path

import pytest

from featcache.system.changes import changed_since, state_of


def test_a_file_that_was_edited_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    assert changed_since(state) is None
    file.write_text("a.mp4,0,jump")
    os.utime(file, ns=(0, state["mtime_ns"] + 1))  # of the same length, a moment later
    assert changed_since(state) == file
    file.write_text("a.mp4,0,rest;jump")
    os.utime(file, ns=(0, state["mtime_ns"]))  # the time put back
    assert changed_since(state) == file


def test_a_file_that_was_touched_or_copied_back_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    os.utime(file, ns=(0, 0))
    assert changed_since(state) is None


def test_what_cannot_be_reached_is_not_said_to_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("a.mp4,0,rest")
    state = state_of(file)
    file.unlink()
    assert changed_since(state) is None
    file.mkdir()
    assert changed_since(state) is None
    with pytest.raises(FileNotFoundError):
        state_of(tmp_path / "gone.csv")
