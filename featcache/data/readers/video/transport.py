"""Where an MPEG transport stream lacks packets: each counts on from the one before it in its stream.

A stream of packets has no end and no length of its own. It may begin anywhere, and recordings are put
together by writing one behind the other, so that a break in the counts is a loss only where nothing begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from featcache.data.readers.video.containers import IncompleteError

_SYNC = 0x47
_STRIDES = (188, 192, 204)
"""Bytes from one packet to the next: plain, with a time stamp, with parity."""
_PACKETS = 32_768
"""How many are looked at together."""
_SURE = 5
"""Packets in a row that make a stream."""


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the packets of the video do not count on."""

    position: int
    """Byte of the packet that goes on."""
    begins: bool
    """Whether a frame begins there, and the list of programs before it does not count on either."""
    afresh: bool
    """Whether that list counts from zero, as a stream's first one does."""


@dataclass(slots=True)
class _Counts:
    """The counts of one stream of packets, block by block."""

    last: int | None = None
    last_position: int = 0

    def jumps(
        self,
        positions: Int64[np.ndarray, " n"],
        counts: UInt8[np.ndarray, " n"],
        said: Bool[np.ndarray, " n"],
    ) -> list[tuple[int, int, int]]:
        """Index, place of the packet before, and own place of those that do not count on; `said` may."""
        if not len(counts):
            return []
        before = np.concatenate([counts[:1] if self.last is None else [self.last], counts[:-1]])
        places = np.concatenate([[self.last_position], positions[:-1]])
        bad = np.flatnonzero((counts != (before + 1) % 16) & (counts != before) & ~said)
        self.last, self.last_position = int(counts[-1]), int(positions[-1])
        return [(int(i), int(places[i]), int(positions[i])) for i in bad]


def breaks(path: Path, video: int) -> list[Break]:
    """All places where packets of the video, numbered `video`, do not count on.

    Raises:
        IncompleteError: bytes between packets are none, a packet says that it is damaged, or the last is cut.
        OSError: the file cannot be read.
    """
    of_video, of_tables = _Counts(), _Counts()
    found, anew = list[tuple[int, int, bool]](), list[tuple[int, bool]]()
    for positions, packets in _blocks(path):
        pids = (packets[:, 1].astype(np.int64) & 31) << 8 | packets[:, 2]
        if (damaged := np.flatnonzero(packets[:, 1] & 128)).size:
            raise IncompleteError(
                f"it is damaged: the packet at byte {positions[damaged[0]]:,} was received with errors"
            )
        filled = packets[:, 3] & 16 > 0
        said = (packets[:, 3] & 32 > 0) & (packets[:, 4] > 0) & (packets[:, 5] & 128 > 0)
        for pid, counts in ((0, of_tables), (video, of_video)):
            rows = np.flatnonzero(filled & (pids == pid))
            for i, before, position in counts.jumps(positions[rows], packets[rows, 3] & 15, said[rows]):
                if pid == 0:
                    anew.append((position, not packets[rows[i], 3] & 15))
                else:
                    found.append((before, position, bool(packets[rows[i], 1] & 64)))
    return [_break(*jump, anew) for jump in found]


def _break(before: int, position: int, begins_frame: bool, anew: list[tuple[int, bool]]) -> Break:
    lists = [from_zero for at, from_zero in anew if before < at < position]
    return Break(position, begins_frame and bool(lists), any(lists))


def _blocks(path: Path) -> Iterator[tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "n byte"]]]:
    """Positions and first bytes of all packets, from the first whole one."""
    with path.open("rb") as file:
        position, stride = _first_packet(file.read(_SURE * 2 * max(_STRIDES)))
        file.seek(position)
        while block := file.read(_PACKETS * stride):
            n = len(block) // stride
            packets = np.frombuffer(block, np.uint8, n * stride).reshape(n, stride)
            positions = position + np.arange(n, dtype=np.int64) * stride
            if (strange := np.flatnonzero(packets[:, 0] != _SYNC)).size:
                raise IncompleteError(
                    f"it is damaged: no packet where one has to be, at byte {positions[strange[0]]:,}"
                )
            if left := len(block) - n * stride:
                # Of packets with a time stamp before or parity behind, the last has no next one.
                if left < 188:
                    raise IncompleteError(f"it is cut short: its last packet has {left} of {stride} bytes")
                packets = np.concatenate(
                    [packets, np.frombuffer(block[-left:].ljust(stride, b"\0"), np.uint8)[None]]
                )
                positions = np.append(positions, position + n * stride)
            yield positions, packets[:, :8]
            position += len(block)


def _first_packet(head: bytes) -> tuple[int, int]:
    """Where the first of several packets in a row begins, and the bytes from one to the next."""
    for start in range(max(_STRIDES)):
        for stride in _STRIDES:
            in_row = head[start : start + _SURE * stride : stride]
            if in_row and set(in_row) == {_SYNC}:
                return start, stride
    raise IncompleteError("it is damaged: no packets in a row at its beginning")
