"""Windows of a video get the scores that its clips got when the run was scored."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CallError, DataError, WeightsError
from readouts.predict.videos import Watcher, find_videos, frame_at, measured
from readouts.results.decided import evaluated
from tests.own_recordings import RATE
from tests.readouts.own_lab import CPU, Lab


@pytest.mark.parametrize("readout", ["attention", "linear"])
def test_scores_are_those_of_the_evaluation(lab: Lab, readout: str) -> None:
    """On the clips of val and test, which begin every 16 frames."""
    watcher = lab.watcher(every=16, readout=readout, batch=5)
    for role in ("val", "test"):
        known = evaluated(lab.folder, readout, role)
        given = dict(zip(known.ids, known.scores, strict=True))
        videos = sorted({clip.rpartition("/")[0] for clip in given})
        found = {
            f"{video}/{window.first}": window.scores
            for video in videos
            for window in lab.scores(watcher, lab.videos / video)
        }
        assert given.keys() <= found.keys()
        for clip, scores in given.items():
            np.testing.assert_allclose(found[clip], scores, rtol=1e-4, atol=1e-6)


def test_neither_batch_nor_other_windows_change_a_window(lab: Lab) -> None:
    video = lab.videos / "mouse1_a.mp4"
    dense = {w.first: w.scores for w in lab.scores(lab.watcher(every=4), video)}
    for window in lab.scores(lab.watcher(every=8, batch=3), video):
        np.testing.assert_allclose(window.scores, dense[window.first], rtol=1e-5)
    assert max(dense) + 16 == measured(video).n_frames == 160
    assert measured(video).rate == RATE


def test_a_damaged_video_is_named(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes((lab.videos / "mouse1_a.mp4").read_bytes()[:4000])
    for missing in (tmp_path / "cut.mp4", tmp_path / "none.mp4"):
        with pytest.raises(DataError, match=rf"{missing.name}: .*leave it out"):
            list(lab.watcher().seen(missing))
        with pytest.raises(DataError, match=rf"{missing.name}: .*leave it out"):
            measured(missing)


def test_another_model_is_refused(lab: Lab) -> None:
    run = lab.load()
    run.reads.parts["backbone"]["weights"] = "others"
    with pytest.raises(WeightsError, match="did not learn from this resize"):
        Watcher(run, "linear", backbone=None, weights_dir=None, every=None, device=CPU, batch=1)


@pytest.mark.parametrize(
    ("part", "change"), [("frames", {"order": "shuffled"}), ("decoding", {"pixels": {"mean": [0.0]}})]
)
def test_what_was_no_video_as_filmed_is_refused(lab: Lab, part: str, change: dict[str, object]) -> None:
    run = lab.load()
    run.reads.parts[part].update(change)
    with pytest.raises(CallError, match="did not learn from videos as they were filmed"):
        Watcher(run, "linear", backbone=None, weights_dir=None, every=None, device=CPU, batch=1)


def test_windows_that_follow_share_a_frame(lab: Lab) -> None:
    run = lab.load()
    made = partial(Watcher, run, "linear", backbone=None, weights_dir=None, follows=True, device=CPU, batch=2)
    watcher = made(every=None)
    windows = [one for some, _ in watcher.seen(lab.videos / "mouse1_a.mp4", 20) for one in some]
    assert [(w.first, w.stop) for w in windows[:2]] == [(0, 16), (15, 31)]
    assert windows[-1].stop == 140
    assert watcher.frames_shown(windows[-1]).tolist()[-1] == 140 - windows[-1].first - 1
    with pytest.raises(CallError, match="begins in the last frame of the one before"):
        made(every=4)


def test_one_frame_of_a_video(lab: Lab) -> None:
    video = lab.videos / "mouse1_a.mp4"
    assert frame_at(video, 3).shape == (48, 64, 3)
    assert (measured(video).width, measured(video).height) == (64, 48)
    with pytest.raises(DataError, match="has no frame 160"):
        frame_at(video, 160)


def test_videos_are_found_in_folders(lab: Lab, tmp_path: Path) -> None:
    found = find_videos([lab.videos, lab.videos / "mouse1_a.mp4"])
    assert len(found) == 6
    with pytest.raises(CallError, match="no video in"):
        find_videos([tmp_path])
