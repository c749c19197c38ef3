"""What `claim` and `finish` do with a folder: keep, take up, replace, or leave alone."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from featcache.errors import DataError
from featcache.synthetic.folder import NOTE, Note, claim, finish, held, write_whole

FILES: dict[str, int | None] = {"full/set/a": None, "full/set/b": None}


def note(*, seed: int = 0, files: dict[str, int | None] = FILES) -> Note:
    return Note(dataset="set", version=1, seed=seed, sizes={"train": 2}, files=files)


def fill(data_dir: Path, paths: list[str]) -> None:
    for path in paths:
        (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(data_dir / path, lambda temporary: _write(temporary))


def _write(path: Path) -> None:
    path.write_bytes(b"data")


def test_a_finished_set_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, claim(tmp_path, note()))
    finished = finish(tmp_path, note())
    assert finished.files == {"full/set/a": 4, "full/set/b": 4}
    before = (tmp_path / "full/set" / NOTE).stat().st_mtime_ns
    assert claim(tmp_path, note()) == []
    assert finish(tmp_path, note()) == finished
    assert (tmp_path / "full/set" / NOTE).stat().st_mtime_ns == before


def test_an_interrupted_set_is_taken_up(tmp_path: Path) -> None:
    claim(tmp_path, note())
    fill(tmp_path, ["full/set/a"])
    assert claim(tmp_path, note()) == ["full/set/b"]


def test_a_truncated_or_missing_file_is_written_again(tmp_path: Path) -> None:
    fill(tmp_path, claim(tmp_path, note()))
    finish(tmp_path, note())
    (tmp_path / "full/set/a").write_bytes(b"dat")
    (tmp_path / "full/set/b").unlink()
    assert claim(tmp_path, note()) == ["full/set/a", "full/set/b"]


def test_another_set_takes_the_place_of_the_first(tmp_path: Path) -> None:
    fill(tmp_path, claim(tmp_path, note()))
    finish(tmp_path, note())
    other = note(seed=1, files={"full/set/c": None})
    assert claim(tmp_path, other) == ["full/set/c"]
    assert not (tmp_path / "full/set/a").exists()
    assert json.loads((tmp_path / "full/set" / NOTE).read_text())["seed"] == 1


def test_official_data_are_never_touched(tmp_path: Path) -> None:
    fill(tmp_path, ["full/set/official"])
    with pytest.raises(DataError, match=r"holds official and has no synthetic\.json"):
        claim(tmp_path, note())
    assert (tmp_path / "full/set/official").read_bytes() == b"data"


def test_a_broken_note_is_one_message(tmp_path: Path) -> None:
    fill(tmp_path, [f"full/set/{NOTE}"])
    with pytest.raises(DataError, match=r"synthetic\.json is not a note"):
        claim(tmp_path, note())
    for damage in (b'{"a": ' * 5000, b"\xff\xfe{", b"[1]"):
        (tmp_path / NOTE).write_bytes(damage)
        with pytest.raises(DataError, match=r"synthetic\.json is not a note"):
            claim(tmp_path, note())
    (tmp_path / NOTE).unlink()
    os.mkfifo(tmp_path / NOTE)
    with pytest.raises(DataError, match=r"synthetic\.json is not a note"):
        claim(tmp_path, note())


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


def store(path: Path) -> None:
    (path / "array").mkdir(parents=True)
    (path / "array" / "0.0").write_bytes(b"chunk")
    (path / ".zgroup").write_bytes(b"{}")


def test_a_directory_is_one_part(tmp_path: Path) -> None:
    write_whole(tmp_path / claim(tmp_path, note(files={"full/set/a.zarr": None}))[0], store)
    assert finish(tmp_path, note(files={"full/set/a.zarr": None})).files == {"full/set/a.zarr": 7}
    assert claim(tmp_path, note(files={"full/set/a.zarr": None})) == []
    (tmp_path / "full/set/a.zarr/array/0.0").unlink()
    assert claim(tmp_path, note(files={"full/set/a.zarr": None})) == ["full/set/a.zarr"]
    write_whole(tmp_path / "full/set/a.zarr", store)
    assert (tmp_path / "full/set/a.zarr/array/0.0").read_bytes() == b"chunk"
    assert claim(tmp_path, note(seed=1, files={"full/set/a.zarr": None})) == ["full/set/a.zarr"]
    assert [path.name for path in (tmp_path / "full/set").iterdir()] == [NOTE]


def test_a_failed_write_of_a_directory_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        store(path)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "a.zarr", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_a_directory_is_removed_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / claim(tmp_path, note(files={"full/set/a.zarr": None}))[0], store)

    def killed(path: Path, **_: object) -> None:
        (path / "array" / "0.0").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        claim(tmp_path, note(seed=1, files={"full/set/a.zarr": None}))
    assert claim(tmp_path, note(files={"full/set/a.zarr": None})) == ["full/set/a.zarr"]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    claim(tmp_path, note())
    folder = tmp_path / "full/set"
    store(folder / ".b.old.partial")
    (folder / ".a.partial").write_bytes(b"da")
    a_day_ago = time.time() - 25 * 3600
    for path in (*folder.rglob("*"), *folder.iterdir()):
        os.utime(path, (a_day_ago, a_day_ago))
    (folder / ".mine").write_bytes(b"somebody else's")
    claim(tmp_path, note())
    assert {path.name for path in folder.iterdir()} == {NOTE, ".mine"}


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    begun, order = Event(), list[str]()

    def second() -> None:
        begun.set()
        with held(tmp_path, note()):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with held(tmp_path, note()):
            waiting = pool.submit(second)
            assert begun.wait(10)
            claim(tmp_path, note())
            order.append("first")
        waiting.result(10)
    assert order == ["first", "second"]
    assert [path.name for path in (tmp_path / "full/set").iterdir()] == [NOTE]


def test_a_second_writer_without_locks_takes_the_part_of_the_first(tmp_path: Path) -> None:
    wanted = note(files={"full/set/a.zarr": None})
    (part,) = claim(tmp_path, wanted)

    def and_the_other(path: Path) -> None:
        store(path)
        write_whole(tmp_path / part, store)

    write_whole(tmp_path / part, and_the_other)
    assert finish(tmp_path, wanted).files == {part: 7}
    assert {path.name for path in (tmp_path / "full/set").iterdir()} == {NOTE, "a.zarr"}


def test_a_folder_of_official_data_gets_no_lock(tmp_path: Path) -> None:
    fill(tmp_path, ["full/set/official"])
    with pytest.raises(DataError, match="may be the official data"), held(tmp_path, note()):
        pass
    assert [path.name for path in (tmp_path / "full/set").iterdir()] == ["official"]
