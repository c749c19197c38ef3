"""Same parts, same digest; other parts, another one, and a line for everything that differs."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import CallError
from featcache.fingerprint import canonical, differences, fingerprint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("ab.", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.dictionaries(st.text("abc", max_size=2), JSON, max_size=3)


def test_the_digest_is_that_of_the_canonical_text() -> None:
    text = '{"a":[1,2.5,"\\u00e9"],"b":{"c":null,"d":true}}'
    parts = {"b": {"d": True, "c": None}, "a": (1, 2.5, "é")}
    assert canonical(parts) == text
    assert fingerprint(parts) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object()])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(CallError, match="must be JSON"):
        fingerprint({"a": {"b": value}})


def test_keys_that_json_would_confuse_are_refused() -> None:
    with pytest.raises(CallError, match=r"backbone\.1: keys must be text, this is int"):
        fingerprint({"backbone": {1: "x", "1": "x"}})
    with pytest.raises(CallError, match="keys must be text"):
        fingerprint({"list": [{2: "x"}]})


def test_every_differing_leaf_is_one_line() -> None:
    ours = {
        "backbone": {"weights": "3fa9" * 16, "name": "4ds_e"},
        "views": {"n": 2, "seed": 0},
        "layers": ["11", "23"],
        "same": {"x": [1, 2]},
        "here": 1,
    }
    theirs = {
        "backbone": {"weights": "77c0" * 16, "name": "4ds_e"},
        "views": {"n": 9},
        "layers": ["11", "22"],
        "same": {"x": (1, 2)},
        "there": "a",
    }
    assert differences(ours, theirs) == [
        "backbone.weights: 3fa93fa93fa9... here, 77c077c077c0... asked for",
        "here: 1 here, not asked for",
        'layers.1: "23" here, "22" asked for',
        'there: missing here, "a" asked for',
        "views.n: 2 here, 9 asked for",
        "views.seed: 0 here, not asked for",
    ]


def test_numbers_that_python_calls_equal_still_differ() -> None:
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.0})
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1 here, 1.0 asked for"]
    assert differences({"a": True}, {"a": 1}) == ["a: true here, 1 asked for"]


def test_a_long_value_is_cut_only_where_the_cut_shows_the_difference() -> None:
    (line,) = differences({"a": "x" * 100}, {"a": "y"})
    assert line == 'a: "' + "x" * 59 + '... here, "y" asked for'
    (line,) = differences({"a": "x" * 100 + "1"}, {"a": "x" * 100 + "2"})
    assert 'x1" here' in line and 'x2" asked for' in line
    # Digests that begin alike are printed whole.
    (line,) = differences({"a": "0" * 63 + "1"}, {"a": "0" * 63 + "2"})
    assert "01" in line and "02" in line


@given(PARTS, PARTS)
def test_there_is_a_difference_exactly_where_the_digests_differ(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert bool(differences(a, b)) == (fingerprint(a) != fingerprint(b))
    assert fingerprint(json.loads(json.dumps(a))) == fingerprint(a)
