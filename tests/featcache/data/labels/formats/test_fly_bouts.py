from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from featcache.data.labels import Choices, read_labels
from featcache.errors import DataError


@pytest.mark.parametrize("movie", ["movie1", "movie2"])
def test_each_movie_is_its_truth_to_the_frame(movie: str, read: Any, truth: Any, runs: Any, of: Any) -> None:
    from dataclasses import replace

    labels, expected = of(read("flies"), f"{movie}.avi"), truth("flies")["movies"][movie]
    assert runs(replace(labels, unknown=())) == expected["per_frame_any_fly_rle"]
    for fly, bouts in expected["bouts_first_last_frame_from_1"].items():
        found = [[b.first + 1, b.stop, b.label] for b in labels.bouts if b.subject == fly]
        assert sorted(map(str, found)) == sorted(map(str, bouts))
    lost = [[span.first + 1, span.stop, span.reason[-5:]] for span in labels.unknown]
    assert sorted(map(str, lost)) == sorted(map(str, expected["frames_with_nan_track_from_1"]))


def test_both_flies_and_rare_bouts_are_said(read: Any, kinds: Any) -> None:
    assert {"subjects", "no_track", "rare", "empty_class", "last_frame"} <= kinds(read("flies"))


def write(path: Path, *cells: Any, names: tuple[str, ...] = ("hit",)) -> Path:
    bouts = np.empty((len(cells) // len(names), len(names)), object)
    for place, cell in enumerate(cells):
        bouts[divmod(place, len(names))] = np.array(cell, float)
    savemat(path, {"behs": np.array([list(names)], object), "bouts": bouts})
    return path


def test_a_bout_past_the_end_is_cut_and_one_that_is_no_frame_refused(tmp_path: Path, videos: Any) -> None:
    path = write(tmp_path / "m_actions.mat", [[5, 12], [1.5, 3]])
    found = read_labels([path], videos(m=(1, 10)), Choices())
    assert [(b.first, b.stop) for b in found.videos[0].bouts] == [(4, 10)]
    assert {(r.kind, r.where) for r in found.remarks if r.kind in ("past_end", "bad_value")} == {
        ("past_end", "fly 1, hit, row 1"), ("bad_value", "fly 1, hit, row 2")
    }  # fmt: skip


def test_a_track_of_another_length_is_refused(tmp_path: Path, videos: Any) -> None:
    path = write(tmp_path / "m_actions.mat", [[5, 6]])
    savemat(tmp_path / "m_track.mat", {"trk": {"data": np.zeros((1, 9, 4))}})
    found = read_labels([path], videos(m=(1, 10)), Choices())
    assert [r.kind for r in found.remarks if r.weight == "refuse"] == ["row_count"]
    assert not found.videos[0].is_labelled


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 86 + b"\x00\x02IM" + b"\x89HDF\r\n" * 90,
            "MATLAB 7.3",
        ),
        (b"not a mat file at all" * 20, "is no .mat file"),
        (b"", "is no .mat file"),
    ],
)
def test_what_cannot_be_read_is_one_message(
    content: bytes, message: str, videos: Any, read_text: Any
) -> None:
    with pytest.raises(DataError, match=message):
        read_text("m_actions.mat", content, videos(m=(1, 10)))


def test_a_file_of_other_names_is_one_message(tmp_path: Path, videos: Any) -> None:
    savemat(tmp_path / "m.mat", {"x": 1})
    with pytest.raises(DataError, match="lacks `behs` or `bouts`"):
        read_labels([tmp_path / "m.mat"], videos(m=(1, 10)), Choices())


def test_names_as_the_tracker_writes_them(tmp_path: Path, videos: Any) -> None:
    at_hand = videos(m=(1, 10))
    folder = tmp_path / "m"
    folder.mkdir()
    write(folder / "m-actions.mat", [[2, 4, 1]])
    savemat(
        folder / "m-track.mat", {"trk": {"data": np.where(np.arange(10) == 9, np.nan, 0.0)[None, :, None]}}
    )
    for other in ("m-feat", "m-bg", "m-seg", "m-params", "calibration"):
        savemat(folder / f"{other}.mat", {"other": 1})
    found = read_labels([folder], at_hand, Choices())
    (labels,) = found.videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(1, 4)]
    assert [(span.first, span.stop) for span in labels.unknown] == [(9, 10)]
    assert not [remark for remark in found.remarks if remark.weight != "say"]
