"""All that is known of extractions before the first of them begins: their clips, targets, and bytes to write.

A disk that is too small, a record that is broken, a clip with too many starts are told in the first minutes
for every split asked for, not after the first has run for a day.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from featcache.clips import ClipIndex, shared_between
from featcache.data import readers
from featcache.data.bucket_files import local_data
from featcache.data.index_cache import scan_once
from featcache.data.readers.base import Reader, Scan
from featcache.errors import DataError
from featcache.extract.job import (
    Extraction,
    feature_spec,
    fingerprint_parts,
    provenance_of,
    store_attributes,
    store_bytes,
)
from featcache.extract.shared_frames import shared_frames
from featcache.extract.targets.base import SplitTargets
from featcache.extract.targets.builders import targets_of
from featcache.fingerprint import fingerprint
from featcache.manifest import OWN_VIDEOS
from featcache.store.header import StoreHeader, header_if_begun
from featcache.store.matching import store_name
from featcache.store.rows import FrameTable
from featcache.store.shards import DAMAGED
from featcache.store.spec import FeatureSpec
from featcache.store.target_writer import bytes_to_write
from featcache.system.console import Progress
from featcache.system.files import require_room
from featcache.system.sealed import state_of

WAY_OUT = (
    "give another folder with --cache-dir, or ask for less with --layers or --split. "
    "With --force it goes on until the disk is full; what was written by then is kept."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """One extraction with its clips listed, and all that was looked up for it."""

    job: Extraction
    reader: Reader
    index: ClipIndex
    targets: SplitTargets | None
    parts: dict[str, Any]
    """What the fingerprint is made of."""
    path: Path
    """Where the store is, or will be."""
    header: StoreHeader | None
    """What the store that is there says of itself."""
    frames: FrameTable | None
    """Which distinct frame each clip has at each step, where these are encoded and stored once."""
    spec: FeatureSpec
    """The store's shape, its shards as large as they may be."""
    chunks_per_pass: int
    """Chunks of the store that come of one clip which the model is given: one, or one for each frame."""
    provenance: dict[str, Any]
    attrs: dict[str, object]

    def bytes_to_write(self) -> int:
        """Features and targets that are not on disk yet."""
        shards = (file for file in self.path.glob("*/c.*") if not file.name.endswith(DAMAGED))
        left = max(0, store_bytes(self.spec) - sum(file.stat().st_size for file in shards))
        if self.targets is None:
            return left
        return left + bytes_to_write(self.path.parent, self.index, self.targets.arrays, self.targets.parts)


def prepare(
    jobs: Sequence[Extraction],
    *,
    data_dir: Path,
    cache_dir: Path,
    shard_bytes: int,
    skip_bad: bool,
    progress: Progress,
) -> list[Prepared]:
    """List the clips of every job, and what else can be known before the model runs.

    Raises:
        DataError: files are missing or broken, or a clip cannot be cut as the task wants it; names it.
        WeightsError: the backbone's weights are missing.
    """
    # What can be refused in a second is refused before every record is read.
    for job in jobs:
        job.backbone.weights_digest()
    # Where they are in a bucket: all of them are brought to one folder.
    (data_dir,) = {local_data(job.dataset, job.split, data_dir) for job in jobs}
    opened = [readers.open_reader(job.dataset, job.split, data_dir) for job in jobs]
    prepared = []
    for job, reader in zip(jobs, opened, strict=True):
        scan = _scan(job, reader, data_dir, cache_dir, skip_bad, progress)
        prepared.append(_prepared(job, reader, scan, data_dir, cache_dir, shard_bytes, progress))
    _warn_of_shared_clips(prepared)
    return prepared


def refuse_full_disk(cache_dir: Path, prepared: Sequence[Prepared]) -> None:
    """Refuse to begin what the disk would not hold all of.

    Raises:
        StoreError: says what is needed, what is free, and the ways out.
    """
    what = ", ".join(f"{one.job.task.name}/{one.job.role}" for one in prepared)
    needed = sum(one.bytes_to_write() for one in prepared)
    require_room(cache_dir, needed, what=f"{prepared[0].job.name} on {what}", way_out=WAY_OUT)


