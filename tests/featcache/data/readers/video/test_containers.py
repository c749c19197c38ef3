"""What a file says of its own extent, container by container: cut anywhere, it is noticed; whole, never."""

import struct
from collections.abc import Callable
from pathlib import Path

import av  # noqa: TID253  (for the tests of the modules that may)
import pytest

from featcache.data.readers.video.containers import IncompleteError, look_through, n_pages
from tests.featcache.data.readers.video.small_videos import remuxed

FORMATS = {
    "mp4": ("h264.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("h264.mp4", {}),
    "webm": ("vp8.webm", {}),
    "avi": ("mpeg4.avi", {}),
    "gif": ("palette.gif", {}),
    "flv": ("h264.mp4", {}),
    "ogg": ("vp8.webm", {}),
    "mpg": ("mpeg2.ts", {}),
    "asf": ("mpeg4.avi", {}),
    "ivf": ("vp8.webm", {}),
}


def kind_of(path: Path) -> str:
    with av.open(path) as container:
        return str(container.format.name)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_anywhere_is_cut_short_and_a_whole_one_is_not(
    videos: Callable[[str], Path], tmp_path: Path, suffix: str
) -> None:
    source, options = FORMATS[suffix]
    path = remuxed(videos(source), tmp_path / f"whole.{suffix}", **options)
    kind, content = kind_of(path), path.read_bytes()
    assert look_through(path, kind) is None
    cut = tmp_path / f"cut.{suffix}"
    for tenth in range(3, 10):
        # One byte more: behind a whole pack a program stream is a shorter one.
        cut.write_bytes(content[: len(content) * tenth // 10 + 1])
        with pytest.raises(IncompleteError, match=r"it is (cut short|not finished)"):
            look_through(cut, kind)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "flv", "mpg"])
def test_bytes_overwritten_in_the_middle_are_damage(
    videos: Callable[[str], Path], tmp_path: Path, suffix: str
) -> None:
    source, options = FORMATS[suffix]
    path = remuxed(videos(source), tmp_path / f"a.{suffix}", **options)
    kind, content = kind_of(path), bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xa5\x5a" * 1000
    path.write_bytes(content)
    with pytest.raises(IncompleteError, match=r"it is (damaged|cut short)"):
        look_through(path, kind)


ODD = {
    "bytes behind the end": ("mp4", lambda content: content + bytes(range(256)) * 9),
    "zeros behind the end": ("mkv", lambda content: content + bytes(3000)),
    "noise behind the end": ("avi", lambda content: content + bytes(range(256)) * 9),
    "a box of a kind of its own": ("mp4", lambda content: content + b"\0\0\0\x10cam1" + bytes(8)),
    "no index": ("avi", lambda content: content[: content.rindex(b"idx1")]),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_and_whole_is_whole(videos: Callable[[str], Path], tmp_path: Path, what: str) -> None:
    suffix, change = ODD[what]
    source, options = FORMATS[suffix]
    path = remuxed(videos(source), tmp_path / f"odd.{suffix}", **options if suffix != "mp4" else {})
    path.write_bytes(change(path.read_bytes()))
    assert look_through(path, kind_of(path)) is None


def test_an_avi_whose_frames_are_not_padded_is_whole(tmp_path: Path) -> None:
    frames = b"".join(struct.pack("<4sI", b"00dc", n) + bytes([n]) * n for n in (3, 4, 5, 7))
    movi = struct.pack("<4sI4s", b"LIST", 4 + len(frames), b"movi") + frames
    path = tmp_path / "a.avi"
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(movi), b"AVI ") + movi)
    assert look_through(path, "avi") is None
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 0, b"AVI ") + movi[:4] + bytes(4) + movi[8:])
    with pytest.raises(IncompleteError, match="it is not finished"):
        look_through(path, "avi")


def test_what_cannot_be_told_is_said(videos: Callable[[str], Path], tmp_path: Path) -> None:
    path = remuxed(videos("h264.mp4"), tmp_path / "a.mp4", movflags="frag_keyframe+empty_moov")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"mfra") - 4])
    assert "whether some are missing at its end cannot be told" in str(look_through(path, "mov,mp4"))
    live = remuxed(videos("h264.mp4"), tmp_path / "a.mkv", live="1")
    assert "whether frames are missing at its end cannot be told" in str(look_through(live, "matroska,webm"))


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_pages_of_a_tiff_are_counted(tmp_path: Path, order: str, big: bool) -> None:
    count, place, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
    size = struct.calcsize(order + count + place) + entry
    pages = b""
    for page in range(3):
        after = len(head) + (page + 1) * size if page < 2 else 0
        pages += struct.pack(order + count, 1) + bytes(entry) + struct.pack(order + place, after)
    path = tmp_path / "a.tif"
    path.write_bytes(head + pages)
    assert n_pages(path) == 3
    path.write_bytes(b"no picture")
    assert n_pages(path) == 1
