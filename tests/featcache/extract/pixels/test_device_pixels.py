"""Pixels of whole batches: on any device the ones that are made clip by clip, in the order asked for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.clips import Clip
from featcache.data.readers.base import Frames
from featcache.extract.job import Extraction
from featcache.extract.pixels import device_pixels
from featcache.extract.pixels.clip_views import ClipViews, Shown
from featcache.extract.pixels.device_pixels import DevicePixels
from featcache.extract.pixels.host_pixels import HostPixels
from tests.featcache.extract.pixels.test_clip_views import NumberedFrames, golden_clips, job

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


class Sized(NumberedFrames):
    """A reader of random frames, of a size of each clip's own."""

    def read(self, clip: Clip, frames: Sequence[int]) -> Frames:
        rng = np.random.default_rng(clip.record)
        return rng.integers(0, 256, (clip.n_source, 40 + 8 * (clip.record % 2), 56, 3), np.uint8)[
            list(frames)
        ]


def clip(number: int) -> Clip:
    return Clip(id=str(number), source="s", record=number, n_source=16, digest=f"{number:016x}")


def both(
    views: ClipViews, clips: Sequence[Clip], n_views: int, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of all views of some clips, made by a device that is the CPU, and one by one."""
    found = []
    for maker in (DevicePixels(views, CPU), HostPixels(views)):
        made = [each for clip in clips for each in maker.of_clip(clip, views.read(clip, n_views), n_views)]
        pixels, event = maker.batch(made, size)
        assert event is None
        found.append(pixels)
    return found[0], found[1]


@pytest.mark.parametrize(
    ("task", "role", "stage", "backbone", "n_views"),
    [
        ("flyvsfly", "val", "flyvsfly_eval", "videomae_random", 1),
        ("calms21", "test", "calms21_eval", "videomae_random", 1),
        ("stir", "train", "movi_train_samples", "videomae_random", 9),
        ("typhoon", "test", "typhoon_eval", "videomae_random", 1),
        ("weatherbench2", "val", "weatherbench_eval", "videomae_random", 1),
        ("flyvsfly", "val", "flyvsfly_eval", "resize", 1),
        ("weatherbench2", "val", "weatherbench_eval", "resize", 1),
    ],
)
def test_clips_of_every_task_are_as_made_one_by_one(
    shared: Path, task: str, role: str, stage: str, backbone: str, n_views: int
) -> None:
    cases = [(views, clip) for views, clip, _ in golden_clips(shared, task, role, stage)][:3]
    views = ClipViews(job(task, role, backbone, n_views=n_views), cases[0][0].reader)
    clips = [clip for of, clip in cases if of.reader is views.reader]
    ours, theirs = both(views, clips, n_views, n_views * len(clips) + 2)
    if backbone == "resize":
        # Two resizes in one are a product, of more rows here.
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    else:
        assert torch.equal(ours, theirs)


def fly(n_views: int = 1) -> Extraction:
    planned = job("flyvsfly", "train", n_views=n_views)
    much = replace(planned.views.augmentation, blur=0.5, flip=0.5)
    return replace(planned, views=replace(planned.views, augmentation=much))


def test_frames_of_several_sizes_go_where_they_belong() -> None:
    views = ClipViews(fly(), Sized())
    ours, theirs = both(views, [clip(number) for number in (1, 2, 3, 4, 6)], 1, 6)
    assert torch.equal(ours, theirs)
    assert not ours[5].any()
    assert len({float(each.mean()) for each in ours}) == 6


def test_views_that_were_drawn_are_cropped_blurred_and_turned_as_ever() -> None:
    views = ClipViews(fly(n_views=4), Sized())
    clips = [clip(number) for number in range(4)]
    drawn = [each for one in clips for each in views.shown(one, views.read(one, 4), 4)]
    assert {each.is_plain for each in drawn} == {True, False}
    assert any(each.view.sigma for each in drawn)
    assert any(each.view.flip for each in drawn)
    ours, theirs = both(views, clips, 4, 16)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    plain = [number for number, each in enumerate(drawn) if each.is_plain]
    assert torch.equal(ours[plain], theirs[plain])


def test_frames_by_themselves() -> None:
    views = ClipViews(fly(), Sized())
    frames = views.read(clip(1), 1)
    (ours, _), (theirs, _) = (
        maker.batch(list(maker.of_frames(frames)), 20)  # type: ignore[arg-type]
        for maker in (DevicePixels(views, CPU), HostPixels(views))
    )
    assert ours.shape == (20, 1, 3, 224, 224)
    assert torch.equal(ours, theirs)


def test_a_batch_is_sent_in_one_copy_and_a_view_is_resized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    views = ClipViews(job("typhoon", "train"), NumberedFrames())
    sent, resized = [], []
    original = device_pixels.frame_pixels
    monkeypatch.setattr(
        device_pixels,
        "frame_pixels",
        lambda frames, *rest: resized.append(len(frames)) or original(frames, *rest),
    )
    maker = DevicePixels(views, CPU)
    send = maker._sender.sent
    monkeypatch.setattr(maker._sender, "sent", lambda lists: sent.append(lists) or send(lists))
    one = replace(clip(0), n_source=32)
    shown = maker.of_clip(one, views.read(one, 8), 8)
    for _ in range(3):
        maker.batch(shown, 8)
    # 8 starts of 12 frames are 19 frames.
    assert resized == [19] * 3
    assert [[len(arrays) for arrays in lists] for lists in sent] == [[1, 1]] * 3


def test_host_memory_is_used_again_and_grows() -> None:
    sender = device_pixels._Sender(CPU)
    given = [np.arange(n, dtype=np.uint8)[:, None] for n in (5, 40, 7, 40, 3)]
    kept = []
    for array in given:
        (sent, numbers) = sender.sent([[array, array], [np.arange(3.0, dtype=np.float32)]])
        assert sent.tolist() == [*array.tolist(), *array.tolist()]
        assert numbers.tolist() == [0, 1, 2]
        kept.append(sent.data_ptr())
    assert len(set(kept[1:])) == 2


@GPU
def test_a_gpu_makes_the_same_pixels() -> None:
    views = ClipViews(fly(n_views=4), Sized())
    clips = [clip(number) for number in range(4)]
    maker, device = DevicePixels(views, torch.device("cuda")), torch.device("cuda")
    _, theirs = both(views, clips, 4, 18)
    shown: list[Shown] = [each for one in clips for each in maker.of_clip(one, views.read(one, 4), 4)]
    for _ in range(4):
        pixels, made = maker.batch(shown, 18)
        assert made is not None
        torch.cuda.current_stream(device).wait_event(made)
        torch.testing.assert_close(pixels.cpu(), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("task", "role", "backbone", "n_views"),
    [
        ("flyvsfly", "train", "videomae_random", 4),
        ("flyvsfly", "val", "resize", 1),
        ("typhoon", "train", "videomae_random", 8),
        ("weatherbench2", "val", "videomae_random", 1),
    ],
)
def test_nothing_is_read_back_and_no_devices_are_mixed(
    task: str, role: str, backbone: str, n_views: int
) -> None:
    """torch's meta device refuses both."""
    planned = job(task, role, backbone, n_views=n_views)
    much = replace(planned.views.augmentation, blur=1.0, flip=1.0)
    if task == "flyvsfly":
        planned = replace(planned, views=replace(planned.views, augmentation=much))
    reader = Sized() if planned.dataset.channels == 3 else NumberedFrames()
    views = ClipViews(planned, reader)
    one = replace(clip(0), n_source=16 if n_views < 8 else 32)
    maker = DevicePixels(views, torch.device("meta"))
    pixels, _ = maker.batch(maker.of_clip(one, views.read(one, n_views), n_views), n_views + 1)
    assert pixels.shape[:2] == (n_views + 1, 16)
    assert pixels.is_meta
