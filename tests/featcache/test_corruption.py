"""Corruptions by name."""

import pytest

from featcache.corruption import SEVERITIES, Corruption, parse_corruptions
from featcache.errors import CallError


def test_words_name_kinds_and_severities() -> None:
    assert parse_corruptions("blur:2") == (Corruption("blur", 2),)
    assert parse_corruptions("noise, blur:3,noise:1") == (
        Corruption("noise", 1), Corruption("noise", 2), Corruption("noise", 3), Corruption("blur", 3)
    )  # fmt: skip
    every = parse_corruptions("all")
    assert len(every) == 18 and {one.kind for one in every} == SEVERITIES.keys()
    assert (every[0].ending, every[0].amount) == ("_blur1", 1.0)
    assert Corruption("dropped", 3).as_dict() == {"kind": "dropped", "severity": 3, "amount": 0.75}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("blurr", "Did you mean 'blur'"),
        ("blur:4", "severities are 1 to 3"),
        ("blur:0", "severities are 1 to 3"),
        ("blur:x", "write blur:2, blur, or all"),
        ("", "no corruption is called ''"),
    ],
)
def test_others_are_refused(text: str, why: str) -> None:
    with pytest.raises(CallError, match=why):
        parse_corruptions(text)
