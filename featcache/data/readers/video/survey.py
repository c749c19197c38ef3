"""One pass over a video before anything is made of it: its frames counted, and whether they are all there.

Whether a file is whole is decided by evidence: bytes that it speaks of and does not have, packets that do not
count on, frames that the decoder calls damaged. How many frames a header counts is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.video.containers import IncompleteError, format_of, look_through, n_pages
from featcache.data.readers.video.frames import (
    UPRIGHT,
    FrameTimes,
    count_frames,
    display_matrix,
    opened,
    try_decoding,
)
from featcache.data.readers.video.transport import breaks

if TYPE_CHECKING:
    import av

_STREAMS = ("mpegts", "mpeg")
"""Formats that may begin anywhere."""
_TIMED = ("asf", "flv", "mxf")
"""Formats whose header tells how long they are, and whose other bytes do not."""
_LONG = 300
"""Frames from which on decoding from the start is slow."""
_STEADY = 0.95
"""Share of equal steps in time from which on longer ones are holes."""
_MISSED = 5
"""Frames, and percent of a video, that its header may say too much."""
_FEW = 20
"""Fewer frames have no usual step."""
_DIM = 2**14
"""Below a quarter of what 16 bits hold: cameras of 12 bits, written as they are, stay below 2**12."""
_ASKEW = 0.02
"""By how much more than quarters a display matrix may turn, as a slope."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What one pass over a video found."""

    n_frames: int
    lost: str | None
    """What shows that frames are missing or damaged, as a clause; None of a whole file."""
    remarks: tuple[str, ...]
    """What is taken as it is and should be said, each a clause."""
    mapped: bool
    """Whether the times in its packets, where each has one, lead to the frames that decoding gives."""
    changes: tuple[str, ...]
    """How its frames are not those of the first video as they are stored: turned, scaled, of another one."""


def survey(path: Path) -> Survey:
    """Decode a video once.

    Raises:
        WholeFileError: FFmpeg cannot open or read the file, or shows one page of several.
        UnreadableError: no frame of it can be decoded.
    """
    if (n := n_pages(path)) > 1:
        raise WholeFileError(
            f"it holds {n} pages, of which FFmpeg shows the first alone: make a video of them"
        )
    seen = _Seen()
    try:
        kind, stream_id, chosen, n_videos = _decode(path, seen)
    except WholeFileError as problem:
        raise WholeFileError(_why(path) or str(problem)) from None
    n_frames, remarks = len(seen.pts), list[str]()
    lost = None
    try:
        remarks += _bytes(path, kind, stream_id, seen)
        seen.refuse_damage(of_stream=kind in _STREAMS)
    except IncompleteError as problem:
        # Reading goes on over what cannot be decoded, on one thread.
        lost, n_frames = str(problem), count_frames(path)
    if not n_frames:
        raise UnreadableError(lost or "no frame of it can be decoded")
    mapped = lost is None and len(seen.sizes) == 1 and not seen.errors and seen.times_agree
    if n_videos > 1:
        remarks.append(f"it holds {n_videos} videos, of which number {chosen + 1} is taken")
    if n_frames >= _LONG and not (mapped and seen.n_entries > 1):
        remarks.append(
            "decoding can start at its first frame alone: clips that are not read in order take long"
        )
    return Survey(
        n_frames=n_frames,
        lost=lost,
        remarks=(*remarks, *seen.remarks(whole=lost is None)),
        mapped=mapped,
        changes=(*([f"video {chosen}"] if chosen else []), *seen.changes()),
    )


def _decode(path: Path, seen: "_Seen") -> tuple[str, int, int, int]:
    """All of a video; the file's format, what the video is called in it, which it is of how many."""
    with opened(path) as (container, stream):
        kind, videos = container.format.name, container.streams.video
        if kind in _TIMED and len(container.streams) == 1 and container.duration is not None:
            seen.announced = container.duration / float(1_000_000 * stream.time_base)
        stream.thread_type = "AUTO"
        if stream.codec_context.name in ("mjpeg", "png", "apng"):
            # Else these give what is left of a damaged picture without a word.
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        for packet in container.demux(stream):
            seen.take(packet)
        return kind, stream.id, videos.index(stream), len(videos)


