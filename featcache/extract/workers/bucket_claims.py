"""Claims in a bucket: objects that are put on condition that there are none, aged by the server's clock.

Nothing is renamed there, so a claim of somebody who is gone is deleted and put anew. Two workers who find it
at the same moment may both have it then, and one of them works for nothing: what they write is the same.
"""

import secrets
from contextlib import suppress
from pathlib import Path

from featcache.buckets.path import BucketPath
from featcache.extract.workers.claims import Claims, FileClaims, Owner


class BucketClaims(FileClaims):
    """Claims in a folder of a bucket that all workers reach."""

    def claim(self, name: str) -> bool:
        """Take a claim; whether it is ours now.

        Raises:
            BucketError: the bucket refuses, or does not answer.
        """
        path = self._at(self.folder / name)
        # A put whose answer was lost is made again, and finds itself: what is there is ours then.
        if path.create(self._content) or self._is_ours(path):
            self._hold(name)
            return True
        if self._set_aside(path, now=self._now()) and path.create(self._content):
            self._hold(name)
            return True
        return False

    def clear(self) -> None:
        """Remove the claims of all who are gone: for a store that is finished."""
        with suppress(OSError):
            now = self._now()
            for path in self.folder.iterdir():
                if not path.name.startswith("."):
                    self._set_aside(path, now=now)

    def _set_aside(self, path: Path, *, now: float) -> bool:
        """Remove a claim of somebody who is gone; whether the name is free."""
        try:
            if not self._is_free(path, now - self._at(path).refreshed().st_mtime):
                return False
        except FileNotFoundError:  # released, or another worker is about to take it
            return True
        path.unlink()
        return True

    def _touch(self, path: Path) -> None:
        self._at(path).write_whole(self._content)

    def _now(self) -> float:
        """The time by the server's clock, the only one that all workers share."""
        note = self._at(self.folder / f".{secrets.token_hex(8)}")
        note.write_whole(b"now")
        try:
            return note.stat().st_mtime
        finally:
            note.unlink()

    def _at(self, path: Path) -> BucketPath:
        assert isinstance(path, BucketPath)
        return path


def claims_in(folder: Path, owner: Owner) -> Claims:
    """The claims in a folder of a disk, or of a bucket."""
    return BucketClaims(folder, owner) if isinstance(folder, BucketPath) else FileClaims(folder, owner)
