import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import ClusterError
from featcache.system.cluster import task
from featcache.system.cluster.task import About, at_work, forget, kept, versions
from tests.featcache.system.cluster.work import Note, square


@pytest.fixture
def about(tmp_path: Path) -> About:
    mark = tmp_path / "mark"
    mark.touch()
    return About(topic="t", versions=versions(), folders=(tmp_path,), mark=mark)


def test_one_thing_is_kept_and_closed_when_it_makes_room() -> None:
    closed = []

    class Loaded:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    first = kept("a", lambda: Loaded("a"))
    assert kept("a", lambda: Loaded("again")) is first
    assert kept("b", lambda: Loaded("b")).name == "b"
    assert closed == ["a"]
    forget()
    assert closed == ["a", "b"]


def test_a_worker_of_another_version_refuses_to_work(about: About) -> None:
    about.refuse_other_machine()
    other = replace(about, versions={**versions(), "torch": "1.0"})
    with pytest.raises(ClusterError, match=r"it has torch [0-9.]+, not 1\.0: install there"):
        other.refuse_other_machine()


def test_two_tasks_at_once_are_refused(about: About, tmp_path: Path) -> None:
    with task._ALONE, pytest.raises(ClusterError, match="start workers with --nthreads 1"):
        at_work("x", Note(1, tmp_path), square, about)
    assert not (tmp_path / "begun").exists()


def test_what_goes_to_a_worker_is_small_and_holds_nothing_of_the_environment(
    about: About, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    sent = pickle.dumps((at_work, "x", Note(1, tmp_path), square, about))
    assert len(sent) < 2000 and b"hush" not in sent