def _why(path: Path) -> str | None:
    """Why FFmpeg cannot open a file, as far as its bytes tell."""
    try:
        kind = format_of(path)
        if kind is not None:
            look_through(path, kind)
    except IncompleteError as problem:
        return f"{problem}; FFmpeg cannot open what is there"
    except OSError:
        pass
    return None


@dataclass(slots=True)
class _Seen:
    """What came out of the decoder, packet by packet."""

    packet_pts: list[int | None] = field(default_factory=list)
    packet_dts: list[int | None] = field(default_factory=list)
    packet_positions: list[int | None] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    pts: list[int | None] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Width and height -> the first frame of this size."""
    matrices: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Display matrix -> the first frame that has it."""
    errors: list[tuple[int, bool]] = field(default_factory=list)
    """Of each packet that could not be decoded the frames before it, and whether a keyframe had come."""
    damaged: list[int] = field(default_factory=list)
    n_cut: int = 0
    announced: float = 0
    """How long the header says that it is, in the unit of the times."""
    brightest: int = _DIM

    def take(self, packet: "av.Packet") -> None:
        """Decode a packet."""
        if packet.size and not packet.is_discard:
            self.packet_pts.append(packet.pts)
            self.packet_dts.append(packet.dts)
            self.packet_positions.append(packet.pos)
            self.is_key.append(packet.is_keyframe)
        self.n_cut += packet.is_corrupt
        frames = try_decoding(packet)
        if frames is None:
            self.errors.append((len(self.pts), any(self.is_key)))
        for frame in frames or ():
            self._look_at(frame)

    def _look_at(self, frame: "av.VideoFrame") -> None:
        number = len(self.pts)
        self.pts.append(frame.pts)
        self.sizes.setdefault((frame.width, frame.height), number)
        self.matrices.setdefault(tuple(display_matrix(frame).tolist()), number)
        if frame.is_corrupt:
            self.damaged.append(number)
        # Frames 0, 1, 2, 4, 8 ... are enough to see how bright a video is.
        if not number & number - 1 and {part.bits for part in frame.format.components} == {16}:
            highest = int(frame.reformat(format="gray16le").to_ndarray().max())
            self.brightest = max(self.brightest, highest) if number else highest

    @property
    def times(self) -> FrameTimes | None:
        """What `frame_times` gives of the file, where that has a time for each decoded frame."""
        times = FrameTimes.of_packets(self.packet_pts, self.is_key)
        return times if times is not None and len(times.pts) == len(self.pts) else None

    @property
    def times_agree(self) -> bool:
        """Whether these are the decoded times in their order, or there are none to be misled by."""
        return self.times is None or self.times.pts.tolist() == self.pts

    @property
    def n_entries(self) -> int:
        """At how many frames decoding can start."""
        return 1 if self.times is None else len(self.times.keyframes)

    @property
    def first_packet(self) -> int:
        """The packet that the first frame is of; 0 where times do not tell."""
        return self.packet_pts.index(self.pts[0]) if self.pts and self.pts[0] in self.packet_pts else 0

    @property
    def n_leading(self) -> int:
        """Packets before that of the first frame which gave none."""
        shown = set(self.pts)
        return sum(pts not in shown for pts in self.packet_pts[: self.first_packet])

    @property
    def unshown(self) -> list[int]:
        """Packets after that of the first frame which gave none, counted from it, where times tell."""
        if None in self.packet_pts or len(set(self.packet_pts)) < len(self.packet_pts):
            return []
        shown, first = set(self.pts), self.first_packet
        return [i - first for i, pts in enumerate(self.packet_pts) if i > first and pts not in shown]

    def refuse_damage(self, *, of_stream: bool) -> None:
        """Raise IncompleteError for what the decoder could not make of packets that are there.

        Before its first keyframe a stream, which may begin anywhere, holds what cannot be decoded.
        """
        if errors := [number for number, begun in self.errors if number or begun or not of_stream]:
            raise IncompleteError(
                f"it is damaged: {_so_many(len(errors), 'packet')} cannot be decoded, the first after "
                f"{_so_many(errors[0], 'frame')}"
            )
        if self.damaged:
            raise IncompleteError(
                f"it is damaged: FFmpeg makes up parts of {_so_many(len(self.damaged), 'frame')}, the first "
                f"of frame {self.damaged[0]}"
            )
        if self.n_cut and not of_stream:
            raise IncompleteError(f"it is cut short: {_so_many(self.n_cut, 'packet')} are not all there")

        times = [pts for pts in self.pts if pts is not None]
        if len(times) > 1 and self.announced:
            step = (times[-1] - times[0]) / (len(times) - 1)
            missing = self.announced - (times[-1] - min(0, times[0]) + step)
            if missing > max(_MISSED * step, _MISSED / 100 * self.announced):
                share = f"{missing / self.announced:.0%}"
                raise IncompleteError(f"it is cut short: no frames for {share} of the length in its header")

    def remarks(self, *, whole: bool) -> Iterator[str]:
        """What of the frames should be said."""
        if self.pts and (n := self.n_leading):
            yield (
                f"it begins between keyframes: its first {_so_many(n, 'frame')} cannot be decoded, and "
                "frame 0 is the first that can"
            )
        if whole and (unshown := self.unshown):
            yield (
                f"{_so_many(len(unshown), 'packet')} of it gave no frame, the first around frame "
                f"{unshown[0]}: hidden ones, or damaged"
            )
        for (width, height), number in list(self.sizes.items())[1:]:
            yield f"from frame {number} on it is {width} x {height}: scaled to the first frame's size"
        for a, b, c, d in self.matrices:
            large, small = sorted((abs(a) + abs(d), abs(b) + abs(c)), reverse=True)
            if small > _ASKEW * large:
                yield "its display matrix turns it by other than quarters: the nearest quarter is taken"
        if self.brightest < _DIM:
            yield (
                f"its values reach {self.brightest:,} of 65,535 only, as of a camera of fewer bits: it is "
                "taken as it is shown, nearly black"
            )

    def changes(self) -> Iterator[str]:
        """How frames are not as they are stored."""
        if len(self.sizes) > 1:
            yield f"scaled {sorted(self.sizes.items())}"
        if self.matrices.keys() - {tuple(UPRIGHT.tolist())}:
            yield f"turned {sorted(self.matrices.items())}"


