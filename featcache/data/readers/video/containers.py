"""Whether all bytes that a video file speaks of are there: its boxes, elements, chunks and pages.

A file that was cut short or overwritten in its middle often decodes without a complaint, with fewer frames or
later ones in their place. What a container says of its own extent is evidence; how many frames its header
counts is not, as trimming and dropped frames leave that count behind.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32


class IncompleteError(ValueError):
    """What of a file is missing or overwritten, as one clause."""


def look_through(path: Path, container: str) -> str | None:
    """Walk a file by the sizes that it states, without decoding.

    Args:
        path: the file.
        container: what FFmpeg calls its format.

    Returns:
        What cannot be known of it and should be said; None where all is well.

    Raises:
        IncompleteError: it ends before what it speaks of, or is no such file from some byte on.
        OSError: it cannot be read.
    """
    walk = next((walk for name, walk in _WALKS.items() if name in container.split(",")), None)
    if walk is None:
        is_picture = container.endswith("_pipe") or container in ("image2", "apng")
        return None if is_picture else f"files of kind {container} do not tell whether all frames are there"
    with path.open("rb") as file:
        return walk(file, path.stat().st_size)


_TIFF = {b"II*\0": "<HI", b"MM\0*": ">HI", b"II+\0": "<QQ", b"MM\0+": ">QQ"}
"""How the four first bytes say that the number of a page's entries and the place of the next are written."""


_MAGIC = {
    b"....ftyp": "mp4",
    b"\x1aE\xdf\xa3": "matroska",
    b"RIFF....AVI ": "avi",
    b"GIF8": "gif",
    b"FLV": "flv",
    b"OggS": "ogg",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
}
"""How files of some formats begin, a dot for any byte."""


