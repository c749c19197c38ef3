"""The official bucket's containers: which ArrayRecord files make a split, and random access to their records.

Two things need care. A split is complete only with all of its `-of-NNNNN` files, whatever NNNNN is. And
array_record opens a missing, cut or foreign file without a word and then reads nothing from it, so every
file is asked whether it is well before it is used.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shlex import quote
from string import Formatter

from array_record.python.array_record_module import ArrayRecordReader

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.recent import Recent
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, Split
from featcache.system.files import open_regular

OPEN_SHARDS = 64
"""Files kept open: a split has up to 1024, more than many systems allow a process."""

# With read-ahead or a thread pool of its own, a reader hangs now and then in a forked process.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_PIECE = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFiles:
    """What was found of a split's record files."""

    dataset: Dataset
    split: Split
    data_dir: Path
    n_shards: int
    """The number after `-of-`; of the official release where no file was found."""
    found: tuple[str, ...]
    """Paths below the data folder, in order of their shard numbers."""
    missing: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """What is missing and how to get it, or None."""
        if not self.missing:
            return None
        names = ", ".join(islice(map(_file_name, self.missing), 3))
        more = f" and {len(self.missing) - 3} more" if len(self.missing) > 3 else ""
        have = f"{self.dataset.name}/{self.split.name} has {len(self.found)} of its {self.n_shards} files"
        elsewhere = "" if self.found else "If they are in another data folder, name it: SCIVID_DATA_DIR. "
        way_out = self.way_out(*self.missing)
        return f"{have} below {self.data_dir}; missing: {names}{more}. {elsewhere}{way_out}"

    @property
    def notes(self) -> tuple[str, ...]:
        """That this is not the official number of files, where it is not."""
        if not self.found or self.n_shards == self.split.n_shards or self.split.n_shards is None:
            return ()
        found = f"{self.n_shards} shard{'s' * (self.n_shards != 1)} found"
        return (f"{self.split.name}: {found}, the official release has {self.split.n_shards}.",)

    def path(self, source: str) -> Path:
        """Where the file `source` of the split is."""
        return self.data_dir / source

    def way_out(self, *sources: str) -> str:
        """How to get these files again."""
        official = self.split.n_shards in (None, self.n_shards)
        if self.dataset.bucket is None or not official:
            return (
                f"Copy it again from where this split's {self.n_shards} came, or see {self.dataset.source}."
            )
        name = _file_name(sources[0])
        if len(sources) > 1:
            name = _file_name(self.split.files).partition("{")[0] + "*"
        official_files = quote(f"{self.dataset.bucket}/{name}")
        folder = quote(str(self.path(sources[0]).parent))
        return f"Get it: mkdir -p {folder} && gcloud storage cp {official_files} {folder}/"

    def fault(self, source: str, problem: UnreadableError) -> str:
        """The message for a file of the split that cannot be used."""
        return f"{self.path(source)}: {problem}. {self.way_out(source)}"


def find_shards(dataset: Dataset, split: Split, data_dir: Path) -> ShardFiles:
    """Look for the files of a split: the one set of `-of-NNNNN` files that is complete, or comes closest.

    Raises:
        CallError: the manifest's `files` has no field for the shard's number and the number of shards.
        DataError: two complete sets lie side by side.
    """
    pattern = _shard_pattern(dataset, split)
    folder = data_dir / Path(split.files).parent
    sets: dict[int, list[int]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:  # noqa: PTH208
        if found := pattern.fullmatch(name):
            shard, n_shards = int(found["shard"]), int(found["n_shards"])
            if shard < n_shards and _file_name(split.files.format(shard=shard, n_shards=n_shards)) == name:
                sets.setdefault(n_shards, []).append(shard)
    complete = sorted(n for n, shards in sets.items() if len(shards) == n)
    if len(complete) > 1:
        raise DataError(
            f"{folder} holds {split.name} twice, in {complete[0]} and {complete[1]} files: move one set away."
        )
    n_shards = complete[0] if complete else max(sets, key=lambda n: len(sets[n]), default=split.n_shards or 1)
    present = set(sets.get(n_shards, []))
    names = [split.files.format(shard=shard, n_shards=n_shards) for shard in range(n_shards)]
    return ShardFiles(
        dataset=dataset,
        split=split,
        data_dir=data_dir,
        n_shards=n_shards,
        found=tuple(name for shard, name in enumerate(names) if shard in present),
        missing=tuple(name for shard, name in enumerate(names) if shard not in present),
    )


def _shard_pattern(dataset: Dataset, split: Split) -> re.Pattern[str]:
    """The file names that `split.files` stands for."""
    pieces, fields = [], []
    for literal, name, _, _ in Formatter().parse(_file_name(split.files)):
        pieces.append(re.escape(literal))
        if name is not None:
            fields.append(name)
            pieces.append(rf"(?P<{name}>\d+)")
    if sorted(fields) != ["n_shards", "shard"]:
        raise CallError(
            f"manifest, datasets.{dataset.name}.splits.{split.name}.files: {split.files!r} must end in a "
            "file name with {shard:05d} and {n_shards:05d}, each once."
        )
    return re.compile("".join(pieces))


def _file_name(source: str) -> str:
    return source.rpartition("/")[2]


class RecordFiles:
    """Records by (file, number), from any thread of any process; each keeps at most `capacity` files open."""

    def __init__(self, capacity: int = OPEN_SHARDS) -> None:
        self._capacity = capacity
        self._readers = Recent(_open, capacity=capacity)

    def __reduce__(self) -> tuple[type["RecordFiles"], tuple[int]]:
        return RecordFiles, (self._capacity,)

    def n_records(self, path: Path) -> int:
        """Records in a file, which may be none.

        Raises:
            WholeFileError: the file cannot be opened, or is not a whole ArrayRecord file.
        """
        return int(self._readers.get(path).num_records())

    def read(self, path: Path, record: int) -> bytes:
        """The bytes of one record.

        Raises:
            WholeFileError: the file cannot be opened or read, or has no such record.
            UnreadableError: it is damaged there.
        """
        with suppress(RuntimeError):
            if data := _record(self._readers.get(path), record):
                return data
        # Wrong bytes, a disk that did not give them, a file cut since it was opened (then array_record hands
        # out nothing and says nothing): the record is at fault only if a readable file shows it again.
        _require_readable(path)
        self._readers.forget(path)
        try:
            return _record(self._readers.get(path), record)
        except RuntimeError as problem:
            raise UnreadableError(f"it is damaged ({problem})") from None


def _record(reader: ArrayRecordReader, record: int) -> bytes:
    # An index past the end is not an error to array_record: it hands out empty bytes.
    if not 0 <= record < reader.num_records():
        raise WholeFileError(f"it has {reader.num_records()} records")
    (data,) = reader.read([record])
    return bytes(data)


def _require_readable(path: Path) -> None:
    """Read all of a file, for nothing but the operating system's word that it can be read."""
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_PIECE):
                pass
    except OSError as problem:
        raise WholeFileError(f"it cannot be read ({problem.strerror})") from None


def _open(path: Path) -> ArrayRecordReader:
    try:
        # array_record would wait for a pipe's writer without end.
        with open(path, "rb", opener=open_regular) as file:
            n_bytes = os.fstat(file.fileno()).st_size
    except OSError as problem:
        raise WholeFileError(f"it cannot be opened ({problem.strerror})") from None
    reader = ArrayRecordReader(str(path), _READER_OPTIONS)
    if not reader.ok():
        raise WholeFileError(f"its {n_bytes} bytes are no whole ArrayRecord file: cut short or another kind")
    return reader
