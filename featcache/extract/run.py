"""The loop of an extraction: shard by shard, clips become views, views tokens, and tokens the shard.

What is left to do is what is not on disk: a killed extraction goes on at the shard it was in.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from featcache.backbones.base import Encoder
from featcache.data.readers.base import UnreadableFileError
from featcache.errors import CallError, DataError, StoreError
from featcache.extract.batch_size import chosen_batch
from featcache.extract.batches import Batch, Batches, ClipBatches, FrameBatches, Slot
from featcache.extract.clip_views import ClipViews
from featcache.extract.job import Extraction, cut_for
from featcache.extract.prepare import Prepared, prepare, refuse_full_disk
from featcache.extract.target_builders import write_split_targets
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.header import StoreHeader
from featcache.store.spec import TARGET_SHARD_BYTES
from featcache.store.targets import open_targets
from featcache.store.writer import StoreWriter, create_or_resume
from featcache.system.console import Progress, silent
from featcache.system.device import AttentionKernel, attention_kernel, device_name

MOST_SKIPPED, MOST_SKIPPED_SHARE = 10, 0.05
"""Rows that `skip_bad` skips at the most: so many, or this share of the split's, whichever is more."""

_LOG = logging.getLogger(__name__)

_Slots = tuple[Slot, ...]
_Tokens = Mapping[Layer, Float16[np.ndarray, "B T H W C"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How to run it: nothing here changes a stored number beyond the hardware's own rounding."""

    device: torch.device
    batch: int | None = None
    """Clip views in one forward pass; the last batch of a shard is padded to it. None: as many as fit, and
    those that a store was begun with where it goes on on the same device.
    """
    attention_kernel: AttentionKernel | None = None
    """Who computes attention. None: torch chooses, or the one that a store was begun with, as its batch."""
    decode_threads: int = 4
    shard_bytes: int = TARGET_SHARD_BYTES
    """What a crash may lose, and the size of the files; a store keeps the one it was begun with."""


def extract_all(
    jobs: Sequence[Extraction],
    machine: Machine,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = _LOG.info,
) -> Iterator[FeatureStore]:
    """Extract some splits, one after the other; each store is given when it is complete.

    A store is `<cache>/<task>/<split>/<backbone>-<fingerprint8>.zarr`; what is there of it is not made again.
    Every split's clips are listed, and the disk is looked at, before the first of them begins. A model is
    loaded once.

    Args:
        jobs: one a split.
        machine: how to run them.
        data_dir: where the data are.
        cache_dir: where stores, targets and clip indexes go.
        skip_bad: skip single bad records, and list them in the store.
        force: begin although the disk would not hold all of it.
        progress: told what is done.
        say: told of a store that was there, what is new of it.

    Raises:
        DataError: files are missing or broken, unless `skip_bad`.
        WeightsError: the backbone's weights are missing or do not fit.
        StoreError: the disk is too small, a store on disk is not this extraction's, or a token does not fit.
    """
    prepared = prepare(
        jobs,
        data_dir=data_dir,
        cache_dir=cache_dir,
        shard_bytes=machine.shard_bytes,
        skip_bad=skip_bad,
        progress=progress,
    )
    if not force:
        refuse_full_disk(cache_dir, prepared)
    model = _Model(machine.device)
    for one in prepared:
        yield _extracted(one, machine, model, skip_bad, progress, say)


def _extracted(
    one: Prepared,
    machine: Machine,
    model: "_Model",
    skip_bad: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> FeatureStore:
    if one.header is None or not one.header.complete:
        model.encoder(one.job)  # first, so that weights that cannot be loaded leave nothing behind
    targets = None
    if one.targets is not None:
        targets = write_split_targets(one.targets, one.index, one.path.parent, one.job.role, progress)
    begun = _begun(one.header, machine.device)
    kernel = machine.attention_kernel or begun.get("attention_kernel", "torch")
    batch = machine.batch or begun.get("clip_views") or _fitting_batch(one, model, kernel)
    passes = {"clip_views": batch, "device": device_name(machine.device)}
    writer = create_or_resume(
        one.path,
        spec=cut_for(one.spec, batch * one.chunks_per_pass),
        parts=one.parts,
        clips=one.index,
        provenance=one.provenance
        | {"batch": passes | ({} if kernel == "torch" else {"attention_kernel": kernel})},
        attrs=one.attrs | {"targets": targets},
        frames=one.frames,
        found=one.header,
    )
    with writer:
        if writer.header.complete:
            say(f"{one.job.role} was there: no feature was computed{_relabelled(one, writer.header)}")
            return writer.finish()
        for note in (*writer.header.provenance["notes"], *writer.damaged):
            _LOG.warning(note)
        worker = _Worker(
            one, replace(machine, batch=batch, attention_kernel=kernel), model, writer, skip_bad=skip_bad
        )
        worker.run(progress)
        worker.write_previews()
        return writer.finish()


def _relabelled(one: Prepared, now: StoreHeader) -> str:
    """What to say of a complete store whose labels were corrected since it was made."""
    before = None if one.header is None else one.header.targets
    if before is None or now.targets is None or before.fingerprint == now.targets.fingerprint:
        return ""
    try:
        old, new = (open_targets(one.path / of.path).read("labels") for of in (before, now.targets))
    except (KeyError, StoreError):  # a task without labels, or those of before are gone
        return ", its targets are new"
    changed = f"{(old != new).any(axis=1).sum()} clips" if old.shape == new.shape else "its clips"
    return f", the labels of {changed} are new"


def _begun(header: StoreHeader | None, device: torch.device) -> Mapping[str, Any]:
    """The batch and kernel that a store was begun with, on this kind of device where it is to go on."""
    if header is None:
        return {}
    begun: Mapping[str, Any] = header.provenance.get("batch", {})
    return begun if header.complete or begun.get("device") == device_name(device) else {}


def _fitting_batch(one: Prepared, model: "_Model", kernel: AttentionKernel) -> int:
    """As many inputs as the device's memory and one shard hold, found by trial passes."""
    info = one.job.backbone.info
    pixels = torch.zeros(info.n_frames, 3, *info.input_size, device=model.device)

    def encode(batch: int) -> object:
        with torch.inference_mode(), attention_kernel(kernel):
            return model.encoder(one.job)(torch.stack([pixels] * batch))

    chunks = one.spec.all_arrays[0].chunks_per_shard
    return chosen_batch(encode, model.device, most=max(1, chunks // one.chunks_per_pass))


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
    """One store's reader, model and writer, and the threads between them.

    Each arrow is a buffer that goes from one thread to the next; whoever has it is the only one to touch it.

        decode threads           batch thread            this thread                    write thread
        ==============           ============            ===========                    ============
        read and decode the      stack them to a         run the model (a GPU: begin    write_shard:
        frames of a clip;        batch and pad it        it, then take the tokens       checksums, files,
        on a CPU scale them      (a GPU: scale first)    of the batch before)           fsync
               |                        |                       |                            |
               |  pixels of a view      |  one of two batch     |  one of two shards of      |
               +----------------------->|  buffers, in turn     |  float16 tokens            |
                  fresh, at most        +---------------------->+--------------------------->|
                  `window` clips           this thread's until     filled here, then the     v
                  ahead                    it asks for the next    writer's; NaN where a    disk
                                                                   row was skipped

    The wall time is the model's where the others keep up: while it works on batch i, the batch thread stacks
    batch i + 1 from what was decoded ahead, and the write thread has the shard before. A GPU's tokens come
    through pinned host memory of their own, waited for (an event) after the next pass has begun.
    """

    def __init__(
        self, one: Prepared, machine: Machine, model: _Model, writer: StoreWriter, *, skip_bad: bool
    ) -> None:
        assert machine.batch is not None
        self.job, self.index, self.machine, self.writer = one.job, one.index, machine, writer
        self.batch, self.model, self.kernel = machine.batch, model, machine.attention_kernel or "torch"
        self.views = ClipViews(one.job, one.reader, machine.device)
        self.batches = self._batches_of(one)
        self.skip_bad = skip_bad
        self.skipped: dict[int, str] = {}
        """Row -> why it was skipped, of the shard that is worked on."""
        self.all_skipped = set(writer.absent_rows)
        """Rows of the whole store, those of runs before this one included."""
        self.spec = writer.spec

    def _batches_of(self, one: Prepared) -> Batches:
        size, threads = self.batch * one.chunks_per_pass, self.machine.decode_threads
        if one.frames is None:
            return ClipBatches(self.views, one.index, size=size, threads=threads, skip=self._skip)
        return FrameBatches(self.views, one.index, one.frames, size=size, threads=threads, skip=self._skip)

    def run(self, progress: Progress) -> None:
        """Every shard that is not on disk yet: decode ahead, encode, write behind."""
        todo, n_rows = self.writer.todo(), self.spec.rows.n_rows
        left = sum(len(self.spec.rows_of_shard(shard)) for shard in todo)
        what = f"extracting {self.job.role}" + ("" if self.spec.n_frames is None else ", distinct frames")
        progress(what, n_rows - left, n_rows)
        if not todo:
            return
        started = time.monotonic()
        encoder, before = self.model.encoder(self.job), n_rows - left

        def done(more: int) -> None:
            progress(what, before + more, n_rows)

        with ThreadPoolExecutor(1, "write") as behind:
            pending: Future[None] | None = None
            for shard in todo:
                rows = self.spec.rows_of_shard(shard)
                tokens = self._shard_tokens(encoder, rows, done)
                before += len(rows)
                if pending is not None:
                    pending.result()  # so that two shards are in memory, and no third
                pending = behind.submit(self.writer.write_shard, shard, tokens, self.skipped)
            if pending is not None:
                pending.result()
        seconds, device = time.monotonic() - started, device_name(self.machine.device)
        self.writer.log_run(**{f"{self.spec.rows.axis}s": left}, seconds=seconds, device=device)

    def write_previews(self) -> None:
        """Keep a few clips of the split as the backbone saw them, for stage two, which has no videos."""
        strips = self.batches.strips
        for number in [number for number, strip in strips.items() if strip is None]:
            try:
                strips[number] = self.views.strip(self.index.clip(number))
            except DataError as problem:
                self._refuse_unskippable(problem)  # a clip is no row where frames are stored once
        self.writer.write_previews((number, strip) for number, strip in strips.items() if strip)

    def _shard_tokens(
        self, encoder: Encoder, rows: range, done: Callable[[int], None]
    ) -> Mapping[Layer, Float16[np.ndarray, "row V T H W C"]]:
        """The tokens of a shard's rows, NaN where one was skipped; `done` is told how many rows there are."""
        shape = (len(rows), *self.spec.rows.row_shape)
        shard = {layer: np.full(shape, np.nan, np.float16) for layer in self.spec.layers}
        self.skipped = {}  # a new one: the write thread has that of the shard before
        for slots, tokens in self._encoded(encoder, self.batches.of(rows)):
            for layer, values in tokens.items():
                for (row, views), value in zip(slots, values[: len(slots)], strict=True):
                    shard[layer][row - rows.start, views] = value
            done(slots[-1][0] - rows.start + 1)
        return shard

    def _encoded(self, encoder: Encoder, batches: Iterator[Batch]) -> Iterator[tuple[_Slots, _Tokens]]:
        """Batches with their tokens; a GPU works on the next one while the last is copied away."""
        running: tuple[_Slots, dict[Layer, Tensor], torch.cuda.Event | None] | None = None
        for batch in batches:
            started = (batch.slots, *self._start(encoder, batch.pixels))
            if running is not None:
                yield _arrived(*running)
            running = started
        if running is not None:
            yield _arrived(*running)

    def _start(
        self, encoder: Encoder, pixels: Float[Tensor, "B F rgb Y X"]
    ) -> tuple[dict[Layer, Tensor], torch.cuda.Event | None]:
        """One forward pass of exactly `batch` inputs, so that a resumed shard meets the same kernels."""
        try:
            with torch.inference_mode(), attention_kernel(self.kernel):
                features = encoder(pixels)
        except torch.OutOfMemoryError:
            raise CallError(
                f"--batch {self.batch} does not fit into the memory of "
                f"{device_name(self.machine.device)}: give a smaller one. The shards written so far are kept."
            ) from None
        self._check_shapes(features)
        host = {layer: _rounded(self.batches.kept(values)) for layer, values in features.items()}
        on_gpu = self.machine.device.type == "cuda"
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

    def _refuse_unskippable(self, problem: DataError) -> None:
        if not self.skip_bad or isinstance(problem, UnreadableFileError):
            raise problem

    def _skip(self, row: int, problem: DataError) -> None:
        """Single bad records may be skipped; a file that cannot be read, or many records, may not."""
        self._refuse_unskippable(problem)
        self.skipped[row] = str(problem)
        self.all_skipped.add(row)
        if len(self.all_skipped) > max(MOST_SKIPPED, MOST_SKIPPED_SHARE * self.spec.rows.n_rows):
            rows = f"{self.spec.rows.n_rows} {self.spec.rows.axis}s"
            raise DataError(
                f"{len(self.all_skipped)} of {rows} cannot be read, too many to skip; the last: {problem}"
            )


def _rounded(tokens: Float[Tensor, "B T H W C"]) -> Float16[Tensor, "B T H W C"]:
    """On the host, or on their way there.

    What does not fit becomes infinite, and is refused with the clip's name when the shard is written.
    """
    host = torch.empty(tokens.shape, dtype=torch.float16, pin_memory=tokens.is_cuda)
    if tokens.is_cuda:
        # Rounded on the device: half the bytes to copy.
        return host.copy_(tokens.half(), non_blocking=True)
    # Few numbers at a time stay on this thread, where others would wait for a core that decodes.
    for clip, rounded in zip(tokens, host, strict=True):
        rounded.copy_(clip)
    return host


def _arrived(
    slots: _Slots, host: Mapping[Layer, Tensor], copied: torch.cuda.Event | None
) -> tuple[_Slots, _Tokens]:
    if copied is not None:
        copied.synchronize()
    return slots, {layer: values.numpy() for layer, values in host.items()}
