"""Sizes of stores and starts of clips, counted by hand."""

from typing import get_args

import pytest

from featcache.errors import CallError, DataError
from featcache.spec import (
    SEVERITIES,
    ClipSpec,
    Corruption,
    Layer,
    StartRule,
    Starts,
    TokenGrid,
    parse_corruptions,
)
from featcache.store.spec import FeatureSpec

VIT_B = TokenGrid(steps=8, rows=14, columns=14, channels=768)


def test_a_clip_of_vit_b_tokens_is_two_and_a_half_megabytes() -> None:
    # 8 steps x 196 tokens x 768 channels x 2 bytes
    assert VIT_B.tokens_per_step == 196
    assert VIT_B.nbytes == 2_408_448


@pytest.mark.parametrize("layer", [Layer(0), Layer(11), Layer(12, normed=True)])
def test_a_layer_reads_back_its_name(layer: Layer) -> None:
    assert Layer.parse(layer.name) == layer


@pytest.mark.parametrize("text", ["", "last", "-1", "12_norm", "0.95"])
def test_a_layer_that_is_none_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(CallError, match=f"'{text}' is not a layer"):
        Layer.parse(text)


def test_impossible_values_are_refused_at_birth() -> None:
    with pytest.raises(CallError, match="n_frames=0"):
        ClipSpec(n_frames=0)
    with pytest.raises(CallError, match="n_views=0"):
        FeatureSpec(grid=VIT_B, layers=(Layer(0),), n_clips=1, n_views=0, clips_per_shard=1)
    with pytest.raises(CallError, match="each once"):
        FeatureSpec(grid=VIT_B, layers=(Layer(0), Layer(0)), n_clips=1, n_views=1, clips_per_shard=1)
    for fields in ({"span": 0, "n_starts": 1}, {"span": 1, "n_starts": 0}):
        with pytest.raises(CallError, match="must be at least 1"):
            Starts(rule="window", **fields)


@pytest.mark.parametrize(
    ("rule", "n_source", "n_choices"),
    [
        # The start after which just the span is left is not drawn, and what is too short starts at 0.
        *(("random_clip", n, 1) for n in (1, 23, 24, 25)),
        ("random_clip", 26, 2),
        ("random_clip", 31, 7),
        # No more than the first 24 + 8 frames are looked at.
        *(("random_clip", n, 8) for n in (32, 33, 500)),
        # Here the last start is drawn.
        ("window", 24, 1),
        ("window", 25, 2),
        ("window", 31, 8),
    ],
)
def test_starts_by_hand(rule: StartRule, n_source: int, n_choices: int) -> None:
    assert Starts(rule=rule, span=24, n_starts=8).choices(n_source) == range(n_choices)


def test_windows_that_are_too_many_or_too_long_are_refused() -> None:
    starts = Starts(rule="window", span=16, n_starts=9)
    assert starts.choices(24) == range(9)
    with pytest.raises(DataError, match=r"25 frames have 10 windows of 16; from 1 to 9 are stored"):
        starts.choices(25)
    with pytest.raises(DataError, match=r"15 frames have 0 windows of 16; from 1 to 9 are stored"):
        starts.choices(15)


@pytest.mark.parametrize("rule", get_args(StartRule))
def test_nothing_starts_in_an_empty_source(rule: StartRule) -> None:
    with pytest.raises(DataError, match="0 frames"):
        Starts(rule=rule, span=16, n_starts=9).choices(0)


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
