"""The folder of a generated data set: what belongs in it, what is there, and nothing of anybody else's.

A part is a file, or a directory that is one thing to its readers, as a Zarr store is: one rename puts it in
place, one takes it away. `synthetic.json` beside the parts says which seed, sizes and version they have, so
that a second run leaves a finished set alone and takes up an interrupted one. Files without it are taken for
the official release and are never touched. One process at a time writes into a folder: it holds the lock.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import DataError
from featcache.system.files import PARTIAL, publish
from featcache.system.locks import Lock

NOTE, LOCK = "synthetic.json", ".synthetic.lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """The content of `synthetic.json`: which data set this is, and its parts."""

    dataset: str
    version: int
    seed: int
    sizes: dict[str, int]
    """Split -> number of items."""
    files: dict[str, int | None]
    """Part below the data folder -> its bytes, unknown until the set is finished."""

    def describes(self, other: "Note") -> bool:
        """Whether both stand for the same bytes."""
        return replace(other, files=self.files) == self and self.files.keys() == other.files.keys()


@contextmanager
def held(data_dir: Path, wanted: Note) -> Iterator[None]:
    """Keep other processes from writing into the folder of `wanted`, or wait until they are done.

    Raises:
        DataError: the folder holds files that were not generated.
    """
    folder = _folder(data_dir, wanted.files)
    if not (folder / NOTE).exists():
        _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / LOCK, wait=True, busy="")
    try:
        yield
    finally:
        lock.release()


def claim(data_dir: Path, wanted: Note) -> list[str]:
    """Make the folder, which is held, ready for `wanted` and return the parts that are still to be written.

    Parts of another seed, size or version are removed, since two sets of shards in one folder make neither.
    So is what killed writers left behind.

    Raises:
        DataError: the folder holds files that were not generated, or a broken note.
    """
    folder = _folder(data_dir, wanted.files)
    found = _read(folder / NOTE)
    if found is None:
        _refuse_foreign(folder)
    for leftover in folder.glob(f".*{PARTIAL}"):
        _remove(leftover)
    if found is not None and not found.describes(wanted):
        for path in found.files:
            _take_away(data_dir / path)
    same = found if found is not None and found.describes(wanted) else wanted
    todo = [path for path, n_bytes in same.files.items() if not _is_there(data_dir / path, n_bytes)]
    if todo:
        _write(folder / NOTE, replace(wanted, files=dict.fromkeys(wanted.files)))
    return todo


def finish(data_dir: Path, wanted: Note) -> Note:
    """Write down that every part is there, once, and return the note with their sizes."""
    finished = replace(wanted, files={path: _n_bytes(data_dir / path) for path in wanted.files})
    _write(_folder(data_dir, wanted.files) / NOTE, finished)
    return finished


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a temporary file or directory, then rename it: `path` is whole or not there."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        write(temporary)
        if path.is_dir():  # which nothing can be renamed onto
            _take_away(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def _folder(data_dir: Path, files: Iterable[str]) -> Path:
    (folder,) = {(data_dir / path).parent for path in files}
    return folder


def _take_away(path: Path) -> None:
    """Remove a part under a name of its own, so that a kill half way leaves no half directory at `path`."""
    if path.exists():
        _remove(path.replace(path.with_name(f".{path.name}.old{PARTIAL}")))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_there(path: Path, n_bytes: int | None) -> bool:
    return path.exists() and n_bytes in (None, _n_bytes(path))


def _n_bytes(path: Path) -> int:
    """Size of a file, or of all files of a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _refuse_foreign(folder: Path) -> None:
    foreign = sorted(path.name for path in folder.glob("[!.]*"))
    if foreign:
        raise DataError(
            f"{folder} holds {foreign[0]} and has no {NOTE}, so these may be the official data: "
            "generate into another data folder."
        )


def _read(path: Path) -> Note | None:
    if not path.exists():
        return None
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Note(**entries)
    except (ValueError, TypeError):
        raise DataError(
            f"{path} is not a note of generated data: remove the folder and generate again."
        ) from None


def _write(path: Path, note: Note) -> None:
    publish(path, (json.dumps(asdict(note), indent=1, sort_keys=True) + "\n").encode())