def _scan(
    job: Extraction, reader: Reader, data_dir: Path, cache_dir: Path, skip_bad: bool, progress: Progress
) -> Scan:
    scan = scan_once(
        reader,
        job.dataset,
        job.split,
        data_dir=data_dir,
        cache_dir=cache_dir,
        skip_bad=skip_bad,
        progress=partial(progress, f"reading the clip index of {job.role}"),
    )
    if len(scan.index) == 0:
        raise DataError(
            f"{job.dataset.name}/{job.split} under {data_dir} holds no clips: nothing to extract."
        )
    _refuse_uncuttable(job, scan.index)
    return replace(scan, notes=(*scan.notes, *_short_clips(job, scan.index)))


def _prepared(
    job: Extraction,
    reader: Reader,
    scan: Scan,
    data_dir: Path,
    cache_dir: Path,
    shard_bytes: int,
    progress: Progress,
) -> Prepared:
    index, attrs, parts = scan.index, store_attributes(job), fingerprint_parts(job, scan.index)
    targets = targets_of(job, index, reader)
    path = cache_dir / job.task.name / job.role / store_name(job.name, fingerprint(parts))
    header = header_if_begun(path)
    frames = None
    # A store that was begun clip by clip is finished so.
    if header is None or header.spec.n_frames is not None:
        frames = shared_frames(job, index, reader, cache_dir=cache_dir, progress=progress)
    spec = feature_spec(job, len(index), shard_bytes, None if frames is None else frames.n_frames)
    return Prepared(
        job=job,
        reader=reader,
        index=index,
        targets=targets,
        parts=parts,
        path=path,
        header=header,
        frames=frames,
        spec=spec,
        chunks_per_pass=spec.rows.chunks_per_pass(job.backbone.info.n_frames),
        provenance=provenance_of(job, scan) | _clip_list_of(job, data_dir),
        attrs=attrs,
    )


def _clip_list_of(job: Extraction, data_dir: Path) -> dict[str, Any]:
    """The list that clips and labels came from, so that stage two notices where it is edited later."""
    if (name := job.dataset.split(job.split).clips) is None:
        return {}
    return {"clip_list": {"name": name, **state_of((data_dir / name).absolute())}}


def _refuse_uncuttable(job: Extraction, index: ClipIndex) -> None:
    known, start = set[int](), 0
    for block in index.blocks("n_source"):
        lengths = block.column(0)
        for n_source in [n for n in lengths.unique().to_pylist() if n not in known]:
            try:
                job.views.views_of(n_source)
            except DataError as problem:
                clip = index.clip(start + lengths.to_pylist().index(n_source))
                raise DataError(f"{clip.location}: {problem}") from None
            known.add(n_source)
        start += len(block)


def _short_clips(job: Extraction, index: ClipIndex) -> list[str]:
    """What to say of a user's own clips that run past the end of their videos: perhaps a slip of the list."""
    if job.dataset.reader != OWN_VIDEOS or (spec := job.clip_spec).sampling == "linspace_clip":
        return []
    wanted = (spec.n_frames - 1) * spec.stride + 1
    short = np.flatnonzero(index.column("n_source").to_numpy() < wanted).tolist()
    if not short:
        return []
    first = index.clip(short[0])
    note = (
        f"{job.role}: {len(short)} of {len(index)} clips run past the end of their videos, whose last frame "
        f"is repeated then; the first: {first.source} from frame {first.record}, {first.n_source} of the "
        f"{wanted} frames that a clip takes"
    )
    return [note]


def _warn_of_shared_clips(prepared: Sequence[Prepared]) -> None:
    """Scores on videos that were trained on say little: a slip of a user's own lists."""
    ours = [one for one in prepared if one.job.dataset.reader == OWN_VIDEOS]
    order = ("train", "val", "test")  # what is learned from, selected on, reported: each before the next
    of_role = {one.job.role: one.index for one in ours}
    of_role = {role: of_role[role] for role in (*order, *of_role) if role in of_role}
    for (role, clips), (other, others) in combinations(of_role.items(), 2):
        if shared := shared_between(role, clips, other, others, of_videos=True):
            logging.getLogger(__name__).warning(shared)
