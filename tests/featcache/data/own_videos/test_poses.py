from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.data.labels import Choices, Videos
from featcache.data.labels.videos import Video
from featcache.data.own_videos.base import Measurements
from featcache.data.own_videos.poses import read, recognises


def dlc(**points: list[tuple[float | None, float | None, float]]) -> str:
    """A table of one animal: body part -> x, y and likelihood a frame."""
    columns = [f"{part}" for part in points for _ in range(3)]
    rows = ["scorer," + ",".join("net" for _ in columns), "bodyparts," + ",".join(columns),
            "coords," + ",".join("x,y,likelihood" for _ in points)]  # fmt: skip
    for frame, cells in enumerate(zip(*points.values(), strict=True)):
        rows.append(f"{frame}," + ",".join("" if v is None else str(v) for cell in cells for v in cell))
    return "\n".join(rows) + "\n"


NOSE = [(10.0, 5.0, 0.9), (None, None, 0.0), (20.0, 10.0, 0.3), (40.0, 20.0, 1.0)]


@pytest.fixture
def points(tmp_path: Path) -> Callable[..., Measurements]:
    """Reads tables for videos of 4 frames, 40 x 20 pixels."""

    def make(
        videos: tuple[str, ...] = ("rat.mp4", "rat_2.mp4"), /, *, confidence: float = 0.6, **files: str
    ) -> Measurements:
        at_hand = [Video(source=name, n_frames=4, rate=Fraction(25), width=40, height=20) for name in videos]
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text)
        paths = [tmp_path / f"{name}.csv" for name in files]
        assert all(recognises(path, path.read_text()) for path in paths)
        return read(paths, Videos(tmp_path, at_hand), Choices(confidence=confidence))

    return make


def test_coordinates_are_shares_and_doubt_is_unseen(
    points: Callable[..., Measurements],
) -> None:
    found = points(rat_2DLC_resnet50=dlc(nose=NOSE))
    (one,) = found.videos
    assert (found.kind, found.needs, one.video.source) == ("tracking", "first", "rat_2.mp4")
    arrays = one.read()
    np.testing.assert_allclose(arrays["tracks"][:, 0], [[0.25, 0.25], [np.nan, np.nan], [0.5, 0.5], [1, 1]])
    assert arrays["seen"][:, 0].tolist() == one.known.tolist() == [True, False, False, True]
    sure = points(rat_2DLC_resnet50=dlc(nose=NOSE), confidence=0.2).videos[0]
    assert sure.known.tolist() == [True, False, True, True]


def test_points_of_all_videos_have_one_order(points: Callable[..., Measurements]) -> None:
    found = points(rat=dlc(nose=NOSE, tail=NOSE), rat_2=dlc(tail=NOSE))
    first, second = (one.read() for one in found.videos)
    assert first["seen"].shape == second["seen"].shape == (4, 2)
    assert second["seen"].any(axis=0).tolist() == [False, True]
    assert np.isnan(second["tracks"][:, 0]).all()


def test_what_does_not_fit_its_video_is_refused(points: Callable[..., Measurements]) -> None:
    found = points(rat=dlc(nose=NOSE[:3]), rat_2=dlc(nose=[(400.0, 5.0, 1.0)] * 4))
    assert (found.videos, [(remark.kind, remark.weight) for remark in found.remarks]) == (
        (), [("row_count", "refuse"), ("outside", "refuse")]
    )  # fmt: skip


def test_which_video_a_file_is_of(points: Callable[..., Measurements]) -> None:
    (said,) = points(("only.mp4",), out=dlc(nose=NOSE)).remarks
    assert (said.kind, said.weight) == ("guessed_video", "say")
    (asked,) = points(out=dlc(nose=NOSE)).remarks
    assert (asked.kind, asked.weight) == ("which_video", "ask")
    twice = points(rat=dlc(nose=NOSE), rat_copy=dlc(nose=NOSE))
    assert [(remark.kind, len(twice.videos)) for remark in twice.remarks] == [("left_out", 1)]


def test_points_that_no_score_will_hold_are_said(points: Callable[..., Measurements]) -> None:
    def said(n_points: int) -> list[str]:
        found = points(("rat.mp4",), rat=dlc(**{f"p{n}": NOSE for n in range(n_points)}))
        return [line for line in found.said if "more than a readout is asked for" in line]

    assert said(64) == []
    (line,) = said(66)
    assert line.startswith("66 points")
    assert line.endswith("scores are of the first 64, without p64, p65")


def project(folder: Path, *names: str) -> Path:
    """A SLEAP project of one animal, a point in the first frame of each video."""
    sio = pytest.importorskip("sleap_io", reason="needs scivid[tracks]")
    skeleton, track = sio.Skeleton(["nose"]), sio.Track("m")
    videos = [sio.Video(filename=name, open_backend=False) for name in names]
    frames = [
        sio.LabeledFrame(
            video=video,
            frame_idx=0,
            instances=[sio.Instance.from_numpy(np.array([[10.0 * n, 5.0]]), skeleton=skeleton, track=track)],
        )
        for n, video in enumerate(videos, 1)
    ]
    labels = sio.Labels(frames, videos=videos, skeletons=[skeleton], tracks=[track])
    labels.save(str(folder / "p.slp"))
    return folder / "p.slp"


def test_points_of_a_video_that_is_not_at_hand_go_to_no_other(tmp_path: Path) -> None:
    path = project(tmp_path, "/data/gone.mp4", "/data/rat.mp4")
    at_hand = [Video(source="rat.mp4", n_frames=4, rate=Fraction(25), width=40, height=20)]
    found = read([path], Videos(tmp_path, at_hand), Choices())
    (rat,) = found.videos
    assert rat.read()["tracks"][0].tolist() == [[0.5, 0.25]]
    assert "no_video" in {remark.kind for remark in found.remarks}


def test_two_videos_of_one_name_are_asked(tmp_path: Path) -> None:
    path = project(tmp_path, "/data/day1/rat.mp4", "/data/day2/rat.mp4")
    at_hand = [Video(source="rat.mp4", n_frames=4, rate=Fraction(25), width=40, height=20)]
    found = read([path], Videos(tmp_path, at_hand), Choices())
    assert not found.videos
    assert ("several_videos", "ask") in {(remark.kind, remark.weight) for remark in found.remarks}
