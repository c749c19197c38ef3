"""Which splits are read front to back, in what order, and that training has the same numbers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from featcache.errors import StoreError
from featcache.store.feature_store import FeatureStore
from featcache.store.reading import shard_file
from featcache.store.reading.layer_reader import LayerReader
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
    """As if nothing were in the page cache."""
    monkeypatch.setattr(filling, "cached_share", lambda split: 0.0)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("mapped", [True, False])
def test_every_chunk_is_read_once_in_the_order_of_the_files(
    split: FeatureSplit, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    monkeypatch.setattr(shard_file, "is_local", lambda path: mapped)
    order: list[int] = []
    share = LayerReader._share
    monkeypatch.setattr(
        LayerReader,
        "_share",
        lambda self, chunks, *rest, **options: order.extend(chunks) or share(self, chunks, *rest, **options),
    )
    told: list[tuple[int, int]] = []
    assert fill_page_cache(split, 140, lambda what, done, total: told.append((done, total)))
    assert order == list(range(140))
    assert told == [(32, 70), (64, 70), (70, 70)]


@pytest.mark.usefixtures("on_disk")
def test_damage_is_found_before_training(split: FeatureSplit) -> None:
    path = split.store.shard_path(split.layer, 2)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="clip 46"):
        fill_page_cache(split, 140, silent)


def test_it_is_left_alone_where_it_would_not_pay(
    split: FeatureSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 140 * split.store.spec.grid.nbytes
    monkeypatch.setattr(filling, "free_memory", lambda device: 2 * n_bytes)
    for share, n_draws, read in ((0.0, 140, True), (0.0, 139, False), (0.8, 140, False)):
        monkeypatch.setattr(filling, "cached_share", lambda split, share=share: share)
        assert fill_page_cache(split, n_draws, silent) == read
    monkeypatch.setattr(filling, "cached_share", lambda split: 0.0)
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
