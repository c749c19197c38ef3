"""One client for each bucket and process: requests that are tried again, and refusals as one message each.

The only file that imports obstore. Credentials are found by it, as the SDKs find theirs: in the environment,
or by the role of the machine. They are never in a URL, and what a server says is shown without them.

A request that finds no answer, or is told to come back, is made again after a pause that doubles, for
`PATIENCE` seconds: a network that was cut for a while costs that while. Before a bucket has answered once it
is more likely to be misnamed than cut off, so patience is shorter then.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from featcache.errors import CallError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PATIENCE, FIRST_PATIENCE = 300.0, 20.0
"""Seconds in which a request is tried again, and those of the first to a bucket."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a request is made again; they double."""

SECONDS_IN_SILENCE = 3.0
"""After which it is said that a bucket does not answer."""

PIECE = 16 * 2**20
"""Bytes of the largest request: what is longer is asked for in such pieces, side by side."""

PIECES_AT_ONCE = 8

READ_SECONDS, WRITE_SECONDS = 60, 900
"""For a request of at most `PIECE` bytes to be answered in full, and for a whole file to be taken."""

SECRETS = ("KEY", "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL", "SAS")
"""What the name of an environment variable contains of whose value nothing is shown."""

_LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")

Content = bytes | memoryview
"""Of an object, or a piece of it."""


class BucketError(OSError):
    """What a bucket refuses, or that it does not answer, with the way out."""

    def __init__(self, what: str, url: str) -> None:
        super().__init__(errno.EREMOTEIO, what, url)


class NoCredentialsError(BucketError):
    """Nothing was found that says who is asking."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, or what stands for a folder: a name that others begin with."""

    key: str
    size: int | None
    """Bytes; None of a folder."""
    modified: float = 0.0
    """Seconds since 1970, by the server's clock."""


