"""Files that carry the digest of their own bytes, so that a flipped bit is never read as a number.

A seal is a marked place in a file, `scivid-sha256:` and 64 hex digits, wherever its format has room for text:
a key in JSON, the metadata of Parquet or safetensors, the comment of a zip. The digits are the sha256 of the
whole file with zeros in their place. Any program reads such a file as before; ours compare first. Files of
before there were seals have none and are read as they are. Of a file that is not ours its digest is written
down elsewhere (`state_of`), to ask later whether it changed.
"""

import json
import mmap
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featcache.system.files import open_regular, read_regular
from featcache.system.json_files import parse_json

_MARK = b"scivid-sha256:"
_ZEROS = b"0" * 64

UNSEALED = (_MARK + _ZEROS).decode()
"""What to write where the seal is to be; once in a file."""

KEY = "seal"
"""Under which JSON and Parquet files of ours have it."""


_PARQUET_LIMIT = 2**32
"""Bytes; the largest of ours list clips, a few hundred bytes each."""


_BLOCK_BYTES = 2**24

_FOOTER_BYTES = 2**26
"""The end of a Parquet file takes about 1 KB a group of rows and column; that of 10^8 rows 2 MB."""


class BrokenSealError(ValueError):
    """A file is not, byte for byte, what was sealed; worded as the end of a sentence that begins with it."""

    def __init__(self) -> None:
        super().__init__("was changed after it was written: it does not have the digest that it carries")


def seal(content: bytes) -> bytes:
    """The content with its digest where it had `UNSEALED`."""
    return b"".join(sealed_pieces(content))


def sealed_pieces(content: bytes) -> list[memoryview | bytes]:
    """As `seal`, in pieces to be written one after the other: what is large is not copied."""
    start, found = _seal_of(content)
    assert found == _ZEROS, "sealed already"
    digest, view = sha256(content).hexdigest().encode(), memoryview(content)
    return [view[:start], digest, view[start + len(digest) :]]


def check_seal(content: bytes | mmap.mmap, *, required: bool = False) -> bool:
    """Whether the content is sealed; if it is, it has the digest that it carries.

    Args:
        content: of a whole file.
        required: it is of a form that always was sealed.

    Raises:
        BrokenSealError: it has another digest, or none though one is required.
    """
    start, found = _seal_of(content)
    if start < 0:
        if required:
            raise BrokenSealError
        return False
    view = memoryview(content)
    try:
        digest = sha256(view[:start])
        digest.update(_ZEROS)
        digest.update(view[start + len(_ZEROS) :])
    finally:
        view.release()
    if digest.hexdigest().encode() != found:
        raise BrokenSealError
    return True


def seal_file(fd: int) -> None:
    """Put the digest of a file of any size in its place, which is among the last `_FOOTER_BYTES` of it."""
    size, digest = os.fstat(fd).st_size, sha256()
    for start in range(0, size, _BLOCK_BYTES):
        digest.update(os.pread(fd, _BLOCK_BYTES, start))
    behind = max(0, size - _FOOTER_BYTES)
    start, found = _seal_of(os.pread(fd, _FOOTER_BYTES, behind))
    assert found == _ZEROS, "sealed already, or without a place for it"
    os.pwrite(fd, digest.hexdigest().encode(), behind + start)


def check_file(path: Path, *, required: bool = False) -> bool:
    """As `check_seal`, of a file that may be larger than memory.

    Raises:
        BrokenSealError: as `check_seal`.
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            return check_seal(content, required=required)


def json_sealed(document: Mapping[str, Any], **options: Any) -> bytes:
    """A JSON object as a sealed file; `KEY` is the seal's.

    Args:
        document: without the seal.
        options: of `json.dumps`; unless they say otherwise keys are sorted, and NaN is refused.
    """
    assert KEY not in document
    how = {"sort_keys": True, "allow_nan": False, **options}
    return seal(json.dumps({**document, KEY: UNSEALED}, **how).encode() + b"\n")


def json_unsealed(content: bytes) -> tuple[dict[str, Any], bool]:
    """What `json_sealed` was given, and whether there was a seal.

    Raises:
        ValueError: the seal is broken, or it is not a JSON object.
    """
    sealed = check_seal(content)
    document = parse_json(content)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    drop_seal(document, sealed=sealed)
    return document, sealed


def drop_seal(entries: dict[str, Any], *, sealed: bool) -> None:
    """Remove the entry of the seal from what a file says.

    Args:
        entries: of the file; changed in place.
        sealed: whether a seal was found and is right (`check_seal`).

    Raises:
        BrokenSealError: there is such an entry and no seal: it was changed itself, and perhaps more.
    """
    if entries.pop(KEY, None) is not None and not sealed:
        raise BrokenSealError


def parquet_sealed(table: pa.Table) -> bytes:
    """A table as a sealed Parquet file; what metadata its schema has is kept."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: UNSEALED}), sink)
    return seal(bytes(sink.getvalue()))


def read_parquet(path: Path, *, required: bool = False, **options: Any) -> pa.Table:
    """The table of a Parquet file, once its seal was found to be right, if it has one.

    Args:
        path: of the file.
        required: it is of a form that always was sealed.
        options: of `pyarrow.parquet.read_table`.

    Raises:
        ValueError: the seal is broken, or it is not Parquet.
        OSError: it cannot be read, or is no regular file.
    """
    content = read_regular(path, limit=_PARQUET_LIMIT)
    sealed = check_seal(content, required=required)
    try:
        if not sealed and KEY.encode() in (pq.read_metadata(pa.BufferReader(content)).metadata or {}):
            raise BrokenSealError  # as in JSON
        return pq.read_table(pa.BufferReader(content), **options)
    except (pa.ArrowException, OSError) as problem:  # of the bytes: they were read before
        raise ValueError(f"is no whole Parquet file ({problem})") from problem


def _seal_of(content: bytes | mmap.mmap) -> tuple[int, bytes]:
    """Where the digits of the seal begin, -1 without one, and what they are."""
    start = content.find(_MARK)
    if start < 0:
        return -1, b""
    start += len(_MARK)
    return start, bytes(content[start : start + len(_ZEROS)])


def state_of(path: Path) -> dict[str, Any]:
    """What is written down of a small file, to ask `changed_since` later.

    Raises:
        OSError: it cannot be read.
    """
    about = path.stat()
    digest = sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": digest}


def changed_since(state: Mapping[str, Any]) -> Path | None:
    """The file, where another content lies there now; None where it is the same, or out of reach."""
    path = Path(str(state["path"]))
    try:
        about = path.stat()
        if not path.is_file() or (about.st_size, about.st_mtime_ns) == (state["bytes"], state["mtime_ns"]):
            return None
        return path if sha256(path.read_bytes()).hexdigest() != state["sha256"] else None
    except OSError:
        return None
