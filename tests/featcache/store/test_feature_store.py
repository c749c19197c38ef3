"""Every Zarr client and our own fast path read the same bits; everything else is refused in words."""

import json
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store import feature_store
from featcache.store.feature_store import FeatureStore, find_stores, open_features
from featcache.store.header import read_header
from featcache.store.reading import shard_file
from tests.featcache.store.small_header import forge

SKIPPED = {1: "broken JPEG", 6: "too short"}


def bits(values: np.ndarray) -> np.ndarray:
    assert values.dtype == np.float16
    # All NaN are alike: which one stands for "absent" is up to the client.
    return np.where(np.isnan(values), np.uint16(0x7E00), values.view(np.uint16))


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and np.array_equal(bits(found), bits(wanted))


@pytest.fixture(params=[{}, SKIPPED], ids=["all", "skipped"])
def stored(request, example):
    made = example(skipped=request.param)
    return made, made.write()


def test_zarr_python_reads_every_value(stored) -> None:
    made, store = stored
    group = zarr.open_group(store.path, mode="r")
    assert sorted(group.array_keys()) == ["tokens_11", "tokens_12_normed"]
    for layer in made.spec.layers:
        assert same(group[layer.array][...], made.tokens(layer))
        assert same(zarr.open_array(store.path / layer.array, mode="r")[5:7, 1:], made.tokens(layer)[5:7, 1:])


def test_xarray_reads_every_value(stored) -> None:
    xarray = pytest.importorskip("xarray")
    made, store = stored
    for dataset in (store.to_xarray(), xarray.open_zarr(store.path)):
        assert set(dataset.data_vars) == {"tokens_11", "tokens_12_normed"}
        for layer in made.spec.layers:
            assert dataset[layer.array].dims == ("clip", "view", "step", "row", "column", "channel")
            assert dataset[layer.array].dtype == np.float16
            assert dataset[layer.array].chunks[0] == (1,) * 7
            assert same(dataset[layer.array].values, made.tokens(layer))
    lazy = store.to_xarray().isel(clip=5)
    assert lazy.id.item() == "clip-005"
    assert lazy.attrs["scivid"]["fingerprint"] == store.fingerprint


def test_tensorstore_reads_every_value(stored) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    made, store = stored
    for layer in made.spec.layers:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store.path / layer.array)}}
        assert same(tensorstore.open(spec, read=True).result().read().result(), made.tokens(layer))


def test_we_read_every_value(stored) -> None:
    made, store = stored
    kept = sorted(set(range(7)) - made.skipped.keys())
    assert store.skipped_clips == made.skipped.keys()
    for layer in made.spec.layers:
        for view in range(2):
            assert same(store.read(kept, views=view, layer=layer), made.tokens(layer)[kept, view])


def test_a_clip_that_was_skipped_is_refused_with_the_reason(example) -> None:
    store = example(skipped=SKIPPED).write()
    message = r"clip 6 \(clip-006\), view 1, layer 11: it was skipped at extraction \(too short\): skip it"
    with pytest.raises(StoreError, match=message):
        store.read([0, 6], views=1, layer=Layer(11))


def test_batches_in_any_order_into_one_buffer(example) -> None:
    made = example()
    store, layer = made.write(), Layer(12, normed=True)
    tokens = made.tokens(layer)
    clips, views = np.array([6, 0, 3, 3, 5]), [1, 0, 1, 0, 1]
    out = np.full((5, *made.spec.grid.shape), 7, np.float16)
    for threads in (1, 2, 9):
        for verify in (True, False):
            assert store.read(clips, views=views, layer=layer, out=out, verify=verify, threads=threads) is out
            assert same(out, tokens[clips, views])
            out[...] = 7
    assert same(store.read([], layer=layer), tokens[:0, 0])


def test_mapped_batches_are_those_that_are_read(example) -> None:
    made = example(skipped=SKIPPED)
    store, clips, views = made.write(), [5, 0, 3, 3], [1, 0, 0, 1]
    for layer in made.spec.layers:
        (pieces,) = store.read_mapped(clips, views=views, layer=layer)
        assert same(np.stack(pieces), store.read(clips, views=views, layer=layer))
    with pytest.raises(StoreError, match=r"it was skipped at extraction"):
        store.read_mapped([next(iter(SKIPPED))], layer=made.spec.layers[0])


