"""Views: what they may draw against the reference's supports, their pixels against its outputs."""

from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange, repeat

from featcache.data.views import View, ViewPlan, apply_view, clip_pixels, draw_view, frame_pixels
from featcache.errors import CallError, DataError
from featcache.manifest import Augmentation, Pixels
from featcache.resampling import gaussian_blur, resize_bilinear, value_range
from featcache.spec import ClipSpec, Starts

WINDOWS = Starts(rule="window", span=16, n_starts=9)
MOUSE = Augmentation(scale=(1.0, 2.0), blur=0.5, flip=0.5)


def draws(augmentation: Augmentation, n: int, height: int = 224, width: int = 224) -> list[View]:
    plan = ViewPlan(augmentation=augmentation, n_views=2)
    return [draw_view(plan, f"00000/{i}", 1, height, width) for i in range(n)]


def ramp(n_frames: int, height: int, width: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n_frames, height, width, channels), generator=generator, dtype=torch.uint8)


def test_view_zero_draws_nothing() -> None:
    assert draw_view(ViewPlan(augmentation=MOUSE, n_views=3, seed=7), "a", 0, 224, 224) == View()


def test_a_view_depends_on_clip_number_and_seed_only() -> None:
    def draw(clip: str = "a", view: int = 1, n_views: int = 3, seed: int = 0) -> View:
        return draw_view(ViewPlan(augmentation=MOUSE, n_views=n_views, seed=seed), clip, view, 224, 224)

    assert draw() == draw() == draw(n_views=5)
    assert len({draw(), draw(clip="b"), draw(view=2), draw(seed=1)}) == 4


def test_a_view_comes_from_the_hash_of_its_name() -> None:
    # The draw must never change, or half-written stores would mix two kinds of views.
    digest = blake2b(b"3/1/00000/5", digest_size=64, person=b"scivid view").digest()
    numbers = np.frombuffer(digest, "<u8") / 2.0**64
    view = draw_view(ViewPlan(augmentation=MOUSE, n_views=2, seed=3), "00000/5", 1, 100, 200)
    assert view.scale == pytest.approx(1 + numbers[0])
    assert view.top == int(numbers[1] * (int(100 * (1 + numbers[0])) - 100))
    assert view.left == int(numbers[2] * (int(200 * (1 + numbers[0])) - 200))
    assert (view.sigma is None) == (numbers[3] >= 0.5)
    assert view.flip == (numbers[5] < 0.5)


def test_a_choice_does_not_move_the_others() -> None:
    plain = draws(Augmentation(scale=(1.0, 2.0)), 20)
    blurred = draws(Augmentation(scale=(1.0, 2.0), blur=1.0), 20)
    assert [(v.scale, v.top, v.left) for v in plain] == [(v.scale, v.top, v.left) for v in blurred]
    assert all(v.sigma is None for v in plain)
    assert all(v.sigma is not None and 0.1 <= v.sigma <= 2.0 for v in blurred)


def test_crop_offsets_have_the_support_of_the_reference(shared: Path) -> None:
    with np.load(shared / "golden/reference/data_random_crop_support.npz", allow_pickle=False) as cases:
        offsets = cases["out/crop_9x11_to_6x8_offsets"]
        flip_rate = float(cases["out/flip_rate"])
    # 6 rows to 9 (x 1.5) and 8 columns to 11 (x 1.375) leave 3 pixels each; offset 3 is never drawn.
    rows = {view.top for view in draws(Augmentation(scale=(1.5, 1.5)), 300, 6, 8)}
    columns = {view.left for view in draws(Augmentation(scale=(1.375, 1.375)), 300, 6, 8)}
    assert rows == set(offsets[:, 0].tolist())
    assert columns == set(offsets[:, 1].tolist())
    flips = [view.flip for view in draws(MOUSE, 2000)]
    assert np.mean(flips) == pytest.approx(flip_rate, abs=0.04)


