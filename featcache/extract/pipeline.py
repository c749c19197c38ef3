"""The loop of an extraction and its threads: clips become views, views tokens, and tokens shards.

What is left to do is what is not on disk: a killed extraction goes on with the shards that are missing.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from featcache.backbones.base import Encoder
from featcache.data.readers.base import UnreadableFileError
from featcache.errors import CallError, DataError
from featcache.extract.batches import Batch, Batches, ClipBatches, FrameBatches
from featcache.extract.host_tokens import Arrays, Arriving, HostTokens
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.pixels.device_pixels import DevicePixels
from featcache.extract.pixels.host_pixels import HostPixels
from featcache.extract.prepare import Prepared
from featcache.extract.taken_over import TakenOver
from featcache.extract.write_behind import WriteBehind
from featcache.spec import Layer
from featcache.store.spec import FeatureSpec
from featcache.store.writer import StoreWriter
from featcache.system.console import Progress
from featcache.system.device import device_name
from featcache.system.threads import single_threaded_pool

MOST_SKIPPED, MOST_SKIPPED_SHARE = 10, 0.05
"""Rows that `skip_bad` skips at the most: so many, or this share of the split's, whichever is more."""


def is_apart(device: torch.device) -> bool:
    """Whether a device has processors and memory of its own.

    Then it makes pixels and quantises, which is left to other threads on a CPU, and is given its next pass
    before the tokens of the last are waited for.
    """
    return device.type != "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Shards that are to be made in one go."""

    shards: Iterable[int]
    """In order, one at least; the next is asked for when its decoding begins."""
    before: int
    """Rows that were done before these, for those who follow the progress."""
    n_rows: int
    """Rows there are, these included."""
    written: Callable[[int], None] = lambda shard: None
    """Told of each shard when it is on disk."""


def what_is_made(role: str, spec: FeatureSpec) -> str:
    """What those who follow the progress of a split are told is going on."""
    return f"extracting {role}" + ("" if spec.n_frames is None else ", distinct frames")


