"""The verdict on hand-made findings, the interval of a gap by hand, and the file that is kept."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from featcache.errors import StoreError
from readouts.certify.certificate import (
    FILE,
    Certificate,
    Findings,
    ReadoutComparison,
    TokenAgreement,
    gap_interval,
    judge,
    read_certificate,
    worst_difference,
    write_certificate,
)

SAME = TokenAgreement(n_clip_views=64, beyond_rounding=1e-7, moved=2e-4)
HEAD = ReadoutComparison(
    readout="linear", metric_online=0.5, metric_cached=0.48, gap=-0.02, gap_low=-0.05, gap_high=0.01,
    evaluation_gap=0.0, worst_loss_difference=1e-6, metric_rounded=0.48, loss_difference_rounded=1e-6,
    losses_online=(1.0, 0.9), losses_cached=(1.0, 0.8),
)  # fmt: skip
LIKE = replace(HEAD, metric_cached=0.5, gap=0.0, metric_rounded=0.5)
EXACT = Findings(
    exactness="exact, 8 views", precision="float32", dtype="float16", train_tokens=SAME, val_tokens=SAME,
    readouts=(LIKE,), metric="mean_AP", steps=20, seeds=1, margin=0.1,
)  # fmt: skip
OF_SAMPLES = replace(HEAD, metric_rounded=None, loss_difference_rounded=None)
SAMPLED = replace(EXACT, exactness="4 frozen views", seeds=3, readouts=(OF_SAMPLES,))


def with_head(found: Findings, **changes: object) -> Findings:
    head = found.readouts[0]
    return replace(found, readouts=(head, replace(head, readout="attention", **changes)))


def test_what_agrees_is_exact_or_within_noise() -> None:
    assert judge(EXACT)[0] == "exact"
    assert judge(SAMPLED)[0] == "within noise"
    assert "4 frozen views instead of fresh ones: mean_AP -0.0200 [-0.0500, +0.0100]" in judge(SAMPLED)[1]
    # Scores have room for a hundredth, and samples may have losses of their own.
    assert judge(with_head(EXACT, gap=-0.004, metric_cached=0.496))[0] == "exact"
    assert judge(with_head(SAMPLED, worst_loss_difference=0.3))[0] == "within noise"


def test_what_differs_as_rounding_does_is_within_rounding() -> None:
    losses = with_head(EXACT, worst_loss_difference=9e-3, loss_difference_rounded=8e-3)
    verdict, text = judge(losses)
    assert verdict == "within rounding"
    assert text.startswith(
        "within rounding, as good as float16 can be: 64 training and 64 validation clip views"
    )
    # 9e-3 over the 2e-4 that tokens move by.
    assert (
        "early losses of attention by 0.009, 45 times as much (online tokens that are rounded: by 0.008)"
        in text
    )
    assert losses.faithful
    # Drifted apart, as rounded online tokens drift; or near outputs that changed places.
    drifted = with_head(EXACT, metric_cached=0.1, gap=-0.4, metric_rounded=0.12)
    verdict, text = judge(drifted)
    assert verdict == "within rounding"
    assert (
        "from 0.5000 to 0.1000 (online tokens that are rounded: to 0.1200), +0.0e+00 for the very same"
        in text
    )
    assert judge(with_head(EXACT, evaluation_gap=-0.07))[0] == "within rounding"
    assert "linear" not in text


def test_an_interval_is_noise_within_the_margin_and_else_undecided_or_apart() -> None:
    """Of a score of 0.5 from -0.05 to 0.01: a tenth of it, and no less."""
    assert "within noise, 10% of the score: " in judge(SAMPLED)[1]
    verdict, text = judge(replace(SAMPLED, margin=0.09))
    assert verdict == "undecided"
    assert text.endswith("where 9% of the score would be noise: give more --seeds, or --val-clips")
    assert judge(replace(SAMPLED, margin=None))[0] == "undecided"  # an older one, by today's margin
    small = with_head(SAMPLED, gap=0.02, gap_low=0.01, gap_high=0.03)
    assert judge(small)[0] == "within noise"
    assert judge(replace(small, margin=0.05))[0] == "differs"
    # One head that is undecided is enough.
    assert judge(with_head(SAMPLED, gap_high=0.2))[0] == "undecided"


def test_rounding_explains_no_more_than_it_does() -> None:
    further = with_head(EXACT, worst_loss_difference=9e-3, loss_difference_rounded=3e-3)
    verdict, text = judge(further)
    assert verdict == "differs"
    assert "attention differ by 0.009 (allowed 0.006; rounding alone makes 0.003)" in text
    assert not further.faithful
    # A backbone in bfloat16 has its own rounding, of which a control shows a part.
    coarse = replace(further, precision="bfloat16")
    assert judge(coarse)[0] == "exact"
    for much, verdict in ((0.15, "within rounding"), (0.17, "differs")):
        rounded = with_head(coarse, worst_loss_difference=much, loss_difference_rounded=0.02)
        assert judge(rounded)[0] == verdict


def test_tokens_beyond_rounding_differ_whatever_the_control_does() -> None:
    amplified = with_head(EXACT, worst_loss_difference=0.5, loss_difference_rounded=0.5)
    assert judge(amplified)[0] == "within rounding"
    assert judge(replace(amplified, val_tokens=replace(SAME, beyond_rounding=0.1)))[0] == "differs"


@pytest.mark.parametrize("off", [0.1, nan])
@pytest.mark.parametrize("found", [EXACT, SAMPLED])
@pytest.mark.parametrize(("name", "role"), [("train_tokens", "training"), ("val_tokens", "validation")])
def test_tokens_that_differ_fail_every_task(found: Findings, name: str, role: str, off: float) -> None:
    verdict, text = judge(replace(found, **{name: replace(SAME, beyond_rounding=off)}))
    assert verdict == "differs"
    assert text.startswith(f"differs: {role} tokens are {off:.2g} of their spread away")
    assert not replace(found, **{name: replace(SAME, beyond_rounding=off)}).faithful


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (with_head(EXACT, worst_loss_difference=2e-3), "early losses of attention differ by 0.002"),
        (with_head(EXACT, worst_loss_difference=nan), "early losses of attention differ by nan"),
        (with_head(SAMPLED, gap_low=1e-3, gap_high=0.2), "instead of fresh ones change mean_AP of attention"),
        (with_head(SAMPLED, gap_high=nan), "instead of fresh ones change mean_AP of attention"),
    ],
)  # fmt: skip
def test_one_head_that_differs_is_enough(found: Findings, reason: str) -> None:
    verdict, text = judge(found)
    assert verdict == "differs"
    assert reason in text
    # Frozen views that cost something are still what the store says they are.
    assert found.faithful == (not found.exact)


def test_bfloat16_and_int8_have_room_of_their_own() -> None:
    rounded = replace(SAME, beyond_rounding=0.01)
    assert judge(replace(EXACT, train_tokens=rounded))[0] == "differs"
    assert judge(replace(EXACT, train_tokens=rounded, precision="bfloat16"))[0] == "exact"
    losses = with_head(EXACT, worst_loss_difference=2.0**-7)
    assert judge(losses)[0] == "differs"
    assert judge(replace(losses, dtype="int8"))[0] == "exact"


def test_the_interval_of_a_gap_by_hand() -> None:
    assert gap_interval([0.3]) == (None, None)
    assert gap_interval([0.3], 0.1, 50) == (None, None)
    # Mean 1, deviation sqrt(2), error 1; Student's 97.5 % quantile of one degree of freedom is 12.706.
    assert gap_interval([0.0, 2.0]) == pytest.approx((1 - 12.7062, 1 + 12.7062), abs=1e-3)
    # Seeds agree, so only the units count: 0.3 x sqrt(10 / 9) x 2.2622 (nine degrees).
    half = 0.3 * (10 / 9) ** 0.5 * 2.26216
    assert gap_interval([1.0, 1.0], 0.3, 10) == pytest.approx((1 - half, 1 + half), abs=1e-4)
    both = (12.7062**2 + half**2) ** 0.5
    assert gap_interval([0.0, 2.0], 0.3, 10) == pytest.approx((1 - both, 1 + both), abs=1e-3)


def test_only_the_first_losses_are_compared() -> None:
    assert worst_difference([2.0, 1.0, 0.0, 1.0], [2.0, 1.25, 0.0, 9.0]) == pytest.approx(0.2)
    assert worst_difference([1.0, nan], [1.0, 1.0]) != worst_difference([1.0, nan], [1.0, 1.0])


@pytest.fixture
def certificate() -> Certificate:
    verdict, text = judge(SAMPLED)
    return Certificate(
        task="calms21", backbone="resize", layer="0", train_fingerprint="a" * 64, val_fingerprint="b" * 64,
        batch=32, n_val_clips=64, verdict=verdict, text=text, findings=SAMPLED, device="cpu",
        command="scivid certify", made="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_a_certificate_is_read_back_layer_by_layer(certificate: Certificate, tmp_path: Path) -> None:
    assert read_certificate(tmp_path) is None
    write_certificate(tmp_path, certificate)
    later = replace(certificate, layer="11", made="2026-01-02T00:00:00+00:00")
    write_certificate(tmp_path, later)
    assert read_certificate(tmp_path, "0") == certificate
    assert read_certificate(tmp_path, "11") == later
    assert read_certificate(tmp_path, "5") is None
    assert read_certificate(tmp_path) == later


def test_one_of_another_version_is_none_and_a_damaged_one_is_said(
    certificate: Certificate, tmp_path: Path
) -> None:
    write_certificate(tmp_path, replace(certificate, version=99))
    assert read_certificate(tmp_path) is None
    (tmp_path / FILE).write_text('{"0": {}}')
    with pytest.raises(StoreError, match="delete it and run `scivid certify` again"):
        read_certificate(tmp_path)
    write_certificate(tmp_path, certificate)
    assert read_certificate(tmp_path) == certificate


def test_fields_of_an_older_certificate_are_skipped(certificate: Certificate, tmp_path: Path) -> None:
    write_certificate(tmp_path, certificate)
    entry = json.loads((tmp_path / FILE).read_text())["0"] | {"metric": "mean_AP", "gap": -0.02}
    (tmp_path / FILE).write_text(json.dumps({"0": entry}))
    assert read_certificate(tmp_path) == certificate
    # And one that it had no name for is as if nothing had been said.
    del entry["findings"]["margin"]
    (tmp_path / FILE).write_text(json.dumps({"0": entry}))
    found = read_certificate(tmp_path)
    assert found is not None
    assert found.findings == replace(certificate.findings, margin=None)


def test_one_flipped_bit_of_a_certificate_is_noticed(
    certificate: Certificate, tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    write_certificate(tmp_path, certificate)
    for _ in flips(tmp_path / FILE, 60):
        with pytest.raises(StoreError, match=r"certificate\.json cannot be read as a certificate"):
            read_certificate(tmp_path)
    assert read_certificate(tmp_path) == certificate


@pytest.mark.parametrize("content", [None, b"[]", b"3", b'{"a":' * 50_000, b'{"0": 3}'])
def test_what_is_no_certificate_is_told(tmp_path: Path, content: bytes | None) -> None:
    os.mkfifo(tmp_path / FILE) if content is None else (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match="run `scivid certify` again"):
        read_certificate(tmp_path)
