"""The official bucket's records (all but weather): a `tf.train.SequenceExample` a clip, in ArrayRecord files.

Read without TensorFlow, equal to the reference bit for bit. A scan reads each record once, for labels,
number of frames and a digest; frames are decoded only when a clip is read, and only those asked for. The
manifest's `features` name what a record holds: `image` or `values` are the frames, `labels` the classes,
and whatever else is named are targets.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from einops import rearrange
from jaxtyping import Float32, UInt8

from featcache.clips import Clip, ClipIndex
from featcache.data.readers.base import (
    FrameNumbers,
    Frames,
    Progress,
    Scan,
    SkippedClip,
    SplitStatus,
    UnreadableError,
    WholeFileError,
    named,
    scan_in_blocks,
    stack_frames,
)
from featcache.data.readers.sequence_example.images import decode_image
from featcache.data.readers.sequence_example.records import RecordFiles, find_shards
from featcache.data.readers.sequence_example.tensors import context_values, step_values
from featcache.data.readers.sequence_example.wire import (
    SequenceExample,
    Values,
    feature_values,
    parse_sequence_example,
)
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset

_BLOCK = 128
"""Records a thread scans before it reports."""
_NO_TARGETS = frozenset({"image", "values", "labels"})
"""Names of the manifest's `features` that have a meaning of their own."""


