"""Claims in a bucket, which renames nothing: whoever takes one over adds the next number to its name.

All that is asked of the bucket is to create an object only where there is none, and to list what is there.
The object with the highest number is the claim; its time is that of its last put, by the bucket's own clock.
"""

import secrets
from contextlib import suppress
from pathlib import Path

from featcache.buckets.path import BucketPath
from featcache.extract.workers.claims import TRIES, Claims, FileClaims, Owner


def claims_at(folder: Path, owner: Owner) -> Claims:
    """The claims of a store, on a disk or in a bucket."""
    return BucketClaims(folder, owner) if isinstance(folder, BucketPath) else FileClaims(folder, owner)


class BucketClaims(FileClaims):
    """Claims below a path in a bucket that all workers reach."""

    def __init__(self, folder: BucketPath, owner: Owner) -> None:
        super().__init__(folder, owner)
        self._below = folder
        self._numbers: dict[str, int] = {}
        """Claim that we have -> the number that it has as ours."""

    def claim(self, name: str) -> bool:
        """Take a claim; whether it is ours now.

        Raises:
            OSError: the bucket refuses.
        """
        for _ in range(TRIES):
            numbers = sorted(int(found.suffix[1:]) for found in self._below.glob(f"{name}.*"))
            try:
                if numbers and not self._is_over(self._at(name, numbers[-1])):
                    return False
            except FileNotFoundError:  # released meanwhile
                continue
            number = numbers[-1] + 1 if numbers else 0
            path = self._at(name, number)
            # A put that was made and whose answer was lost is tried again, and finds itself.
            if not path.create(self._content) and not self._is_ours(path):
                return False
            self._numbers[name] = number
            self._hold(name)
            for earlier in numbers:
                self._at(name, earlier).unlink()
            return True
        return False

    def release(self, name: str) -> None:
        """Let go of a claim, if it is still ours."""
        with self._guard:
            self._held.discard(name)
            number = self._numbers.pop(name, None)
            with suppress(OSError):  # it is not touched any more, and so is found to be nobody's
                if number is not None and self._is_ours(path := self._at(name, number)):
                    path.unlink()

    def close(self) -> None:
        """Let go of all claims."""
        self._closed.set()
        self.release_all()

    def clear(self) -> None:
        """Remove all claims, whoever has them: for a store that is finished, where they say nothing."""
        for path in self._below.iterdir():
            path.unlink()

    def _at(self, name: str, number: int) -> BucketPath:
        return self._below / f"{name}.{number}"

    def _is_over(self, path: BucketPath) -> bool:
        if self._is_free(path, seconds=0.0):
            return True
        note = self._below / f"now-{secrets.token_hex(8)}"
        note.write_whole(b"now")
        seconds = note.stat().st_mtime - path.stat().st_mtime
        note.unlink()
        return seconds > self.expires

    def _touch(self, name: str) -> None:
        path = self._at(name, self._numbers[name])
        if self._is_ours(path):
            path.write_whole(self._content)
