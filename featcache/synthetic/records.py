"""Writing record files as the bucket holds them: SequenceExample messages in ArrayRecord shards.

The protobuf wire format is written by hand, fifty lines, because no maintained package offers these messages
without TensorFlow. Messages (tensorflow/core/example/{example,feature}.proto): SequenceExample {context = 1,
feature_lists = 2}; Features and FeatureLists are maps (entries of key = 1, value = 2) to Feature and
FeatureList {repeated Feature = 1}; Feature is one of bytes_list = 1, float_list = 2, int64_list = 3. A tensor
in a bytes_list is a TensorProto (tensorflow/core/framework/{tensor,tensor_shape,types}.proto).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float, Float32, Integer

from featcache.errors import DataError

WRITER_OPTIONS = "group_size:1"
"""One record a chunk: what random access needs, and what the reference's loader asks for."""

DT_FLOAT = 1
"""The number that `types.proto` gives float32."""

Value = Sequence[bytes] | Integer[np.ndarray, "n"] | Float[np.ndarray, "n"]
"""The content of one Feature: byte strings, whole numbers (int64), or numbers (float32)."""


def encode_sequence_example(context: Mapping[str, Value], sequences: Mapping[str, Sequence[Value]]) -> bytes:
    """One serialised SequenceExample; `sequences` hold one value a step. Map entries are sorted by key."""
    features = b"".join(_field(1, _entry(key, _feature(context[key]))) for key in sorted(context))
    lists = b"".join(_field(1, _entry(key, _feature_list(sequences[key]))) for key in sorted(sequences))
    return _field(1, features) + _field(2, lists)


def encode_tensor(values: Float32[np.ndarray, "..."]) -> bytes:
    """What `tf.io.serialize_tensor` gives: TensorProto {dtype = 1, tensor_shape = 2, tensor_content = 4}.

    A shape is a repeated Dim = 2, which holds its size = 1.
    """
    shape = b"".join(_field(2, _number(1, size)) for size in values.shape)
    return _number(1, DT_FLOAT) + _field(2, shape) + _field(4, values.astype("<f4").tobytes())


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write one shard; no record at all gives a valid, empty shard.

    Raises:
        DataError: the disk is full, or the path cannot be written.
    """
    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        for record in records:
            writer.write(record)
        writer.close()  # writes what is left, so a full disk may show only here
    except RuntimeError as problem:
        reason = str(problem).partition(";")[0]
        raise DataError(
            f"{path} cannot be written ({reason}): check the disk's free space and the rights."
        ) from None


def _feature_list(steps: Sequence[Value]) -> bytes:
    return b"".join(_field(1, _feature(step)) for step in steps)


def _entry(key: str, value: bytes) -> bytes:
    return _field(1, key.encode()) + _field(2, value)


def _feature(value: Value) -> bytes:
    if not isinstance(value, np.ndarray):
        return _field(1, b"".join(_field(1, item) for item in value))
    if value.dtype.kind == "f":
        return _field(2, _field(1, value.astype("<f4").tobytes()))
    return _field(3, _field(1, b"".join(_varint(int(number) % 2**64) for number in value)))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field: wire type 2."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _number(number: int, value: int) -> bytes:
    """A field of one whole number: wire type 0."""
    return _varint(number << 3) + _varint(value)


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    low.append(number)
    return bytes(low)
