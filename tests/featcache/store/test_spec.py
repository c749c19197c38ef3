"""Shapes and bytes of a store, counted by hand."""

from featcache.spec import Layer, TokenGrid
from featcache.store.rows import Rows
from featcache.store.spec import FeatureSpec, rows_per_shard_for

VIT_B = TokenGrid(steps=8, rows=14, columns=14, channels=768)


def test_a_store_counts_every_clip_view_and_layer() -> None:
    spec = FeatureSpec(
        grid=VIT_B, layers=(Layer(0), Layer(12, normed=True)), n_clips=1000, n_views=2, clips_per_shard=55
    )
    assert spec.payload_bytes == 1000 * 2 * 2 * 2_408_448
    assert spec.n_shards == 19  # 18 x 55 = 990, and 10 clips are left
    assert spec.rows_of_shard(18) == range(990, 1000)
    (tokens,) = spec.arrays(Layer(12, normed=True))
    assert (tokens.name, tokens.dtype, tokens.shape) == (
        "tokens_12_normed",
        "float16",
        (1000, 2, 8, 14, 14, 768),
    )
    assert tokens.axes == ("clip", "view", "step", "row", "column", "channel")
    assert tokens.chunk_shape == (1, 1, 8, 14, 14, 768)
    assert tokens.shard_shape == (55, 2, 8, 14, 14, 768)
    assert (tokens.chunk_bytes, tokens.chunks_per_shard) == (2_408_448, 110)


def test_an_int8_store_has_a_scale_a_token_beside_the_tokens() -> None:
    spec = FeatureSpec(
        grid=VIT_B, layers=(Layer(0), Layer(12)), n_clips=100, n_views=3, clips_per_shard=32, dtype="int8"
    )
    tokens, scales = spec.arrays(Layer(12))
    assert (tokens.name, tokens.dtype, tokens.chunk_bytes) == ("tokens_12", "int8", 1_204_224)
    assert (scales.name, scales.dtype, scales.chunk_bytes) == ("scales_12", "float32", 8 * 196 * 4)
    assert scales.axes == ("clip", "view", "step", "row", "column")
    assert scales.shape == (100, 3, 8, 14, 14)
    assert [array.name for array in spec.all_arrays] == ["tokens_0", "scales_0", "tokens_12", "scales_12"]
    # 0.5026 of the same store in float16: a byte a number, and four for its 768 channels.
    assert spec.payload_bytes == 100 * 3 * 2 * (1_204_224 + 6_272)


def test_a_shard_stays_below_256_mib_unless_one_clip_is_larger() -> None:
    # 268,435,456 / 2,408,448 = 111.4, so 96 is the largest multiple of 32; with two views 55.7, so 32
    assert rows_per_shard_for(Rows(grid=VIT_B, n_views=1, n_clips=10_000)) == 96
    assert rows_per_shard_for(Rows(grid=VIT_B, n_views=2, n_clips=10_000)) == 32
    assert rows_per_shard_for(Rows(grid=VIT_B, n_views=4, n_clips=10_000)) == 27
    assert rows_per_shard_for(Rows(grid=VIT_B, n_views=1, n_clips=30)) == 30
    assert rows_per_shard_for(Rows(grid=VIT_B, n_views=1000, n_clips=30)) == 1
