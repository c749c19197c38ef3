"""One file from the web, in several calls if need be: it goes on where it stopped, and is checked.

Files of 15 GB come over connections that break. What has come stands in `<file>.part`, and what the server
said of it in `<file>.part.json`, so the next call asks for the rest, and notices when the file has changed;
the file's own name appears once its size, and its digest where one is known, are right.
"""

import errno
import hashlib
import http.client
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from featcache.errors import DownloadError, StoreError
from featcache.system.files import make_directory, naming, open_regular, publish, require_room, sync_directory
from featcache.system.locks import Lock

Say = Callable[[str], None]
"""Told, in a line, what a user should know although nothing failed."""

USER_AGENT = "scivid"
TIMEOUT_SECONDS = 60.0
"""Of silence, not of the whole download."""

AGAIN = "What has come is kept: the same call goes on from there."
ANEW = "The same call begins anew."

_CHUNK = 1 << 20
_LENGTH = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


def fetch(
    url: str,
    path: Path,
    *,
    about: int,
    sha256: str | None,
    progress: Callable[[int, int], None],
    say: Say,
) -> Path:
    """Bring a file here, or the rest of it; returns `path` once it is whole and right.

    Where it is there already and right, nothing is done (and nobody asked, where `sha256` is given).

    Args:
        url: of http or https.
        path: where it goes; what has come stands beside it until then.
        about: rounded size: an answer of less than half or more than twice that is some other thing.
        sha256: hex digest, where known.
        progress: told the bytes that are here, and how many there will be.
        say: told what a user should know although nothing failed.

    Raises:
        DownloadError: another file is there, or it did not come; what has come is kept for the next call,
            unless it proved wrong.
    """
    with _disk_explained(path), _alone(path):
        if path.exists() and not path.is_file():
            raise DownloadError(f"{path} is not a regular file: move it away.")
        if path.is_file():
            if sha256 is None:
                response, promise, _ = _ask(url, _Part(path), about, None, say)
                response.close()
                _refuse_other(path, promise.n_bytes, None)
            else:
                _refuse_other(path, None, sha256)
            return path
        part = _Part(path)
        if part.promise is None or part.size != part.promise.n_bytes:
            response, promise, done = _ask(url, part, about, sha256, say)
            with response:
                _receive(response, promise, done, part, progress, say)
        if sha256 is not None and sha256_of(part.path) != sha256:
            part.discard()
            raise DownloadError(
                f"what came from {url} is wrong, and removed: its sha256 is not {sha256}. Try once more; if "
                "it happens again, the file was changed there."
            )
        part.path.replace(path)
        sync_directory(path.parent)
        part.discard()
    return path


