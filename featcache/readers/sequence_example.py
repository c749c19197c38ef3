"""The official bucket's records (fly, mouse): a `tf.train.SequenceExample` a clip, in ArrayRecord files.

Read without TensorFlow, equal to the reference bit for bit. A scan reads each record once, for labels,
number of frames and a digest; frames are decoded only when a clip is read, and only those asked for.
"""

from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from featcache.clips import CLIP_SCHEMA, Clip, ClipIndex
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset
from featcache.readers.base import (
    SCAN_THREADS,
    FrameNumbers,
    Progress,
    Scan,
    SkippedClip,
    SplitStatus,
    UnreadableError,
    WholeFileError,
    stack_frames,
)
from featcache.readers.images import decode_image
from featcache.readers.records import RecordFiles, find_shards
from featcache.readers.wire import feature_values, parse_sequence_example

_BLOCK = 128
"""Records a thread scans before it reports."""


class SequenceExampleReader:
    """One split of a data set of SequenceExample records; the interface is `base.Reader`."""

    def __init__(self, dataset: Dataset, split: str, data_dir: Path) -> None:
        if "image" not in dataset.features:
            raise CallError(
                f"manifest, datasets.{dataset.name}.features: name the feature that holds the frames, for "
                "example {image: image/encoded}."
            )
        self._dataset = dataset
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

    def scan(self, *, skip_bad: bool = False, progress: Progress | None = None) -> Scan:
        """All clips, in order of shard and record. See `base.Reader.scan`."""
        blocks = self._blocks()
        n_records = sum(len(records) for _, records in blocks)
        tables, skipped, done = [CLIP_SCHEMA.empty_table()], list[SkippedClip](), 0
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            for found in pool.map(lambda block: self._scan_block(*block, skip_bad=skip_bad), blocks):
                # A table is a tenth of the clips' size as objects, and there may be a million.
                tables.append(ClipIndex.from_clips(clip for clip in found if isinstance(clip, Clip)).clips)
                skipped += [clip for clip in found if isinstance(clip, SkippedClip)]
                done += len(found)
                if progress:
                    progress(done, n_records)
        index = ClipIndex(pa.concat_tables(tables))
        if not len(index):
            raise DataError(f"{self._name}: none of its {n_records} records is a clip that can be read.")
        return Scan(index=index, skipped=tuple(skipped), notes=self._notes(index, n_records))

    def read(self, clip: Clip, frames: FrameNumbers) -> UInt8[np.ndarray, "F Y X C"]:
        """Decode some frames of a clip. See `base.Reader.read`."""
        numbers = [int(frame) for frame in frames]
        place = f"record {clip.record}"
        decoded = dict[int, np.ndarray]()
        try:
            steps, _ = self._parse(self._files.read(self._shards.path(clip.source), clip.record))
            for frame in sorted(set(numbers)):
                place = f"record {clip.record}, frame {frame}"
                decoded[frame] = self._decode(steps, frame)
            return stack_frames(decoded, numbers)
        except UnreadableError as problem:
            raise self._error(clip.source, place, problem) from None

    def _blocks(self) -> list[tuple[int, range]]:
        """The work of a scan: (shard, record numbers). Opens every file, so a broken one shows at once."""
        blocks = []
        for shard, source in enumerate(self._shards.found):
            try:
                n_records = self._files.n_records(self._shards.path(source))
            except UnreadableError as problem:
                raise problem.as_data_error(self._shards.fault(source, problem)) from None
            blocks += [(shard, range(n_records)[at : at + _BLOCK]) for at in range(0, n_records, _BLOCK)]
        return blocks

    def _scan_block(self, shard: int, records: range, *, skip_bad: bool) -> list[Clip | SkippedClip]:
        return [self._scan_record(shard, record, skip_bad) for record in records]

    def _scan_record(self, shard: int, record: int, skip_bad: bool) -> Clip | SkippedClip:
        source = self._shards.found[shard]
        name = f"{shard:05d}/{record}"
        try:
            data = self._files.read(self._shards.path(source), record)
            steps, labels = self._parse(data)
        except UnreadableError as problem:
            if skip_bad and not isinstance(problem, WholeFileError):
                return SkippedClip(id=name, source=source, record=record, reason=str(problem))
            raise self._error(source, f"record {record}", problem) from None
        return Clip(
            id=name,
            source=source,
            record=record,
            n_source=len(steps),
            labels=labels,
            digest=blake2b(data, digest_size=8).hexdigest(),
        )

    def _parse(self, data: bytes) -> tuple[list[memoryview], tuple[int, ...]]:
        """A record's frames, still encoded, and its labels, checked."""
        image, labels = self._dataset.features["image"], self._dataset.features.get("labels")
        example = parse_sequence_example(data, (image, labels))
        if not example.steps.get(image):
            others = ", ".join(sorted(set(example.other_names))) or "nothing else"
            raise UnreadableError(f"no frames under {image!r}, the record holds {others}")
        # TensorFlow reads an absent feature as an empty one: a clip without any of the behaviours.
        encoded = example.context.get(labels) if labels else None
        return example.steps[image], () if encoded is None else self._checked_labels(encoded)

    def _checked_labels(self, encoded: memoryview) -> tuple[int, ...]:
        values = feature_values(encoded)
        if values is None:
            return ()
        if not isinstance(values, np.ndarray) or values.dtype != np.int64:
            raise UnreadableError("the labels are not whole numbers")
        known = range(len(self._dataset.classes) or np.iinfo(np.int32).max)
        for label in values.tolist():
            if label not in known:
                raise UnreadableError(f"label {label} is not from 0 to {known[-1]}, the manifest's classes")
        return tuple(values.tolist())

    def _decode(self, steps: list[memoryview], frame: int) -> UInt8[np.ndarray, "Y X C"]:
        if not 0 <= frame < len(steps):
            raise UnreadableError(f"the record has {len(steps)} frames; if it had more, scan it again")
        images = feature_values(steps[frame])
        if not isinstance(images, list) or len(images) != 1:
            raise UnreadableError("the step does not hold one encoded image")
        return decode_image(images[0], self._dataset.channels)

    @property
    def _name(self) -> str:
        return f"{self._dataset.name}/{self._shards.split.name}"

    def _notes(self, index: ClipIndex, n_records: int) -> tuple[str, ...]:
        notes = list(self._shards.notes)
        split, labels = self._shards.split, self._dataset.features.get("labels")
        if split.n_clips not in (None, n_records) and self._shards.n_shards == split.n_shards:
            notes.append(f"{self._name}: {n_records} records found, the manifest expects {split.n_clips}.")
        if labels and not len(index.clips.column("labels").combine_chunks().flatten()):
            notes.append(f"{self._name}: no clip has a label; the manifest looks for them under {labels!r}.")
        return tuple(notes)

    def _error(self, source: str, place: str, problem: UnreadableError) -> DataError:
        way_out = self._shards.way_out(source)
        if not isinstance(problem, WholeFileError):
            way_out += " Or leave such records out with --skip-bad."
        return problem.as_data_error(f"{self._shards.path(source)}, {place}: {problem}. {way_out}")
