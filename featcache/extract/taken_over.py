"""Clips whose tokens another store of the same split has: one more clip in a list costs one clip.

A store's fingerprint has all its clips in it, so a longer or shorter list is another store. Its tokens are
the same where the clip is: same file, same frames, and all that makes tokens alike. Those are copied; what a
model would give now in other company differs in last bits at the most.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16

from featcache.clips import FRAME_COLUMNS, Listed
from featcache.errors import StoreError
from featcache.extract.prepare import Prepared
from featcache.manifest import OWN_VIDEOS
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, finished, readable_stores

OF_THE_LIST = ("n_clips", "index")
"""What of a fingerprint's clips says which there are, and not what they are cut from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenOver:
    """Rows of a store to be, and the clips of a finished one that have their tokens."""

    store: FeatureStore
    clip_of: Mapping[int, int]

    def tokens(self, row: int) -> Iterator[tuple[Layer, Float16[np.ndarray, "V T H W C"]]]:
        """Those of a row, layer by layer.

        Raises:
            StoreError: the other store is damaged.
        """
        views = np.arange(self.store.spec.n_views)
        clips = np.full_like(views, self.clip_of[row])
        for layer in self.store.spec.layers:
            try:
                yield layer, self.store.read(clips, views=views, layer=layer)
            except StoreError as problem:
                raise StoreError(
                    f"{problem} Its clips were to be taken over: move {self.store.path} away, and the same "
                    "command computes them anew."
                ) from None

    def __str__(self) -> str:
        return f"{len(self.clip_of)} clips are taken over from {self.store.path.name}"


def taken_over(one: Prepared) -> TakenOver | None:
    """The store that has most of the clips of one that is to be made; None where none has any.

    Of users' own videos alone, whose lists grow, and of stores whose rows are clips in float16.
    """
    own = one.job.dataset.reader == OWN_VIDEOS
    if not own or one.spec.n_frames is not None or one.spec.dtype != "float16":
        return None
    row_of = {clip: row for row, clip in enumerate(_clips(one.index))}
    best: TakenOver | None = None
    cache_dir = one.path.parents[2]
    for store in readable_stores(cache_dir, one.job.task.name, one.job.role, one.job.name)[0]:
        if store.path.name == one.path.name or not _is_alike(store, one):
            continue
        try:
            left_out = finished(store).skipped_clips
            there = enumerate(_clips(store.clip_table))
            known = {
                row_of[clip]: number for number, clip in there if clip in row_of and number not in left_out
            }
        except StoreError:  # unfinished, or damaged: what is sound of it is not worth a guess
            continue
        if known and (best is None or len(known) > len(best.clip_of)):
            best = TakenOver(store=store, clip_of=known)
    return best


def _is_alike(store: FeatureStore, one: Prepared) -> bool:
    same_form = (store.spec.n_frames, store.spec.dtype, store.spec.layers, store.spec.grid) == (
        None, "float16", one.spec.layers, one.spec.grid,
    )  # fmt: skip
    return same_form and _without_the_list(store.parts) == _without_the_list(one.parts)


def _without_the_list(parts: Mapping[str, Any]) -> dict[str, Any]:
    clips = {name: value for name, value in parts["clips"].items() if name not in OF_THE_LIST}
    return {**parts, "clips": clips}


def _clips(listed: Listed) -> Iterator[Sequence[Any]]:
    """What decides the frames of each clip, in order."""
    for block in listed.blocks(*FRAME_COLUMNS):
        yield from zip(*(column.to_pylist() for column in block.columns), strict=True)
