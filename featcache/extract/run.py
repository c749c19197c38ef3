"""One worker's loop: shards to clips to views to tokens to disk.

Decoding runs in threads ahead of the model and writing in a thread behind it, so the wall time is the
model's. What is left to do is what is not on disk: a killed extraction goes on at the shard it was in.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Float16
from torch import Tensor

from featcache.backbones.base import Encoder
from featcache.data.readers.base import UnreadableFileError
from featcache.errors import CallError, DataError
from featcache.extract.batch_size import chosen_batch
from featcache.extract.batches import Batch, Batches, ClipBatches, FrameBatches
from featcache.extract.clip_views import ClipViews
from featcache.extract.job import Extraction, provenance_of, store_attributes
from featcache.extract.prepare import Prepared, prepare, refuse_full_disk
from featcache.extract.target_builders import write_split_targets
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import read_header
from featcache.store.spec import TARGET_SHARD_BYTES
from featcache.store.writer import StoreWriter, create_or_resume
from featcache.system.console import Progress, silent
from featcache.system.device import device_name

MOST_SKIPPED, MOST_SKIPPED_SHARE = 10, 0.05
"""Clips that `skip_bad` leaves out at the most: so many, or this share of the split, whichever is more."""

_Places = tuple[tuple[int, int], ...]
_Features = Mapping[Layer, Float16[np.ndarray, "B T H W C"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How to run it: nothing here changes a stored number beyond the hardware's own rounding."""

    device: torch.device
    batch: int | None = None
    """Clip views in one forward pass; the last batch of a shard is padded to it. None: as many as fit, and
    those that a store was begun with where it goes on on the same device.
    """
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
    force: bool = False,
    progress: Progress = silent,
) -> FeatureStore:
    """Extract one split to `<cache>/<task>/<split>/<backbone>-<fingerprint8>.zarr`, or finish what is there.

    Raises:
        as `extract_all`.
    """
    (store,) = extract_all(
        [job],
        machine,
        data_dir=data_dir,
        cache_dir=cache_dir,
        skip_bad=skip_bad,
        force=force,
        progress=progress,
    )
    return store


