"""Tokens that were quantised before they came: the same bytes, the same refusals. Shards at the same time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from featcache.store.dtypes import Quantised, quantized_tensor
from tests.featcache.store.test_writer import LAYERS, tree


def quantised(tokens: np.ndarray) -> Quantised:
    return Quantised(*(values.numpy() for values in quantized_tensor(torch.from_numpy(tokens).float())))


def shard_of(made: Any, shard: int) -> dict[Any, np.ndarray]:
    rows = made.spec.rows_of_shard(shard)
    return {layer: made.tokens(layer)[rows.start : rows.stop] for layer in LAYERS}


def reasons(made: Any, shard: int) -> dict[int, str]:
    return {row: why for row, why in made.skipped.items() if row in made.spec.rows_of_shard(shard)}


def test_a_store_is_the_same_whoever_quantised_it(example, tmp_path) -> None:
    skipped = {4: "broken"}
    ours, theirs = (example(dtype="int8", skipped=skipped, folder=tmp_path / name) for name in "ab")
    theirs.write()
    with ours.start() as writer:
        for shard in writer.todo():
            tokens = {layer: quantised(values) for layer, values in shard_of(ours, shard).items()}
            writer.write_shard(shard, tokens, reasons(ours, shard))
        writer.write_previews([(0, b"jpeg 0"), (6, b"jpeg 1")])
        writer.finish()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(("value", "said"), [(np.inf, "inf"), (-1e6, "inf"), (np.nan, "nan")])
def test_what_float16_cannot_hold_is_refused_with_its_name(example, value: float, said: str) -> None:
    made = example(dtype="int8")
    with made.start() as writer:
        tokens = shard_of(made, 1)
        large = tokens[LAYERS[1]].astype(np.float32)
        large[2, 1, 0, 2, 1, 4] = value
        given = {LAYERS[0]: quantised(tokens[LAYERS[0]]), LAYERS[1]: quantised(large)}
        with pytest.raises(StoreError) as problem:
            writer.write_shard(1, given)
        assert f"clip 5 (clip-005), view 1, layer 12_normed: the value {said} at" in str(problem.value)
        assert "(step, row, column, channel) (0, 2, 1, 4) does not fit float16" in str(problem.value)
        assert writer.todo() == [0, 1, 2]
        # A skipped clip is not looked at.
        writer.write_shard(1, given, {5: "broken"})
        assert writer.todo() == [0, 2]


def test_a_store_of_float16_takes_no_levels(example) -> None:
    made = example()
    with made.start() as writer:
        tokens = {layer: quantised(values) for layer, values in shard_of(made, 0).items()}
        with pytest.raises(CallError, match=r"layer 11: int8\[3, 2, 2, 3, 2, 5\] is not float16/32"):
            writer.write_shard(0, tokens)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_shards_that_are_written_at_the_same_time_end_as_one_after_the_other(
    example, tmp_path, dtype
) -> None:
    options = {"n_clips": 23, "clips_per_shard": 2, "dtype": dtype, "skipped": {5: "a", 20: "b"}}
    ours, theirs = (example(folder=tmp_path / name, **options) for name in "ab")
    theirs.write()
    with ours.start() as writer, ThreadPoolExecutor(4) as pool:
        todo = writer.todo()
        for done in [pool.submit(ours.write_shard, writer, shard) for shard in reversed(todo)]:
            done.result()
        writer.write_previews([(0, b"jpeg 0"), (22, b"jpeg 1")])
        writer.finish()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
