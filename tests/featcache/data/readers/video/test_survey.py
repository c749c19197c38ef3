"""What one pass over a video finds: whole or not, in order or not, and what should be said of it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av  # noqa: TID253  (for the tests of the modules that may)
import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.video.survey import survey
from tests.featcache.data.readers.video.small_videos import KINDS, N_FRAMES, remuxed, write_video


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_of_every_kind_are_whole(videos: Callable[[str], Path], name: str) -> None:
    found = survey(videos(name))
    assert (found.n_frames, found.lost, found.remarks, found.changes) == (N_FRAMES, None, (), ())
    assert found.mapped


def test_a_clock_that_jumps_back_is_not_looked_up(videos: Callable[[str], Path], tmp_path: Path) -> None:
    late = remuxed(videos("stream.ts"), tmp_path / "late.ts", delay=7 * 90_000)
    path = tmp_path / "joined.ts"
    path.write_bytes(late.read_bytes() + videos("stream.ts").read_bytes())
    found = survey(path)
    assert (found.n_frames, found.lost, found.mapped) == (2 * N_FRAMES, None, False)


@pytest.mark.parametrize("suffix", ["ts", "m2ts"])
def test_joined_recordings_are_whole(videos: Callable[[str], Path], tmp_path: Path, suffix: str) -> None:
    one = remuxed(videos("mpeg2.ts"), tmp_path / f"one.{suffix}").read_bytes()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(one + one)
    found = survey(path)
    assert (found.n_frames, found.lost, found.remarks) == (2 * N_FRAMES, None, ())


def test_packets_lost_from_a_stream_are_damage(videos: Callable[[str], Path], tmp_path: Path) -> None:
    source = videos("stream.ts").read_bytes()
    middle = len(source) // 376 * 188
    path = tmp_path / "a.ts"
    path.write_bytes(source[:middle] + source[middle + 5 * 188 :])
    assert "packets are missing before byte" in str(survey(path).lost)


def test_a_frame_that_the_decoder_makes_up_is_damage(videos: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray(videos("h264.mp4").read_bytes())
    with av.open(videos("h264.mp4")) as container:
        packet = max(container.demux(video=0), key=lambda packet: packet.size if packet.pos else 0)
        content[packet.pos + packet.size // 2 : packet.pos + packet.size] = bytes(
            packet.size - packet.size // 2
        )
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert "it is damaged" in str(survey(path).lost)


def test_a_damaged_picture_is_found_in_a_file_of_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "motion.mov", 10, codec="png")
    assert survey(path).lost is None
    content = bytearray(path.read_bytes())
    with av.open(path) as container:
        packet = list(container.demux(video=0))[5]
        middle = packet.pos + packet.size * 3 // 4
    content[middle : middle + 8] = bytes(byte ^ 0x55 for byte in content[middle : middle + 8])
    path.write_bytes(content)
    assert "it is damaged: 1 packet cannot be decoded" in str(survey(path).lost)


def test_a_hole_in_the_times_is_said(videos: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(videos("motion.mov")) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(old.demux(video=0)):
            if packet.dts is not None and not 50 <= i < 60:
                packet.stream = stream
                new.mux(packet)
    found = survey(path)
    assert (found.n_frames, found.lost) == (N_FRAMES - 10, None)
    (remark,) = found.remarks
    assert remark.startswith("from frame 49 to the next it takes 11 times as long as usual (1 such place)")


def test_twelve_bits_in_sixteen_are_said_to_be_nearly_black(tmp_path: Path) -> None:
    for top, n_remarks in ((4095, 1), (65535, 0)):
        path = tmp_path / f"{top}.mkv"
        with av.open(path, "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "gray16le"
            pixels = np.linspace(0, top, 48 * 64).astype(np.uint16).reshape(48, 64)
            frame = av.VideoFrame.from_ndarray(pixels, format="gray16le")
            container.mux([*stream.encode(frame), *stream.encode()])
        remarks = survey(path).remarks
        assert len(remarks) == n_remarks
        assert all("its values reach 4,095 of 65,535 only" in remark for remark in remarks)


def test_one_of_two_videos_is_taken_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "gray"
        for k in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((48, 64), k, np.uint8), format="gray")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    assert survey(path).remarks == ("it holds 2 videos, of which number 1 is taken",)


def test_a_single_keyframe_in_a_long_video_is_said_to_be_slow(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 310, size=(16, 16), options={"g": "1000", "sc_threshold": "0"})
    assert survey(path).remarks == (
        "decoding can start at its first frame alone: clips that are not read in order take long",
    )


@pytest.mark.parametrize("angle", [0, 37])
def test_a_display_matrix_is_a_change_of_the_pixels(
    videos: Callable[[str], Path], tmp_path: Path, angle: int
) -> None:
    c, s = (round(f(np.radians(angle)) * 2**16) for f in (np.cos, np.sin))
    matrix = [c, s, 0, -s, c, 0, 0, 0, 1 << 30]
    found = survey(remuxed(videos("h264.mp4"), tmp_path / "a.mp4", matrix=matrix))
    assert len(found.changes) == len(found.remarks) == (angle != 0)


def test_a_tiff_of_several_pages_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    pages = [Image.new("L", (64, 48), 40 * i) for i in range(3)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(WholeFileError, match="it holds 3 pages, of which FFmpeg shows the first alone"):
        survey(path)
    pages[0].save(path)
    assert survey(path).n_frames == 1


def test_a_file_without_a_frame_is_refused(videos: Callable[[str], Path], tmp_path: Path) -> None:
    content = videos("h264.mp4").read_bytes()
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    path = tmp_path / "a.mp4"
    path.write_bytes(content[:start] + bytes(end - start) + content[end:])
    with pytest.raises(UnreadableError, match=r"it is damaged: \d+ packets cannot be decoded"):
        survey(path)
