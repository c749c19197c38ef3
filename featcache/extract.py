"""One worker's loop: shards to clips to views to tokens to disk.

Decoding runs in threads ahead of the model and writing in a thread behind it, so the wall time is the
model's. What is left to do is what is not on disk: a killed extraction goes on at the shard it was in.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Float16
from torch import Tensor

from featcache import readers
from featcache.backbones.base import Encoder
from featcache.clip_views import ClipViews
from featcache.clips import Clip, ClipIndex
from featcache.device import device_name
from featcache.errors import CallError, DataError, StoreError
from featcache.fingerprint import fingerprint
from featcache.ground_truth import write_ground_truth
from featcache.job import (
    Extraction,
    feature_spec,
    fingerprint_parts,
    provenance_of,
    store_attributes,
)
from featcache.previews import preview_clips
from featcache.progress import Progress
from featcache.readers.base import Frames, Reader, UnreadableFileError
from featcache.spec import TARGET_SHARD_BYTES, Layer
from featcache.store import FeatureStore, open_features
from featcache.writer import StoreWriter, create_or_resume

MOST_SKIPPED, MOST_SKIPPED_SHARE = 10, 0.05
"""Clips that `skip_bad` leaves out at the most: so many, or this share of the split, whichever is more."""

_Batch = list[tuple[int, int, Tensor]]
_Features = Mapping[Layer, Float16[np.ndarray, "B T H W C"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How to run it: nothing here changes a stored number beyond the hardware's own rounding."""

    device: torch.device
    batch: int
    """Clip views in one forward pass; the last batch of a shard is padded to it."""
    decode_threads: int = 4
    shard_bytes: int = TARGET_SHARD_BYTES
    """What a crash may lose, and the size of the files; a store keeps the one it was begun with."""


