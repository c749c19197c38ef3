import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app
from featcache.clips import Clip
from featcache.data.labels.base import Bout, Choices, VideoLabels
from featcache.data.labels.formats import BOUT_COLUMNS
from featcache.data.labels.videos import Video
from featcache.data.labels.writing import write_labels
from featcache.data.own_videos import Wishes, set_up
from featcache.data.own_videos.checking import check
from featcache.data.readers import open_reader
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, load_manifest
from tests.own_recordings import RATE, write_lab, write_recording


@pytest.fixture
def folder(own_data: Path, tmp_path: Path) -> Any:
    """A copy of one folder of `own_data` with its videos."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(own_data / name, tmp_path / name))

    return copy


def scanned(dataset: Dataset, split: str, folder: Path) -> list[Clip]:
    """The clips that the reader finds by the manifest."""
    index = open_reader(dataset, split, folder).scan().index
    return [index.clip(i) for i in range(len(index))]


def test_a_folder_of_boris_becomes_clips_that_the_reader_takes(folder: Any, truth: Any) -> None:
    boris = folder("boris")
    made = set_up(boris, [], Choices(observations=("pair_obs1",)), Wishes(every=8, n_frames=8, stride=1))
    dataset = load_manifest(made.manifest).dataset("boris")
    assert dataset.classes == ("rest", "walk", "chase", "groom", "rear", "jump", "light on")
    clips = {split: scanned(dataset, split, boris) for split in made.splits}
    every = [clip for found in clips.values() for clip in found]
    expected = [label for label, n in truth("boris")["observations"]["rate_obs"]
                ["per_frame_rle_by_subject"]["resident"] for _ in range(n)]  # fmt: skip
    of_video = {clip.record: clip.labels for clip in every if clip.source == "rig/arena_02.mp4"}
    assert len(of_video) == len(range(0, 250 - 7, 8))
    assert any("points (jump, light on, rear): a clip that holds one" in line for line in made.assumed)
    for first, found in of_video.items():
        names = [dataset.classes[k] for k in found]
        # Its one point, a jump at 9.5 s, is first shown by frame 238.
        jumps = ["jump"] if first <= 238 < first + 8 else []
        assert names == [name for name in [expected[first + 4]] if name != "(none)"] + jumps
    # Nothing was coded there, and from frame 255 on nobody closed `walk`.
    assert not [clip for clip in every if clip.source == "rig/arena_05.mp4"]
    assert max(clip.record for clip in every if clip.source == "rig/arena_03.mp4") + 8 <= 255
    sources = [{clip.source for clip in found} for found in clips.values()]
    assert list(clips) == ["train", "val", "test"]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 7


def test_what_is_refused_stops_and_writes_nothing_until_it_is_left_out(folder: Any) -> None:
    ethogram = folder("deepethogram")
    with pytest.raises(DataError, match=r"refuse: mouse_c_labels\.csv, DATA/mouse_c/mouse_c\.mp4: 198 rows"):
        set_up(ethogram, [], Choices(), Wishes())
    assert not (ethogram / "scivid.yaml").exists()
    made = set_up(ethogram, [], Choices(), Wishes(leave_out=True))
    listed = "".join((ethogram / "clip_lists" / f"{split}.csv").read_text() for split in made.splits)
    assert "mouse_c.mp4" not in listed
    assert "mouse_e.mp4" in listed
    assert any("left out" in line for line in made.assumed)
    assert 'background: "background"' in made.manifest.read_text()


def test_whose_the_videos_are_is_written_and_a_subject_in_two_splits_is_said(tmp_path: Path) -> None:
    mice = write_lab(tmp_path / "mice")
    made = set_up(mice, [], Choices(), Wishes())
    dataset = load_manifest(made.manifest).dataset("mice")
    assert dict(dataset.subjects) == {f"mouse{n}_{s}.mp4": f"mouse{n}" for n in (1, 2, 3) for s in "ab"}
    assert not [line for line in check(mice)[1] if "never saw" in line]
    train, val = (mice / "clip_lists" / f"{split}.csv" for split in ("train", "val"))
    head, *rows = train.read_text().splitlines()
    moved = [row for row in rows if "_a" in row]
    train.write_text("\n".join([head, *(row for row in rows if row not in moved)]))
    val.write_text("\n".join([val.read_text().strip(), *moved]))
    (said,) = [line for line in check(mice)[1] if "never saw" in line]
    assert said == f"{moved[0][:6]} is in train and val: a score there is not of animals it never saw."


def test_a_class_that_a_split_lacks_is_said(tmp_path: Path) -> None:
    mice = write_lab(tmp_path / "mice", n_videos=4)
    table = mice / "bouts.csv"
    table.write_text(table.read_text() + "mouse1_a.mp4,1.0,4.0,jump\n")
    made = set_up(mice, [], Choices(), Wishes())
    said = [line for line in made.assumed if line.startswith("no clip of jump in ")]
    assert len(said) == len(made.splits) - 1


def test_predictions_in_the_folder_are_no_labels(tmp_path: Path) -> None:
    mice = write_lab(tmp_path / "mice", n_videos=4)
    for name in ("new1.mp4", "new2.mp4"):
        write_recording(mice / name, [], 100)
        labels = VideoLabels(
            video=Video(source=name, n_frames=100, rate=RATE), bouts=(Bout(label="dig", first=3, stop=90),)
        )
        write_labels(mice / f"predictions_{name}.annot", [labels], ["dig"])
    write_labels(mice / "predictions.boris", [labels], ["dig"])
    (mice / "predictions_bouts.csv").write_text(
        f"{','.join(BOUT_COLUMNS)}\nnew1.mp4,dig,3,90,0.24,7.28,0.5\n"
    )
    (mice / "predictions.csv").write_text("video,frame,time,dig\nnew1.mp4,0,0.0,0.5\n")
    made = set_up(mice, [], Choices(), Wishes())
    assert any(
        line.startswith("predictions are there too, and not taken: predictions.boris") for line in made.found
    )
    lists = "".join(file.read_text() for file in (mice / "clip_lists").iterdir())
    assert ("new" in lists, "mouse" in lists) == (False, True)
    made.manifest.unlink()
    set_up(mice, [mice / "predictions.boris"], Choices(), Wishes())
    train = (mice / "clip_lists" / "train.csv").read_text()
    assert ("new2" in train, "mouse" in train) == (True, False)


def test_a_folder_a_class_is_one_clip_a_video_in_the_splits_of_its_folders(folder: Any) -> None:
    classes = folder("videofolder_classes")
    made = set_up(classes, [], Choices(), Wishes(name="moves"))
    manifest = load_manifest(made.manifest)
    assert manifest.task("moves").clip.sampling == "linspace_clip"
    assert made.splits == ("train", "test")
    scan = open_reader(manifest.dataset("moves"), "train", classes).scan()
    assert len(scan.index) == 5


def test_videos_without_labels_become_a_task_of_features(folder: Any, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(folder("via") / "dig.mp4", plain)
    made = set_up(plain, [], Choices(), Wishes())
    manifest = load_manifest(made.manifest)
    assert manifest.task("plain").kind == "features"
    assert len(open_reader(manifest.dataset("plain"), "train", plain).scan().index) == 4  # 125 frames by 32


def test_one_subject_alone(folder: Any) -> None:
    boris = folder("boris")
    wishes = Wishes(subject="intruder")
    made = set_up(boris, [], Choices(observations=("pair_obs1",)), wishes)
    assert set(load_manifest(made.manifest).dataset("boris").classes) == {"rest", "walk", "groom", "jump"}
    made.manifest.unlink()
    with pytest.raises(CallError, match="no label is of subject 'nobody': there are"):
        set_up(boris, [], Choices(observations=("pair_obs1",)), Wishes(subject="nobody"))


def test_a_manifest_that_is_there_is_not_overwritten(folder: Any) -> None:
    via = folder("via")
    (via / "scivid.yaml").write_text("mine")
    with pytest.raises(CallError, match="edit it and say --check"):
        set_up(via, [], Choices(), Wishes())
    assert (via / "scivid.yaml").read_text() == "mine"


def test_a_folder_without_a_video_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("none")
    with pytest.raises(DataError, match=r"holds no video that can be read\. It has a\.mp4"):
        set_up(tmp_path, [], Choices(), Wishes())


def test_the_command_says_what_it_found_and_ends_with_the_next_one(folder: Any) -> None:
    intervals = folder("intervals")
    call = ["data", "init", str(intervals), "--labels", str(intervals / "seconds.csv")]
    stopped = CliRunner().invoke(app, call)
    assert stopped.exit_code == 1
    assert "refuse: seconds.csv, row 6: 'walk' from 5.5 to 4.5 s" in stopped.output
    done = CliRunner().invoke(app, [*call, "--leave-out"])
    assert done.exit_code == 0, done.output
    for part in (
        "4 videos",
        "seconds.csv, row 8: no video 's3.mp4'",
        "bouts",
        "splits: train, val",
        "scivid extract",
    ):
        assert part in done.output
    again = CliRunner().invoke(app, ["data", "init", str(intervals), "--check"])
    assert again.exit_code == 0, again.output
    assert "clips train" in again.output
    wrong = CliRunner().invoke(app, [*call, "--unit", "hours"])
    assert (wrong.exit_code, "--unit 'hours' is none of seconds, frames" in wrong.output) == (2, True)


def test_digital_typhoon_as_published_is_refused_in_words(tmp_path: Path) -> None:
    image = tmp_path / "WP" / "image" / "200718" / "2007092006-200718-MTS1-1.h5"
    image.parent.mkdir(parents=True)
    image.touch()
    with pytest.raises(
        DataError, match=r"Typhoon as published\. .* is not public.*data status --task typhoon"
    ):
        set_up(tmp_path, [], Choices(), Wishes())


def test_labels_come_before_what_is_measured_beside_them(folder: Any) -> None:
    intervals = folder("intervals")
    for name in ("clock.csv", "frames.csv"):
        (intervals / name).unlink()
    weights = intervals / "weights.csv"
    weights.write_text("video,split,weight\ns1.mp4,train,20.5\ns2.mp4,train,21.5\nf1.avi,val,23.5\n")
    made = set_up(intervals, [], Choices(), Wishes(leave_out=True))
    assert any("values of weights.csv are there too, and not taken" in line for line in made.found)
    assert load_manifest(made.manifest).task("intervals").kind == "classification"
    made.manifest.unlink()
    with pytest.raises(DataError, match=r"files of values and others \(seconds\.csv\): give one kind"):
        set_up(intervals, [weights, intervals / "seconds.csv"], Choices(), Wishes())
    alone = set_up(intervals, [weights], Choices(), Wishes())
    assert load_manifest(alone.manifest).task("intervals").kind == "regression"
