"""Corrupted pixels: what each kind does, by hand where a hand can; the same for the same clip, always."""

import numpy as np
import pytest
import torch
from einops import rearrange

from featcache.data.corruptions import corrupted
from featcache.spec import SEVERITIES, Corruption, parse_corruptions

CLIP = torch.rand(16, 3, 32, 40, generator=torch.Generator().manual_seed(0))
NUMBERED = rearrange(torch.arange(16.0) / 16, "f -> f 1 1 1").expand(16, 3, 8, 8)


def order(kind: str, severity: int, clip: str = "a") -> list[int]:
    """Which frame is shown in each one's place."""
    return (16 * corrupted(NUMBERED, Corruption(kind, severity), clip)[:, 0, 0, 0]).int().tolist()


@pytest.mark.parametrize("one", parse_corruptions("all"), ids=lambda one: one.ending)
def test_a_corruption_is_a_function_of_the_clip_s_id(one: Corruption) -> None:
    found, before = corrupted(CLIP, one, "clip-7"), CLIP.clone()
    assert found.shape == CLIP.shape and found.dtype == torch.float32
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert torch.equal(found, corrupted(CLIP, one, "clip-7")) and torch.equal(CLIP, before)
    drawn = one.kind in ("noise", "occlusion", "dropped")
    assert torch.equal(found, corrupted(CLIP, one, "clip-8")) != drawn


@pytest.mark.parametrize("kind", SEVERITIES)
def test_a_higher_severity_changes_more(kind: str) -> None:
    off = [float((corrupted(CLIP, Corruption(kind, n), "a") - CLIP).abs().mean()) for n in (1, 2, 3)]
    # Of noise for frames all orders of time are as wrong; in a clip that moves slowly they are not.
    assert 0 < off[0] <= off[1] * 1.1 and off[1] <= off[2] * 1.1


def test_time_by_hand() -> None:
    assert order("reversed", 3) == [*range(15, -1, -1)]
    assert order("reversed", 1) == [3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]
    for severity, lost in ((1, 4), (2, 8), (3, 11)):
        shown = order("dropped", severity)
        assert shown[0] == 0 and shown == sorted(shown)
        assert all(at == n or at == shown[n - 1] for n, at in enumerate(shown))
        assert sum(at != n for n, at in enumerate(shown)) == lost


def test_space_by_hand() -> None:
    grey = torch.full((16, 3, 32, 40), 0.25)
    hidden = corrupted(grey, Corruption("occlusion", 1), "a") == 0.5
    # A quarter of either side, in one place for the whole clip.
    assert int(hidden[0, 0].sum()) == 8 * 10 and bool((hidden == hidden[:1, :1]).all())
    # A blur keeps what is alike, borders too, and what there is in all.
    assert torch.allclose(corrupted(grey, Corruption("blur", 3), "a"), grey, atol=1e-6)
    dot = torch.zeros(1, 3, 41, 41)
    dot[..., 20, 20] = 1.0
    spread = corrupted(dot, Corruption("blur", 1), "a")
    assert float(spread[0, 0].sum()) == pytest.approx(1.0, abs=1e-4)
    assert float(spread[0, 0, 20, 20]) == pytest.approx(1 / (2 * np.pi), rel=0.02)
    noise = corrupted(torch.full((16, 3, 32, 40), 0.5), Corruption("noise", 2), "a") - 0.5
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02) and abs(float(noise.mean())) < 1e-3
