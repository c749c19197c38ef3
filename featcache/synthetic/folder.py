"""The folder of a generated data set: what belongs in it, what is there, and nothing of anybody else's.

`synthetic.json` beside the files says which seed, sizes and version they have, so that a second run leaves a
finished set alone and takes up an interrupted one. Files without it are taken for the official release and
are never touched.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import DataError

NOTE = "synthetic.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """The content of `synthetic.json`."""

    dataset: str
    version: int
    seed: int
    sizes: dict[str, int]
    """Split -> number of items."""
    files: dict[str, int | None]
    """File below the data folder -> its bytes, unknown until the set is finished."""

    def describes(self, other: "Note") -> bool:
        """Whether both stand for the same bytes."""
        return self._identity == other._identity

    @property
    def _identity(self) -> tuple[object, ...]:
        return (self.dataset, self.version, self.seed, self.sizes, set(self.files))


def claim(data_dir: Path, wanted: Note) -> list[str]:
    """Make the folder ready for `wanted` and return the files that are still to be written.

    Files of another seed, size or version are removed, since two sets of shards in one folder make neither.

    Raises:
        DataError: the folder holds files that were not generated, or a broken note.
    """
    folder = _folder(data_dir, wanted.files)
    found = _read(folder / NOTE)
    if found is None:
        _refuse_foreign(folder)
    elif not found.describes(wanted):
        for path in found.files:
            (data_dir / path).unlink(missing_ok=True)
    same = found if found is not None and found.describes(wanted) else wanted
    todo = [path for path, n_bytes in same.files.items() if not _is_there(data_dir / path, n_bytes)]
    if todo:
        _write(folder / NOTE, replace(wanted, files=dict.fromkeys(wanted.files)))
    return todo


def finish(data_dir: Path, wanted: Note) -> Note:
    """Write down that every file is there, once, and return the note with their sizes."""
    finished = replace(wanted, files={path: (data_dir / path).stat().st_size for path in wanted.files})
    place = _folder(data_dir, wanted.files) / NOTE
    if _read(place) != finished:
        _write(place, finished)
    return finished


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: `path` is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _folder(data_dir: Path, files: Iterable[str]) -> Path:
    (folder,) = {(data_dir / path).parent for path in files}
    return folder


def _is_there(path: Path, n_bytes: int | None) -> bool:
    return path.exists() and n_bytes in (None, path.stat().st_size)


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
    entries = {name: getattr(note, name) for name in Note.__dataclass_fields__}
    text = json.dumps(entries, indent=1, sort_keys=True) + "\n"
    write_whole(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
