"""Clips whose tokens another store of the same split has: one more clip in a list costs one clip.

A store's fingerprint has all its clips in it, so a longer or shorter list is another store. Its tokens are
the same where the clip is: same file, same frames, and all that makes tokens alike. Those are copied; what a
model would give now in other company differs in last bits at the most.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from featcache.clips import FRAME_COLUMNS, Listed
from featcache.errors import StoreError
from featcache.extract.host_tokens import Arrays
from featcache.extract.prepare import Prepared
from featcache.manifest import OWN_VIDEOS
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, finished, readable_stores
from featcache.store.rows import FrameTable

OF_THE_LIST = ("n_clips", "index")
"""What of a fingerprint's clips says which there are, and not what they are cut from."""

Place = tuple[int, int, int]
"""Clip, view and step; of a store whose rows are clips the clip alone counts."""


class TakenOver:
    """Rows of a store to be, and where a finished one has their tokens; for one thread."""

    def __init__(self, store: FeatureStore, places: Mapping[int, Place]) -> None:
        self.store, self.places = store, places
        self._last: tuple[tuple[int, int] | None, dict[Layer, Arrays]] = None, {}

    def tokens(self, row: int) -> Iterator[tuple[Layer, Arrays]]:
        """Those of a row as they are stored, layer by layer: of all views of a clip, or of a frame.

        Raises:
            StoreError: the other store is damaged.
        """
        clip, view, step = self.places[row]
        if self._last[0] != (clip, view):
            # Frames come in the order of clips.
            self._last = (
                (clip, view),
                {layer: self._read(layer, clip, view) for layer in self.store.spec.layers},
            )
        for layer, arrays in self._last[1].items():
            of_row = slice(None) if self.store.spec.n_frames is None else slice(step, step + 1)
            yield layer, tuple(array[:, of_row] for array in arrays)

    def _read(self, layer: Layer, clip: int, view: int) -> Arrays:
        """All steps of a view, or of all views where a row has them."""
        spec = self.store.spec
        views = np.arange(spec.n_views) if spec.n_frames is None else np.array([view])
        clips = np.full_like(views, clip)
        try:
            if spec.dtype == "int8":
                return self.store.read_quantized(clips, views=views, layer=layer)
            return (self.store.read(clips, views=views, layer=layer),)
        except StoreError as problem:
            raise StoreError(
                f"{problem} Its clips were to be taken over: move {self.store.path} away, and the same "
                "command computes them anew."
            ) from None

    def __str__(self) -> str:
        what = f"{len(self.places)} {self.store.rows.axis}s"
        return f"{what} are taken over from {self.store.path.name}"


def taken_over(one: Prepared) -> TakenOver | None:
    """The store that has most of the clips of one that is to be made; None where none has any.

    Of users' own videos alone, whose lists grow, and of stores whose rows and numbers are of the same kind.
    """
    if one.job.dataset.reader != OWN_VIDEOS:
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
            places = _places(known, one.frames)
        except StoreError:  # unfinished, or damaged: what is sound of it is not worth a guess
            continue
        if places and (best is None or len(places) > len(best.places)):
            best = TakenOver(store, places)
    return best


def _places(known: Mapping[int, int], frames: FrameTable | None) -> dict[int, Place]:
    """Row -> where it is, of clips of which the number in the other store is known."""
    if frames is None or not known:
        return {row: (number, 0, 0) for row, number in known.items()}
    ours, theirs = np.array(sorted(known.items())).T
    shown = frames.numbers[ours]
    rows, first = np.unique(shown, return_index=True)
    clips, views, steps = np.unravel_index(first, shown.shape)
    places = zip(theirs[clips].tolist(), views.tolist(), steps.tolist(), strict=True)
    return dict(zip(rows.tolist(), places, strict=True))


def _is_alike(store: FeatureStore, one: Prepared) -> bool:
    ours, theirs = one.spec, store.spec
    same_form = (theirs.dtype, theirs.layers, theirs.grid, theirs.rows.axis) == (
        ours.dtype, ours.layers, ours.grid, ours.rows.axis,
    )  # fmt: skip
    return same_form and _without_the_list(store.parts) == _without_the_list(one.parts)


def _without_the_list(parts: Mapping[str, Any]) -> dict[str, Any]:
    clips = {name: value for name, value in parts["clips"].items() if name not in OF_THE_LIST}
    return {**parts, "clips": clips}


def _clips(listed: Listed) -> Iterator[Sequence[Any]]:
    """What decides the frames of each clip, in order."""
    for block in listed.blocks(*FRAME_COLUMNS):
        yield from zip(*(column.to_pylist() for column in block.columns), strict=True)