def format_of(path: Path) -> str | None:
    """What a file that FFmpeg cannot open was to be, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(16)
    for magic, name in _MAGIC.items():
        if len(head) == 16 and all(byte in (ord("."), head[i]) for i, byte in enumerate(magic)):
            return name
    return None


def n_pages(path: Path) -> int:
    """How many pages a TIFF has, of which FFmpeg reads one; 1 of any other file."""
    with path.open("rb") as file:
        form = _TIFF.get(file.read(4))
        if form is None:
            return 1
        order, big = form[0], form[1] == "Q"
        count, place, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        position, seen = _number(file, 8 if big else 4, order + place), set[int]()
        while position and position not in seen:
            seen.add(position)
            n_entries = _number(file, position, order + count)
            position = _number(file, position + struct.calcsize(count) + entry * n_entries, order + place)
        return max(1, len(seen))


def _number(file: BinaryIO, position: int, form: str) -> int:
    """An integer of the file; 0 behind its end."""
    n_bytes = struct.calcsize("=" + form[1:])
    found = _read(file, position, n_bytes)
    number: int = struct.unpack(form, found)[0] if len(found) == n_bytes else 0
    return number


def _inside(what: str, start: int, end: int, size: int) -> None:
    if end > size:
        raise IncompleteError(
            f"it is cut short: {what} at byte {start:,} ends at byte {end:,}, the file at byte {size:,}"
        )


def _broken(what: str, position: int) -> IncompleteError:
    return IncompleteError(f"it is damaged: no {what} where one has to be, at byte {position:,}")


def _read(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    file.seek(position)
    return file.read(n_bytes)


_BOXES = frozenset(
    b"ftyp styp moov moof mdat free skip wide udta meta mfra sidx ssix prft uuid emsg pnot pdin".split()
)


def _iso(file: BinaryIO, size: int) -> str | None:
    """MP4 and QuickTime: boxes one after the other. What follows the last known one is no part of it."""
    position, seen = 0, set[bytes]()
    while position < size:
        head = _read(file, position, 16)
        length, kind = struct.unpack(">I4s", head[:8]) if len(head) >= 8 else (0, head[4:])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        elif length == 0 and kind in _BOXES:
            length = size - position
        if length < 8 or (kind not in _BOXES and not (kind.isalnum() and position + length <= size)):
            if kind in _BOXES or b"moof" in seen:
                raise _broken("box", position)
            break
        _inside(f"the box {kind.decode()!r}", position, position + length, size)
        seen.add(kind)
        position += length
    if not seen & {b"moov", b"moof"}:
        raise IncompleteError("it is not finished: no box 'moov' tells where its frames are")
    if b"moof" in seen and not seen & {b"mfra", b"sidx"}:
        return "no index of its fragments follows them: whether some are missing at its end cannot be told"
    return None


_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_HEADS = (_EBML.to_bytes(4), _SEGMENT.to_bytes(4))
_CRC = 0xBF
_TOP = {
    0x114D9B74,
    0x1549A966,
    0x1654AE6B,
    0x1C53BB6B,
    0x1043A770,
    0x1254C367,
    0x1941A469,
    _CLUSTER,
    0xEC,
    _CRC,
}
_IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF, 0xEC, _CRC}


def _matroska(file: BinaryIO, size: int) -> str | None:
    """Matroska and WebM: elements in a segment; of what a live writer left open only the ends are known."""
    position, remark = 0, None
    while position < size:
        if position and _read(file, position, 4) not in _HEADS:
            break  # Whatever follows the segment is no part of it.
        element, length, data = _element(file, position, size)
        end = size if length is None else data + length
        _inside("the segment" if element == _SEGMENT else "the header", position, end, size)
        if element == _SEGMENT:
            _segment(file, data, end, size)
            if length is None:
                remark = "its writer left it open: whether frames are missing at its end cannot be told"
        position = end
    return remark


def _segment(file: BinaryIO, position: int, end: int, size: int) -> None:
    while position < end:
        element, length, data = _element(file, position, size)
        if element not in _TOP:
            if element in (_EBML, _SEGMENT):
                return
            raise _broken("Matroska element", position)
        if element == _CLUSTER:
            position = _cluster(file, position, data, length, size)
            continue
        if length is None:
            raise _broken("size of a Matroska element", position)
        _inside("an element", position, data + length, size)
        position = data + length


def _cluster(file: BinaryIO, start: int, position: int, length: int | None, size: int) -> int:
    """Where a cluster ends, after a look at its blocks and its checksum."""
    end = size if length is None else position + length
    _inside("the cluster", start, end, size)
    if length is not None and _read(file, position, 2) == b"\xbf\x84":
        (said,) = struct.unpack("<I", _read(file, position + 2, 4))
        if crc32(_read(file, position + 6, length - 6)) != said:
            raise IncompleteError(f"it is damaged: the cluster at byte {start:,} has another checksum")
    while position < end:
        element, of_block, data = _element(file, position, size)
        if element not in _IN_CLUSTER:
            if length is None and element in _TOP | {_EBML, _SEGMENT}:
                return position
            raise _broken("Matroska block", position)
        if of_block is None:
            raise _broken("size of a Matroska block", position)
        _inside("a block", position, data + of_block, size)
        position = data + of_block
    return position


def _element(file: BinaryIO, position: int, size: int) -> tuple[int, int | None, int]:
    """Identifier, length (None where it is left open) and first byte of the data of an EBML element."""
    head = _read(file, position, 12)
    n_id = 9 - head[0].bit_length()
    if n_id > 4 or len(head) <= n_id:
        raise _broken("Matroska element", position)
    n_length = 9 - head[n_id].bit_length()
    if n_length > 8:
        raise _broken("size of a Matroska element", position)
    _inside("an element", position, position + n_id + n_length, size)
    mask = (1 << 7 * n_length) - 1
    length = int.from_bytes(head[n_id : n_id + n_length]) & mask
    return int.from_bytes(head[:n_id]), None if length == mask else length, position + n_id + n_length


def _avi(file: BinaryIO, size: int) -> None:
    """AVI: chunks in lists, in one RIFF or several, whose sizes are written when it is finished."""
    position = 0
    while position < size:
        kind, length, _ = _chunk(file, position)
        if kind != b"RIFF":
            break  # Whatever follows is no part of it.
        end = min(position + 8 + length, size) if length else size
        for inner, start, stop in _chunks(file, position + 12, end):
            if inner == b"LIST" and _read(file, start + 8, 4) == b"movi":
                if stop <= start + 12 < size - 8:
                    raise IncompleteError("it is not finished: the size of its frames was never written")
                for frame, first, last in _chunks(file, start + 12, min(stop, size)):
                    if not _is_frame(frame):
                        raise _broken("AVI chunk", first)
                    _inside("a frame", first, last, size)
            if not inner.decode("latin-1").isprintable():
                raise _broken("AVI chunk", start)
            _inside(f"the chunk {inner.decode('latin-1')!r}", start, stop, size)
        position = max(end, position + 12) + (end & 1)


def _is_frame(kind: bytes) -> bool:
    return kind in (b"LIST", b"JUNK", b"junk", b"idx1") or kind[:2] == b"ix" or kind[:2].isdigit()


def _chunk(file: BinaryIO, position: int) -> tuple[bytes, int, bytes]:
    head = _read(file, position, 12).ljust(12, b"\0")
    kind, length, form = struct.unpack("<4sI4s", head)
    return kind, length, form


def _chunks(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the chunks in a list; of `rec ` lists those within."""
    while position + 8 <= end:
        kind, length, form = _chunk(file, position)
        if kind == b"LIST" and form == b"rec ":
            position += 12
            continue
        yield kind, position, position + 8 + length
        position += 8 + length
        if length & 1 and (position + 9 > end or not _is_frame(_read(file, position, 4))):
            position += 1  # The byte that makes lengths even, which some writers leave out.


