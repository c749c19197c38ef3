"""Which splits are read front to back, in what order, and that training has the same numbers."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featcache.errors import StoreError
from featcache.store.feature_store import FeatureStore
from featcache.system.console import silent
from readouts.features import filling
from readouts.features.filling import cached_share, fill_page_cache
from readouts.features.splits import FeatureSplit, split_of
from readouts.training.loop import train
from readouts.training.run import Run
from tests.readouts.features.numbered import numbered, one_hot


@pytest.fixture
def split(make_split: Callable[..., FeatureStore]) -> FeatureSplit:
    return split_of(make_split("train", numbered(70, 2), one_hot(70)))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing were in the page cache, and chunks filled their pages."""
    monkeypatch.setattr(filling, "cached_share", lambda split: 0.0)
    monkeypatch.setattr(filling, "SHARE_OF_FILES", 0.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read through, in the order in which this begins."""
    seen: list[Path] = []
    through = filling._read_through
    monkeypatch.setattr(filling, "_read_through", lambda path: seen.append(path) or through(path))
    return seen


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(("dtype", "arrays"), [("float16", ["tokens_1"]), ("int8", ["tokens_1", "scales_1"])])
def test_every_file_of_the_layer_is_read_once_in_order(
    make_split: Callable[..., FeatureStore],
    monkeypatch: pytest.MonkeyPatch,
    read: list[Path],
    dtype: str,
    arrays: list[str],
) -> None:
    monkeypatch.setattr(filling, "READ_THREADS", 1)
    split = split_of(make_split("train", numbered(70, 2), one_hot(70), dtype=dtype))
    told: list[tuple[int, int]] = []
    assert fill_page_cache(split, 140, lambda what, done, total: told.append((done, total)))
    n_shards = split.store.spec.n_shards
    assert [path.parent.name for path in read] == [name for name in arrays for _ in range(n_shards)]
    assert [int(path.name.split(".")[1]) for path in read] == [*range(n_shards)] * len(arrays)
    assert told == [(done, len(read)) for done in range(1, len(read) + 1)]


@pytest.mark.usefixtures("on_disk")
def test_a_file_that_cannot_be_read_is_left_to_who_reads_a_batch(split: FeatureSplit) -> None:
    split.store.shard_path(split.layer, 1).unlink()
    assert fill_page_cache(split, 140, silent)
    with pytest.raises(StoreError, match="is missing"):
        split.store.read(range(70))


def test_it_is_left_alone_where_it_would_not_pay(
    split: FeatureSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = sum(path.stat().st_size for path in split.store.path.glob("tokens_1/c.*"))
    # A chunk of these takes 48 bytes of a page.
    monkeypatch.setattr(filling, "SHARE_OF_FILES", 48 / 4096 * 0.9)
    monkeypatch.setattr(filling, "free_memory", lambda device: 2 * n_bytes)
    for share, n_draws, read in ((0.0, 140, True), (0.0, 139, False), (0.8, 140, False)):
        monkeypatch.setattr(filling, "cached_share", lambda split, share=share: share)
        assert fill_page_cache(split, n_draws, silent) == read
    monkeypatch.setattr(filling, "cached_share", lambda split: 0.0)
    assert fill_page_cache(replace(split, first_views=1), 70, silent) is False  # half of the bytes
    monkeypatch.setattr(filling, "free_memory", lambda device: n_bytes)
    assert not fill_page_cache(split, 140, silent)


def test_what_is_in_memory_is_asked_of_the_system(
    split: FeatureSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, True, False, True] * 100)

    def answered(fd: int, pieces: list[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if next(answers):
            return 1
        raise BlockingIOError

    def refused(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", answered)
    assert cached_share(split) == pytest.approx(0.75, abs=0.01)
    monkeypatch.setattr(os, "preadv", refused)
    assert cached_share(split) == 1.0


def test_training_after_it_gives_the_same_scores(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "SHARE_OF_FILES", 0.0)
    rows, seen = [], list[str]()
    for share in (1.0, 0.0):
        monkeypatch.setattr(filling, "cached_share", lambda split, share=share: share)
        rows.append(
            train(
                run,
                results_dir=tmp_path / str(share),
                device=torch.device("cpu"),
                progress=lambda what, done, total: seen.append(what),
            )
        )
    assert "reading in order" in seen
    assert [(row["val"], row["test"]) for row in rows[0]] == [(row["val"], row["test"]) for row in rows[1]]