def test_draws_are_uniform() -> None:
    views = draws(MOUSE, 4000)
    scales = np.sort([view.scale for view in views]) - 1
    sigmas = (np.sort([view.sigma for view in views if view.sigma is not None]) - 0.1) / 1.9
    for values in (scales, sigmas):
        # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand.
        distance = np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
        assert distance < 1.95 / np.sqrt(len(values))
    assert len(sigmas) / len(views) == pytest.approx(0.5, abs=0.03)
    quarters = Counter((view.sigma is None, view.flip) for view in views)
    assert min(quarters.values()) > 900


def test_a_scale_too_small_for_a_pixel_leaves_one_offset() -> None:
    view = draws(Augmentation(scale=(1.001, 1.001)), 1)[0]
    assert (view.top, view.left) == (0, 0)


@pytest.mark.parametrize("scale", ["1.0", "1.23", "1.4", "1.999"])
def test_resize_and_crop_equal_the_reference(shared: Path, scale: str) -> None:
    with np.load(shared / "golden" / "records" / "expected_augment.npz", allow_pickle=False) as cases:
        frames = rearrange(torch.from_numpy(cases["input"]), "f y x c -> f c y x")
        expected = rearrange(cases[f"resize/{scale}"], "f y x c -> f c y x")
    top, left = expected.shape[2] - 80, expected.shape[3] - 96
    found = apply_view(frames, View(scale=float(scale), top=top, left=left), 80, 96)
    np.testing.assert_allclose(found, expected[..., top:, left:], rtol=1e-5, atol=2e-3)


def test_random_resize_equals_the_reference(shared: Path) -> None:
    with np.load(shared / "golden" / "reference" / "data_random_resize.npz", allow_pickle=False) as cases:
        for i in range(4):
            frames = rearrange(torch.from_numpy(cases[f"in/{i}/video"]), "f y x c -> f c y x")
            expected = rearrange(cases[f"out/{i}"], "f y x c -> f c y x")
            height, width = frames.shape[-2:]
            found = apply_view(frames, View(scale=float(cases[f"in/{i}/scale"])), height, width)
            np.testing.assert_allclose(found, expected[..., :height, :width], rtol=1e-5, atol=1e-5)


def test_order_is_resize_crop_blur_flip() -> None:
    frames = rearrange(ramp(2, 40, 40, 1), "f y x c -> f c y x").float()
    cropped = apply_view(frames, View(scale=1.5, top=3, left=7), 40, 40)
    # Blurred after the crop, so the borders of the crop are dark; flipped last.
    expected = gaussian_blur(cropped, 1.5).flip(-1)
    found = apply_view(frames, View(scale=1.5, top=3, left=7, sigma=1.5, flip=True), 40, 40)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_evaluation_pixels_of_a_clip_of_the_right_size_are_its_bytes() -> None:
    frames = ramp(16, 8, 6, 3)
    pixels = clip_pixels(frames, ClipSpec(height=8, width=6), View())
    torch.testing.assert_close(pixels, rearrange(frames, "f y x c -> f c y x") / 255, rtol=0, atol=0)


def test_grey_clips_are_treated_as_three_equal_channels() -> None:
    grey = ramp(16, 10, 12, 1)
    view = View(scale=1.3, top=1, left=2, sigma=0.7, flip=True)
    found = clip_pixels(grey, ClipSpec(height=16, width=16), view)
    expected = clip_pixels(repeat(grey, "f y x 1 -> f y x 3"), ClipSpec(height=16, width=16), view)
    assert found.shape == (16, 3, 16, 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(144, 144, 3), (285, 512, 1), (40, 48, 3)])