def extract_all(
    jobs: Sequence[Extraction],
    machine: Machine,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Iterator[FeatureStore]:
    """Extract some splits, one after the other; each store is given when it is complete.

    Every split's clips are listed, and the disk is looked at, before the first of them begins. A model is
    loaded once.

    Args:
        jobs: one a split.
        machine: how to run them.
        data_dir: where the data are.
        cache_dir: where stores, targets and clip indexes go.
        skip_bad: leave single bad records out, and list them in the store.
        force: begin although the disk would not hold all of it.
        progress: told what is done.

    Raises:
        DataError: files are missing or broken, unless `skip_bad`.
        WeightsError: the backbone's weights are missing or do not fit.
        StoreError: the disk is too small, a store on disk is not this extraction's, or a token does not fit.
    """
    prepared = prepare(jobs, data_dir=data_dir, cache_dir=cache_dir, skip_bad=skip_bad, progress=progress)
    if not force:
        refuse_full_disk(cache_dir, prepared)
    model = _Model(machine.device)
    for one in prepared:
        yield _extracted(one, machine, model, skip_bad, progress)


def _extracted(
    one: Prepared, machine: Machine, model: "_Model", skip_bad: bool, progress: Progress
) -> FeatureStore:
    job, truth = one.job, one.truth
    targets = None
    if truth is not None:
        targets = write_split_targets(truth, one.index, one.folder, job.role, progress)
    batch = machine.batch or _batch_of(one.path, machine.device) or _chosen_batch(one, machine, model)
    writer = create_or_resume(
        one.path,
        spec=one.spec(machine.shard_bytes, batch),
        parts=one.parts,
        clips=one.index,
        provenance=provenance_of(job, one.scan) | _batch_entry(batch, machine.device),
        attrs=store_attributes(job, targets),
        frames=one.frames,
    )
    with writer:
        if writer.header.complete:
            return open_features(writer.path)
        for note in (*writer.header.provenance["notes"], *writer.damaged):
            logging.getLogger(__name__).warning(note)
        worker = _Worker(one, replace(machine, batch=batch), model, writer, skip_bad=skip_bad)
        worker.run(progress)
        worker.write_previews()
        return writer.finish()


def _batch_entry(batch: int, device: torch.device) -> dict[str, Any]:
    return {"batch": {"clip_views": batch, "device": device_name(device)}}


def _batch_of(path: Path, device: torch.device) -> int | None:
    """The batch that a store was begun with, on this kind of device where it is to go on."""
    if not (path / "zarr.json").exists():
        return None
    header = read_header(path)
    begun = header.provenance.get("batch", {})
    same = header.complete or begun.get("device") == device_name(device)
    return begun.get("clip_views") if same else None


def _chosen_batch(one: Prepared, machine: Machine, model: "_Model") -> int:
    job, info = one.job, one.job.backbone.info
    pixels = torch.zeros(info.n_frames, 3, *info.input_size, device=machine.device)
    spec = one.spec(machine.shard_bytes)
    of_a_pass = 1 if one.frames is None else info.n_frames

    def encode(batch: int) -> object:
        with torch.inference_mode():
            return model.encoder(job)(torch.stack([pixels] * batch))

    return chosen_batch(
        encode, machine.device, most=max(1, spec.clips_per_shard * spec.row_shape[0] // of_a_pass)
    )


class _Model:
    """The encoder of the last job, loaded when it is first needed and kept for the next of the same model."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: tuple[Extraction, Encoder] | None = None

    def encoder(self, job: Extraction) -> Encoder:
        if self._loaded is not None:
            other, encoder = self._loaded
            same = (other.layers, other.dtype) == (job.layers, job.dtype)
            if same and other.backbone is job.backbone:
                return encoder
        self._loaded = None  # let go of it before the next is loaded
        encoder = job.backbone.load(job.layers, self.device, job.dtype)
        self._loaded = (job, encoder)
        return encoder


class _Worker:
    """The state of one worker: reader, model and writer, and the threads between them."""

    def __init__(
        self, one: Prepared, machine: Machine, model: _Model, writer: StoreWriter, *, skip_bad: bool
    ) -> None:
        assert machine.batch is not None
        self.job, self.index, self.machine, self.writer = one.job, one.index, machine, writer
        self.batch, self.model = machine.batch, model
        self.views = ClipViews(one.job, one.reader, machine.device)
        self.batches = self._batches_of(one)
        self.skip_bad = skip_bad
        self.left_out: set[int] = set()
        self.skipped: dict[int, str] = {}
        """Row -> why it is left out, of the shard that is worked on."""
        self.spec = writer.spec
        self.step_weights = one.job.step_weights

    def _batches_of(self, one: Prepared) -> Batches:
        threads, n_frames = self.machine.decode_threads, self.job.backbone.info.n_frames
        if one.frames is None:
            return ClipBatches(
                self.views, one.index, size=self.batch, threads=threads, leave_out=self._leave_out
            )
        return FrameBatches(
            self.views,
            one.index,
            one.frames,
            size=self.batch * n_frames,
            threads=threads,
            leave_out=self._leave_out,
        )

    def run(self, progress: Progress) -> None:
        """Every shard that is not on disk yet: decode ahead, encode, write behind."""
        todo, rows = self.writer.todo(), self.spec.row_axis
        left = sum(len(self.spec.rows_of_shard(shard)) for shard in todo)
        what, done = f"extracting {self.job.role}", self.spec.n_rows - left
        if self.spec.n_frames is not None:
            what = f"{what}, distinct frames"
        progress(what, done, self.spec.n_rows)
        if not todo:
            return
        started = time.monotonic()
        encoder = self.model.encoder(self.job)
        with ThreadPoolExecutor(1, "write") as behind:
            pending: Future[None] | None = None
            for shard in todo:
                tokens, skipped = self._shard_tokens(
                    encoder, shard, partial(_advance, progress, what, done, self.spec.n_rows)
                )
                done += len(self.spec.rows_of_shard(shard))
                if pending is not None:
                    pending.result()
                pending = behind.submit(self.writer.write_shard, shard, tokens, skipped)
            if pending is not None:
                pending.result()
        seconds, device = time.monotonic() - started, device_name(self.machine.device)
        self.writer.log_run(**{f"{rows}s": left}, seconds=seconds, device=device)

    def write_previews(self) -> None:
        """A few clips of the split as the backbone saw them, for stage two, which has no videos."""
        strips = self.batches.strips
        for number in [number for number, strip in strips.items() if strip is None]:
            try:
                strips[number] = self.views.strip(self.index.clip(number))
            except DataError as problem:
                self._leave_out(number, problem)
        self.writer.write_previews((number, strip) for number, strip in strips.items() if strip)

    def _shard_tokens(
        self, encoder: Encoder, shard: int, done: Callable[[int], None]
    ) -> tuple[Mapping[Layer, Float16[np.ndarray, "row V T H W C"]], dict[int, str]]:
        rows = self.spec.rows_of_shard(shard)
        shape = (len(rows), *self.spec.row_shape)
        tokens = {layer: np.full(shape, np.nan, np.float16) for layer in self.spec.layers}
        self.skipped = {}
        for places, features in self._encoded(encoder, self.batches.of(rows)):
            for layer, values in features.items():
                for (row, view), value in zip(places, values[: len(places)], strict=True):
                    tokens[layer][row - rows.start, view] = value
            done(places[-1][0] - rows.start + 1)
        if self.job.views.starts is not None and self.spec.n_frames is None:
            self._repeat_views(rows, tokens)
        return tokens, self.skipped

    def _repeat_views(self, clips: range, tokens: Mapping[Layer, np.ndarray]) -> None:
        """Clips too short for as many starts as there are views hold each of theirs again and again."""
        for clip in clips:
            n_starts = self.job.views.views_of(self.index.clip(clip).n_source)
            for values in tokens.values():
                for view in range(n_starts, self.spec.n_views):
                    values[clip - clips.start, view] = values[clip - clips.start, view % n_starts]

    def _encoded(self, encoder: Encoder, batches: Iterator[Batch]) -> Iterator[tuple[_Places, _Features]]:
        """Batches with their tokens; a GPU works on the next one while the last is copied away."""
        running: tuple[_Places, dict[Layer, Tensor], torch.cuda.Event | None] | None = None
        for batch in batches:
            started = (batch.places, *self._start(encoder, batch.pixels))
            if running is not None:
                yield _arrived(*running)
            running = started
        if running is not None:
            yield _arrived(*running)

    def _start(
        self, encoder: Encoder, pixels: Float[Tensor, "B F rgb Y X"]
    ) -> tuple[dict[Layer, Tensor], torch.cuda.Event | None]:
        """One forward pass of exactly `batch` clip views, so that a resumed shard meets the same kernels."""
        try:
            with torch.inference_mode():
                features = encoder(pixels)
        except torch.OutOfMemoryError:
            raise CallError(
                f"--batch {self.batch} does not fit into the memory of "
                f"{device_name(self.machine.device)}: give a smaller one. The shards written so far are kept."
            ) from None
        self._check_shapes(features)
        if self.spec.n_frames is not None:
            features = {
                layer: rearrange(values, "b f h w c -> (b f) 1 h w c") for layer, values in features.items()
            }
        elif self.step_weights is not None:
            weights = self.step_weights.to(self.machine.device)
            features = {
                layer: einsum(values, weights, "b t h w c, t -> b h w c")[:, None]
                for layer, values in features.items()
            }
        on_gpu = self.machine.device.type == "cuda"
        host = {layer: _rounded(values) for layer, values in features.items()}
        return host, torch.cuda.current_stream(self.machine.device).record_event() if on_gpu else None

    def _check_shapes(self, features: Mapping[Layer, Tensor]) -> None:
        grid = self.job.backbone.info.grid
        wanted = {layer.name: (self.batch, *grid.shape) for layer in self.spec.layers}
        found = {layer.name: tuple(values.shape) for layer, values in features.items()}
        if found != wanted:
            raise CallError(
                f"backbone {self.job.name} gave {found} where its info promises {wanted}: "
                "correct its grid or its encoder."
            )

    def _leave_out(self, number: int, problem: DataError) -> None:
        """Single bad records may be left out; a file that cannot be read, or many records, may not."""
        if not self.skip_bad or isinstance(problem, UnreadableFileError):
            raise problem
        self.skipped[number] = str(problem)
        # A set: a clip that is left out may be asked for again, for its preview.
        self.left_out.add(number)
        if len(self.left_out) > max(MOST_SKIPPED, MOST_SKIPPED_SHARE * self.spec.n_rows):
            rows = f"{self.spec.n_rows} {self.spec.row_axis}s"
            raise DataError(
                f"{len(self.left_out)} of {rows} cannot be read, too many to leave out; the last: {problem}"
            )


def _rounded(tokens: Float[Tensor, "B T H W C"]) -> Float16[Tensor, "B T H W C"]:
    """On the host, or on their way there.

    What does not fit becomes infinite, and is refused with the clip's name when the shard is written.
    """
    room = torch.empty(tokens.shape, dtype=torch.float16, pin_memory=tokens.is_cuda)
    if tokens.is_cuda:
        # Rounded on the device: half the bytes to copy.
        return room.copy_(tokens.half(), non_blocking=True)
    # Few numbers at a time stay on this thread, where others would wait for a core that decodes.
    for clip, rounded in zip(tokens, room, strict=True):
        rounded.copy_(clip)
    return room


def _arrived(
    places: _Places, host: Mapping[Layer, Tensor], copied: torch.cuda.Event | None
) -> tuple[_Places, _Features]:
    if copied is not None:
        copied.synchronize()
    return places, {layer: values.numpy() for layer, values in host.items()}


def _advance(progress: Progress, what: str, before: int, total: int, more: int) -> None:
    progress(what, before + more, total)