def test_the_only_layer_need_not_be_named(example) -> None:
    made = example(layers=(Layer(3),))
    assert same(made.write().read([2]), made.tokens(Layer(3))[[2], 0])


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"clips": [0, 7]}, "has no clip 7: there are 7"),
        ({"clips": [-1]}, "has no clip -1"),
        ({"clips": [0], "views": 2}, "has no view 2: there are 2"),
        ({"clips": [0], "layer": None}, "holds layers 11, 12_normed: say which"),
        ({"clips": [0], "layer": Layer(5)}, "holds layers 11, 12_normed: extract 5 with --layers 5"),
        ({"clips": [0], "out": np.zeros((2, 2, 3, 2, 5), np.float16)}, "give a C-contiguous float16 array"),
        ({"clips": [0], "out": np.zeros((1, 2, 3, 2, 10), np.float16)[..., ::2]}, "give a C-contiguous"),
    ],
)
def test_calls_that_cannot_be_answered(example, given_, why: str) -> None:
    store = example().write()
    with pytest.raises(CallError, match=why):
        store.read(**{"layer": Layer(11), **given_})


def test_one_flipped_bit_anywhere_is_named_on_reading(example, flip) -> None:
    made = example(n_clips=5, clips_per_shard=2, layers=(Layer(11),), skipped={2: "broken"})
    path = made.write().shard_path(Layer(11), 1)  # clips 2 (absent) and 3, two views: two chunks
    good, chunk, n = path.read_bytes(), 4096, made.spec.grid.nbytes
    tail = 2 * chunk + 4 * 4 + 4
    assert len(good) == tail + 4 * 16 + 4
    for byte in range(2 * chunk, len(good)):
        flip(path, byte)
        with pytest.raises(
            StoreError, match="fails the checksum of its " + ("index" if byte >= tail else "chunks")
        ):
            open_features(made.path)
        path.write_bytes(good)
    for byte in (*range(0, n, 17), n - 1, *range(chunk, chunk + n, 17), chunk + n - 1):
        flip(path, byte)
        fresh = open_features(made.path)
        view = hit = byte // chunk
        what = f"fails the checksum of the chunk at byte {hit * chunk}"
        with pytest.raises(StoreError) as problem:
            fresh.read([0, 3, 4], views=view)
        assert f"{path} {what}; clip 3 (clip-003), view {view}, layer 11 was being read" in str(problem.value)
        fresh.read([3], views=1 - hit)
        fresh.read([3], views=hit, verify=False)
        path.write_bytes(good)


def test_zarr_python_raises_on_a_flipped_bit_as_well(example, flip) -> None:
    made = example()
    flip(made.write().shard_path(Layer(11), 0), 5)
    array = zarr.open_array(made.path / "tokens_11", mode="r")
    with pytest.raises(ValueError, match="checksum"):
        array[0, 0]
    assert same(array[0, 1], made.tokens(Layer(11))[0, 1])


def test_a_checksum_is_verified_once(example, flip) -> None:
    made = example()
    store = made.write()
    store.read([0], layer=Layer(11))
    flip(store.shard_path(Layer(11), 0), 5)
    store.read([0], layer=Layer(11))
    with pytest.raises(StoreError, match="fails the checksum"):
        open_features(made.path).read([0], layer=Layer(11))
    unverified = open_features(made.path)
    unverified.read([0], layer=Layer(11), verify=False)
    with pytest.raises(StoreError, match="fails the checksum"):
        unverified.read([0], layer=Layer(11))


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        open_features(tmp_path / "none")
    (tmp_path / "photos").mkdir()
    with pytest.raises(StoreError, match=r"is not a feature store: it has no zarr\.json"):
        open_features(tmp_path / "photos")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="is not a feature store that this version reads"):
        open_features(tmp_path / "foreign.zarr")


def test_an_unfinished_store_is_refused(example) -> None:
    made = example()
    with made.start() as writer:
        made.write_shard(writer, 1)
    with pytest.raises(
        StoreError, match=r"is unfinished: 1 of 3 shards are there\. Run the same `scivid extract` again"
    ):
        open_features(made.path)
    partly = open_features(made.path, allow_incomplete=True)
    assert not partly.complete
    assert same(partly.read([3], layer=Layer(11)), made.tokens(Layer(11))[[3], 0])
    with pytest.raises(StoreError, match=r"c.0.0.0.0.0.0 is missing; clip 1 \(clip-001\), view 0, layer 11"):
        partly.read([1], layer=Layer(11))