def test_frames_are_the_same_however_many_are_made_at_once(size: tuple[int, int, int]) -> None:
    """Two, two and all of the seven, by the sizes; to the last bit, or stores would have to be made anew."""
    frames, view = ramp(7, *size), View(scale=1.25, top=3, left=20, flip=True)
    found = frame_pixels(frames, ClipSpec(height=224, width=224), view)
    planes = resize_bilinear(rearrange(frames, "f y x c -> f c y x").float(), 224, 224)
    expected = value_range(apply_view(planes, view, 224, 224), 0.0, 255.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.stride() == expected.stride(), "models sum in the order of memory"


def test_short_clips_are_stretched() -> None:
    frames = repeat(torch.arange(12, dtype=torch.uint8), "f -> f 4 4 1")
    pixels = clip_pixels(frames, ClipSpec(n_frames=12, height=4, width=4), View())
    expected = [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11]
    assert (pixels[:, 0, 0, 0] * 255).round().int().tolist() == expected


def test_plan_says_what_changes_a_feature() -> None:
    plan = ViewPlan(augmentation=MOUSE, n_views=2, seed=5)
    assert plan.as_dict() == {
        "n_views": 2,
        "seed": 5,
        "augmentation": {"scale": [1.0, 2.0], "blur": 0.5, "flip": 0.5},
    }
    one = ViewPlan(augmentation=MOUSE, seed=5).as_dict()
    assert one == ViewPlan(augmentation=Augmentation()).as_dict()


@pytest.mark.parametrize(("n_views", "seed"), [(0, 0), (1, -1)])
def test_plan_refuses_what_it_cannot_draw(n_views: int, seed: int) -> None:
    with pytest.raises(CallError):
        ViewPlan(augmentation=MOUSE, n_views=n_views, seed=seed)


def test_a_view_of_a_task_with_starts_is_a_start_and_nothing_else() -> None:
    plan = ViewPlan(augmentation=Augmentation(), n_views=9, starts=WINDOWS)
    assert [draw_view(plan, "a", view, 224, 224) for view in range(9)] == [View(start=v) for v in range(9)]
    assert [plan.views_of(n_source) for n_source in (16, 17, 24)] == [1, 2, 9]
    with pytest.raises(DataError, match="25 frames have 10 windows"):
        plan.views_of(25)


def test_without_starts_every_clip_has_all_views() -> None:
    assert ViewPlan(augmentation=MOUSE, n_views=3).views_of(1) == 3


def test_a_plan_of_starts_says_its_rule_and_no_seed() -> None:
    plans = [
        ViewPlan(augmentation=Augmentation(), n_views=9, seed=seed, starts=WINDOWS).as_dict()
        for seed in (0, 5)
    ]
    assert plans[0] == plans[1]
    assert plans[0] == {
        "n_views": 9,
        "seed": None,
        "augmentation": None,
        "starts": {"rule": "window", "span": 16, "n_starts": 9},
    }
    assert "starts" not in ViewPlan(augmentation=MOUSE, n_views=2).as_dict()


@pytest.mark.parametrize(("augmentation", "n_views"), [(MOUSE, 9), (Augmentation(), 1), (Augmentation(), 8)])
def test_starts_go_with_neither_augmentation_nor_another_number_of_views(
    augmentation: Augmentation, n_views: int
) -> None:
    with pytest.raises(CallError, match="stores a view a start, and has no `augmentation`"):
        ViewPlan(augmentation=augmentation, n_views=n_views, starts=WINDOWS)


def test_values_become_shares_of_their_range_or_deviations_of_their_mean() -> None:
    kelvin = repeat(torch.tensor([160.0, 170.0, 235.0, 300.0]), "y -> 16 y 2 1")
    spec = ClipSpec(height=4, width=2)
    shares = clip_pixels(kelvin, spec, View(), Pixels(low=170.0, high=300.0))
    assert shares.shape == (16, 3, 4, 2)
    assert shares[0, 2, :, 0].tolist() == [0.0, 0.0, 0.5, 1.0]
    fields = repeat(torch.tensor([4.0, 5.0, 6.0]), "c -> 16 4 2 c")
    scaled = clip_pixels(fields, spec, View(), Pixels(mean=(4.0, 3.0, 8.0), std=(1.0, 2.0, 4.0)))
    assert scaled[15, :, 3, 1].tolist() == [0.0, 1.0, -0.5]
