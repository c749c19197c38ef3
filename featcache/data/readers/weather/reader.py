"""Weather fields on a regular time axis in one Zarr store (WeatherBench 2): a clip is a window of time steps.

Neighbouring windows share all of their frames but one or two, so fields are read by time step and kept for a
while: a pass over the windows in order decodes each step about once. What is to be forecast are fields as
well, so a window has no targets of its own; they are asked for by time step, once each.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from math import prod
from pathlib import Path
from shlex import quote

import numpy as np
from jaxtyping import Float32, Int, Int64

from featcache.clips import Clip
from featcache.data.readers.base import (
    FrameNumbers,
    Progress,
    Scan,
    SplitStatus,
    UnreadableError,
    UnreadableFileError,
    WholeFileError,
    scan_in_blocks,
)
from featcache.data.readers.recent import Recent
from featcache.data.readers.weather.containers import container_of, open_field_files
from featcache.data.readers.weather.fields import FieldStore, open_fields
from featcache.data.readers.weather.windows import hour, plan_windows
from featcache.errors import CallError, DataError
from featcache.manifest import OWN_FIELDS, Dataset, Split, Windows

CACHE_BYTES = 64 * 2**20
"""Decoded time steps that a process keeps: 85 of the official grid, and two interleaved windows have 64."""

_BLOCK = 512
"""Windows a thread scans before it reports."""


class WeatherZarrReader:
    """One split of a store of weather fields; the interface is `base.Reader`, and fields by time step."""

    def __init__(self, dataset: Dataset, split: str, data_dir: Path) -> None:
        self._arguments = (dataset, split, data_dir)
        self._location = _find_store(dataset, dataset.split(split), data_dir)
        windows = _checked_windows(dataset, self._location.split)
        with self._location.named():
            self._store = self._location.opened()
            self._plan = plan_windows(self._store.times, windows)
        self._steps = Recent(
            self._store.decode, capacity=max(1, CACHE_BYTES // (4 * prod(self._store.shape)))
        )

    def __reduce__(self) -> tuple[type["WeatherZarrReader"], tuple[Dataset, str, Path]]:
        return WeatherZarrReader, self._arguments

    @staticmethod
    def status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """What there is of a split: its time axis, and the sizes of the files its windows need."""
        files, n_found = dataset.split(split).files, 0
        try:
            n_found = len(_find_store(dataset, dataset.split(split), data_dir).paths)
            reader = WeatherZarrReader(dataset, split, data_dir)
            with reader._location.named():
                n_bytes = reader._store.n_bytes(np.unique(reader._plan.frames(reader._plan.starts)))
        except DataError as problem:
            return SplitStatus(files=files, n_found=n_found, n_expected=1, problems=(str(problem),))
        return SplitStatus(
            files=files,
            n_found=n_found,
            n_expected=n_found,
            n_clips=len(reader._plan.starts),
            n_bytes=n_bytes,
            notes=reader._notes(),
        )

    @property
    def latitude(self) -> Float32[np.ndarray, " Y"]:
        """Degrees north of each row, from south to north; many files, ERA5's own, have them the other way."""
        return self._store.latitude

    @property
    def longitude(self) -> Float32[np.ndarray, " X"]:
        """Degrees east of each column, ascending."""
        return self._store.longitude

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All windows in order of time, none skipped. See `base.Reader.scan`.

        Reads only the fields of the first and the last frame, and the size of every file that a window needs;
        a window's digest is of these, of its times, the grid, and the metadata of the arrays. So it notices
        other times, another grid or encoding, and files that were exchanged or cut short, but not values that
        changed in the middle of the series in files that kept their sizes. These two frames are held against
        mean and standard deviation in the manifest; a value that cannot be, anywhere, shows when it is read.
        """
        del skip_bad
        starts = self._plan.starts
        with self._location.named():
            ends = self._plan.frames(starts[[0, -1]])
            common = self._store.digest_of([int(ends[0, 0]), int(ends[-1, -1])])
        blocks = [starts[at : at + _BLOCK] for at in range(0, len(starts), _BLOCK)]
        scan = partial(self._scan_block, common=common)
        found = scan_in_blocks(blocks, scan, n_clips=len(starts), progress=progress)
        return replace(found, notes=self._notes())

    def read(self, clip: Clip, frames: FrameNumbers) -> Float32[np.ndarray, "F Y X C"]:
        """Some frames of a window, in the unit they are stored in. See `base.Reader.read`."""
        return self.fields(self.time_steps(clip, frames))

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """Nothing: what is to be forecast are fields as well, which many windows share; see `fields`."""
        del clip
        return {}

    def time_steps(self, clip: Clip, frames: FrameNumbers) -> Int64[np.ndarray, " F"]:
        """Indices of a window's frames in the store's whole time axis.

        Raises:
            UnreadableFileError: the store has another time there than when it was scanned.
            DataError: the window has no such frame.
        """
        numbers = np.asarray(frames, np.int64)
        with self._location.named(f"window {clip.id}"):
            outside = numbers[(numbers < 0) | (numbers >= clip.n_source)]
            if outside.size:
                raise UnreadableError(f"it has {clip.n_source} frames, {outside[0]} is not one of them")
            steps: np.ndarray = clip.record + self._plan.stride * numbers
            self._require_steps(np.append(steps, clip.record))
            found = hour(self._store.times[clip.record])
            if found != clip.id:
                raise WholeFileError(f"step {clip.record} of its time axis is {found} now; scan it again")
            return steps

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """A frame is what it is at its time. See `base.Reader`."""
        return [step.to_bytes(16, "little") for step in self.time_steps(clip, frames).tolist()]

    def fields(self, steps: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n Y X C"]:
        """Fields at these steps of the whole time axis, in their order, channels as in `Dataset.variables`.

        Raises:
            UnreadableFileError: a file is missing, or cannot be decoded.
            DataError: a field is not finite everywhere; names time and variable.
        """
        values = np.empty((len(steps), *self._store.shape), np.float32)
        with self._location.named(or_skip=" Or leave such windows out with --skip-bad."):
            self._require_steps(steps)
            for position, step in enumerate(steps.tolist()):
                values[position] = self._steps.get(step)
        return values

    def times(self, steps: Int[np.ndarray, " n"]) -> np.ndarray:
        """When these steps of the whole time axis are: datetime64[h] [n], UTC."""
        times: np.ndarray = self._store.times[steps].astype("datetime64[h]")
        return times

    def _scan_block(self, starts: Int64[np.ndarray, " b"], common: bytes) -> list[Clip]:
        frames = self._plan.frames(starts)
        steps, at = np.unique(frames, return_inverse=True)
        with self._location.named():
            sizes = self._store.file_bytes(steps)[at.reshape(frames.shape)]
        return [
            Clip(
                id=hour(self._store.times[window[0]]),
                source=self._location.source,
                record=int(window[0]),
                n_source=len(window),
                digest=_digest(common, self._store.times[window], window_sizes),
            )
            for window, window_sizes in zip(frames, sizes, strict=True)
        ]

    def _require_steps(self, steps: Int[np.ndarray, " n"]) -> None:
        n_times = len(self._store.times)
        if steps.size and not 0 <= steps.min() <= steps.max() < n_times:
            raise WholeFileError(f"its time axis has {n_times} steps; if it had more, scan it again")

    def _notes(self) -> tuple[str, ...]:
        split, plan, name = self._location.split, self._plan, self._location.name
        hours = "hourly" if plan.axis_hours == 1 else f"{plan.axis_hours}-hourly"
        notes = [f"{name}: {self._location.source}, {self._store.layout}, {hours}."]
        if self._store.reordered:
            notes.append(f"{name}: {self._store.reordered}, which are stored in another order.")
        begin = self._store.times[plan.begin]
        if split.windows and begin > np.datetime64(split.windows.first):
            notes.append(
                f"{name}: the series begins at {hour(begin)}, the split at {split.windows.first}: "
                "its windows are counted from the former."
            )
        if split.n_clips not in (None, len(plan.starts)):
            notes.append(f"{name}: {len(plan.starts)} windows found, the manifest expects {split.n_clips}.")
        return tuple(notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Location:
    """Where a split's store is, and how to say what is wrong with it."""

    dataset: Dataset
    split: Split
    data_dir: Path
    source: str
    """Below the data folder; where nothing was found, where it is expected."""

    @property
    def path(self) -> Path:
        return self.data_dir / self.source

    @property
    def paths(self) -> list[Path]:
        """The store, or a lab's own files that match."""
        if self.dataset.reader == OWN_FIELDS:
            return sorted(path for path in self.data_dir.glob(self.source) if container_of(path))
        return [self.path] if self.path.is_dir() else []

    def opened(self) -> FieldStore:
        if self.dataset.reader != OWN_FIELDS:
            return open_fields(self.path, self.dataset)
        if not self.paths:
            raise WholeFileError("no NetCDF or GRIB file and no Zarr folder matches")
        return open_field_files(self.paths, self.dataset)

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split.name}"

    @contextmanager
    def named(self, what: str = "", or_skip: str = "") -> Iterator[None]:
        """As `base.named`, for all of the split or the window `what`; the way out is that of the kind."""
        which = f"{self.path}, {what or self.split.name}"
        try:
            yield
        except WholeFileError as problem:
            raise UnreadableFileError(f"{which}: {problem}. {self._same_again}") from None
        except UnreadableError as problem:
            raise DataError(f"{which}: {problem}. {self._another}{or_skip}") from None

    @property
    def _official(self) -> str | None:
        """Where the official store is."""
        if self.dataset.bucket is None:
            return None
        return quote(f"{self.dataset.bucket}/{Path(self.split.files).name}")

    @property
    def _same_again(self) -> str:
        """What to do where a store is not there, or not whole."""
        folder = quote(str(self.path))
        if self._official is None:
            return f"Copy it again from where it came, or see {self.dataset.source}."
        fetch = f"gcloud storage rsync -r {self._official} {folder}"
        if not self.path.exists():
            return f"Get it: mkdir -p {folder} && {fetch}"
        return f"If it is the official store, repair it: {fetch} - and if it is your own, write it again."

    @property
    def _another(self) -> str:
        """What to do where a store is whole, but not what the manifest says."""
        if self._official is None:
            return "Correct the store or the manifest."
        return (
            f"The official store is {self._official}; one of your own is a data set of its own in a manifest "
            "(--manifest), without `bucket`."
        )


def _find_store(dataset: Dataset, split: Split, data_dir: Path) -> _Location:
    if dataset.reader == OWN_FIELDS:
        return _Location(dataset=dataset, split=split, data_dir=data_dir, source=split.files)
    names = [split.files, *([split.also] if split.also else [])]
    found = [name for name in names if (data_dir / name).is_dir()]
    return _Location(dataset=dataset, split=split, data_dir=data_dir, source=(found or names)[0])


def _checked_windows(dataset: Dataset, split: Split) -> Windows:
    where = f"manifest, datasets.{dataset.name}"
    if len(dataset.variables) != dataset.channels:
        raise CallError(f"{where}.variables: name {dataset.channels} variables of the store, one a channel.")
    if split.windows is None:
        raise CallError(
            f"{where}.splits.{split.name}: `windows` says which times are this split; it is missing."
        )
    return split.windows


def _digest(common: bytes, times: np.ndarray, sizes: Int64[np.ndarray, "F C"]) -> str:
    return blake2b(common + times.tobytes() + sizes.tobytes(), digest_size=8).hexdigest()