def test_another_store_than_was_asked_for_is_refused(example) -> None:
    made = example()
    store = made.write()
    assert open_features(made.path, fingerprint=store.fingerprint, parts=made.parts).complete
    with pytest.raises(StoreError, match=r"views\.n_views: 2 here, 9 asked for"):
        open_features(made.path, parts={**made.parts, "views": {"n_views": 9, "seed": 0}})
    with pytest.raises(StoreError, match=f"holds the features {store.fingerprint}, you asked for 00"):
        open_features(made.path, fingerprint="00" * 32)


def test_a_missing_or_truncated_shard_is_refused_on_opening(example) -> None:
    made = example(skipped={4: "broken"})
    path = made.write().shard_path(Layer(12, normed=True), 1)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(StoreError) as problem:
        open_features(made.path)
    assert f"{path} has {len(good) - 1} bytes instead of {len(good)}, though" in str(problem.value)
    path.unlink()
    open_features(made.path, allow_incomplete=True)
    with pytest.raises(StoreError, match=r"c.1.0.0.0.0.0 is missing.*`scivid extract` again: it makes only"):
        open_features(made.path)


def test_of_very_many_shards_some_are_looked_at_on_opening_and_all_when_they_are_read(
    example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "MOST_LOOKED_AT", 2)
    monkeypatch.setattr(feature_store, "LOOKED_AT", 2)
    made = example()
    layer, spec = Layer(12, normed=True), made.write().spec
    path = FeatureStore(made.path, read_header(made.path)).shard_path(layer, 1)
    content = path.read_bytes()
    path.unlink()
    assert spec.n_shards == 3
    store = open_features(made.path)
    with pytest.raises(StoreError, match="is missing; clip 3"):
        store.read([3], layer=layer)
    path.write_bytes(content)
    last = store.shard_path(layer, 2)
    os.truncate(last, last.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"c.2.0.0.0.0.0 has .* bytes instead of"):
        open_features(made.path)


def test_targets_are_those_of_the_extraction(example) -> None:
    made = example()
    store = made.write()
    assert np.array_equal(store.targets.read("labels"), np.eye(4, dtype=np.uint8)[np.arange(7) % 4])
    assert store.targets is not None

    def other_classes(document: dict[str, Any]) -> None:
        own = document["attributes"]["scivid"]
        own["parts"]["classes"] = ["w", "x", "y", "z"]
        own["fingerprint"] = fingerprint(own["parts"])

    forge(store.targets.path / "zarr.json", other_classes)
    with pytest.raises(StoreError, match=r"holds the targets .* are wanted"):
        _ = store.targets


def test_a_store_without_targets(example) -> None:
    made = example()
    with made.start(attrs={"targets": None}) as writer:
        for shard in writer.todo():
            made.write_shard(writer, shard)
        store = writer.finish()
    assert store.targets is None
    assert store.previews() == {}


def test_a_cache_can_be_moved(example, tmp_path: Path) -> None:
    made = example()
    before = made.write()
    _ = before.targets
    (tmp_path / "features").rename(tmp_path / "moved")
    store = open_features(tmp_path / "moved" / "task" / "train" / before.path.name)
    assert store.targets.read("labels").shape == (7, 4)
    assert same(store.read([5], layer=Layer(11)), made.tokens(Layer(11))[[5], 0])


