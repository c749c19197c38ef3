"""A user's videos: frame k is the k-th decoded frame, whatever the container says of times."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import av  # noqa: TID253  (the test of the one module that may)
import numpy as np
import pytest

from featcache.clips import Clip
from featcache.data.readers import UnreadableFileError, data_status, open_reader
from featcache.data.readers.video import forward
from featcache.data.readers.video.forward import OpenVideos
from featcache.data.readers.video.frames import count_frames
from featcache.errors import CallError, DataError
from tests.featcache.data.readers.video.small_videos import KINDS, N_FRAMES, dataset, write_video


def whole(path: Path) -> Clip:
    return Clip(id="x", source=path.name, record=0, n_source=count_frames(path), digest="")


@pytest.mark.parametrize("name", KINDS)
def test_frame_k_is_the_kth_decoded_frame(videos: Callable[[str], Path], name: str) -> None:
    path = videos(name)
    with av.open(path) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(expected) == N_FRAMES
    reader = open_reader(dataset(files=name), "all", path.parent)
    clip = whole(path)
    assert clip.n_source == N_FRAMES
    for frames in ([0], [119], [100, 70, 70, 119], [24, 95, 96, 97], [65, 71, 72, 73]):
        found = reader.read(clip, frames)
        np.testing.assert_array_equal(found, [expected[k] for k in frames])
    levels = reader.read(clip, range(N_FRAMES))[:, 24, 32].mean(-1)
    tolerance = 40 if name == "palette.gif" else 6
    np.testing.assert_allclose(levels, 2 * np.arange(N_FRAMES), atol=tolerance)


def test_a_video_has_no_targets(videos: Callable[[str], Path]) -> None:
    path = videos("lossless.mkv")
    assert open_reader(dataset(files=path.name), "all", path.parent).targets(whole(path)) == {}


def test_seeks_only_where_it_is_exact_and_worth_it(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded from the start")

    path = videos("h264.mp4")
    reader, clip = open_reader(dataset(files=path.name), "all", path.parent), whole(path)
    monkeypatch.setattr(OpenVideos, "decode", never)
    assert reader.read(clip, [100, 119]).shape == (2, 48, 64, 3)
    with pytest.raises(AssertionError):
        reader.read(clip, [3])


def test_uneven_times_do_not_move_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "uneven.mkv", gap=3)
    levels = open_reader(dataset(files="*.mkv"), "all", tmp_path).read(whole(path), [7, 66, 99])[:, 24, 32, 0]
    np.testing.assert_allclose(levels, [14, 132, 198], atol=3)


def test_colours_and_grey(tmp_path: Path) -> None:
    colour = np.broadcast_to(np.array([200, 60, 20], np.uint8), (48, 64, 3))
    with av.open(tmp_path / "c.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(colour), format="rgb24")))
        container.mux(stream.encode())
    clip = whole(tmp_path / "c.mkv")
    np.testing.assert_array_equal(open_reader(dataset("*.mkv"), "all", tmp_path).read(clip, [0])[0], colour)
    grey = open_reader(dataset("*.mkv", channels=1), "all", tmp_path).read(clip, [0])
    assert grey.shape == (1, 48, 64, 1)
    # The weights of ITU-R BT.601: 0.299 red, 0.587 green, 0.114 blue.
    np.testing.assert_allclose(grey[0, 24, 32, 0], 0.299 * 200 + 0.587 * 60 + 0.114 * 20, atol=2)


def test_one_clip_a_video(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / "videos" / name, n) for name, n in (("b.mp4", 9), ("a.mp4", 5))]
    (tmp_path / "videos" / "._b.mp4").write_bytes(b"what some systems leave behind")
    done: list[tuple[int, int]] = []
    scan = open_reader(dataset(), "all", tmp_path).scan(progress=lambda *n: done.append(n))
    clips = [scan.index.clip(i) for i in range(2)]
    assert [(c.id, c.record, c.n_source, c.labels) for c in clips] == [
        ("videos/a.mp4/0", 0, 5, ()),
        ("videos/b.mp4/0", 0, 9, ()),
    ]
    assert clips[1].digest == blake2b(paths[0].read_bytes(), digest_size=8).hexdigest()
    assert done == [(1, 2), (2, 2)]


def test_a_clip_every_so_many_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 70)
    reader = open_reader(dataset(clip_every=30), "all", tmp_path)
    index = reader.scan().index
    assert [(c.record, c.n_source) for c in map(index.clip, range(len(index)))] == [
        (0, 70),
        (30, 40),
        (60, 10),
    ]
    levels = reader.read(index.clip(2), [0, 9, 9])[:, 24, 32, 0]
    np.testing.assert_allclose(levels, [120, 138, 138], atol=3)


def test_clips_from_a_list(tmp_path: Path) -> None:
    for name, n_frames in (("a.mp4", 30), ("b.mp4", 20)):
        write_video(tmp_path / "videos" / name, n_frames)
    (tmp_path / "videos" / "unlisted.mp4").write_bytes(b"never opened")
    (tmp_path / "videos" / "clips.csv").write_text(
        "video,first_frame,labels\nb.mp4,4,rest;run\nvideos/a.mp4,0,\nb.mp4,20,run\n"
    )
    listed = dataset(clips="videos/clips.csv")
    assert data_status(listed, tmp_path)["all"].n_clips == 3
    reader = open_reader(listed, "all", tmp_path)
    with pytest.raises(DataError, match=r"clips\.csv, row 4: videos/b.mp4 has 20 frames, 20 is not one"):
        reader.scan()
    scan = reader.scan(skip_bad=True)
    assert [(c.id, c.n_source, c.labels) for c in map(scan.index.clip, range(2))] == [
        ("videos/b.mp4/4", 16, (1, 0)),
        ("videos/a.mp4/0", 30, ()),
    ]
    (skipped,) = scan.skipped
    assert (skipped.id, skipped.record) == ("videos/b.mp4/20", 20)
    (tmp_path / "videos" / "clips.csv").write_text("video,first_frame,labels\nb.mp4,20,run\n")
    with pytest.raises(DataError, match=r"Correct it\. It is so with every row\.$"):
        open_reader(listed, "all", tmp_path).scan(skip_bad=True)


def test_a_list_with_a_mistake_costs_no_decoding(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"never opened")
    (tmp_path / "clips.csv").write_text("video,first_frame,labels\na.mp4,0,running\n")
    with pytest.raises(DataError, match=r"clips\.csv, row 2: no class is called 'running'"):
        open_reader(dataset(clips="clips.csv"), "all", tmp_path).scan()
    (problem,) = data_status(dataset(clips="clips.csv"), tmp_path)["all"].problems
    assert "no class is called 'running'" in problem


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("name", ["cut.mp4", "foreign.mp4", "empty.mp4"])
def test_a_file_without_a_frame_is_always_an_error(
    videos: Callable[[str], Path], tmp_path: Path, name: str, skip_bad: bool
) -> None:
    source = videos("h264.mp4").read_bytes()
    content = {"cut": source[: len(source) * 2 // 3], "foreign": bytes(5000), "empty": b""}[
        name.split(".")[0]
    ]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"{name}: (FFmpeg cannot open|it is cut short)"):
        open_reader(dataset(files=name), "all", tmp_path).scan(skip_bad=skip_bad)


def test_a_frame_past_the_end_is_refused(videos: Callable[[str], Path]) -> None:
    path = videos("h264.mp4")
    reader = open_reader(dataset(files=path.name), "all", path.parent)
    for frame in (N_FRAMES, -1):
        with pytest.raises(
            DataError, match=f"h264.mp4, clip from frame 0: the clip has 120 frames, {frame} is"
        ):
            reader.read(whole(path), [frame])
    longer = Clip(id="x", source=path.name, record=100, n_source=50, digest="")
    with pytest.raises(UnreadableFileError, match="ends before frame 149"):
        reader.read(longer, [49])


def test_a_file_lost_after_the_scan_is_never_a_bad_clip(
    videos: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(videos("h264.mp4").read_bytes())
    reader = open_reader(dataset(files=path.name), "all", tmp_path)
    clip = reader.scan().index.clip(0)

    def failing(*_: object) -> None:
        raise av.error.OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(forward, "pixels_of", failing)
        with pytest.raises(UnreadableFileError, match="FFmpeg cannot read it"):
            reader.read(clip, [3])
    for damage in (lambda: os.truncate(path, 900), path.unlink):
        damage()
        with pytest.raises(UnreadableFileError, match=r"a\.mp4, clip from frame 0: FFmpeg cannot open it"):
            reader.read(clip, [3])


def test_a_frame_that_cannot_be_decoded_is_of_its_clip_alone(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos("h264.mp4")

    def failing(*_: object) -> None:
        raise av.error.InvalidDataError(1, "Invalid data found")

    monkeypatch.setattr(forward, "pixels_of", failing)
    with pytest.raises(DataError, match="FFmpeg cannot decode it") as problem:
        open_reader(dataset(files=path.name), "all", path.parent).read(whole(path), [3])
    assert not isinstance(problem.value, UnreadableFileError)


def test_threads_read_the_same_frames(videos: Callable[[str], Path]) -> None:
    path = videos("h264.mp4")
    reader, clip = open_reader(dataset(files=path.name), "all", path.parent), whole(path)
    numbers = np.random.default_rng(0).integers(0, N_FRAMES, 40).tolist()
    with ThreadPoolExecutor(4) as pool:
        levels = [pixels[0, 24, 32, 0] for pixels in pool.map(lambda k: reader.read(clip, [k]), numbers)]
    np.testing.assert_allclose(levels, 2 * np.array(numbers), atol=3)


def test_nothing_found_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no video matches 'videos/\*\.\*' below"):
        open_reader(dataset(), "all", tmp_path)
    status = data_status(dataset(), tmp_path)["all"]
    assert (status.complete, status.n_found) == (False, 0)
    with pytest.raises(CallError, match="not a pattern"):
        open_reader(dataset(files="/absolute/*.mp4"), "all", tmp_path)


def test_status_counts_files_and_bytes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "videos" / "a.mp4", 5)
    status = data_status(dataset(), tmp_path)["all"]
    assert status.complete
    assert (status.n_found, status.n_clips, status.n_bytes) == (1, None, path.stat().st_size)


def test_real_videos_open(shared: Path) -> None:
    real = shared / "real"
    reader = open_reader(dataset(files="*/*.mp4"), "all", real)
    gifs = open_reader(dataset(files="*/*.gif"), "all", real)
    lengths = {"flies/centered_pair_low_quality.mp4": 1100, "misc/water_bottle_drumming.mp4": 100}
    lengths |= {f"movi_e/movi_e_{i}.gif": 24 for i in (1, 2, 3)} | {"scivid_assets/calms21_example.gif": 16}
    for source, n_frames in lengths.items():
        assert count_frames(real / source) == n_frames
        clip = Clip(id=source, source=source, record=0, n_source=n_frames, digest="")
        pixels = (gifs if source.endswith("gif") else reader).read(clip, [0, n_frames // 2, n_frames - 1])
        assert (pixels.shape[0], pixels.shape[3]) == (3, 3)
        assert min(frame.std() for frame in pixels) > 5
        assert (pixels[0] != pixels[2]).any()