def _bytes(path: Path, kind: str, stream_id: int, seen: _Seen) -> Iterator[str]:
    """What should be said of the file's bytes and times.

    Raises:
        IncompleteError: some are missing.
    """
    joints = set[int | None]()
    if kind == "mpegts":
        joints = _joints(path, stream_id, seen)
    elif (remark := look_through(path, kind)) is not None:
        yield remark
    if len(seen.pts) < _FEW or None in seen.pts:
        return
    steps = np.diff(np.array(seen.pts, np.int64))
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()]
    if usual > 0 and counts.max() >= _STEADY * len(steps):
        holes = [int(i) for i in np.flatnonzero(steps > 1.5 * usual) if seen.pts[i + 1] not in joints]
        if holes:
            yield (
                f"from frame {holes[0]} to the next it takes {steps[holes[0]] / usual:.0f} times as long as "
                f"usual ({_so_many(len(holes), 'such place')}): frames are missing there, or were never "
                "recorded"
            )


def _joints(path: Path, stream_id: int, seen: _Seen) -> set[int | None]:
    """Times of frames at which another recording begins, behind the one before.

    Raises:
        IncompleteError: packets are missing elsewhere.
    """
    joints = set[int | None]()
    of_packet = {position: i for i, position in enumerate(seen.packet_positions)}
    begin = seen.packet_positions[seen.first_packet] if seen.packet_positions else None
    for gap in breaks(path, stream_id):
        if begin is not None and gap.position <= begin:
            continue
        # FFmpeg counts from before a packet's time stamp, where it has one.
        i = of_packet.get(gap.position, of_packet.get(gap.position - 4))
        if i is None or not (gap.begins and seen.is_key[i] and (gap.afresh or _turned_back(seen, i))):
            raise IncompleteError(f"it is damaged: packets are missing before byte {gap.position:,}")
        joints.add(seen.packet_pts[i])
    return joints


def _turned_back(seen: _Seen, i: int) -> bool:
    now, before = seen.packet_dts[i], seen.packet_dts[i - 1]
    return now is not None and before is not None and now < before


def _so_many(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
