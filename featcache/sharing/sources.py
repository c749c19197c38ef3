"""Where a bundle is: in a folder, or at an address of the web. Both give index and files."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.sharing.bundle import INDEX, MOST_INDEX_BYTES, Bundle, SharedFile, bundle_from
from featcache.system.fetch import Say, fetch, fetch_small, sha256_of
from featcache.system.files import Staged, naming, open_regular, read_regular, write_all

_CHUNK = 1 << 20

Bytes = Callable[[int], None]
"""Called with how many bytes of a file are here."""


@runtime_checkable
class Source(Protocol):
    """A bundle to import from."""

    @property
    def origin(self) -> str:
        """What the index is called in messages."""

    def index(self) -> bytes:
        """The index, as it is there."""

    def bring(self, path: str, file: SharedFile, to: Path, progress: Bytes, say: Say) -> None:
        """Put a file at `to`, whole and with its digest; what is there so is left alone."""


def open_source(place: str) -> Source:
    """The bundle in a folder, or at an http or https address; of its index or of the folder that has it.

    Raises:
        CallError: it is neither, or an address with a password in it.
    """
    scheme = urlsplit(place).scheme.lower()
    if scheme in ("http", "https"):
        address = urlsplit(place)
        if "@" in address.netloc or address.query or address.fragment:
            raise CallError(
                "the address of a bundle has a name, a password, or something behind ? or #: give that of a "
                "folder which needs none, or fetch the files and give the folder that they are in."
            )
        return _Web(place.rstrip("/").removesuffix(f"/{INDEX}").rstrip("/"))
    if "://" in place:
        raise CallError(f"{place}: bundles come from a folder, or from http:// and https://.")
    path = Path(place)
    return _Folder(path.parent if path.name == INDEX else path)


def read_bundle(place: str) -> Bundle:
    """The index of the bundle in a folder, or at an http or https address.

    Raises:
        CallError: there is none.
        DownloadError: it did not come.
        DamagedFileError: it was changed, or is no index.
    """
    source = open_source(place)
    return bundle_from(source.index(), source.origin)


def copy_file(source: Path, to: Path, progress: Bytes = lambda done: None) -> str:
    """Copy a regular file through to the disk, under its name once it is whole; the sha256 of what was read.

    Raises:
        OSError: it cannot be read or written.
    """
    digest, done = hashlib.sha256(), 0
    with open(source, "rb", opener=open_regular) as file, Staged(to) as staged:
        while chunk := _read(file, source):
            digest.update(chunk)
            write_all(staged.fd, [chunk])
            progress(done := done + len(chunk))
        staged.publish()
    return digest.hexdigest()


def _read(file: BinaryIO, source: Path) -> bytes:
    with naming(source):
        return file.read(_CHUNK)


class _Folder:
    """A bundle on a disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def origin(self) -> str:
        return str(self._folder / INDEX)

    def index(self) -> bytes:
        try:
            return read_regular(self._folder / INDEX, limit=MOST_INDEX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise CallError(
                f"{self._folder} is no bundle: it has no {INDEX}. `scivid export` makes one of stores."
            ) from None

    def bring(self, path: str, file: SharedFile, to: Path, progress: Bytes, say: Say) -> None:
        if _is_there(to, file):
            progress(file.n_bytes)
            return
        source = self._folder / path
        # Not `resolve`, for which links in a circle are an error of its own.
        if not Path(os.path.realpath(source)).is_relative_to(os.path.realpath(self._folder)):
            raise StoreError(
                f"{source} is a link that leads out of the bundle: nothing was taken from there."
            )
        try:
            if (size := source.stat().st_size) != file.n_bytes:
                raise DamagedFileError(f"{source} has {size:,} bytes instead of {file.n_bytes:,}. {_AGAIN}")
            found = copy_file(source, to, progress)
        except OSError as problem:
            if problem.filename != str(source):  # it is the cache's disk
                raise
            gone = isinstance(problem, FileNotFoundError | NotADirectoryError)
            what = f"is missing, though {INDEX} lists it" if gone else f"cannot be read ({problem.strerror})"
            raise DamagedFileError(f"{source} {what}. {_AGAIN}") from problem
        if found != file.sha256:
            to.unlink()
            raise DamagedFileError(
                f"{source} is not what was exported: its sha256 is {found}, not {file.sha256}. {_AGAIN}"
            )


class _Web:
    """A bundle that a server has, as files."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def origin(self) -> str:
        return f"{self._address}/{INDEX}"

    def index(self) -> bytes:
        return fetch_small(self.origin, most=MOST_INDEX_BYTES)

    def bring(self, path: str, file: SharedFile, to: Path, progress: Bytes, say: Say) -> None:
        fetch(
            f"{self._address}/{quote(path)}",
            to,
            about=file.n_bytes,
            sha256=file.sha256,
            progress=lambda done, total: progress(done),
            say=say,
        )


_AGAIN = (
    "Copy the bundle anew; nothing of it is in the cache yet, and files that are right are not copied again."
)


def _is_there(path: Path, file: SharedFile) -> bool:
    """Whether an earlier import brought a file already."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size != file.n_bytes:
        return False
    return sha256_of(path) == file.sha256
