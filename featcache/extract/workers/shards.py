"""A worker at a store that others write too: it makes the shards it is asked for, and no two make one.

What is done is what is on disk. A worker takes the claim of a shard when its decoding begins, looks at the
disk once more, and lets go when the shard is there; so what is finished is not made again, by whomever. The
first worker fixes batch and attention kernel for all. Whoever finds all shards there marks the store as
complete, and then it is, byte for byte, the one that a single process would have written.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from featcache.errors import CallError, StoreError, few
from featcache.extract.job import Extraction
from featcache.extract.pipeline import Pipeline, Work
from featcache.extract.prepare import Prepared, prepare, refuse_full_disk
from featcache.extract.run import LoadedModel, Machine, Passes, choose_passes, open_writer, pipeline_for
from featcache.extract.workers.bucket_claims import claims_at
from featcache.extract.workers.claims import FOLDER, Claims, Owner
from featcache.extract.workers.parts import Part
from featcache.store.feature_store import FeatureStore
from featcache.store.matching import n_shards_there
from featcache.store.writer import StoreWriter
from featcache.system.console import Progress, silent
from featcache.system.device import device_name

FINISHING = "complete"
"""The claim of whoever marks the store complete."""

POLL = 1.0
"""Seconds from one look at what another worker has to the next; after that long it is said."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of some shards that a worker was asked for: all of them are on disk."""

    shards: tuple[int, ...]
    """Those that it made; the others were there, or came from other workers."""
    seconds: float
    n_passes: int
    """Forward passes of the model."""
    bound: str | None
    """What bound it, in words, if there was anything to do."""


