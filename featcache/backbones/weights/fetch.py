"""One file from the web, in several calls if need be: it goes on where it stopped, and is checked.

Files of 15 GB come over connections that break. What has come stands in `<file>.part`, and what the server
said of it in `<file>.part.json`, so the next call asks for the rest, and notices when the file has changed;
the file's own name appears once its size and digest are right.
"""

import hashlib
import http.client
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from featcache.errors import CallError, StoreError, WeightsError
from featcache.system.files import Lock, make_directory, publish, require_room, sync_directory

Say = Callable[[str], None]
"""Told, in a line, what a user should know although nothing failed."""

USER_AGENT = "scivid"
TIMEOUT_SECONDS = 60.0
"""Of silence, not of the whole download."""

_PIECE = 1 << 20
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_AGAIN = "What has come is kept: the same call goes on from there."


class NotOnServerError(WeightsError):
    """The server has no such file."""


def fetch(
    url: str,
    path: Path,
    *,
    n_bytes: int | None,
    sha256: str | None,
    progress: Callable[[int, int], None],
    about: int | None = None,
    say: Say = lambda _: None,
) -> Path:
    """Bring a file here, or the rest of it; returns `path` once size and digest are right.

    Where it is there already and right, nothing is done (and nobody asked, where `sha256` is given). One that
    is there and wrong is moved to `<path>.wrong` when the right one has come.

    Args:
        url: http or https.
        path: where it goes; what has come stands beside it until then.
        n_bytes: exact size, where known; else that which the server tells.
        sha256: hex digest, where known; else that which the hub tells, if it is the hub.
        progress: told the bytes that are here, and how many there will be (0 where nobody knows).
        about: rounded size: an answer of less than half or more than twice that is some other thing.
        say: told what a user should know although nothing failed.

    Raises:
        CallError: neither http nor https.
        NotOnServerError: the server has no such file.
        WeightsError: anything else; what has come is kept for the next call, unless it proved wrong.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise CallError(f"{url} is neither http nor https: give the address of a file on the web.")
    wanted = _Promise(url=url, n_bytes=n_bytes, sha256=sha256)
    if sha256 is not None and wanted.is_kept_by(path):
        return path
    with _alone(path):
        part = _Part(path)
        if not (part.is_whole and _agrees(part.promise, wanted)):
            with _ask(wanted, part, say) as answer:
                promise = _checked(answer.promise, wanted, about)
                if promise.is_kept_by(path):
                    part.discard()
                    return path
                _receive(answer, promise, part, progress, say)
        _publish(part, wanted, path, say)
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Promise:
    """What is known of a file before all of it is here."""

    url: str
    n_bytes: int | None
    sha256: str | None
    validator: str | None = None
    """A strong ETag, else the time of the last change: how a server knows a file from a later one."""

    def is_same_file(self, other: "_Promise") -> bool:
        mine, others = ((p.url, p.n_bytes, p.sha256 or p.validator) for p in (self, other))
        return mine == others

    def is_kept_by(self, path: Path) -> bool:
        """Whether a file is the one promised, as far as anything was."""
        if (self.n_bytes is None and self.sha256 is None) or not path.is_file():
            return False
        sized = self.n_bytes is None or path.stat().st_size == self.n_bytes
        return sized and (self.sha256 is None or _digest(path) == self.sha256)


class _Part:
    """What has come of a file so far."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        self.promise = self._read_note()

    @property
    def size(self) -> int:
        """Bytes that need not be asked for again: none, where no note says of which file they are."""
        return self.path.stat().st_size if self.promise is not None and self.path.is_file() else 0

    @property
    def is_whole(self) -> bool:
        return self.promise is not None and 0 < self.size == self.promise.n_bytes

    def begin(self, promise: _Promise) -> None:
        self.discard()
        publish(self.note, json.dumps(asdict(promise)).encode())
        self.promise = promise

    def discard(self) -> None:
        # The bytes first: bytes without a note are not used, a note without bytes does no harm.
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.promise = None

    def _read_note(self) -> _Promise | None:
        try:
            promise = _Promise(**json.loads(self.note.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return promise if promise.sha256 or promise.validator else None


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects, and keeps what the hub says of a file before it sends on to another server.

    The ETag of that other server looks like a digest and is none; some send neither ETag nor date.
    """

    def __init__(self) -> None:
        self.sha256: str | None = None
        self.n_bytes: int | None = None

    def redirect_request(
        self,
        req: request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> request.Request | None:
        """As the standard library does, but never from https to http."""
        if req.type == "https" and not newurl.startswith("https:"):
            fp.close()
            raise WeightsError(f"{req.full_url} redirects to {newurl}, which is not https: not followed.")
        self.note(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def note(self, headers: http.client.HTTPMessage) -> None:
        digest = _SHA256.fullmatch(headers.get("X-Linked-Etag", ""))
        self.sha256 = digest[1] if digest else self.sha256
        self.n_bytes = _count(headers.get("X-Linked-Size")) or self.n_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """A server's answer: what it promises of the whole file, and the bytes from `offset` on."""

    response: http.client.HTTPResponse
    promise: _Promise
    offset: int


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The folder of `path`, and nobody else who downloads it; a folder made for nothing is removed."""
    made = not path.parent.is_dir()
    make_directory(path.parent)
    busy = f"another process is downloading {path}: wait for it, or end it."
    try:
        lock = Lock(path.with_name(f"{path.name}.part.lock"), wait=False, busy=busy)
    except StoreError as taken:
        raise WeightsError(str(taken)) from taken
    try:
        yield
    finally:
        lock.release()
        if made:
            # The loaders take a folder that is there for the user's own, and report it as incomplete.
            with suppress(OSError):
                path.parent.rmdir()


@contextmanager
def _ask(wanted: _Promise, part: _Part, say: Say) -> Iterator[_Answer]:
    """Ask for what `part` lacks; for all of it where the server has another file by now."""
    answer = _open(wanted.url, part)
    if answer is None or (answer.offset and not answer.promise.is_same_file(part.promise or wanted)):
        say(f"{part.path.name}: the file has changed on the server since, so all of it is downloaded again.")
        if answer is not None:
            answer.response.close()
        part.discard()
        answer = _open(wanted.url, part)
    if answer is None:
        raise WeightsError(f"{wanted.url} answers with a piece that nobody asked for: get the file by hand.")
    with answer.response:
        yield answer


def _open(url: str, part: _Part) -> _Answer | None:
    """The server's answer; none where it cannot go on from where `part` ends."""
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
    if part.size and part.promise is not None:
        headers["Range"] = f"bytes={part.size}-"
        # Not where the hub tells a digest: it comes with every answer, and ETags differ between its servers.
        if part.promise.sha256 is None and part.promise.validator is not None:
            headers["If-Range"] = part.promise.validator
    redirects = _Redirects()
    try:
        response = _opener(redirects).open(request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as problem:
        problem.close()
        if problem.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
            return None
        raise _refused(url, problem) from problem
    except (OSError, http.client.HTTPException) as problem:
        reason = getattr(problem, "reason", None) or str(problem) or type(problem).__name__
        raise WeightsError(f"{url} gave no answer: {reason}. {_AGAIN}") from problem
    redirects.note(response.headers)
    whole = response.status != HTTPStatus.PARTIAL_CONTENT
    span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not whole and (span is None or int(span[1]) != part.size):
        response.close()
        return None
    length = _count(response.headers.get("Content-Length") if whole else span and span[2])
    promise = _Promise(
        url=url,
        n_bytes=redirects.n_bytes if length is None else length,
        sha256=redirects.sha256,
        validator=_validator(response.headers),
    )
    return _Answer(response=response, promise=promise, offset=0 if whole else part.size)


def _opener(redirects: _Redirects) -> request.OpenerDirector:
    # By hand, since the library's own would follow a redirect to ftp as well.
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(), request.HTTPHandler(), request.HTTPSHandler(), request.UnknownHandler(),
        request.HTTPDefaultErrorHandler(), redirects, request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _refused(url: str, problem: HTTPError) -> WeightsError:
    what = f"{url}: the server says {problem.code} {problem.reason}"
    if problem.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotOnServerError(
            f"{what}. The file has moved or was withdrawn: look for it at its authors', and put it by hand."
        )
    if problem.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return WeightsError(
            f"{what}. It wants an account, or the file is withdrawn: get it by hand, with a browser."
        )
    return WeightsError(f"{what}. Try again later. {_AGAIN}")


def _validator(headers: http.client.HTTPMessage) -> str | None:
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _checked(promise: _Promise, wanted: _Promise, about: int | None) -> _Promise:
    """What the server promises, with what was known before; refuses a file that cannot be the right one."""
    if not _agrees(promise, wanted):
        raise WeightsError(
            f"{wanted.url} is not the file that is wanted: the server has {_described(promise)}, "
            f"wanted is {_described(wanted)}. It was changed there: look for the right one yourself."
        )
    n_bytes = promise.n_bytes
    if n_bytes is not None and about is not None and not about / 2 - _PIECE <= n_bytes <= about * 2 + _PIECE:
        raise WeightsError(
            f"{wanted.url} answers with {n_bytes:,} bytes where about {about:,} are expected: perhaps a page "
            "that wants you to log in. Open it in a browser, and put the file by hand."
        )
    return _merged(promise, wanted)


def _merged(promise: _Promise, wanted: _Promise) -> _Promise:
    # Not noted beside the part: what a server says of itself tells whether it has changed since.
    n_bytes = wanted.n_bytes if promise.n_bytes is None else promise.n_bytes
    return replace(promise, n_bytes=n_bytes, sha256=wanted.sha256 or promise.sha256)


def _agrees(promise: _Promise | None, wanted: _Promise) -> bool:
    return promise is not None and all(
        None in (told, known) or told == known
        for told, known in ((promise.n_bytes, wanted.n_bytes), (promise.sha256, wanted.sha256))
    )


def _receive(
    answer: _Answer, promise: _Promise, part: _Part, progress: Callable[[int, int], None], say: Say
) -> None:
    if promise.n_bytes is None and promise.sha256 is None and not answer.response.chunked:
        raise WeightsError(f"{promise.url}: the server does not say how much is to come: get it by hand.")
    if not answer.offset:
        if part.size:
            say(f"{part.path.name}: the server sends all of it again, or another file than before.")
        part.begin(answer.promise)
    require_room(
        part.path.parent,
        (promise.n_bytes or 0) - answer.offset,
        what=part.path.stem,
        way_out=f"give another folder. {_AGAIN}",
        error=WeightsError,
    )
    done, total = answer.offset, promise.n_bytes or 0
    progress(done, total)
    try:
        with part.path.open("r+b" if answer.offset else "wb") as file:
            file.seek(done)
            for piece in _pieces(answer.response):
                file.write(piece)
                done += len(piece)
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    except KeyboardInterrupt:
        say(f"interrupted with {done:,} bytes of {part.path.stem}. {_AGAIN}")
        raise
    except OSError as problem:
        raise WeightsError(f"writing {part.path} failed: {problem}. {_AGAIN}") from problem
    if done < total:
        raise WeightsError(f"{promise.url}: the connection ended after {done:,} of {total:,} bytes. {_AGAIN}")


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read(_PIECE):
            yield piece
    except (OSError, http.client.HTTPException) as problem:
        reason = str(problem) or type(problem).__name__
        raise WeightsError(f"{response.url}: the connection broke: {reason}. {_AGAIN}") from problem


def _publish(part: _Part, wanted: _Promise, path: Path, say: Say) -> None:
    """Check what has come, and give it its name."""
    assert part.promise is not None, "a whole part has its note"
    promise = _merged(part.promise, wanted)
    if (promise.n_bytes or promise.sha256) and not promise.is_kept_by(part.path):
        found = replace(promise, n_bytes=part.path.stat().st_size, sha256=_digest(part.path))
        part.discard()
        raise WeightsError(
            f"what came from {promise.url} is wrong, and removed: {_described(found)} instead of "
            f"{_described(promise)}. Try once more; if it happens again, the file was changed there."
        )
    if path.is_file() and _digest(path) != _digest(part.path):
        names = (path.with_name(f"{path.name}.wrong{number or ''}") for number in count())
        aside = next(name for name in names if not name.exists())
        path.replace(aside)
        say(f"{path} was not the file that is offered: it is {aside.name} now.")
    part.path.replace(path)
    sync_directory(path.parent)
    part.discard()


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _described(promise: _Promise) -> str:
    size = "any size" if promise.n_bytes is None else f"{promise.n_bytes:,} bytes"
    return f"{size} with {'any digest' if promise.sha256 is None else f'sha256 {promise.sha256}'}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
