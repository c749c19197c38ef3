"""Parts of stores: which name they get, and that every chunk of them is the one it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CallError, StoreError
from featcache.fingerprint import fingerprint
from featcache.sharing.cut import Cut, copy_shard, header_of, parse_layers
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.rows import FrameTable
from featcache.store.zarr_format import shard_key
from tests.featcache.conftest import flip
from tests.featcache.sharing.conftest import write
from tests.featcache.sharing.small_cache import LAYERS, make_store, tree, values_of


def test_a_part_has_the_name_that_an_extraction_of_it_has(
    stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    header = header_of(stores["train"], Cut(layers=(Layer(12, normed=True),), n_views=1))
    own = make_store(tmp_path / "own", "train", n_views=1, layers=(Layer(12, normed=True),))
    assert (header.fingerprint, header.parts) == (own.fingerprint, own.parts)
    assert header.attrs["exactness"] == "1 frozen view"
    assert header.spec == own.spec and header.provenance["part_of"] == {
        "fingerprint": stores["train"].fingerprint, "layers": ["11", "12_normed"], "n_views": 2,
    }  # fmt: skip
    # All of it is what it was, but for the folders of this machine.
    whole = header_of(stores["train"], Cut(layers=LAYERS[::-1], n_views=2))
    assert replace(whole, provenance={}) == replace(stores["train"].header, provenance={})


def test_of_more_views_some_stay_drawn(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    parts = {"views": {"n_views": 3, "seed": 5, "augmentation": {"flip": 0.5}}}
    store = make_store(
        tmp_path / "three", "train", n_views=3, parts=parts, exactness="3 frozen views, rounded to int8"
    )
    header = header_of(store, Cut(n_views=2))
    assert header.parts["views"] == {"n_views": 2, "seed": 5, "augmentation": {"flip": 0.5}}
    assert header.attrs["exactness"] == "2 frozen views, rounded to int8"
    assert header.fingerprint == fingerprint(header.parts)
    write(tmp_path / "three", tmp_path / "two", Cut(n_views=2))
    part = open_features(next((tmp_path / "two").glob("*/*/tiny-*")))
    for view in (0, 1):
        found, wanted = (one.read([0, 6], views=view, layer=LAYERS[0]) for one in (part, store))
        np.testing.assert_array_equal(found, wanted)


def test_evaluation_keeps_its_view_and_what_is_not_there_is_refused(
    stores: dict[str, FeatureStore], tmp_path: Path
) -> None:
    assert header_of(stores["val"], Cut(n_views=2)).spec.n_views == 1
    with pytest.raises(CallError, match=r"--views 3: .* holds 2 of each clip"):
        header_of(stores["train"], Cut(n_views=3))
    with pytest.raises(CallError, match=r"--layers 5,7: .* holds layers 11, 12_normed"):
        header_of(stores["train"], Cut(layers=(Layer(5), Layer(11), Layer(7))))
    starts = {"views": {"n_views": 2, "seed": None, "augmentation": None, "starts": {"n_starts": 2}}}
    store = make_store(tmp_path / "starts", "train", n_views=2, parts=starts)
    with pytest.raises(CallError, match=r"--views 1: the 2 views in .* are all the starts of its clips"):
        header_of(store, Cut(n_views=1))
    assert parse_layers("11, 12_normed") == LAYERS
    with pytest.raises(CallError, match=r"'0\.95' is not a layer"):
        parse_layers("0.95")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_chunks_are_copied_bit_for_bit(tmp_path: Path, dtype: str, stores: dict[str, FeatureStore]) -> None:
    cache = tmp_path / dtype
    store = make_store(cache, "train", n_views=2, dtype=dtype)  # type: ignore[arg-type]
    write(cache, tmp_path / "cut", Cut(layers=LAYERS[1:], n_views=1))
    (path,) = (tmp_path / "cut").glob("*/*/tiny-*")
    part = open_features(path)
    clips = [clip for clip in range(7) if clip not in store.skipped_clips]
    assert part.spec.layers == LAYERS[1:] and part.spec.n_views == 1 and part.skipped_clips == {4}
    np.testing.assert_array_equal(part.read(clips), store.read(clips, layer=LAYERS[1]))
    if dtype == "int8":
        for mine, theirs in zip(
            part.read_quantized(clips), store.read_quantized(clips, layer=LAYERS[1]), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)
    own = make_store(tmp_path / "own", "train", layers=LAYERS[1:], dtype=dtype)  # type: ignore[arg-type]
    for array in own.spec.all_arrays:
        for shard in range(own.spec.n_shards):
            key = shard_key(array, shard)
            assert (path / key).read_bytes() == (own.path / key).read_bytes()


def test_distinct_frames_keep_their_table(tmp_path: Path, stores: dict[str, FeatureStore]) -> None:
    frames = FrameTable(np.arange(7, dtype=np.int32)[:, None, None] + np.arange(2, dtype=np.int32))
    store = make_store(tmp_path / "frames", "train", frames=frames)
    write(tmp_path / "frames", tmp_path / "cut", Cut(layers=LAYERS[:1]))
    (path,) = (tmp_path / "cut").glob("*/*/tiny-*")
    part = open_features(path)
    assert part.spec.n_frames == 8 and "frames/c.0.0.0" in tree(path)
    np.testing.assert_array_equal(part.read(range(7)), store.read(range(7), layer=LAYERS[0]))
    rows = values_of(store.spec, LAYERS[0], "train")[:, 0, 0]
    np.testing.assert_array_equal(part.read([5])[0], rows[[5, 6]])


def test_a_damaged_chunk_is_not_copied(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    store = stores["train"]
    header = header_of(store, Cut())
    path = store.shard_path(LAYERS[0], 1)
    for folder in ("to", "again"):
        (tmp_path / folder / LAYERS[0].array).mkdir(parents=True)
    flip(path, 10)
    with pytest.raises(
        StoreError, match=r"c\.1\.0.* fails the checksum of the chunk at byte 0\. `scivid validate`"
    ):
        copy_shard(open_features(store.path), header, LAYERS[0], 1, tmp_path / "to")
    path.unlink()
    with pytest.raises(StoreError, match=r"is missing\. Run the same `scivid extract` again"):
        copy_shard(open_features(store.path, allow_incomplete=True), header, LAYERS[0], 1, tmp_path / "again")