class Bucket:
    """What is asked of one bucket, from any number of threads."""

    def __init__(self, root: str) -> None:
        """`root` is the URL of the bucket alone."""
        self.root = root
        self._reading, self._writing = (
            # Tried again is by us, who say so.
            _store(root, seconds, retry_config={"max_retries": 0})
            for seconds in (READ_SECONDS, WRITE_SECONDS)
        )
        self._answered = self._told = False
        self._lock = Lock()

    def look(self, key: str) -> Listed:
        """Size and time of an object.

        Raises:
            FileNotFoundError: there is none.
            BucketError: the bucket refuses, or does not answer; so of all others.
        """
        import obstore

        return _listed(self._ask(key, lambda: obstore.head(self._reading, key)))

    def range(self, key: str, start: int, length: int) -> memoryview:
        """The bytes of an object from `start`, of which there are so many; at most `PIECE` of them at a time.

        Raises:
            FileNotFoundError: there is no such object.
        """
        import obstore

        found = self._ask(key, lambda: obstore.get_range(self._reading, key, start=start, length=length))
        return memoryview(found)

    def end(self, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of an object, fewer where it is shorter, and its size.

        Raises:
            FileNotFoundError: there is no such object.
        """
        import obstore

        def ask() -> tuple[bytes, int]:
            found = obstore.get(self._reading, key, options={"range": {"suffix": length}})
            return bytes(found.bytes()), found.meta["size"]

        return self._ask(key, ask)

    def whole(self, key: str, put: Callable[[int, Content], object], *, limit: int | None = None) -> int:
        """Hand the bytes of an object to `put`, each piece with its offset, from a few threads; their number.

        Args:
            key: of the object.
            put: takes offset and bytes.
            limit: of a longer object nothing is read.

        Raises:
            FileNotFoundError: there is no such object.
        """
        import obstore

        def first() -> tuple[memoryview | None, int]:
            found = obstore.get(self._reading, key)
            size = found.meta["size"]
            return (memoryview(found.bytes()) if size <= PIECE else None), size

        content, size = self._ask(key, first)
        if limit is not None and size > limit:
            return size
        if content is not None:
            put(0, content)
            return size
        with ThreadPoolExecutor(PIECES_AT_ONCE, "download") as pool:
            starts = range(0, size, PIECE)
            list(pool.map(lambda at: put(at, self.range(key, at, min(PIECE, size - at))), starts))
        return size

    def put(self, key: str, content: Content) -> None:
        """Write an object whole: nobody ever sees a part of it, whatever becomes of this process."""
        import obstore

        self._ask(key, lambda: obstore.put(self._writing, key, content, use_multipart=False))

    def create(self, key: str, content: Content) -> bool:
        """Write an object unless there is one; whether it was written by this call."""
        import obstore

        try:
            self._ask(
                key, lambda: obstore.put(self._writing, key, content, mode="create", use_multipart=False)
            )
        except FileExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        with suppress(FileNotFoundError):
            self._ask(key, lambda: obstore.delete(self._reading, key))

    def copy(self, key: str, to: str) -> None:
        """Give an object's content another name, too.

        Raises:
            FileNotFoundError: there is no such object.
        """
        import obstore

        self._ask(key, lambda: obstore.copy(self._writing, key, to))

    def below(self, prefix: str) -> list[Listed]:
        """The objects and folders directly in a folder, by name."""
        import obstore

        found = self._ask(prefix, lambda: obstore.list_with_delimiter(self._reading, prefix or None))
        folders = [Listed(str(key), None) for key in found["common_prefixes"]]
        return sorted([*folders, *map(_listed, found["objects"])], key=lambda one: one.key)

    def all_below(self, prefix: str) -> list[Listed]:
        """The objects in a folder and in the folders in it."""
        import obstore

        def ask() -> list[Any]:
            return [one for some in obstore.list(self._reading, prefix or None) for one in some]

        return sorted(map(_listed, self._ask(prefix, ask)), key=lambda one: one.key)

    def holds(self, prefix: str) -> bool:
        """Whether there is anything in a folder, which is all that a folder is."""
        import obstore

        def ask() -> bool:
            return any(len(some) for some in obstore.list(self._reading, prefix or None, chunk_size=1))

        return self._ask(prefix, ask)

    def zarr_store(self, prefix: str) -> object:
        """A folder as zarr-python's store, for reading."""
        from zarr.storage import ObjectStore

        return ObjectStore(_store(f"{self.root}/{prefix}", READ_SECONDS), read_only=True)

    def _ask(self, key: str, request: Callable[[], Answer]) -> Answer:
        """The answer to a request, made again for as long as there is hope."""
        url, began, pause = f"{self.root}/{key}", time.monotonic(), FIRST_PAUSE
        while True:
            try:
                answer = request()
            except Exception as problem:
                refused, reason = _explained(problem, url)
            else:
                self._note_answer()
                return answer
            if isinstance(refused, NoCredentialsError) and self._answered:
                refused = None  # the machine's role is asked for again, and that service is away for a moment
            if refused is not None:
                self._answered |= not isinstance(refused, BucketError)
                # Not `from`: what obstore says shows requests and answers at length.
                raise refused from None
            waited = time.monotonic() - began
            patience = PATIENCE if self._answered else FIRST_PATIENCE
            if waited > patience:
                raise BucketError(
                    f"the server did not answer for {waited:.0f} s ({reason}): see to the network, and to "
                    "the endpoint (AWS_ENDPOINT_URL), and run the same command again",
                    url,
                ) from None
            self._note_silence(waited, reason, patience)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note_answer(self) -> None:
        self._answered = True
        if self._told:
            with self._lock:
                told, self._told = self._told, False
            if told:
                _LOG.warning(f"{self.root} answers again")

    def _note_silence(self, waited: float, reason: str, patience: float) -> None:
        if waited < SECONDS_IN_SILENCE:
            return
        with self._lock:
            told, self._told = self._told, True
        if not told:
            _LOG.warning(f"{self.root} does not answer ({reason}): trying for {patience:.0f} s")


def bucket_at(root: str) -> Bucket:
    """The client of this process for the bucket with the URL `root`.

    Raises:
        CallError: it is no bucket's URL, or obstore is not installed.
    """
    return _bucket(root, os.getpid())


@cache
def _bucket(root: str, process: int) -> Bucket:
    # By process, for what a forked child inherits of a client does not work.
    return Bucket(root)


def _store(root: str, seconds: int, **options: Any) -> "ObjectStore":
    """A client of obstore for a bucket, or a folder in it, each of whose requests has so many seconds."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise CallError(
            f"{root}: object stores need obstore, which is not installed: pip install 'scivid[cloud]'."
        ) from None
    insecure = any(value.startswith("http://") for name, value in os.environ.items() if "ENDPOINT" in name)
    options["client_options"] = {"timeout": timedelta(seconds=seconds), "allow_http": insecure}
    if root.startswith(("s3:", "s3a:")):
        # Servers other than Amazon's often lack it.
        options["disable_bulk_delete"] = True
    try:
        return from_url(root, **options)
    except Exception as problem:
        raise CallError(
            f"{root} cannot be used as a bucket: {_shown(problem)}. Its name comes after the two slashes; "
            "what else a provider wants to know (account, region, endpoint) is taken from the environment."
        ) from None


def _listed(meta: Any) -> Listed:
    modified: datetime = meta["last_modified"]
    return Listed(str(meta["path"]), int(meta["size"]), modified.astimezone(UTC).timestamp())


def _explained(problem: Exception, url: str) -> tuple[OSError | None, str]:
    """What to raise of a request that failed, None if it is to be made again; and why, in few words."""
    kind, said, reason = type(problem).__name__, str(problem), _shown(problem)
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", said)) else None
    if "NoSuchBucket" in said or "The specified bucket does not exist" in said:
        return BucketError(
            "there is no such bucket: see to its name, and to the account's region", url
        ), reason
    if isinstance(problem, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object", url), reason
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return FileExistsError(errno.EEXIST, "there is such an object", url), reason
    of_the_role = "169.254." in said or "metadata.google" in said
    if of_the_role or (status is None and "credential" in said.replace(url.split("/", 3)[3], "").lower()):
        return NoCredentialsError(
            "no credentials were found that it accepts: set them in the environment (for S3 "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION; those of a profile by "
            "`eval $(aws configure export-credentials --format env)`), or run on a machine whose role has "
            "them",
            url,
        ), reason
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403):
        return BucketError(
            f"the server refuses access ({reason}): the credentials of the environment, or of the machine's "
            "role, may not do that in this bucket, or are not for this server",
            url,
        ), reason
    if isinstance(problem, ValueError | TypeError):
        return BucketError(f"is no name that an object can have ({reason})", url), reason
    if status is not None and status < 500 and status not in (408, 425, 429):
        return BucketError(
            f"the server refuses ({reason}): see to bucket, region (AWS_REGION) and endpoint", url
        ), reason
    if status in (501, 505) or kind in ("NotSupportedError", "NotImplementedError"):
        return BucketError(f"the server does not know such a request ({reason})", url), reason
    return None, reason


def _shown(problem: Exception) -> str:
    """What went wrong, in a few words, without what is nobody's business."""
    line = str(problem).split("\n")[0]
    found = re.search(r"status code: (\d{3}[^:<]*)", line)
    code = re.search(r"<Code>(\w+)</Code>", str(problem))
    if found:
        line = f"{found[1].strip()}{f', {code[1]}' if code else ''}"
    line = re.sub(r"^.*?( - |: )(?=HTTP error|error )", "", line)
    line = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1", line)
    return without_secrets(line)[:200]


def without_secrets(text: str) -> str:
    """A text in which no secret of the environment stands."""
    for name, value in os.environ.items():
        if len(value) >= 8 and any(word in name.upper() for word in SECRETS):
            text = text.replace(value, "***")
    return text
