"""The wire encoder against bytes written out by hand, Google's protobuf runtime, and TensorFlow's tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.data.readers.sequence_example.tensors import parse_tensor
from featcache.data.readers.sequence_example.wire import feature_values, parse_sequence_example
from featcache.errors import DataError
from featcache.synthetic.records import encode_sequence_example, encode_tensor, write_records


def test_bytes_of_a_small_message_by_hand() -> None:
    label = b"\x1a\x04\x0a\x02\x05\x06"  # Feature {int64_list {value: [5, 6]}}, packed
    entry = b"\x0a\x01k\x12\x06" + label  # key "k", value of 6 bytes
    image = b"\x0a\x04\x0a\x02ab"  # Feature {bytes_list {value: ["ab"]}}
    steps = b"\x0a\x06" + image  # FeatureList {feature}
    lists = b"\x0a\x01s\x12\x08" + steps
    expected = b"\x0a\x0d\x0a\x0b" + entry + b"\x12\x0f\x0a\x0d" + lists
    assert encode_sequence_example({"k": np.array([5, 6])}, {"s": [(b"ab",)]}) == expected


def test_protobuf_reads_back_every_kind(sequence_example: Callable[[bytes], Any]) -> None:
    numbers = np.array([0, 1, 127, 128, 300, 2**40, 2**63 - 1, -1, -(2**63)], dtype=np.int64)
    floats = np.array([0.5, -1e30, np.inf], dtype=np.float64)
    blob = bytes(range(256)) * 80  # its length takes three bytes
    message = sequence_example(
        encode_sequence_example(
            {"numbers": numbers, "floats": floats, "bytes": (b"", blob), "none": np.zeros(0, np.int64)},
            {"image/encoded": [(b"first",), (b"second",)], "pressure": [np.array([990.5], np.float32)]},
        )
    )
    context = {entry.key: entry.value for entry in message.context.entries}
    assert list(context) == ["bytes", "floats", "none", "numbers"]
    assert list(context["numbers"].int64_list.value) == numbers.tolist()
    assert list(context["floats"].float_list.value) == floats.astype(np.float32).tolist()
    assert list(context["bytes"].bytes_list.value) == [b"", blob]
    assert list(context["none"].int64_list.value) == []
    lists = {entry.key: entry.value.feature for entry in message.feature_lists.entries}
    assert [list(step.bytes_list.value) for step in lists["image/encoded"]] == [[b"first"], [b"second"]]
    assert list(lists["pressure"][0].float_list.value) == [990.5]


def test_tensor_bytes_by_hand() -> None:
    blob = encode_tensor(np.array([[1.0, 2.0, 3.0]], np.float32))
    shape = b"\x12\x02\x08\x01" + b"\x12\x02\x08\x03"
    assert blob == b"\x08\x01" + b"\x12\x08" + shape + b"\x22\x0c" + np.array([1, 2, 3], "<f4").tobytes()


def test_tensor_bytes_are_tensorflow_s(shared: Path, read_shard: Callable[[Path], list[bytes]]) -> None:
    shards = sorted(shared.glob("golden/records*/**/movi/train.array_record-*"))
    blobs = [
        bytes(values[0])
        for shard in shards
        for record in read_shard(shard)
        for steps in parse_sequence_example(record, ("tracks/2d", "tracks/visibility")).steps.values()
        for values in map(feature_values, steps)
        if values is not None
    ]
    assert len(blobs) >= 2 * 24
    assert all(encode_tensor(parse_tensor(memoryview(blob))) == blob for blob in blobs)


def test_shards_keep_records_in_order_and_may_be_empty(
    tmp_path: Path, read_shard: Callable[[Path], list[bytes]]
) -> None:
    write_records(tmp_path / "some", [b"a" * 1000, b"", b"c"])
    write_records(tmp_path / "none", [])
    assert read_shard(tmp_path / "some") == [b"a" * 1000, b"", b"c"]
    assert read_shard(tmp_path / "none") == []


def test_a_shard_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*cannot be written \(open\(\) failed: No such file"):
        write_records(tmp_path / "nowhere" / "shard", [b"a"])
