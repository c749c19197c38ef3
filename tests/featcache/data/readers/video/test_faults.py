"""What people's recordings are like, each through the reader: frames right, refused, or taken with a note."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.data.index_cache import scan_once
from featcache.data.readers import UnreadableFileError, data_status, open_reader
from featcache.data.readers.video.reader import UNMAPPED
from tests.featcache.data.readers.video.small_videos import (
    N_FRAMES,
    dataset,
    picture,
    remuxed,
    write_video,
)

Videos = Callable[[str], Path]


def levels(folder: Path, name: str, frames: list[int], n_frames: int) -> list[int]:
    """Half the grey of some frames: their number in the video that they were written in."""
    reader = open_reader(dataset(files=name), "all", folder)
    clip = reader.scan(skip_bad=True).index.clip(0)
    assert clip.n_source == n_frames
    return [round(float(pixels.mean()) / 2) for pixels in reader.read(clip, frames)]


def test_a_clock_that_jumps_back_does_not_move_frames(videos: Videos, tmp_path: Path) -> None:
    late = remuxed(videos("stream.ts"), tmp_path / "late.ts", delay=7 * 90_000).read_bytes()
    (tmp_path / "a.ts").write_bytes(late + videos("stream.ts").read_bytes())
    frames = [0, 70, 119, 120, 130, 190, 239]
    found = levels(tmp_path, "a.ts", frames, 2 * N_FRAMES)
    np.testing.assert_allclose(found, [frame % N_FRAMES for frame in frames], atol=2)
    clip = open_reader(dataset(files="a.ts"), "all", tmp_path).scan().index.clip(0)
    assert clip.digest.endswith(UNMAPPED)


@pytest.mark.parametrize("frame", [0, 100])
def test_a_turned_video_is_read_as_it_is_shown_and_told_apart(tmp_path: Path, frame: int) -> None:
    half_white = np.zeros((48, 64), np.uint8)
    half_white[:, 32:] = 255
    upright = picture(tmp_path / "a.mkv", half_white, n_frames=120)
    quarter = 1 << 16
    remuxed(upright, tmp_path / "b.mkv", matrix=[0, quarter, 0, -quarter, 0, 0, 0, 0, 1 << 30])
    reader = open_reader(dataset(files="*.mkv"), "all", tmp_path)
    index = reader.scan().index
    pixels = reader.read(index.clip(1), [frame])[0]
    assert pixels.shape == (64, 48, 3)
    assert (pixels[:32] == 0).all()
    assert (pixels[32:] == 255).all()
    assert reader.read(index.clip(0), [frame])[0].shape == (48, 64, 3)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "b.mkv").write_bytes((tmp_path / "b.mkv").read_bytes())
    as_stored = remuxed(tmp_path / "b.mkv", alone / "c.mkv", matrix=None)
    assert as_stored.exists()
    assert index.clip(1).digest != index.clip(0).digest


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi"])
def test_a_file_cut_short_is_refused_or_taken_with_a_note(videos: Videos, tmp_path: Path, name: str) -> None:
    source = videos("mpeg4.avi" if name == "a.avi" else "h264.mp4")
    path = remuxed(source, tmp_path / name)
    whole, entry = path.read_bytes(), dataset(files=name)
    assert open_reader(entry, "all", tmp_path).scan().notes == ()
    path.write_bytes(whole[: len(whole) * 3 // 4 // 188 * 188 + 50])
    with pytest.raises(UnreadableFileError, match=rf"{name}: it is cut short: ") as problem:
        open_reader(entry, "all", tmp_path).scan()
    assert "--skip-bad: behind the damage they may have other numbers than in the whole" in str(problem.value)
    assert "the same with a copy that ffmpeg mends" in str(problem.value)
    scan = open_reader(entry, "all", tmp_path).scan(skip_bad=True)
    (note,) = scan.notes
    assert f"the {scan.index.clip(0).n_source} frames that can be decoded are taken" in note
    n_frames = scan.index.clip(0).n_source
    assert 40 < n_frames < N_FRAMES
    assert abs(levels(tmp_path, name, [n_frames - 5], n_frames)[0] - (n_frames - 5)) < 3


@pytest.mark.parametrize("movflags", ["use_metadata_tags", "faststart", "frag_keyframe+empty_moov"])
def test_an_mp4_cut_short_says_which_box_is_not_whole(videos: Videos, tmp_path: Path, movflags: str) -> None:
    path = remuxed(videos("h264.mp4"), tmp_path / "a.mp4", movflags=movflags)
    whole = path.read_bytes()
    for tenth in range(4, 10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(
            UnreadableFileError, match=r"a.mp4: it is cut short: the box 'm(dat|oov|oof|fra)'"
        ):
            open_reader(dataset(files="a.mp4"), "all", tmp_path).scan()


def test_what_was_taken_of_a_broken_file_is_refused_later_all_the_same(
    videos: Videos, tmp_path: Path
) -> None:
    content = videos("lossless.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    entry, cache = dataset(files="a.mkv"), tmp_path / "cache"
    reader = open_reader(entry, "all", tmp_path)
    for _ in range(2):
        kept = scan_once(reader, entry, "all", data_dir=tmp_path, cache_dir=cache, skip_bad=True)
        assert kept.lenient
        assert "other numbers" in kept.notes[0]
    with pytest.raises(UnreadableFileError, match="cut short"):
        scan_once(reader, entry, "all", data_dir=tmp_path, cache_dir=cache)


def test_a_header_that_counts_more_frames_than_there_are_is_no_damage(videos: Videos, tmp_path: Path) -> None:
    content = bytearray(videos("mpeg4.avi").read_bytes())
    for place in (content.index(b"avih") + 8 + 16, content.index(b"strh") + 8 + 32):
        assert struct.unpack_from("<I", content, place) == (N_FRAMES,)
        struct.pack_into("<I", content, place, N_FRAMES + 2)
    (tmp_path / "a.avi").write_bytes(content)
    assert levels(tmp_path, "a.avi", [119], N_FRAMES)[0] in (118, 119, 120)
    assert not open_reader(dataset(files="a.avi"), "all", tmp_path).scan().notes


def test_a_file_that_differs_from_the_pattern_in_case_alone_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 5)
    (tmp_path / "videos" / "X.MP4").write_bytes(b"left out")
    entry = dataset(files="videos/*.mp4")
    note = "videos/X.MP4 is left out: `files` in the manifest says 'videos/*.mp4', in upper and lower case"
    assert open_reader(entry, "all", tmp_path).scan().notes == (note,)
    assert data_status(entry, tmp_path)["all"].notes == (note,)
    (tmp_path / "videos" / "Y.Mp4").write_bytes(b"left out")
    assert (
        open_reader(entry, "all", tmp_path).scan().notes[0].startswith("videos/X.MP4 and 1 more are left out")
    )


def test_remarks_on_a_video_name_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 310, size=(16, 16), options={"g": "1000", "sc_threshold": "0"})
    (note,) = open_reader(dataset(files="a.mp4"), "all", tmp_path).scan().notes
    assert note.startswith("a.mp4: decoding can start at its first frame alone")