class Pipeline:
    """One store's reader, model and writer, and the threads between them.

    Each arrow is a buffer that goes from one thread to the next; whoever has it is the only one to touch it.
    Nothing stops at the end of a shard: what comes after it is decoded before its last batch is encoded.

        decode threads           batch thread            this thread                  two write threads
        ==============           ============            ===========                  =================
        read and decode the      copy them to a          run the model (a GPU: begin  write_shard:
        frames of a clip;        batch and pad it;       it, then take the tokens     checksums, files,
        on a CPU scale them      for a GPU send it and   of the batch before)         fsync
               |                 have the pixels made           |                            |
               |  frames of a    on a stream of their own       |                            |
               |  clip or pixels        |                       |  one of three shards,      v
               |  of a view             |  one of two batch     |  each filled here, then   disk
               +----------------------->|  buffers, in turn     |  the writer's, then free
                  fresh, at most a      +---------------------->+--------------------------->|
                  batch or two a           this thread's until
                  thread ahead             it asks for the next

    The wall time is the model's where the others keep up: while it works on batch i, the batch thread makes
    batch i + 1 of what was decoded ahead, and a write thread has the shard before. The third shard is filled,
    and the second write thread is at work, only while one writer is behind. A GPU has its pixels in memory of
    its own, which its stream waits for, not this thread; its tokens come through pinned memory, waited for
    after the next pass has begun.
    """

    def __init__(
        self,
        one: Prepared,
        encoder: Callable[[], Encoder],
        writer: StoreWriter,
        *,
        batch: int,
        device: torch.device,
        decode_threads: int,
        skip_bad: bool,
        known: TakenOver | None = None,
    ) -> None:
        """`batch` clips go through the model at once, which `encoder` gives where there is anything to do."""
        self.job, self.index, self.device, self.writer = one.job, one.index, device, writer
        self.batch, self.encoder, self.known = batch, encoder, known
        self.views = ClipViews(one.job, one.reader)
        self.apart = is_apart(device)
        self.batches = self._batches_of(one, decode_threads)
        # What is taken over is so already.
        self.quantised = writer.spec.dtype == "int8" and (self.apart or known is not None)
        self.tokens = HostTokens(device, quantised=self.quantised)
        self.skip_bad = skip_bad
        self.skipped: dict[int, str] = {}
        """Row -> why this run skipped it."""
        self.all_skipped = set(writer.absent_rows)
        """Rows of the whole store, those of runs before this one included."""
        self.spec = writer.spec
        self.waited = {"pixels": 0.0, "disk": 0.0}
        """Seconds that this thread waited for each."""
        self.n_passes = 0
        """Forward passes so far."""

    def _batches_of(self, one: Prepared, threads: int) -> Batches[Any, Any]:
        size, skip = self.batch * one.chunks_per_pass, self._skip
        # Corruptions are drawn and coded on the host.
        apart = self.apart and self.job.corruption is None
        pixels = DevicePixels(self.views, self.device) if apart else HostPixels(self.views)
        known = () if self.known is None else self.known.places
        if one.frames is None:
            return ClipBatches(
                self.views, one.index, size=size, threads=threads, skip=skip, pixels=pixels, known=known
            )
        return FrameBatches(
            self.views,
            one.index,
            one.frames,
            size=size,
            threads=threads,
            skip=skip,
            pixels=pixels,
            known=known,
        )

    def run(self, progress: Progress) -> str | None:
        """Every shard that is not on disk yet: decode ahead, encode, write behind.

        Returns:
            What bound it, in words, if there was anything to do.
        """
        shards, n_rows = self.writer.todo(), self.spec.rows.n_rows
        before = n_rows - self.n_rows_of(shards)
        progress(what_is_made(self.job.role, self.spec), before, n_rows)
        if not shards:
            return None
        return self.make(Work(shards=shards, before=before, n_rows=n_rows), progress)

    def make(self, work: Work, progress: Progress) -> str:
        """The shards of `work`: decode ahead, encode, write behind.

        Returns:
            What bound it, in words.
        """
        encoder, started, done = self.encoder(), time.monotonic(), work.before
        what = what_is_made(self.job.role, self.spec)
        self.waited = dict.fromkeys(self.waited, 0.0)
        behind = WriteBehind(self.writer, quantised=self.quantised, written=work.written)
        # Closed at once where this ends early: else it goes on for a while, and asks for more shards.
        encoded = closing(self._encoded(encoder, map(self.spec.rows_of_shard, work.shards)))
        with self._fitting(), behind, encoded as batches:
            for batch, tokens in batches:
                behind.fill(batch, tokens)
                if batch.slots:
                    progress(what, done + batch.slots[-1][0] - batch.rows.start + 1, work.n_rows)
                if batch.is_last:
                    if self.known is not None:
                        behind.take_over(batch.rows, self.known.places, self.known.tokens)
                    done += len(batch.rows)
                    skipped = {row: self.skipped[row] for row in batch.rows if row in self.skipped}
                    with self._waiting("disk"):
                        behind.write(batch.rows.start // self.spec.clips_per_shard, skipped)
            with self._waiting("disk"):
                behind.finish()
        return self._log(done - work.before, time.monotonic() - started)

    def n_rows_of(self, shards: Iterable[int]) -> int:
        """Rows of some shards."""
        return sum(len(self.spec.rows_of_shard(shard)) for shard in shards)

    def write_previews(self) -> None:
        """Keep a few clips of the split as the backbone saw them, for stage two, which has no videos."""
        strips = self.batches.strips
        # As where clips pass by: by one thread of torch's, which resizes with other last bits than several.
        with single_threaded_pool(1, "strips") as pool:
            for number in [number for number, strip in strips.items() if strip is None]:
                try:
                    strips[number] = pool.submit(self.views.strip, self.index.clip(number)).result()
                except DataError as problem:
                    self._refuse_unskippable(problem)  # a clip is no row where frames are stored once
        self.writer.write_previews((number, strip) for number, strip in strips.items() if strip)

    def _encoded(
        self, encoder: Encoder, shards: Iterable[range]
    ) -> Generator[tuple[Batch, Mapping[Layer, Arrays]], None, None]:
        """Batches with their tokens; a GPU works on the next one while the last is copied away."""
        begun: deque[tuple[Batch, Arriving]] = deque()
        for batch in self._awaited(shards):
            begun.append((batch, self._start(encoder, batch)))
            if len(begun) > self.apart:
                first, arriving = begun.popleft()
                yield first, arriving.arrived()
        for last, arriving in begun:
            yield last, arriving.arrived()

    def _awaited(self, shards: Iterable[range]) -> Iterator[Batch]:
        batches = self.batches.of(shards)
        while True:
            with self._waiting("pixels"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _start(self, encoder: Encoder, batch: Batch) -> Arriving:
        """One forward pass of exactly `self.batch` inputs, so that a resumed shard meets the same kernels."""
        if batch.pixels is None:
            return Arriving({}, None)
        if batch.made is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(batch.made)
            # Else the side stream would fill the memory again while this one reads it.
            batch.pixels.record_stream(stream)
        self.n_passes += 1
        with torch.inference_mode():
            features = encoder(batch.pixels)
            self._check_shapes(features)
            kept = {layer: self.batches.kept(values) for layer, values in features.items()}
            return self.tokens.begin(kept)

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
        self.refuse_too_many(len(self.all_skipped), f"; the last: {problem}")

    def refuse_too_many(self, n_skipped: int, example: str = "") -> None:
        """Refuse a store that lacks so many rows.

        Raises:
            DataError: says how many.
        """
        if n_skipped > max(MOST_SKIPPED, MOST_SKIPPED_SHARE * self.spec.rows.n_rows):
            rows = f"{self.spec.rows.n_rows} {self.spec.rows.axis}s"
            raise DataError(f"{n_skipped} of {rows} cannot be read, too many to skip{example}")

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Say what to do where a pass, or the pixels of the next, find no memory."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise CallError(
                f"--batch {self.batch} does not fit into the memory of {device_name(self.device)}: give a "
                "smaller one. The shards written so far are kept."
            ) from None

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.waited[what] += time.monotonic() - started

    def _log(self, n_rows: int, seconds: float) -> str:
        """Note in the store how long it took and where the time went, and say the latter."""
        device = device_name(self.device)
        self.writer.log_run(
            **{f"{self.spec.rows.axis}s": n_rows}, seconds=seconds, device=device, waited=self.waited
        )
        # What was not waited for is the model's, with the copying of its tokens.
        shares = {what: waited / seconds for what, waited in self.waited.items()}
        shares["model"] = 1 - sum(shares.values())
        first, *others = sorted(shares, key=lambda what: -shares[what])
        rest = ", ".join(f"{shares[what]:.0%} by the {what}" for what in others)
        return (
            f"{self.job.role} took {seconds:,.0f} s, {shares[first]:.0%} of it bound by the {first} ({rest})"
        )