def test_clips_say_where_they_are(example) -> None:
    made = example()
    clips = made.write().clips
    assert clips.column_names == [
        "id",
        "source",
        "record",
        "n_source",
        "labels",
        "digest",
        "shard",
        "position",
    ]
    assert clips["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert clips["position"].to_pylist() == [0, 1, 2, 0, 1, 2, 0]
    assert clips.select(range(6)).equals(made.clips.clips)


def test_previews_come_back(example) -> None:
    assert example().write().previews() == {0: b"jpeg 0", 6: b"jpeg 1"}


def test_reading_from_many_threads_with_few_files_open(example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "MAX_OPEN_SHARDS", 2)
    made = example(n_clips=24, clips_per_shard=2)
    store = made.write()
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(15):
            clips, views, layer = (
                rng.integers(24, size=6),
                rng.integers(2, size=6),
                made.spec.layers[rng.integers(2)],
            )
            if not same(
                store.read(clips, views=views, layer=layer, threads=3), made.tokens(layer)[clips, views]
            ):
                wrong.append(f"{layer} {clips} {views}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_error_leaves_nobody_writing_into_the_buffer(example, monkeypatch: pytest.MonkeyPatch) -> None:
    made = example(skipped={0: "broken"})
    store = made.write()
    out = np.zeros((7, *made.spec.grid.shape), np.float16)
    with pytest.raises(StoreError, match="clip 0"):
        store.read(range(7), layer=Layer(11), out=out, threads=7)
    assert same(out[1:], made.tokens(Layer(11))[1:, 0])


def test_a_store_goes_to_other_processes(example) -> None:
    made = example()
    store = made.write()
    wanted = made.tokens(Layer(11))[:, 1]
    store.read(range(7), views=1, layer=Layer(11))
    copy = pickle.loads(pickle.dumps(store))
    assert same(copy.read(range(7), views=1, layer=Layer(11)), wanted)
    child = os.fork()
    if child == 0:
        # The parent's reading threads do not exist here.
        os._exit(0 if same(store.read(range(7), views=1, layer=Layer(11)), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_stores_are_found_by_task_split_and_backbone(example, tmp_path: Path) -> None:
    made = example()
    made.write()
    other = replace(made, path=tmp_path / "features/task/val/tiny_b-11111111.zarr")
    other.start().close()
    (tmp_path / "features/task/val/tiny-22222222.zarr").mkdir()
    cache = tmp_path / "features"
    assert [store.path for store in find_stores(cache)] == [made.path, other.path]
    assert [store.path for store in find_stores(cache, "task", "train", "tiny")] == [made.path]
    assert find_stores(cache, "task", "val", "tiny") == ()
    (unfinished,) = find_stores(cache, backbone="tiny_b")
    assert not unfinished.complete
    assert unfinished.spec == made.spec
    assert find_stores(tmp_path / "none") == ()


def test_an_edited_zarr_json_is_refused(example) -> None:
    made = example()
    root = made.write().path / "zarr.json"
    root.write_text(root.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(StoreError, match=r"zarr\.json was changed after it was written"):
        open_features(made.path)
    forge(root, lambda document: None)
    with pytest.raises(StoreError, match=r"zarr\.json was edited: its parts have the fingerprint"):
        open_features(made.path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_clips=st.integers(1, 9),
    n_views=st.integers(1, 3),
    clips_per_shard=st.integers(1, 11),
    shape=st.tuples(*[st.integers(1, 3)] * 4),
    n_layers=st.integers(1, 2),
    skip=st.sets(st.integers(0, 8), max_size=3),
    seed=st.integers(0, 9),
)
def test_any_shape_round_trips(
    example: Callable, tmp_path_factory, n_clips, n_views, clips_per_shard, shape, n_layers, skip, seed
) -> None:
    made = example(
        n_clips=n_clips,
        n_views=n_views,
        clips_per_shard=clips_per_shard,
        grid=TokenGrid(**dict(zip(("steps", "rows", "columns", "channels"), shape, strict=True))),
        layers=tuple(Layer(block) for block in range(n_layers)),
        skipped={clip: "broken" for clip in skip if clip < n_clips},
        folder=tmp_path_factory.mktemp("features"),
    )
    store, group = made.write(), zarr.open_group(made.path, mode="r")
    kept = sorted(set(range(n_clips)) - made.skipped.keys())
    clips = np.random.default_rng(seed).permutation(kept).astype(np.int64)
    views = np.random.default_rng(seed).integers(n_views, size=len(clips))
    for layer in made.spec.layers:
        assert same(group[layer.array][...], made.tokens(layer))
        assert same(store.read(clips, views=views, layer=layer), made.tokens(layer)[clips, views])


@pytest.fixture
def int8(example):
    made = example(dtype="int8", skipped={1: "broken JPEG"})
    return made, made.write()


KEPT = [0, 2, 3, 4, 5, 6]


def by_definition(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, scales, and the float16 tokens they stand for."""
    wide = tokens.astype(np.float32)
    scales = np.abs(wide).max(axis=-1) / np.float32(127)
    levels = np.rint(wide / scales[..., None]).astype(np.int8)
    return levels, scales, (levels * scales[..., None]).astype(np.float16)


def test_an_int8_store_is_read_dequantised_and_as_it_is(int8) -> None:
    made, store = int8
    clips, views, layer = np.array([6, 0, 3, 3, 5]), [1, 0, 1, 0, 1], Layer(11)
    levels, scales, tokens = by_definition(made.tokens(layer)[clips, views])
    for threads in (1, 3):
        assert same(store.read(clips, views=views, layer=layer, threads=threads), tokens)
        out = (np.ones(levels.shape, np.int8), np.ones(scales.shape, np.float32))
        found = store.read_quantized(clips, views=views, layer=layer, out=out, threads=threads)
        assert found[0] is out[0]
        assert np.array_equal(found[0], levels)
        assert np.array_equal(found[1], scales)
    assert np.array_equal(
        store.read_quantized([2], layer=layer)[0], by_definition(made.tokens(layer)[[2], 0])[0]
    )
    assert np.abs(tokens - made.tokens(layer)[clips, views]).max() <= scales.max() * 0.51


def test_mapped_int8_batches_are_those_that_are_read(int8, monkeypatch: pytest.MonkeyPatch) -> None:
    made, quantized = int8
    layer = made.spec.layers[0]
    for pieces, wanted in zip(
        quantized.read_mapped([2, 0], layer=layer), quantized.read_quantized([2, 0], layer=layer), strict=True
    ):
        assert np.array_equal(np.stack(pieces), wanted)
    monkeypatch.setattr(shard_file, "is_local", lambda path: False)
    assert open_features(quantized.path).read_mapped([2], layer=layer) is None


def test_zarr_clients_read_an_int8_store(int8) -> None:
    xarray = pytest.importorskip("xarray")
    tensorstore = pytest.importorskip("tensorstore")
    made, store = int8
    names = ["scales_11", "scales_12_normed", "tokens_11", "tokens_12_normed"]
    group, data = zarr.open_group(store.path, mode="r"), store.to_xarray()
    assert sorted(group.array_keys()) == sorted(data.data_vars) == names
    assert data.scales_11.dims == ("clip", "view", "step", "row", "column")
    for layer in made.spec.layers:
        levels, scales, tokens = by_definition(made.tokens(layer)[KEPT])
        for name, wanted in ((layer.array, levels), (layer.scale_array, scales)):
            assert np.array_equal(group[name][...][KEPT], wanted)
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store.path / name)}}
            assert np.array_equal(tensorstore.open(spec, read=True).result().read().result()[KEPT], wanted)
        # As `to_xarray` says: lazily, in float32; a clip that was skipped is NaN.
        widened = data[layer.array] * data[layer.scale_array]
        assert same(widened.values[KEPT].astype(np.float16), tokens)
        assert np.isnan(widened.values[1]).all()
    assert isinstance(data, xarray.Dataset)


def test_calls_for_the_other_kind_of_store(int8, example, tmp_path: Path) -> None:
    _, store = int8
    other = example(folder=tmp_path / "other").write()
    with pytest.raises(CallError, match=r"holds float16 tokens, not int8: use `read`"):
        other.read_quantized([0], layer=Layer(11))
    wrong = (np.zeros((2, 2, 3, 2, 5), np.int8), np.zeros((2, 2, 3, 2), np.float32))
    with pytest.raises(CallError, match=r"out\[0\] is int8\[2, 2, 3, 2, 5\]: give a C-contiguous int8 array"):
        store.read_quantized([0], layer=Layer(11), out=wrong)
    with pytest.raises(StoreError, match=r"clip 1 \(clip-001\), view 0, layer 11: it was skipped"):
        store.read_quantized([1], layer=Layer(11))


def test_damage_of_int8_tokens_or_of_their_scales_is_named(int8, flip) -> None:
    made, _ = int8
    for name, n_axes in (("tokens_11", 6), ("scales_11", 5)):
        path = made.path / name / ".".join(["c", "1", *"0" * (n_axes - 1)])
        flip(path, 3)
        message = f"{name}/.* fails the checksum of the chunk at byte 0; clip 3 .* view 0, layer 11"
        for read in (open_features(made.path).read, open_features(made.path).read_quantized):
            with pytest.raises(StoreError, match=message):
                read([3, 4], layer=Layer(11))
        flip(path, 3)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"scales_11/c\.1\.0\.0\.0\.0 has .* bytes instead of"):
        open_features(made.path)


def test_the_dtype_is_part_of_the_fingerprint(example, tmp_path: Path) -> None:
    whole, quantized = example(folder=tmp_path / "a").write(), example(dtype="int8").write()
    assert whole.fingerprint != quantized.fingerprint
    assert "dtype" not in json.loads((whole.path / "zarr.json").read_bytes())["attributes"]["scivid"]["spec"]
    assert open_features(quantized.path).spec == quantized.spec
    made = example(dtype="int8", folder=tmp_path / "b")
    with pytest.raises(
        CallError, match=r"stored as int8, the fingerprint's parts say float16 \(tokens.dtype\)"
    ):
        made.start(parts={**made.parts, "tokens": {"dtype": "float16"}})
