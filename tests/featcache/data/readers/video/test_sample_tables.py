"""What tables tell is what FFmpeg tells, or nothing."""

import random
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.data.readers.video import sample_tables as module
from featcache.data.readers.video.frames import opened
from featcache.data.readers.video.sample_tables import sample_tables
from tests.featcache.data.readers.video.small_videos import remuxed, write_video

CASES = Path(__file__).parents[5] / "../shared/cases/videos"


def told_by_ffmpeg(path: Path) -> tuple[object, ...]:
    with opened(path) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert not any(packet.is_discard for packet in packets)
        times = [packet.pts - packets[0].pts for packet in packets]
        return stream.average_rate, stream.time_base, stream.width, stream.height, len(packets), times


def told_by_tables(path: Path) -> tuple[object, ...] | None:
    if (found := sample_tables(path)) is None:
        return None
    times = np.concatenate(list(found.times()))
    assert times.dtype == np.int64
    times = (times - times[0]).tolist()
    return found.rate, found.time_base, found.width, found.height, found.n_frames, times


@pytest.mark.parametrize("at_once", [7, 2**15])
@pytest.mark.parametrize("writing", ["", "faststart", "negative_cts_offsets"])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_a_plain_file_tells_what_ffmpeg_tells(
    tmp_path: Path, ending: str, gap: int, writing: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    path = remuxed(
        write_video(tmp_path / "h264.mp4", 60, gap=gap),
        tmp_path / f"written.{ending}",
        **({"movflags": writing} if writing else {}),
    )
    assert told_by_tables(path) == told_by_ffmpeg(path)


def test_a_rate_is_rounded_as_by_ffmpeg(tmp_path: Path) -> None:
    """99 frames a 25th of a second each and one that is shown for more than a day."""
    path = write_video(tmp_path / "h264.mp4", 100, options={"bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 8
    data[at : at + 12] = struct.pack(">IIIII", 2, 99, 512, 1, 2**31 - 99)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        place = slice(data.index(kind) - 4, data.index(kind))
        data[place] = (int.from_bytes(data[place]) + 8).to_bytes(4)
    path.write_bytes(data)
    found = sample_tables(path)
    assert found is not None
    assert found.rate.denominator > 1e5
    assert told_by_tables(path) == told_by_ffmpeg(path)


@pytest.mark.parametrize(
    "writing", ["frag_keyframe+empty_moov", "frag_keyframe+delay_moov", "frag_keyframe+dash"]
)
def test_fragments_are_left_to_ffmpeg(tmp_path: Path, writing: str) -> None:
    path = remuxed(write_video(tmp_path / "h264.mp4"), tmp_path / "fragments.mp4", movflags=writing)
    assert sample_tables(path) is None


@pytest.mark.parametrize("name", ["motion.mov", "vp8.webm", "mpeg4.avi", "stream.ts", "palette.gif"])
def test_other_files_are_left_to_ffmpeg(videos: Callable[[str], Path], name: str) -> None:
    assert sample_tables(videos(name)) is None


def test_frames_before_the_first_that_is_shown_are_left_to_ffmpeg(tmp_path: Path) -> None:
    """A file that was cut without being encoded again."""
    whole = write_video(tmp_path / "h264.mp4")
    assert sample_tables(remuxed(whole, tmp_path / "cut.mp4", delay=-10 * 512)) is None


@pytest.mark.parametrize("name", ["editstart.mp4", "edit_tail.mp4", "frag.mp4", "prores.mov", "rgba.mov"])
def test_shared_cases_that_are_not_plain(name: str) -> None:
    if not CASES.is_dir():
        pytest.skip("needs ../shared")
    assert sample_tables(CASES / name) is None


@pytest.mark.parametrize("name", ["bt709.mp4", "hevc10.mp4", "rot90.mp4", "single.mp4", "copy_t.mp4"])
def test_shared_cases_that_are_plain(name: str) -> None:
    if not CASES.is_dir():
        pytest.skip("needs ../shared")
    assert told_by_tables(CASES / name) == told_by_ffmpeg(CASES / name)


def test_a_file_that_is_cut_short_is_left_to_ffmpeg(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "h264.mp4", 40)
    first = remuxed(whole, tmp_path / "first.mp4", movflags="faststart")
    data, cut = first.read_bytes(), tmp_path / "cut.mp4"
    for size in range(0, len(data), 97):
        cut.write_bytes(data[:size])
        assert sample_tables(cut) is None


@pytest.mark.parametrize("header", [b"mvhd", b"mdhd"])
def test_a_clock_without_units_is_left_to_ffmpeg(tmp_path: Path, header: bytes) -> None:
    path = write_video(tmp_path / "h264.mp4", 10)
    data = bytearray(path.read_bytes())
    at = data.index(header) + 4 + 12
    assert any(data[at : at + 4])
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    assert sample_tables(path) is None


def test_tables_that_are_damaged_never_end_in_an_accident(tmp_path: Path) -> None:
    path = write_video(tmp_path / "h264.mp4", 40)
    data, draw, n_left = path.read_bytes(), random.Random(0), 0
    begin = data.index(b"moov")
    for _ in range(200):
        damaged = bytearray(data)
        damaged[draw.randrange(begin, len(data))] = draw.randrange(256)
        path.write_bytes(damaged)
        found = sample_tables(path)
        n_left += found is None
        if found is not None:
            assert sum(len(times) for times in found.times()) == found.n_frames
    assert n_left > 30


def box(kind: bytes, *content: bytes) -> bytes:
    inside = b"".join(content)
    return (8 + len(inside)).to_bytes(4) + kind + inside


def table(kind: bytes, n: int, entries: bytes, before: bytes = b"") -> bytes:
    return box(kind, bytes(4), before, n.to_bytes(4), entries)


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """Ten hours at 30 frames a second, of which FFmpeg would keep 80 MB."""
    n = 2**20
    offsets = np.tile(np.array([[1, 512], [1, -512]], ">i4"), (n // 2, 1))
    entry = box(b"avc1", bytes(24), struct.pack(">HH", 64, 48), bytes(50))
    tables = box(
        b"stbl",
        table(b"stsd", 1, entry),
        table(b"stts", 1, struct.pack(">II", n, 1001)),
        table(b"ctts", n, offsets.tobytes()),
        table(b"stsz", n, np.full(n, 5, ">u4").tobytes(), before=bytes(4)),
        table(b"stsc", 1, struct.pack(">III", 1, n, 1)),
        table(b"co64", 1, struct.pack(">Q", 100)),
    )
    header = box(b"mdhd", b"\1\0\0\0", bytes(16), struct.pack(">I", 30_000), bytes(12))
    media = box(b"mdia", header, box(b"hdlr", bytes(8), b"vide", bytes(12)), box(b"minf", tables))
    track = box(b"trak", box(b"tkhd", bytes(76), struct.pack(">II", 64 << 16, 48 << 16)), media)
    path = tmp_path / "long.mp4"
    path.write_bytes(
        box(b"ftyp", b"isom", bytes(4))
        + struct.pack(">I4sQ", 1, b"mdat", 16 + 5 * n)
        + bytes(5 * n)
        + box(b"moov", box(b"mvhd", bytes(100)), track)
    )
    del offsets, tables, media, track
    tracemalloc.start()
    found = sample_tables(path)
    assert found is not None
    ends = [(int(times[0]), int(times[-1])) for times in found.times()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.n_frames, found.rate, found.width, found.height) == (n, Fraction(30_000, 1001), 64, 48)
    assert (ends[0][0], ends[-1][1]) == (512, 1001 * (n - 1) - 512)
    assert peak < 3e6