class SequenceExampleReader:
    """One split of a data set of SequenceExample records; the interface is `base.Reader`."""

    def __init__(self, dataset: Dataset, split: str, data_dir: Path) -> None:
        self._dataset = dataset
        self._frames = _frames_feature(dataset)
        self._targets = {name: key for name, key in dataset.features.items() if name not in _NO_TARGETS}
        self._shards = find_shards(dataset, dataset.split(split), data_dir)
        if self._shards.problem is not None:
            raise DataError(self._shards.problem)
        self._files = RecordFiles()

    @staticmethod
    def status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
        """What there is of a split: opens each file at its end, where ArrayRecord keeps its counts."""
        entry = dataset.split(split)
        try:
            shards = find_shards(dataset, entry, data_dir)
        except DataError as problem:
            return SplitStatus(files=entry.files, n_expected=entry.n_shards, problems=(str(problem),))
        files, n_clips, problems = RecordFiles(capacity=1), 0, [shards.problem] if shards.problem else []
        for source in shards.found:
            try:
                n_clips += files.n_records(shards.path(source))
            except UnreadableError as problem:
                problems.append(shards.fault(source, problem))
        return SplitStatus(
            files=entry.files,
            n_found=len(shards.found),
            n_expected=entry.n_shards,
            n_clips=n_clips,
            n_bytes=sum(shards.path(source).stat().st_size for source in shards.found),
            problems=tuple(problems),
            notes=shards.notes,
        )

    def files(self) -> tuple[str, ...]:
        """The split's record files, as paths below the data folder."""
        return self._shards.found

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips, in order of shard and record. See `base.Reader.scan`."""
        blocks = self._blocks()
        n_records = sum(len(records) for _, records in blocks)

        def scan(block: tuple[int, range]) -> list[Clip | SkippedClip]:
            shard, records = block
            return [self._scan_record(shard, record, skip_bad) for record in records]

        found = scan_in_blocks(blocks, scan, n_clips=n_records, progress=progress)
        if not len(found.index):
            raise DataError(f"{self._name}: none of its {n_records} records is a clip that can be read.")
        return replace(found, notes=self._notes(found.index, n_records))

    def read(self, clip: Clip, frames: FrameNumbers) -> Frames:
        """Decode some frames of a clip: images as uint8, fields as float32. See `base.Reader.read`."""
        numbers = [int(frame) for frame in frames]
        decoded = dict[int, np.ndarray]()
        with self._named(clip.source, clip.record):
            steps = self._example(clip).steps[self._frames]
        for frame in sorted(set(numbers)):
            with self._named(clip.source, f"{clip.record}, frame {frame}"):
                decoded[frame] = self._decode(steps, frame)
        with self._named(clip.source, clip.record):
            return stack_frames(decoded, numbers)

    def frame_keys(self, clip: Clip, frames: FrameNumbers) -> list[bytes]:
        """Digests of the frames as they are encoded. See `base.Reader`."""
        with self._named(clip.source, clip.record):
            steps = self._example(clip).steps[self._frames]
            return [blake2b(self._step(steps, int(frame)), digest_size=16).digest() for frame in frames]

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        """What a record says beside frames and labels, by the manifest's names. See `base.Reader.targets`.

        A feature of every step has a row a step: [steps], [steps, n] for n numbers, or [steps, *shape] for
        serialised tensors. One of the whole record is float32 or int64 [n], n = 0 if it was written empty.
        """
        if not self._targets:
            return {}
        with self._named(clip.source, clip.record):
            return self._decoded_targets(self._example(clip))

    def _decoded_targets(self, example: SequenceExample) -> dict[str, np.ndarray]:
        found = dict[str, np.ndarray]()
        for name, key in self._targets.items():
            steps = example.steps.get(key)
            try:
                found[name] = context_values(example.context[key]) if steps is None else step_values(steps)
            except UnreadableError as problem:
                raise UnreadableError(f"feature {key!r}: {problem}") from None
        return found

    def _blocks(self) -> list[tuple[int, range]]:
        """The work of a scan: (shard, record numbers). Opens every file, so a broken one shows at once."""
        blocks = []
        for shard, source in enumerate(self._shards.found):
            with named(str(self._shards.path(source)), self._shards.way_out(source)):
                n_records = self._files.n_records(self._shards.path(source))
            blocks += [(shard, range(n_records)[at : at + _BLOCK]) for at in range(0, n_records, _BLOCK)]
        return blocks

    def _scan_record(self, shard: int, record: int, skip_bad: bool) -> Clip | SkippedClip:
        source = self._shards.found[shard]
        name = f"{shard:05d}/{record}"
        try:
            data = self._files.read(self._shards.path(source), record)
            example = self._parse(data)
            labels = self._labels(example)
            # Decoded to be sure of them: a clip can be skipped now, not once its features are stored.
            self._decoded_targets(example)
        except UnreadableError as problem:
            if skip_bad and not isinstance(problem, WholeFileError):
                return SkippedClip(id=name, source=source, record=record, reason=str(problem))
            with self._named(source, record):
                raise
        return Clip(
            id=name,
            source=source,
            record=record,
            n_source=len(example.steps[self._frames]),
            labels=labels,
            digest=blake2b(data, digest_size=8).hexdigest(),
        )

    def _example(self, clip: Clip) -> SequenceExample:
        return self._parse(self._files.read(self._shards.path(clip.source), clip.record))

    def _parse(self, data: bytes) -> SequenceExample:
        """A record that holds all that the manifest names, targets of every step as often as frames.

        Only labels may be absent. TensorFlow reads any absent feature as an empty one, so a misspelt name of
        a target would go through as data without it.
        """
        example = parse_sequence_example(data, frozenset(self._dataset.features.values()))
        n_frames = len(example.steps.get(self._frames, ()))
        if not n_frames:
            raise UnreadableError(f"no frames under {self._frames!r}, the record holds {_others(example)}")
        for name, key in self._targets.items():
            if key in example.steps:
                if (n_steps := len(example.steps[key])) != n_frames:
                    raise UnreadableError(f"feature {key!r} has {n_steps} steps for {n_frames} frames")
            elif key not in example.context:
                what = f"no feature {key!r}, the manifest's {name}"
                raise UnreadableError(f"{what}; the record holds {_others(example)}")
        return example

    def _labels(self, example: SequenceExample) -> tuple[int, ...]:
        """Checked. TensorFlow reads an absent feature as an empty one: a clip without any behaviour."""
        encoded = example.context.get(self._dataset.features.get("labels", ""))
        values = None if encoded is None else feature_values(encoded)
        if values is None:
            return ()
        if not isinstance(values, np.ndarray) or values.dtype != np.int64:
            raise UnreadableError("the labels are not whole numbers")
        known = range(len(self._dataset.classes) or np.iinfo(np.int32).max)
        for label in values.tolist():
            if label not in known:
                raise UnreadableError(f"label {label} is not from 0 to {known[-1]}, the manifest's classes")
        return tuple(values.tolist())

    def _decode(
        self, steps: list[memoryview], frame: int
    ) -> UInt8[np.ndarray, "Y X C"] | Float32[np.ndarray, "Y X C"]:
        values = feature_values(self._step(steps, frame))
        if "values" in self._dataset.features:
            return _field(values, self._dataset)
        if not isinstance(values, list) or len(values) != 1:
            raise UnreadableError("the step does not hold one encoded image")
        return decode_image(values[0], self._dataset.channels)

    @staticmethod
    def _step(steps: list[memoryview], frame: int) -> memoryview:
        if not 0 <= frame < len(steps):
            raise UnreadableError(f"the record has {len(steps)} frames; if it had more, scan it again")
        return steps[frame]

    @property
    def _name(self) -> str:
        return f"{self._dataset.name}/{self._shards.split.name}"

    def _notes(self, index: ClipIndex, n_records: int) -> tuple[str, ...]:
        notes = list(self._shards.notes)
        split, labels = self._shards.split, self._dataset.features.get("labels")
        if split.n_clips not in (None, n_records) and self._shards.n_shards == split.n_shards:
            notes.append(f"{self._name}: {n_records} records found, the manifest expects {split.n_clips}.")
        if labels and not any(
            pc.sum(pc.list_value_length(block.column(0))).as_py() for block in index.blocks("labels")
        ):
            notes.append(f"{self._name}: no clip has a label; the manifest looks for them under {labels!r}.")
        return tuple(notes)

    def _named(self, source: str, record: int | str) -> AbstractContextManager[None]:
        or_skip = " Or leave such records out with --skip-bad."
        which = f"{self._shards.path(source)}, record {record}"
        return named(which, self._shards.way_out(source), or_skip)


def _frames_feature(dataset: Dataset) -> str:
    """The key of the feature that holds the frames."""
    given = [dataset.features[name] for name in ("image", "values") if name in dataset.features]
    where = f"manifest, datasets.{dataset.name}"
    if len(given) != 1:
        raise CallError(
            f"{where}.features: name what holds the frames, either encoded images, for example {{image: "
            f"image/encoded}}, or numbers, {{values: image/infrared}}; found {len(given)} of the two."
        )
    if "values" in dataset.features and dataset.frame_size is None:
        raise CallError(f"{where}: frames that are `values` need `frame_size: [rows, columns]`.")
    return given[0]


def _others(example: SequenceExample) -> str:
    return ", ".join(sorted(set(example.other_names))) or "nothing else"


def _field(values: Values | None, dataset: Dataset) -> Float32[np.ndarray, "Y X C"]:
    """A frame of plain numbers, row by row, in the unit they are stored in."""
    assert dataset.frame_size is not None
    rows, columns = dataset.frame_size
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        raise UnreadableError("the step does not hold float32 values")
    if len(values) != rows * columns * dataset.channels:
        size = f"{rows} x {columns} x {dataset.channels} = {rows * columns * dataset.channels}"
        raise UnreadableError(f"{len(values)} values where the manifest's frame_size and channels say {size}")
    return rearrange(values, "(y x c) -> y x c", y=rows, x=columns)
