"""Every form of one set of points gives the same numbers; those of `own_data` their truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.data.labels.reading import head_of
from featcache.data.own_videos.pose_files import Poses, form_of, read_poses
from featcache.errors import DataError


def poses_of(path: Path) -> Poses:
    form = form_of(path, head_of(path))
    assert form is not None
    (found,) = read_poses(path, form)
    return found


@pytest.mark.parametrize(
    ("name", "form"),
    [("dlc.csv", "table"), ("dlc.h5", "pandas"), ("sleap.slp", "sleap"), ("sleap.analysis.h5", "analysis")],
)
def test_the_truth_of_each_form(own_data: Path, truth: Any, name: str, form: str) -> None:
    pytest.importorskip("sleap_io")
    path = own_data / "tracks" / name
    expected = truth("tracks")["files"]["dlc.h5 and dlc.csv"]
    assert form_of(path, head_of(path)) == form
    found = poses_of(path)
    names = [f"{animal}.{part}" for animal in expected["individuals"] for part in expected["keypoints"]]
    assert (len(found.xy), sorted(found.points)) == (expected["frames"], sorted(names))
    order = [found.points.index(name) for name in names]
    np.testing.assert_allclose(found.xy[0, order].ravel(), np.ravel(expected["xy_frame0"]))
    np.testing.assert_allclose(found.xy[-1, order].ravel(), np.ravel(expected["xy_last"]))
    neck, nose = found.points.index("id_0.neck"), found.points.index("id_0.nose")
    missing = np.flatnonzero(np.isnan(found.xy).any(axis=2).any(axis=1))
    assert missing.tolist() == [10, 11, 12, 13]
    assert np.isnan(found.xy[10:14, neck]).all()
    np.testing.assert_allclose(found.confidence[30:33, nose], 0.2, rtol=1e-6)


def test_one_animal_has_three_rows_of_headings(own_data: Path) -> None:
    found = poses_of(own_data / "tracks" / "dlc_one_animal_id_1.csv")
    assert (found.points, found.xy[0, 0].tolist()) == (("nose", "neck", "tail"), [25.0, 15.0])


def test_analysis_files_of_any_age(shared: Path) -> None:
    pytest.importorskip("h5py", reason="needs scivid[tracks]")
    old = poses_of(shared / "real/flies/20190128_113421.120s.predictions.analysis.h5")
    assert (old.xy.shape, old.confidence.min(), old.points[0]) == ((3000, 26, 2), 1, "track_0.head")
    new = poses_of(shared / "real/flies/centered_pair_standard.analysis.h5")
    assert new.xy.shape == (1100, 27 * 24, 2)
    assert new.confidence.shape == (1100, 27 * 24)


def test_other_files_are_none_of_these(own_data: Path, tmp_path: Path) -> None:
    assert not [
        path
        for path in own_data.rglob("*")
        if path.is_file() and path.parent.name != "tracks" and form_of(path, head_of(path)) is not None
    ]
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    assert form_of(tmp_path / "x.h5", head_of(tmp_path / "x.h5")) is None


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v_dlc.csv"
    path.write_text("scorer,n,n\nbodyparts,nose,nose\ncoords,x,y\n0,1.5,left\n")
    with pytest.raises(DataError, match=r"v_dlc\.csv cannot be read as tracked points \(ValueError.*again"):
        poses_of(path)


HEADINGS = "scorer,n,n\nbodyparts,nose,nose\ncoords,x,y\n"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("1,1.5,2.5\n0,3.5,4.5\n", "frame 1 stands where frame 0 should"),
        ("0,1.5,2.5\n2,3.5,4.5\n", "frame 2 stands where frame 1 should"),
        ("labeled-data/a/img000.png,1.5,2.5\n", "its rows are pictures"),
        ("labeled-data,a,img000.png,1.5,2.5\n", "its rows are pictures"),
    ],
)
def test_rows_that_are_not_the_frames_in_their_order_are_refused(rows: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "v_dlc.csv"
    path.write_text(HEADINGS + rows)
    with pytest.raises(DataError, match=why):
        poses_of(path)


def test_of_pandas_files_too(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    columns = pd.MultiIndex.from_tuples(
        [("n", "nose", axis) for axis in "xy"], names=["scorer", "bodyparts", "coords"]
    )
    path = tmp_path / "v_dlc.h5"
    pd.DataFrame([[1.5, 2.5], [3.5, 4.5]], columns=columns).to_hdf(path, key="df")
    assert poses_of(path).xy[:, 0].tolist() == [[1.5, 2.5], [3.5, 4.5]]
    pd.DataFrame([[1.5, 2.5], [3.5, 4.5]], index=[1, 0], columns=columns).to_hdf(path, key="df", mode="w")
    with pytest.raises(DataError, match="frame 1 stands where frame 0 should"):
        poses_of(path)