def extract(
    job: Extraction,
    machine: Machine,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> FeatureStore:
    """Extract one split to `<cache>/<task>/<split>/<backbone>-<fingerprint8>.zarr`, or finish what is there.

    Raises:
        DataError: files are missing or broken (with `skip_bad`, single bad records are left out and listed).
        WeightsError: the backbone's weights are missing or do not fit.
        StoreError: the store on disk is not this extraction's, or a token does not fit float16.
    """
    # What can be refused in a second is refused before every record is read.
    job.backbone.weights_digest()
    reader = readers.open_reader(job.dataset, job.split, data_dir)
    scan = reader.scan(
        skip_bad=skip_bad, progress=lambda done, total: progress("reading the clip index", done, total)
    )
    if len(scan.index) == 0:
        raise DataError(
            f"{job.dataset.name}/{job.split} under {data_dir} holds no clips: nothing to extract."
        )
    for n_source in set(scan.index.clips.column("n_source").to_pylist()):
        job.views.views_of(n_source)
    parts = fingerprint_parts(job, scan.index)
    folder = cache_dir / job.task.name / job.role
    spec = feature_spec(job, len(scan.index), machine.shard_bytes)
    provenance = provenance_of(job, scan)
    targets = write_ground_truth(job, scan.index, reader, folder, progress)
    writer = create_or_resume(
        folder / f"{job.name}-{fingerprint(parts)[:8]}.zarr",
        spec=spec, parts=parts, clips=scan.index, provenance=provenance, attrs=store_attributes(job, targets),
    )  # fmt: skip
    with writer:
        if writer.header.complete:
            return open_features(writer.path)
        for note in (*provenance["notes"], *writer.damaged):
            logging.getLogger(__name__).warning(note)
        _refuse_full_disk(writer)
        worker = _Worker(job, machine, reader, scan.index, writer, skip_bad=skip_bad)
        worker.run(progress)
        worker.write_previews()
        return writer.finish()


def _refuse_full_disk(writer: StoreWriter) -> None:
    needed = _clips_left(writer) * writer.spec.payload_bytes // writer.spec.n_clips
    free = shutil.disk_usage(writer.path).free
    if needed > free:
        raise StoreError(
            f"{writer.path} needs {needed / 1e9:,.1f} GB more and its disk has {free / 1e9:,.1f} GB free: "
            "make room, or give another folder with --cache-dir."
        )


def _clips_left(writer: StoreWriter) -> int:
    return sum(len(writer.spec.clips_of_shard(shard)) for shard in writer.todo())


class _Worker:
    """The state of one worker: reader, model and writer, and the threads between them."""

    def __init__(
        self,
        job: Extraction,
        machine: Machine,
        reader: Reader,
        index: ClipIndex,
        writer: StoreWriter,
        *,
        skip_bad: bool,
    ) -> None:
        self.job, self.machine, self.index, self.writer = job, machine, index, writer
        self.views = ClipViews(job, reader, machine.device)
        self.skip_bad = skip_bad
        self.left_out: set[int] = set()
        self.spec = writer.spec
        self.step_weights = job.step_weights

    def run(self, progress: Progress) -> None:
        """Every shard that is not on disk yet: decode ahead, encode, write behind."""
        todo = self.writer.todo()
        left = _clips_left(self.writer)
        what, done = f"extracting {self.job.role}", self.spec.n_clips - left
        progress(what, done, self.spec.n_clips)
        if not todo:
            return
        started = time.monotonic()
        encoder = self.job.backbone.load(self.job.layers, self.machine.device, self.job.dtype)
        with ThreadPoolExecutor(1, "write") as behind:
            pending: Future[None] | None = None
            for shard in todo:
                tokens, skipped = self._shard_tokens(
                    encoder, shard, partial(_advance, progress, what, done, self.spec.n_clips)
                )
                done += len(self.spec.clips_of_shard(shard))
                if pending is not None:
                    pending.result()
                pending = behind.submit(self.writer.write_shard, shard, tokens, skipped)
            if pending is not None:
                pending.result()
        self.writer.log_run(
            clips=left, seconds=time.monotonic() - started, device=device_name(self.machine.device)
        )

    def write_previews(self) -> None:
        """A few clips of the split as the backbone saw them, for stage two, which has no videos."""
        rows = []
        for number in preview_clips(self.spec.n_clips):
            clip = self.index.clip(number)
            try:
                rows.append((number, self.views.strip(clip)))
            except DataError as problem:
                self._skip_or_raise(number, problem)
        self.writer.write_previews(rows)

    def _shard_tokens(
        self, encoder: Encoder, shard: int, done: Callable[[int], None]
    ) -> tuple[Mapping[Layer, Float16[np.ndarray, "clip V T H W C"]], dict[int, str]]:
        clips = self.spec.clips_of_shard(shard)
        shape = (len(clips), self.spec.n_views, *self.spec.grid.shape)
        tokens = {layer: np.full(shape, np.nan, np.float16) for layer in self.spec.layers}
        skipped: dict[int, str] = {}
        for batch, features in self._encoded(
            encoder, _batches(self._decoded(clips, skipped), self.machine.batch)
        ):
            for layer, values in features.items():
                for (clip, view, _), value in zip(batch, values[: len(batch)], strict=True):
                    tokens[layer][clip - clips.start, view] = value
            done(batch[-1][0] - clips.start + 1)
        if self.job.views.starts is not None:
            self._repeat_views(clips, tokens)
        return tokens, skipped

    def _repeat_views(self, clips: range, tokens: Mapping[Layer, np.ndarray]) -> None:
        """Clips too short for as many starts as there are views hold each of theirs again and again."""
        for clip in clips:
            n_starts = self.job.views.views_of(self.index.clip(clip).n_source)
            for values in tokens.values():
                for view in range(n_starts, self.spec.n_views):
                    values[clip - clips.start, view] = values[clip - clips.start, view % n_starts]

    def _encoded(self, encoder: Encoder, batches: Iterator[_Batch]) -> Iterator[tuple[_Batch, _Features]]:
        """Batches with their tokens; a GPU works on the next one while the last is copied away."""
        running: tuple[_Batch, dict[Layer, Tensor], torch.cuda.Event | None] | None = None
        for batch in batches:
            started = (batch, *self._start(encoder, [pixels for _, _, pixels in batch]))
            if running is not None:
                yield _arrived(*running)
            running = started
        if running is not None:
            yield _arrived(*running)

    def _start(
        self, encoder: Encoder, pixels: Sequence[Tensor]
    ) -> tuple[dict[Layer, Tensor], torch.cuda.Event | None]:
        """One forward pass of exactly `batch` clip views, so that a resumed shard meets the same kernels."""
        padding = [torch.zeros_like(pixels[0])] * (self.machine.batch - len(pixels))
        try:
            with torch.inference_mode():
                features = encoder(torch.stack([*pixels, *padding]))
        except torch.OutOfMemoryError:
            raise CallError(
                f"--batch {self.machine.batch} does not fit into the memory of "
                f"{device_name(self.machine.device)}: give a smaller one. The shards written so far are kept."
            ) from None
        self._check_shapes(features)
        if self.step_weights is not None:
            weights = self.step_weights.to(self.machine.device)
            features = {
                layer: einsum(values, weights, "b t h w c, t -> b h w c")[:, None]
                for layer, values in features.items()
            }
        on_gpu = self.machine.device.type == "cuda"
        # Rounded on the device: half the bytes to copy. What does not fit becomes infinite, and is refused
        # with the clip's name when the shard is written.
        host = {
            layer: torch.empty(values.shape, dtype=torch.float16, pin_memory=on_gpu).copy_(
                values.half(), non_blocking=True
            )
            for layer, values in features.items()
        }
        return host, torch.cuda.current_stream(self.machine.device).record_event() if on_gpu else None

    def _check_shapes(self, features: Mapping[Layer, Tensor]) -> None:
        grid = self.job.backbone.info.grid
        wanted = {layer.name: (self.machine.batch, *grid.shape) for layer in self.spec.layers}
        found = {layer.name: tuple(values.shape) for layer, values in features.items()}
        if found != wanted:
            raise CallError(
                f"backbone {self.job.name} gave {found} where its info promises {wanted}: "
                "correct its grid or its encoder."
            )

    def _decoded(
        self, clips: range, skipped: dict[int, str]
    ) -> Iterator[tuple[int, int, Float[Tensor, "F rgb Y X"]]]:
        """(clip, view, pixels) in order, decoded by threads a bounded way ahead."""
        ahead: deque[tuple[int, Clip, int, Future[Frames]]] = deque()
        window = self.machine.batch + 2 * self.machine.decode_threads
        with ThreadPoolExecutor(self.machine.decode_threads, "decode") as pool:
            numbers = iter(clips)
            while True:
                for number in numbers:
                    clip = self.index.clip(number)
                    n_views = self.job.views.views_of(clip.n_source)
                    ahead.append((number, clip, n_views, pool.submit(self.views.read, clip, n_views)))
                    if len(ahead) >= window:
                        break
                if not ahead:
                    return
                number, clip, n_views, future = ahead.popleft()
                try:
                    frames = future.result()
                except DataError as problem:
                    self._skip_or_raise(number, problem)
                    skipped[number] = str(problem)
                    continue
                for view, pixels in enumerate(self.views.pixels(clip, frames, n_views)):
                    yield number, view, pixels

    def _skip_or_raise(self, number: int, problem: DataError) -> None:
        """Single bad records may be left out; a file that cannot be read, or many records, may not."""
        if not self.skip_bad or isinstance(problem, UnreadableFileError):
            raise problem
        # A set: a clip that is left out may be asked for again, for its preview.
        self.left_out.add(number)
        if len(self.left_out) > max(MOST_SKIPPED, MOST_SKIPPED_SHARE * self.spec.n_clips):
            raise DataError(
                f"{len(self.left_out)} of {self.spec.n_clips} clips cannot be read, too many to leave out; "
                f"the last: {problem}"
            )


def _batches(items: Iterator[tuple[int, int, Tensor]], size: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    batch: list[tuple[int, int, Tensor]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _arrived(
    batch: _Batch, host: Mapping[Layer, Tensor], copied: torch.cuda.Event | None
) -> tuple[_Batch, _Features]:
    if copied is not None:
        copied.synchronize()
    return batch, {layer: values.numpy() for layer, values in host.items()}


def _advance(progress: Progress, what: str, before: int, total: int, more: int) -> None:
    progress(what, before + more, total)