def _gif(file: BinaryIO, size: int) -> None:
    """GIF: blocks of sub-blocks, closed by a trailer."""
    head = _read(file, 0, 13)
    position = 13 + (3 << (head[10] & 7) + 1 if len(head) == 13 and head[10] & 128 else 0)
    while position < size:
        kind = _read(file, position, 1)
        if kind == b";":
            return
        if kind == b"!":
            position = _sub_blocks(file, position + 2, size)
        elif kind == b",":
            packed = _read(file, position + 9, 1).ljust(1, b"\0")[0]
            position = _sub_blocks(file, position + 11 + (3 << (packed & 7) + 1 if packed & 128 else 0), size)
        else:
            raise _broken("GIF block", position)
    raise IncompleteError("it is cut short: no trailer follows its frames")


def _sub_blocks(file: BinaryIO, position: int, size: int) -> int:
    while True:
        _inside("a block", position, position + 1, size)
        length = _read(file, position, 1)[0]
        position += 1 + length
        if not length:
            return position


def _flash(file: BinaryIO, size: int) -> None:
    """FLV: tags, each followed by its size."""
    position = int.from_bytes(_read(file, 5, 4)) + 4
    while position < size:
        head = _read(file, position, 11)
        _inside("a tag", position, position + 11, size)
        length = 11 + int.from_bytes(head[1:4])
        _inside("a tag", position, position + length + 4, size)
        if head[0] & 31 not in (8, 9, 15, 18):
            raise _broken("FLV tag", position)
        position += length + 4


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Ogg: pages; the last one of each stream says that it is the last."""
    position, is_open = 0, set[bytes]()
    while position < size:
        head = _read(file, position, 27)
        if head[:4] != b"OggS"[: len(head)]:
            raise _broken("Ogg page", position)
        _inside("a page", position, position + 27, size)
        lengths = _read(file, position + 27, head[26])
        end = position + 27 + head[26] + sum(lengths)
        _inside("a page", position, end, size)
        (is_open.discard if head[5] & 4 else is_open.add)(head[14:18])
        position = end
    return "it has no last page: whether frames are missing at its end cannot be told" if is_open else None


_PACK, _END, _PROGRAM_STREAM = 0xBA, 0xB9, 0xBB


def _program(file: BinaryIO, size: int) -> None:
    """MPEG program streams: packs of packets, each with its length."""
    position = 0
    while position < size:
        head = _read(file, position, 14)
        if (n_zeros := len(head) - len(head.lstrip(b"\0"))) > 2:
            # Padding, up to the two zeros that a packet begins with.
            position += n_zeros if position + n_zeros == size else n_zeros - 2
            continue
        _inside("a packet", position, position + 4, size)
        if head[:3] != b"\0\0\1" or head[3] < _END:
            raise _broken("packet", position)
        if head[3] == _END:
            position += 4
        elif head[3] == _PACK:
            _inside("a pack", position, position + 14, size)
            position += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
        else:
            _inside("a packet", position, position + 6, size)
            end = position + 6 + int.from_bytes(head[4:6])
            _inside("a packet", position, end, size)
            position = end


def _windows_media(file: BinaryIO, size: int) -> None:
    """ASF: objects with their sizes, in a file whose size its header states."""
    position = 0
    while position + 24 <= size:
        (length,) = struct.unpack("<Q", _read(file, position + 16, 8))
        if length < 24:
            break
        _inside("an object", position, position + length, size)
        position += length


def _raw_frames(file: BinaryIO, size: int) -> str | None:
    """IVF: a size before each frame, and in the header their number, or how long they last."""
    position, n_frames = int.from_bytes(_read(file, 6, 2), "little"), 0
    stated = int.from_bytes(_read(file, 24, 4), "little")
    while position < size:
        _inside("a frame", position, position + 12, size)
        end = position + 12 + int.from_bytes(_read(file, position, 4), "little")
        _inside("a frame", position, end, size)
        position, n_frames = end, n_frames + 1
    unknown = stated in (0, 0xFFFFFFFF) or stated <= n_frames
    return None if unknown else f"its header counts {stated} frames, and {n_frames} are there"


_WALKS: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "mp4": _iso,
    "matroska": _matroska,
    "avi": _avi,
    "gif": _gif,
    "flv": _flash,
    "ogg": _ogg,
    "mpeg": _program,
    "asf": _windows_media,
    "ivf": _raw_frames,
}
"""By one of the names that FFmpeg gives a format; MPEG transport streams are in `transport`."""
