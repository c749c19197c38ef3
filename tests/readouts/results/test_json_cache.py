"""Kept values: computed once, made anew from a torn file or of another version, refusals are not kept."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.results.json_cache import JsonCache


def test_a_value_is_computed_once(tmp_path: Path) -> None:
    first = JsonCache(tmp_path / "deep" / "kept.json")
    assert first.value({"version": 1, "clips": [0, 1]}, lambda: {"score": 0.1}) == {"score": 0.1}
    first.keep()
    again = JsonCache(tmp_path / "deep" / "kept.json")
    assert again.value({"clips": [0, 1], "version": 1}, lambda: 1 / 0) == {"score": 0.1}
    assert again.value({"version": 2, "clips": [0, 1]}, lambda: "other") == "other"


@pytest.mark.parametrize("torn", ["", "{", "[1, 2]", "3"])
def test_a_torn_file_is_as_good_as_none(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "kept.json"
    file.write_text(torn)
    cache = JsonCache(file)
    assert cache.value({}, lambda: 7) == 7
    cache.keep()
    assert JsonCache(file).value({}, lambda: 8) == 7


def test_nothing_new_writes_nothing_and_a_refusal_passes(tmp_path: Path) -> None:
    def refuse() -> None:
        raise StoreError("gone")

    cache = JsonCache(tmp_path / "kept.json")
    with pytest.raises(StoreError, match="gone"):
        cache.value({}, refuse)
    cache.keep()
    assert not list(tmp_path.iterdir())


def test_one_flipped_bit_of_a_cache_is_noticed_and_its_values_are_made_anew(
    tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    file = tmp_path / "kept.json"
    first = JsonCache(file)
    first.value({}, lambda: {"b": 0.2747, "a": float("nan")})
    first.keep()
    for _ in flips(file, 60):
        assert JsonCache(file).value({}, lambda: "anew") == "anew"
    assert list(JsonCache(file).value({}, lambda: "anew")) == ["b", "a"]


def test_a_value_that_cannot_be_kept_is_still_a_value(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = JsonCache(tmp_path / "file" / "kept.json")
    assert cache.value({}, lambda: 7) == 7
    cache.keep()
