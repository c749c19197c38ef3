"""Paths in a bucket: a `pathlib.Path` whose questions and few commands go to the bucket's client.

So a store's code joins, lists and asks as it does on a disk. What it has to do otherwise there (publish a
file, open one, lock) is decided in the few functions that are the only ones to do it on a disk. Everything
that is not made for buckets ends at `__fspath__`, in one message: nothing takes a URL for a local name.

There are no folders in a bucket: one is there as long as there is something in it, and need not be made.
"""

import os
import posixpath
import re
import stat
from collections.abc import Callable, Generator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath

from featcache.buckets.client import Bucket, Content, Listed, bucket_at
from featcache.errors import CallError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
"""Of URLs of buckets, as obstore knows them."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)


def place(named: str | Path) -> Path:
    """What a user names: a path, or where it is the URL of something in a bucket, that.

    A URL that was taken for a path, in which two slashes are one, is known as well.

    Raises:
        CallError: it is a URL of another kind, or has no bucket, or what is not to be shown.
    """
    text = str(named)
    url = None if isinstance(named, BucketPath) else _URL.fullmatch(text)
    if url is None:
        return named if isinstance(named, Path) else Path(named)
    scheme, slashes, rest = url.groups()
    if scheme.lower() not in SCHEMES:
        if isinstance(named, str) and len(slashes) < 2:
            return Path(named)
        raise CallError(
            f"{scheme}://... is neither a folder nor a bucket: the URLs of buckets begin with "
            f"{', '.join(f'{known}://' for known in SCHEMES)}."
        )
    bucket = rest.partition("/")[0]
    if "@" in bucket and not scheme.lower().startswith("abfs"):
        raise CallError(
            f"{scheme}://...@...: the URL of a bucket has no names or keys in it; credentials are taken from "
            "the environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or from the machine."
        )
    if not bucket or re.search(r"[?#%\\\s]", rest):
        raise CallError(
            f"{scheme}://{bucket}...: write a bucket's name and folders in it, as s3://bucket/features, and "
            "nothing else."
        )
    return BucketPath(f"{scheme.lower()}:", *filter(None, rest.split("/")))


def absolute(path: Path) -> Path:
    """A path from the root, without dots; links are not followed."""
    return path.absolute() if isinstance(path, BucketPath) else Path(os.path.abspath(path))  # noqa: PTH100


def as_zarr_store(path: Path) -> object:
    """A folder as zarr-python takes it, for reading."""
    return path.bucket.zarr_store(path.key) if isinstance(path, BucketPath) else path


class BucketPath(PosixPath):
    """A path in a bucket, or the bucket; made by `place`, and by joining."""

    _listed: Listed | None = None
    """What a listing said of the object, so that it is not asked for again."""

    @property
    def bucket(self) -> Bucket:
        """The client."""
        scheme, name = self._plain[:2]
        return bucket_at(f"{scheme}//{name}")

    @property
    def key(self) -> str:
        """What the bucket calls it; "" is the bucket itself."""
        return "/".join(self._plain[2:])

    @property
    def _plain(self) -> list[str]:
        """The parts, those of a relative reference resolved."""
        scheme, *rest = self.parts
        return [scheme, *posixpath.normpath("/".join(rest)).split("/")]

    def __str__(self) -> str:
        if not self.parts or not self.parts[0].endswith(":"):  # relative to another path
            return "/".join(self.parts) or "."
        scheme, *rest = self._plain
        return f"{scheme}//{'/'.join(rest)}"

    def __fspath__(self) -> str:
        raise CallError(f"{self} lies in a bucket, and this goes with local files only: name a local folder.")

    def absolute(self) -> "BucketPath":
        """Itself, with relative references resolved."""
        return type(self)(*self._plain)

    def resolve(self, strict: bool = False) -> "BucketPath":
        """As `absolute`."""
        return self.absolute()

    def expanduser(self) -> "BucketPath":
        """Itself."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of an object, as a file's.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self._listed or self.bucket.look(self.key)
        size, when = found.size or 0, found.modified
        times = (*3 * (int(when),), *3 * (when,), *3 * (int(when * 1e9),))  # seconds, and with fractions
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, *times))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is an object, or a folder that has some."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether it is an object."""
        if self._listed is not None:
            return self._listed.size is not None
        if not self.key:
            return False
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        if self._listed is not None:
            return self._listed.size is None
        return self.bucket.holds(self.key)

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def iterdir(self) -> Generator["BucketPath", None, None]:
        """What is directly below it, by name."""
        yield from map(self._named, self.bucket.below(self.key))

    def glob(self, pattern: str) -> Generator["BucketPath", None, None]:
        """What is below it and fits a pattern, one folder's names at a time; without `**`."""
        first, _, rest = pattern.partition("/")
        for below in self.iterdir():
            if fnmatchcase(below.name, first):
                if not rest:
                    yield below
                elif below.is_dir():
                    yield from below.glob(rest)

    def rglob(self, pattern: str) -> Generator["BucketPath", None, None]:
        """What is anywhere below it with a name that fits; nothing is looked for below that."""
        for below in self.iterdir():
            if fnmatchcase(below.name, pattern):
                yield below
            elif below.is_dir():
                yield from below.rglob(pattern)

    def read_bytes(self) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        pieces: dict[int, bytes] = {}
        self.bucket.whole(self.key, lambda at, piece: pieces.update({at: bytes(piece)}))
        return b"".join(pieces[at] for at in sorted(pieces))

    def read_into(self, put: Callable[[int, Content], object], *, limit: int | None = None) -> int:
        """As `Bucket.whole`, of this object."""
        return self.bucket.whole(self.key, put, limit=limit)

    def write_whole(self, content: Content) -> None:
        """Make an object of this content, or replace the one there is, all at once."""
        self.bucket.put(self.key, content)

    def create(self, content: Content) -> bool:
        """Make an object unless there is one; whether it was made by this call."""
        return self.bucket.create(self.key, content)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing is to be made."""

    def rmdir(self) -> None:
        """Nothing is to be removed."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object, if it is there."""
        self.bucket.delete(self.key)

    def replace(self, target: str | os.PathLike[str]) -> "BucketPath":
        """Give an object another name in the same bucket.

        Raises:
            FileNotFoundError: there is none.
        """
        assert isinstance(target, type(self)), "only within a bucket"
        self.bucket.copy(self.key, target.key)
        self.unlink()
        return target

    def sizes(self) -> dict[str, int]:
        """Name of each object directly below it -> its size."""
        return {one.name: one.stat().st_size for one in self.iterdir() if one.is_file()}

    def _named(self, found: Listed) -> "BucketPath":
        below = self / posixpath.basename(found.key)
        below._listed = found
        return below
