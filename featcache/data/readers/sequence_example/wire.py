"""Protocol-buffer wire format of `tf.train.SequenceExample`, read in place.

The messages involved are few, fixed and small, so a reader of our own spares users TensorFlow or a second
copy of its message classes. Nothing is copied: values are views of the record until they are asked for, and
features nobody wants are stepped over. The format: https://protobuf.dev/programming-guides/encoding,
messages of tensorflow/core/example/{example,feature}.proto.

    SequenceExample  1: context Features         2: feature_lists FeatureLists
    Features         1: map<name, Feature>       FeatureLists  1: map<name, FeatureList>
    FeatureList      1: repeated Feature         map entry     1: name   2: value
    Feature          1: BytesList | 2: FloatList | 3: Int64List, each  1: repeated value

`blocks` and `integers` read any message; `tensors` uses them for one more.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from featcache.data.readers.base import UnreadableError

_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5

Values = list[memoryview] | np.ndarray
"""The values of one feature: byte strings (views of the record), or float32 or int64 [value]."""


@dataclass(frozen=True, slots=True)
class SequenceExample:
    """The wanted features of one record, each still encoded: `feature_values` reads one."""

    context: dict[str, memoryview]
    steps: dict[str, list[memoryview]]
    """Name of a feature list -> one encoded feature a step."""
    other_names: tuple[str, ...]
    """Names of the features that were stepped over, for messages."""


def parse_sequence_example(record: bytes | memoryview, wanted: Container[str | None]) -> SequenceExample:
    """Find the features called `wanted` in a record. Of a name that stands twice, the last counts.

    Raises:
        UnreadableError: the record is cut short or malformed.
    """
    context: dict[str, memoryview] = {}
    steps: dict[str, list[memoryview]] = {}
    other: list[str] = []
    for number, features in blocks(memoryview(record)):
        if number not in (1, 2):
            continue
        for name, value in _entries(features):
            if name not in wanted:
                other.append(name)
            elif number == 1:
                context[name] = value
            else:
                steps[name] = [step for field, step in blocks(value) if field == 1]
    return SequenceExample(context, steps, tuple(other))


def feature_values(feature: memoryview) -> Values | None:
    """The values of one encoded feature; None where it has no kind at all (which TensorFlow reads as empty).

    Raises:
        UnreadableError: the feature is malformed.
    """
    kind, lists = 0, list[memoryview]()
    for number, block in blocks(feature):
        if number in (1, 2, 3):
            # The kinds are alternatives: another one replaces what came before, the same one goes on.
            lists = [*lists, block] if number == kind else [block]
            kind = number
    if kind == 1:
        return [value for number, value in blocks(_merged(lists)) if number == 1]
    if kind == 2:
        return floats(_merged(lists), 1)
    if kind == 3:
        return np.array([*integers(_merged(lists), 1)], np.int64)
    return None


def blocks(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message: (field number, content).

    Raises:
        UnreadableError: the message is malformed; so say `floats` and `integers`.
    """
    for number, kind, value in _fields(message):
        if kind == _BLOCK:
            assert isinstance(value, memoryview)
            yield number, value


def floats(message: memoryview, field: int) -> Float32[np.ndarray, " n"]:
    """The values of a repeated field of float32, packed or not."""
    parts = [np.empty(0, "<f4")]
    for number, kind, value in _fields(message):
        if number == field and kind in (_BLOCK, _FIXED32):
            assert isinstance(value, memoryview)
            if len(value) % 4:
                raise UnreadableError(f"{len(value)} bytes of packed floats are not a multiple of 4")
            parts.append(np.frombuffer(value, "<f4"))
    return np.concatenate(parts)


def integers(message: memoryview, field: int) -> Iterator[int]:
    """The values of a repeated field of signed whole numbers, packed or not."""
    for number, kind, value in _fields(message):
        if number != field:
            continue
        if kind == _VARINT:
            assert isinstance(value, int)
            yield _signed(value)
        elif kind == _BLOCK:
            assert isinstance(value, memoryview)
            at = 0
            while at < len(value):
                packed, at = _varint(value, at)
                yield _signed(packed)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _entries(features: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Name and encoded value of each entry of a map."""
    for number, entry in blocks(features):
        if number == 1:
            names = [block for part, block in blocks(entry) if part == 1]
            values = [block for part, block in blocks(entry) if part == 2]
            yield _text(names[-1] if names else _EMPTY), _merged(values)


_EMPTY = memoryview(b"")


def _merged(parts: list[memoryview]) -> memoryview:
    """Encodings put end to end are the encoding of the merged messages."""
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _text(name: memoryview) -> str:
    try:
        return str(name, "utf-8")
    except UnicodeDecodeError:
        raise UnreadableError(f"a feature's name is not UTF-8: {bytes(name[:40])!r}") from None


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """All fields of a message: (field number, wire type, value). Callers pass over those they do not know."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise UnreadableError(f"field number {number} does not exist")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == _BLOCK:
            size, at = _varint(message, at)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise UnreadableError(f"wire type {kind} is not used by these messages")
        if size > end - at:
            raise UnreadableError(f"a field of {size} bytes has only {end - at} left")
        yield number, kind, message[at : at + size]
        at += size


_FIXED_SIZES = {_FIXED32: 4, _FIXED64: 8}


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number of at most 64 bits, and where it ends."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise UnreadableError("a number is cut short or longer than 10 bytes")
