"""Targets of a record against Google's protobuf, in the form that TensorFlow writes, and broken ones."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.sequence_example.tensors import context_values, parse_tensor, step_values

TYPES: dict[str, tuple[int, int]] = {
    "float32": (1, 5),
    "float64": (2, 6),
    "int32": (3, 7),
    "uint8": (4, 7),
    "int64": (9, 10),
    "bool": (10, 11),
}
"""Name of a type -> its number in types.proto, its field in tensor.proto."""
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)

Messages = dict[bool, type[Any]]


def encode(
    messages: Messages,
    dtype: str | int,
    shape: tuple[int, ...],
    *,
    content: bytes = b"",
    values: Any = (),
    packed: bool = True,
) -> memoryview:
    """A TensorProto; `dtype` as a number is of a type we do not know."""
    tensor = messages[packed]()
    tensor.dtype, field = TYPES[dtype] if isinstance(dtype, str) else (dtype, 5)
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = content
    getattr(tensor, f"val_{field}").extend(values)
    return memoryview(tensor.SerializeToString())


def some_values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that use the whole range of their type."""
    rng = np.random.default_rng(len(shape))
    if dtype.startswith("float"):
        return np.asarray(rng.normal(size=shape), dtype)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), dtype)
    limits = np.iinfo(dtype)
    return np.asarray(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=30)
@given(shape=SHAPES)
def test_every_type(tensor_messages: Messages, dtype: str, shape: tuple[int, ...]) -> None:
    wanted = some_values(dtype, shape)
    blob = encode(tensor_messages, dtype, shape, content=wanted.tobytes())
    assert_same(parse_tensor(blob), wanted)


def test_a_blob_of_movi_byte_by_byte() -> None:
    # What TensorFlow wrote for float32 [1, 2] of (0.5, 2): type, two sizes, eight bytes.
    blob = bytes.fromhex("0801 1208 1202 0801 1202 0802 2208 0000003f 00000040")
    assert_same(parse_tensor(memoryview(blob)), np.array([[0.5, 2]], np.float32))


@pytest.mark.parametrize(
    ("dtype", "shape", "changes", "reason"),
    [
        ("float32", (2, 2), {"content": bytes(15)}, r"float32 tensor \(2, 2\) has 15 bytes instead of 16"),
        ("int64", (3,), {"content": bytes(32)}, r"int64 tensor \(3,\) has 32 bytes instead of 24"),
        ("bool", (2,), {"values": [True] * 2}, r"bool tensor \(2,\) has 0 bytes instead of 2"),
        (7, (1,), {}, "type 7, which is none of float32, float64, int32, uint8, int64, bool"),
        ("float32", (-1, 2), {"values": [1]}, r"not known: \[-1, 2\]"),
        ("float32", (2**20, 2**20), {"values": [1]}, "1099511627776 values in 2 axes"),
        ("float32", (1,) * 70, {"values": [1]}, "1 values in 70 axes"),
    ],
)
def test_says_what_is_wrong_with_a_tensor(
    tensor_messages: Messages, dtype: str | int, shape: tuple[int, ...], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableError, match=reason):
        parse_tensor(encode(tensor_messages, dtype, shape, **changes))


def test_a_tensor_cut_anywhere_in_its_values_is_refused(tensor_messages: Messages) -> None:
    blob = encode(tensor_messages, "float32", (3,), content=bytes(12))
    for size in range(len(blob) - 12, len(blob)):
        with pytest.raises(UnreadableError, match=r"only \d+ left"):
            parse_tensor(blob[:size])


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_tensor_or_refused(data: bytes) -> None:
    with suppress(UnreadableError):
        parse_tensor(memoryview(b"\x08\x01" + data))


def feature(messages: Messages, kind: str | None, values: Any = ()) -> memoryview:
    encoded = type(messages[True]().context.feature["a"])()
    if kind is not None:
        getattr(encoded, kind).SetInParent()
        getattr(encoded, kind).value.extend(values)
    return memoryview(encoded.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("float_list", [0.5, -1], np.array([0.5, -1], np.float32)),
        ("float_list", [], np.empty(0, np.float32)),
        ("int64_list", [-7], np.array([-7])),
        ("int64_list", [], np.empty(0, np.int64)),
        ("bytes_list", [b"200717", b"007"], np.array([200_717, 7])),
        ("bytes_list", [], np.empty(0, np.int64)),
        (None, [], np.empty(0, np.float32)),
    ],
)
def test_values_of_the_whole_record(messages: Messages, kind: str, values: Any, wanted: np.ndarray) -> None:
    found = context_values(feature(messages, kind, values))
    assert_same(found, wanted)
    assert found.flags.writeable


@pytest.mark.parametrize("text", [b"WP-2007", b"", b"-3", b"9" * 19, "\u0663".encode()])
def test_text_that_is_no_number_is_refused(messages: Messages, text: bytes) -> None:
    with pytest.raises(UnreadableError, match=r"is not a number of at most 18 digits"):
        context_values(feature(messages, "bytes_list", [text]))


def test_values_of_every_step(messages: Messages, tensor_messages: Messages) -> None:
    one = [feature(messages, "float_list", [value]) for value in (1, 2, 3)]
    assert_same(step_values(one), np.array([1, 2, 3], np.float32))
    two = [feature(messages, "int64_list", [step, -step]) for step in range(3)]
    assert_same(step_values(two), np.array([[0, 0], [1, -1], [2, -2]]))
    tensors = [np.full((1, 2), step, np.float64) for step in range(3)]
    blobs = [encode(tensor_messages, "float64", (1, 2), content=tensor.tobytes()) for tensor in tensors]
    found = step_values([feature(messages, "bytes_list", [bytes(blob)]) for blob in blobs])
    assert_same(found, np.stack(tensors))
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (("float_list", [1, 2, 3]), r"step 1 is float32 \[3\], step 0 float32 \[2\]"),
        (("int64_list", [1, 2]), r"step 1 is int64 \[2\], step 0 float32 \[2\]"),
        (("float_list", []), "step 1: it holds no value"),
        ((None, []), "step 1: it holds no value"),
        (("bytes_list", [b"a", b"b"]), "step 1: it holds 2 byte strings instead of one tensor"),
        (("bytes_list", [b"\x08\x01\x22\x09abc"]), "step 1: a field of 9 bytes has only 3 left"),
    ],
)
def test_a_step_unlike_the_first_is_refused(
    messages: Messages, step: tuple[str | None, Any], reason: str
) -> None:
    with pytest.raises(UnreadableError, match=reason):
        step_values([feature(messages, "float_list", [0, 0]), feature(messages, *step)])
