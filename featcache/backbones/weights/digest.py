"""Is a weight file the released one, or else the one of before: told by the sha256 of its bytes.

A file whose digest is known (`featcache.backbones.digests`, or its name in the hub's cache) must have it. Any
other is the user's: its own checksums are verified, and when it was first loaded its digest is remembered, in
`<file>.sha256` beside it as `sha256sum --check` reads it, or in the user's cache where that folder is
read-only. A later file of another digest is used, for weights may be trained on, and every load says so until
the user removes the note: a note that renewed itself would tell one of many jobs, once.
"""

import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from featcache.backbones.digests import RELEASED
from featcache.backbones.weights.shard_index import files_of, is_index
from featcache.errors import WeightsError, few
from featcache.system.files import publish

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOTE = re.compile(r"^([0-9a-f]{64}) [ *]", re.MULTILINE)
_SINCE = re.compile(r"first load, (\d{4}-\d\d-\d\d)")
_NOTE_BYTES = 4096


def file_digest(path: Path) -> str:
    """Sha256 of a weight file's bytes, in hex; a file is read once a process, until it changes.

    Of weights in several files it is that of a line for each file: its name and its own digest.

    Raises:
        WeightsError: there is no regular file, or it cannot be read.
    """
    if is_index(path):
        lines = [f"{part.name} {file_digest(part)}\n" for part in _files(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    return _file_digest(path, _state(path))


def refuse_unlike(path: Path, released: Mapping[str, str], way_out: str) -> None:
    """Refuse a file of a released name whose digest is known and not the file's.

    Raises:
        WeightsError: names both digests, and ends with `way_out`.
    """
    for file in _files(path):
        if file.name in released and file_digest(file) != released[file.name]:
            raise WeightsError(
                f"{file} is not the released file: its sha256 is {file_digest(file)}, not "
                f"{released[file.name]}. It is damaged, or weights of your own. {way_out}"
            )


def checked_digest(path: Path) -> str:
    """`file_digest` of a file that is what it was when it was first loaded, as far as can be told.

    A file that is another one than then is told in one line of warning.

    Raises:
        WeightsError: it cannot be read, or is damaged by its own checksums or by its name in the hub's cache.
    """
    for file in _files(path):
        _check(file, _state(file))
    return file_digest(path)


def remember(path: Path, *, digest: str | None = None) -> None:
    """Note the digest of a file that was loaded, or came whole, unless it is noted or known anyway.

    Where nothing can be written, nothing is noted.

    Args:
        path: of the file, or of an index, which stands for all that it names.
        digest: of `path`, which is then one file, where it was just computed.
    """
    for file in files_of(path):
        found = digest or file_digest(file)
        if found not in RELEASED and _blob(file) is None and _note_of(file) is None:
            _write_note(file, found)


def forget(path: Path) -> None:
    """Drop the note of a file that is about to be replaced."""
    for note in _notes(path):
        with suppress(OSError):
            note.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def _check(path: Path, _state: tuple[int, ...]) -> None:
    digest, blob = file_digest(path), _blob(path)
    if digest in RELEASED or digest == blob:
        return
    if blob is not None:
        raise WeightsError(
            f"{path} is damaged: the hub's cache has it as {blob}, its sha256 is {digest}. Remove "
            f"{path.resolve()} and {path}, then get the file again."
        )
    note = _note_of(path)
    noted = None if note is None else _read(note)
    if noted == digest:
        return
    _refuse_damaged(path)
    if note is not None:
        _tell_of_change(path, digest, note, noted)


def _blob(path: Path) -> str | None:
    """The digest by which the hub's cache names a large file."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _write_note(path: Path, digest: str) -> None:
    today = datetime.now(UTC).date()
    lines = (
        f"# at the first load, {today}. scivid tells when the file is another one later; remove this note if "
        f"it is meant to be.\n{digest}  {path.name}\n"
    )
    for note in _notes(path):
        with suppress(OSError):
            publish(note, lines.encode())
            return


def _files(path: Path) -> tuple[Path, ...]:
    """The files that hold the tensors, all of them there."""
    files = files_of(path)
    if is_index(path) and (lacking := [file.name for file in files if not file.is_file()]):
        raise WeightsError(
            f"{path} names {few(lacking)}, which is not beside it as a regular file: fetch it, or the index "
            "again."
        )
    return files


def _tell_of_change(path: Path, digest: str, note: Path, noted: str | None) -> None:
    if noted is None:
        told = f"{note} holds no sha256, so {path} is not compared with what it was: remove the note."
    else:
        since = _SINCE.search(_text(note))
        when = f"at its first load on {since[1]}" if since else f"when {note.name} was written"
        told = (
            f"{path} is not what it was {when}: its sha256 was {noted[:12]}..., it is {digest[:12]}... now. "
            f"Its features get a store of their own. If that is meant, remove {note}; if not, get the file "
            "again."
        )
    logging.getLogger(__name__).warning(told)


def _refuse_damaged(path: Path) -> None:
    """Verify the checksums that zip files keep of their members; other formats have none."""
    try:
        if path.suffix == ".safetensors" or not (path.suffix == ".npz" or zipfile.is_zipfile(path)):
            return
        with zipfile.ZipFile(path) as file:
            member = file.testzip()
    except Exception as problem:  # a damaged zip raises a dozen kinds
        raise WeightsError(
            f"{path} cannot be read ({problem or type(problem).__name__}): it is damaged or no such file at "
            "all, get it again."
        ) from problem
    if member is not None:
        raise WeightsError(
            f"{path} is damaged: what it holds as {member} has another checksum than it was written with. "
            "Get the file again."
        )


def _notes(path: Path) -> tuple[Path, Path]:
    """Where a note may be: beside the file, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    name = f"{path.name}.sha256"
    return path.with_name(name), cache / "scivid" / "weights" / f"{place}-{name}"


def _note_of(path: Path) -> Path | None:
    return next((note for note in _notes(path) if note.is_file()), None)


def _read(note: Path) -> str | None:
    found = _NOTE.search(_text(note))
    return found[1] if found else None


def _text(note: Path) -> str:
    with note.open("rb") as file:
        return file.read(_NOTE_BYTES).decode("utf-8", errors="replace")


def _state(path: Path) -> tuple[int, ...]:
    """What changes with a file's bytes; the last two do when somebody sets its time."""
    if not path.is_file():
        raise WeightsError(f"{path} is not a regular file: put the weights there, or a link to them.")
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@lru_cache(maxsize=64)
def _file_digest(path: Path, _state: tuple[int, ...]) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise WeightsError(f"{path} cannot be read: {problem.strerror}.") from problem
