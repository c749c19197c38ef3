"""What a validation found, of a store or of its targets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featcache.buckets.path import BucketPath

Progress = Callable[[int, int], None]
"""Called with parts done and parts in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the validation of one store, or of one group of targets, found."""

    path: Path
    problems: tuple[str, ...]
    """One line each; none if it is what it claims."""
    notes: tuple[str, ...] = ()
    """No problem but worth knowing: magnitudes near float16's end, files set aside, what was skipped, how the
    files differ from the official ones, that there is no seal."""
    damaged: tuple[Path, ...] = ()
    """Shard files of which a chunk, or the index, is not what it should be."""
    n_shards: int = 0
    """Shard files read, of all arrays."""
    n_chunks: int = 0
    """Chunks whose checksum was right."""
    n_bytes: int = 0
    """Bytes of the files of chunks that were read."""

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def way_out(self) -> str | None:
        """What to do about damaged shards: extraction itself looks at their digests, not at every chunk."""
        if not self.damaged:
            return None
        files = " ".join(str(path) for path in self.damaged)
        remove = "delete" if isinstance(self.path, BucketPath) else "rm"
        return f"{remove} {files}\nand run the same `scivid extract` again: it makes only these shards anew."
