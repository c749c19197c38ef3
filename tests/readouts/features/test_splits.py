"""What a split is: its usable clips, and how many views of them differ."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.spec import Layer
from featcache.store.clip_table import clip_table_bytes
from featcache.store.feature_store import FeatureStore
from readouts.features.batches import training_batches, wanted_at
from readouts.features.draws import Draws
from readouts.features.splits import FeatureSplit, draws_of
from readouts.tasks.base import clip_rows
from tests.readouts.features.numbered import numbered, one_hot, whole


def with_starts(store: FeatureStore, lengths: list[int], views: Mapping[str, object]) -> FeatureSplit:
    """The split, as if its clips had these numbers of frames and its views were these."""
    table = store.clips.select(CLIP_SCHEMA.names)
    place = table.column_names.index("n_source")
    clips = ClipIndex(table.set_column(place, "n_source", pa.array(lengths, pa.int64())).cast(CLIP_SCHEMA))
    parts = {**store.parts, "views": views}
    header = replace(store.header, parts=parts, clips_digest=clips.digest)
    (store.path / "clips.parquet").write_bytes(clip_table_bytes(header, clips))
    return FeatureSplit(store=FeatureStore(store.path, header), layers=(Layer(1),))


TYPHOON = {"n_views": 8, "starts": {"rule": "random_clip", "span": 24, "n_starts": 8}}
WINDOWS = {"n_views": 8, "starts": {"rule": "window", "span": 16, "n_starts": 8}}


@pytest.mark.parametrize(
    ("lengths", "views", "distinct"),
    [
        # random_clip never draws the last start, but for the only one; beyond 24 + 8 frames nothing is new.
        ([32, 40, 27, 24, 19], TYPHOON, (8, 8, 3, 1, 1)),
        ([32, 33, 34, 35, 36], TYPHOON, 8),
        # A window does: 16 of 20 frames begin at 0 to 4.
        ([20, 16, 23, 18, 17], WINDOWS, (5, 1, 8, 3, 2)),
        ([19] * 5, WINDOWS, 4),
        ([19, 1, 2, 3, 4], {"n_views": 8, "seed": None}, 8),
    ],
)
def test_short_clips_have_fewer_distinct_views(
    make_split, lengths: list[int], views: Mapping[str, object], distinct: int | tuple[int, ...]
) -> None:
    split = with_starts(make_split("train", numbered(5, 8), one_hot(5)), lengths, views)
    assert split.distinct_views == distinct


def test_views_are_counted_of_the_clips_that_hold_features(make_split) -> None:
    tokens = numbered(5, 8)
    tokens[1] = np.nan
    store = make_split("train", tokens, one_hot(5), skipped={1: "broken"})
    split = with_starts(store, [20, 16, 23, 18, 17], WINDOWS)
    assert split.distinct_views == (5, 8, 3, 2)
    draws = Draws(n_clips=4, n_views=split.distinct_views, batch=200, seed=0)
    (batch,) = training_batches(split, clip_rows, draws, range(1), torch.device("cpu"))
    for clip, count in ((0, 5), (2, 8), (3, 3), (4, 2)):
        found = whole(batch.tokens)[batch.clips == clip][:, 0, 0, 0] - 10 * clip
        assert set(found.tolist()) == set(range(count))


def test_a_split_of_a_hundred_million_clips_costs_what_is_drawn(make_split) -> None:
    small = make_split("train", numbered(5, 8), one_hot(5))
    n = 10**8
    provenance = {"skipped_clips": [{"clip": clip, "id": "", "reason": "broken"} for clip in (3, n - 1)]}
    header = replace(
        small.header, spec=replace(small.spec, n_clips=n, clips_per_shard=50), provenance=provenance
    )
    for options in ({}, {"mix_shards": 16}):
        tracemalloc.start()
        split = FeatureSplit(store=FeatureStore(small.path, header), layers=(Layer(1),))
        draws = draws_of(split, batch=1000, seed=0, **options)
        drawn = [wanted_at(split, draws, step)[0] for step in (0, 1, 10**6)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert split.n_usable == n - 2
        # Two million shards in their order take 16 MB, their sizes and ends as much.
        assert peak < (150e6 if options else 1e6)
        clips = np.concatenate(drawn)
        assert ((clips >= 0) & (clips < n - 1) & (clips != 3)).all()
        assert len(np.unique(clips[:2000])) == 2000
        n_shards = len(np.unique(clips[:1000] // 50))
        assert n_shards > 900 if not options else n_shards <= 3 * 16
    share = replace(split, fraction=1e-5)
    assert share.n_usable == 1000
    larger = set(replace(split, fraction=1e-4).usable.tolist())
    assert set(share.usable.tolist()) < larger