def fetch_small(url: str, *, most: int) -> bytes:
    """What a server has at an address, whole and in memory.

    Args:
        url: of http or https.
        most: bytes; more is refused.

    Raises:
        DownloadError: it did not come, or there is more of it.
    """
    response = _request(url, {}, lambda: ANEW)
    with response:
        pieces, n_bytes = list[bytes](), 0
        for chunk in _chunks(response, lambda: ANEW):
            pieces.append(chunk)
            if (n_bytes := n_bytes + len(chunk)) > most:
                raise DownloadError(f"{url} sends more than {most:,} bytes: it is some other thing.")
        length = response.headers.get("Content-Length")
        if length is not None and _LENGTH.fullmatch(length) and n_bytes != int(length):
            came = f"{n_bytes:,} of {int(length):,} bytes"
            raise DownloadError(f"{url}: the connection ended after {came}. {ANEW}")
    return b"".join(pieces)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with naming(path), open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other(path: Path, n_bytes: int | None, sha256: str | None) -> None:
    """Refuse a file that is not the one offered, which has that many bytes and that digest, where known.

    Raises:
        DownloadError: says how the two differ.
    """
    size = path.stat().st_size
    if n_bytes is not None and size != n_bytes:
        differs = f"{size:,} bytes instead of {n_bytes:,}"
    elif sha256 is not None and sha256_of(path) != sha256:
        differs = f"a sha256 other than {sha256}"
    else:
        return
    raise DownloadError(f"{path} has {differs}, so it is not the file that is offered: move it away.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Promise:
    """What a server says of a whole file."""

    n_bytes: int
    validator: str | None
    """What tells the file from a later one: its sha256 where that is known beforehand, else the server's
    strong ETag, else the time of its last change."""


class _Part:
    """What has come of a file so far."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        self.promise: _Promise | None = None
        with suppress(OSError, ValueError, TypeError):
            self.promise = _Promise(**json.loads(self.note.read_bytes()))

    @property
    def size(self) -> int:
        """Bytes that need not be asked for again: none, where nothing says of which file they are."""
        known = self.promise is not None and self.promise.validator is not None and self.path.is_file()
        return self.path.stat().st_size if known else 0

    @property
    def again(self) -> str:
        """What the next call has of it."""
        return AGAIN if self.size else ANEW

    def begin(self, promise: _Promise) -> None:
        self.discard()
        publish(self.note, json.dumps(asdict(promise)).encode())
        self.promise = promise

    def discard(self) -> None:
        # The bytes first: bytes without a note are not used, a note without bytes does no harm.
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.promise = None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The folder of `path`, and nobody else who downloads it; a folder made for nothing is removed."""
    made = not path.parent.is_dir()
    make_directory(path.parent)
    busy = f"another process is downloading {path}: wait for it, or end it."
    try:
        lock = Lock(path.with_name(f"{path.name}.part.lock"), wait=False, busy=busy)
    except StoreError as taken:
        raise DownloadError(str(taken)) from taken
    try:
        yield
    finally:
        lock.release()
        if made:
            # The loaders take a folder that is there for the user's own, and report it as incomplete.
            with suppress(OSError):
                path.parent.rmdir()


@contextmanager
def _disk_explained(path: Path) -> Iterator[None]:
    """Tell as a DownloadError what the operating system refuses; what the network does is told there."""
    try:
        yield
    except OSError as problem:
        again, part = _Part(path).again, path.with_name(f"{path.name}.part")
        why = problem.strerror or str(problem)
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            why += ": make room, or give another folder"
        raise DownloadError(f"writing {part} failed: {why}. {again}") from problem


def _ask(
    url: str, part: _Part, about: int, sha256: str | None, say: Say
) -> tuple[http.client.HTTPResponse, _Promise, int]:
    """The server's answer, what it promises of the whole file, and the byte that its answer begins with."""
    response = _open(url, part, conditional=sha256 is None)
    if response is not None:
        span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        is_rest = response.status == HTTPStatus.PARTIAL_CONTENT
        length = (span and span[2]) if is_rest else response.headers.get("Content-Length")
        if length is None or not _LENGTH.fullmatch(length):
            response.close()
            raise DownloadError(f"{url}: the server does not say how much is to come: get it by hand.")
        promise = _Promise(n_bytes=int(length), validator=sha256 or _validator(response.headers))
        if not is_rest or (span and int(span[1]) == part.size and promise == part.promise):
            _refuse_other_size(url, promise, about)
            return response, promise, part.size if is_rest else 0
        response.close()
    if not part.size:
        raise DownloadError(f"{url} answers with a piece that nobody asked for: get the file by hand.")
    say(f"{part.path.name}: the file has changed on the server since, so all of it is downloaded again.")
    part.discard()
    return _ask(url, part, about, sha256, say)


def _open(url: str, part: _Part, *, conditional: bool) -> http.client.HTTPResponse | None:
    """The server's answer; none where it cannot go on from where `part` ends."""
    headers = {}
    if part.size and part.promise is not None and part.promise.validator is not None:
        headers["Range"] = f"bytes={part.size}-"
        # Not where a digest is known: the ETags of the hub's servers differ for one file.
        if conditional:
            headers["If-Range"] = part.promise.validator
    try:
        return _request(url, headers, lambda: part.again)
    except _UnsatisfiableRangeError:
        return None


class _UnsatisfiableRangeError(Exception):
    """The server has no bytes from where it was asked for them."""


def _request(url: str, headers: Mapping[str, str], again: Callable[[], str]) -> http.client.HTTPResponse:
    """The server's answer; `again` says what the next call has of what came."""
    asked = request.Request(url, headers={"User-Agent": USER_AGENT, "Accept": "*/*", **headers})
    try:
        response: http.client.HTTPResponse = request.urlopen(asked, timeout=TIMEOUT_SECONDS)
    except HTTPError as problem:
        problem.close()
        if problem.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            raise _UnsatisfiableRangeError from problem
        raise _refused(url, problem, again()) from problem
    except (OSError, http.client.HTTPException) as problem:
        reason = getattr(problem, "reason", None) or str(problem) or type(problem).__name__
        raise DownloadError(f"{url} gave no answer: {reason}. {again()}") from problem
    if urlsplit(response.url).scheme != urlsplit(url).scheme:
        response.close()
        raise DownloadError(f"{url} leads to {response.url}, which is another protocol: not followed.")
    return response


def _refused(url: str, problem: HTTPError, again: str) -> DownloadError:
    what = f"{url}: the server says {problem.code} {problem.reason}"
    if problem.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        way_out = "The file has moved or was withdrawn: look for it at its authors', and put it by hand."
    elif problem.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        way_out = "It wants an account, or the file is withdrawn: get it by hand, with a browser."
    else:
        way_out = f"Try again later. {again}"
    return DownloadError(f"{what}. {way_out}")


def _validator(headers: http.client.HTTPMessage) -> str | None:
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _refuse_other_size(url: str, promise: _Promise, about: int) -> None:
    if not about / 2 - _CHUNK <= promise.n_bytes <= about * 2 + _CHUNK:
        raise DownloadError(
            f"{url} answers with {promise.n_bytes:,} bytes where about {about:,} are expected: perhaps a "
            "page that wants you to log in. Open it in a browser, and put the file by hand."
        )


def _receive(
    response: http.client.HTTPResponse,
    promise: _Promise,
    done: int,
    part: _Part,
    progress: Callable[[int, int], None],
    say: Say,
) -> None:
    """Write an answer that begins with byte `done` to the end of its part."""
    if not done:
        if part.size:
            say(f"{part.path.name}: the server sends all of it again, or another file than before.")
        part.begin(promise)
    what, way_out = part.path.stem, f"give another folder. {part.again}"
    missing = promise.n_bytes - done
    require_room(part.path.parent, missing, what=what, way_out=way_out, error=DownloadError)
    progress(done, promise.n_bytes)
    try:
        with part.path.open("r+b" if done else "wb") as file:
            file.seek(done)
            for chunk in _chunks(response, lambda: part.again):
                if (done := done + len(chunk)) > promise.n_bytes:
                    part.discard()
                    raise DownloadError(
                        f"{response.url} sends more than the {promise.n_bytes:,} bytes that it promised, so "
                        "it is some other file: what came is removed. Get it by hand."
                    )
                file.write(chunk)
                progress(done, promise.n_bytes)
            file.flush()
            os.fsync(file.fileno())
    except KeyboardInterrupt:
        say(f"interrupted with {done:,} bytes of {what}. {part.again}")
        raise
    if done < promise.n_bytes:
        came = f"{done:,} of {promise.n_bytes:,} bytes"
        raise DownloadError(f"{response.url}: the connection ended after {came}. {part.again}")


def _chunks(response: http.client.HTTPResponse, again: Callable[[], str]) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as problem:
        reason = str(problem) or type(problem).__name__
        raise DownloadError(f"{response.url}: the connection broke: {reason}. {again()}") from problem
