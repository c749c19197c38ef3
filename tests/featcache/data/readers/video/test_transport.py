"""Packets of a transport stream that do not count on, by hand: 188 bytes, a number, a count of four bits."""

from pathlib import Path

import pytest

from featcache.data.readers.video.containers import IncompleteError
from featcache.data.readers.video.transport import Break, breaks

VIDEO = 256


def packet(pid: int, count: int, *, begins: bool = False, flags: int = 0) -> bytes:
    head = bytes([0x47, (64 if begins else 0) | flags | pid >> 8, pid & 255, 16 | count % 16])
    return head.ljust(188, b"\xff")


def stream(counts: range, tables: int = 0) -> list[bytes]:
    """A list of programs, and the packets of a frame."""
    frame = [packet(VIDEO, count, begins=count == counts[0]) for count in counts]
    return [packet(0, tables, begins=True), *frame]


def written(path: Path, packets: list[bytes]) -> Path:
    path.write_bytes(b"".join(packets))
    return path


def test_counts_run_on_from_15_to_0_and_may_be_sent_twice(tmp_path: Path) -> None:
    packets = stream(range(40))
    packets.insert(5, packets[4])
    assert breaks(written(tmp_path / "a.ts", packets), VIDEO) == []


def test_a_lost_packet_is_a_break_in_a_frame(tmp_path: Path) -> None:
    packets = stream(range(40))
    del packets[9]
    assert breaks(written(tmp_path / "a.ts", packets), VIDEO) == [Break(9 * 188, begins=False, afresh=False)]


def test_a_recording_behind_another_begins_afresh(tmp_path: Path) -> None:
    packets = [*stream(range(9), tables=7), *stream(range(20))]
    assert breaks(written(tmp_path / "a.ts", packets), VIDEO) == [Break(11 * 188, begins=True, afresh=True)]


@pytest.mark.parametrize("before", [0, 100, 4])
@pytest.mark.parametrize("stride", [188, 192, 204])
def test_packets_of_each_length_are_found(tmp_path: Path, before: int, stride: int) -> None:
    between = b"\0" * (stride - 188)
    path = tmp_path / "a.ts"
    path.write_bytes(bytes(before) + between.join(stream(range(40))))
    assert breaks(path, VIDEO) == []
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(IncompleteError, match=rf"its last packet has 138 of {stride} bytes"):
        breaks(path, VIDEO)


def test_noise_between_packets_and_errors_in_reception_are_damage(tmp_path: Path) -> None:
    packets = stream(range(40))
    noisy = written(tmp_path / "a.ts", [*packets[:9], b"\x5a" * 300, *packets[9:]])
    with pytest.raises(IncompleteError, match="no packet where one has to be, at byte 1,692"):
        breaks(noisy, VIDEO)
    packets[9] = packet(VIDEO, 8, flags=128)
    with pytest.raises(IncompleteError, match="the packet at byte 1,692 was received with errors"):
        breaks(written(tmp_path / "a.ts", packets), VIDEO)
    with pytest.raises(IncompleteError, match="no packets in a row at its beginning"):
        breaks(written(tmp_path / "a.ts", [b"\x5a" * 5000]), VIDEO)