class ShardWorker:
    """Makes shards of one store, as often as it is asked, with the model kept loaded; used in a `with` block.

    While it is open, `scivid extract` without `--shards` is refused at this store, where there are locks.
    """

    def __init__(
        self,
        one: Prepared,
        machine: Machine,
        model: LoadedModel,
        owner: Owner,
        *,
        skip_bad: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Begin the store, or join those who write it.

        Args:
            one: the split, as `prepare` gives it.
            machine: how to run it.
            model: loaded when there is something to do; may be kept for the next split.
            owner: this process, `Owner.this_process(os.environ)`.
            skip_bad: skip single bad records, and list them in the store.
            progress: told of the targets that are written.

        Raises:
            CallError: another batch or attention kernel is asked for than the store was begun with.
            WeightsError: the store is to be begun, and the weights are missing or do not fit.
            StoreError: as `create_or_resume`.
        """
        if one.header is None:
            model.encoder(one.job)  # first, so that weights that cannot be loaded leave nothing behind
        begun = {} if one.header is None else one.header.provenance.get("batch", {})
        passes = choose_passes(one, machine, model, begun)
        self._role = one.job.role
        self.writer: StoreWriter = open_writer(one, passes, machine.device, progress, with_others=True)
        try:
            # Of two workers that began it at once, one was first.
            passes = self._agreed(passes, machine)
            self.pipeline: Pipeline = pipeline_for(
                one, passes, machine, model, self.writer, skip_bad=skip_bad
            )
            self.claims: Claims = claims_at(self.writer.path / FOLDER, owner)
        except BaseException:
            self.writer.close()
            raise

    def __enter__(self) -> "ShardWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_shards(self) -> int:
        """Shards of the store, numbered from 0."""
        return self.writer.spec.n_shards

    @property
    def n_there(self) -> int:
        """Shards of which there are files, whoever wrote them."""
        return n_shards_there(self.writer.path, self.writer.header)

    def make(self, shards: Sequence[int], progress: Progress = silent) -> Made:
        """Have these shards on disk: make those that are not, and wait for those that others are at.

        Raises:
            DataError: a record is broken, unless they are skipped, or too many of them are.
            StoreError: a token does not fit, or the disk is full. What was written stays.
        """
        started, passes_before = time.monotonic(), self.pipeline.n_passes
        written: list[int] = []
        bound = None

        def note(shard: int) -> None:
            written.append(shard)
            self.claims.release(str(shard))

        self.writer.take(shards)
        n_rows = self.pipeline.n_rows_of(shards)
        waiting = _Waiting(self._role)
        try:
            while todo := self.writer.todo():
                claimed = self._claimed(todo)
                first = next(claimed, None)
                if first is None:
                    if left := self.writer.todo():
                        waiting.for_(f"what other workers are at: shards {few(left)}")
                    continue
                before = n_rows - self.pipeline.n_rows_of(todo)
                work = Work(shards=chain([first], claimed), before=before, n_rows=n_rows, written=note)
                bound = self.pipeline.make(work, progress)
        finally:
            self.claims.release_all()
        return Made(
            shards=tuple(sorted(written)),
            seconds=time.monotonic() - started,
            n_passes=self.pipeline.n_passes - passes_before,
            bound=bound,
        )

    def finish(self) -> FeatureStore | None:
        """The complete store, if all shards are there; marked so by this worker if it is the first to see it.

        Raises:
            DataError: of all workers together too many rows were skipped.
            StoreError: shards are damaged.
        """
        waiting = _Waiting(self._role)
        while self.n_there == self.n_shards:
            self.writer.catch_up()
            if self.writer.header.complete:
                self.claims.clear()
                return FeatureStore(self.writer.path, self.writer.header)
            if self.claims.claim(FINISHING):
                return self._marked()
            waiting.for_("the worker that marks the store complete")
        return None

    def _marked(self) -> FeatureStore | None:
        try:
            self.pipeline.write_previews()
            store = self.writer.finish(accept=self.pipeline.refuse_too_many)
            self.claims.clear()
            return store
        except StoreError:
            if not self.writer.todo():
                raise
            for note in self.writer.damaged:  # in another part: whose it is makes it again
                _LOG.warning(note)
            return None
        finally:
            self.claims.release(FINISHING)

    def claim_as(self, owner: Owner) -> None:
        """Let go of all claims, and make the next ones as another owner."""
        self.claims.close()
        self.claims = claims_at(self.writer.path / FOLDER, owner)

    def close(self) -> None:
        """Let go of claims and lock; what was written stays."""
        self.claims.close()
        self.writer.close()

    def _claimed(self, shards: Sequence[int]) -> Iterator[int]:
        """Those that nobody is at, claimed one by one as they are asked for, unless they are there by now."""
        for shard in shards:
            if self.claims.claim(str(shard)):
                if self.writer.is_done(shard):
                    self.claims.release(str(shard))
                else:
                    yield shard

    def _agreed(self, ours: Passes, machine: Machine) -> Passes:
        """How the store was begun; what was asked for explicitly has to be the same."""
        begun: dict[str, Any] = self.writer.header.provenance.get("batch", {})
        agreed = Passes(
            batch=begun.get("clip_views", ours.batch),
            attention_kernel=begun.get("attention_kernel", "torch") if begun else ours.attention_kernel,
        )
        if self.writer.header.complete:
            return agreed
        for option, asked, found in (
            ("--batch", machine.batch, agreed.batch),
            ("--attention-kernel", machine.attention_kernel, agreed.attention_kernel),
        ):
            if asked not in (None, found):
                raise CallError(
                    f"{option} {asked}: the first worker began {self.writer.path} with {found}, and parts "
                    f"that are made in another way do not fit. Leave {option} out, or give it as it was."
                )
        here, there = device_name(machine.device), begun.get("device")
        if there not in (None, here):
            _LOG.warning(
                f"{self._role}: {self.writer.path} was begun on {there}, and this worker has {here}: its "
                "shards are equal to what the other would make up to the hardware's rounding, not to the bit"
            )
        return agreed


class _Waiting:
    """Waits for other workers, and says so once."""

    def __init__(self, role: str) -> None:
        self._role, self._n = role, 0

    def for_(self, what: str) -> None:
        """Wait a moment."""
        self._n += 1
        if self._n == 2:
            _LOG.warning(f"{self._role}: waiting for {what}")
        time.sleep(POLL)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDone:
    """What a worker leaves of its part of one split: all of it is on disk."""

    role: str
    path: Path
    part: Part
    n_ours: int
    """Shards of the part."""
    n_made: int
    """Of them, those that this worker made now."""
    n_missing: int
    """Shards of other parts that are not on disk yet."""
    n_shards: int
    """Of the whole store."""
    store: FeatureStore | None
    """The complete store, if it is."""

    def __str__(self) -> str:
        ours = f"{self.role}, part {self.part}: all {self.n_ours} shards are there, {self.n_made} made now"
        if self.n_ours == 0:
            ours = f"{self.role}, part {self.part}: no shard is left for it"
        if self.store is not None:
            return f"{ours}; the store is complete"
        return f"{ours}; {self.n_missing} of {self.n_shards} are to come from other parts"


def extract_parts(
    jobs: Sequence[Extraction],
    machine: Machine,
    part: Part,
    owner: Owner,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = _LOG.info,
) -> Iterator[PartDone]:
    """Make one part of each of some splits, beside other workers that make the others.

    Arguments as `extract_all`, and `owner` is this process.

    Raises:
        CallError, DataError, StoreError, WeightsError: as `extract_all` and `ShardWorker`.
    """
    prepared = prepare(
        jobs, data_dir=data_dir, cache_dir=cache_dir, shard_bytes=machine.shard_bytes, skip_bad=skip_bad,
        progress=progress,
    )  # fmt: skip
    if not force:
        refuse_full_disk(cache_dir, prepared)
    model = LoadedModel(machine.device)
    for one in prepared:
        with ShardWorker(one, machine, model, owner, skip_bad=skip_bad, progress=progress) as worker:
            shards = part.shards(worker.n_shards)
            made = worker.make(shards, progress)
            if made.bound is not None:
                say(made.bound)
            store = worker.finish()
            yield PartDone(
                role=one.job.role,
                path=worker.writer.path,
                part=part,
                n_ours=len(shards),
                n_made=len(made.shards),
                n_missing=0 if store is not None else worker.n_shards - worker.n_there,
                n_shards=worker.n_shards,
                store=store,
            )
