"""Mutations change a file, the same for the same seed, whatever is in it."""

import json
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.mutations import BYTES, FILES, JSON, Damaged, mutate, names_for

DOCUMENT = {"a": 12, "b": [1.5, "text", {"c": None}], "d": {}}


@given(
    data=st.binary(min_size=1, max_size=2000), seed=st.integers(0, 2**32), name=st.sampled_from(list(BYTES))
)
def test_any_bytes_can_be_damaged_and_the_same_seed_gives_the_same(data: bytes, seed: int, name: str) -> None:
    first, second = (BYTES[name](data, random.Random(seed)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", BYTES)
def test_most_draws_of_a_mutation_give_another_file(name: str) -> None:
    data = random.Random(0).randbytes(3000)
    assert sum(BYTES[name](data, random.Random(seed)) != data for seed in range(20)) > 15


@pytest.mark.parametrize("name", [*BYTES, *JSON, *FILES])
def test_every_mutation_of_a_document_says_what_it_did_and_spares_its_peers(
    tmp_path: Path, name: str
) -> None:
    path, peer, stranger = (tmp_path / one for one in ("a.json", "b.json", "c.bin"))
    for file in (path, peer):
        file.write_text(json.dumps({**DOCUMENT, "name": file.name}))
    stranger.write_bytes(b"stranger")
    before = path.read_bytes()
    at = Damaged(path=path, peers=[peer], strangers=[stranger])
    assert name in names_for(at)
    assert mutate(name, at, random.Random(1))
    changed = not path.is_file() or not stat.S_ISREG(path.lstat().st_mode)
    assert changed or path.stat().st_size > 2**30 or path.read_bytes() != before
    assert stranger.read_bytes() == b"stranger"
    if name == "swap":
        assert peer.read_bytes() == before


def test_an_empty_file_can_be_damaged_too(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    for name in BYTES:
        path.write_bytes(b"")
        mutate(name, Damaged(path=path), random.Random(0))
        assert path.read_bytes() == b"\1"


def test_numbers_in_json_become_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    seen = set()
    for seed in range(60):
        path.write_text(json.dumps({"n": 12}))
        mutate("JSON number", Damaged(path=path), random.Random(seed))
        seen.add(str(json.loads(path.read_bytes())["n"])[:20])
    assert {"12.5", "-12", "1000000000000", "13", "0"} <= seen
