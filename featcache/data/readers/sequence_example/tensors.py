"""What a record says beside its frames, as arrays: a row a step of the video, or values of the whole of it.

Numbers are given as they are stored. A byte string of a step is a tensor that `tf.io.serialize_tensor` wrote
(MOVi's tracks), one of the whole record a number in digits (a typhoon's). The messages of
tensorflow/core/framework/{tensor,tensor_shape,types}.proto:

    TensorProto       1: type   2: TensorShapeProto   4: all bytes of the values
    TensorShapeProto  2: repeated Dim   3: unknown rank       Dim  1: size
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.sequence_example.wire import blocks, feature_values, integers

_TYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(name)
    for number, name in ((1, "<f4"), (2, "<f8"), (3, "<i4"), (4, "u1"), (9, "<i8"), (10, "?"))
}
"""TensorFlow's number of a type -> ours."""

_MOST_AXES, _MOST_VALUES = 32, 2**26
"""A damaged shape must not ask for more than there is memory; MOVi's tracks have 2^12 values a step."""
_MOST_DIGITS = 18
"""Length of a number that fits int64, whatever its digits."""


def context_values(feature: memoryview) -> Float32[np.ndarray, " n"] | Int64[np.ndarray, " n"]:
    """The values of a feature of the whole record; text made of digits as numbers.

    A feature without values is empty: of the type it was written with, or float32 where it has none.

    Raises:
        UnreadableError: it is malformed, or holds text that is not a number.
    """
    values = feature_values(feature)
    if values is None:
        return np.empty(0, np.float32)
    if isinstance(values, list):
        return np.array([_number(bytes(text)) for text in values], np.int64)
    return values


def step_values(steps: Sequence[memoryview]) -> Shaped[np.ndarray, "steps *shape"]:
    """The values of a feature of every step, in their order.

    One number a step gives [steps], n numbers [steps, n] (float32 or int64), a tensor [steps, *its shape].

    Raises:
        UnreadableError: a step is malformed, has no values, or is unlike the first; names the step.
    """
    rows = list[np.ndarray]()
    for step, feature in enumerate(steps):
        try:
            rows.append(_row(feature))
        except UnreadableError as problem:
            raise UnreadableError(f"step {step}: {problem}") from None
        if (rows[step].dtype, rows[step].shape) != (rows[0].dtype, rows[0].shape):
            raise UnreadableError(f"step {step} is {_kind(rows[step])}, step 0 {_kind(rows[0])}")
    return np.stack(rows)


def parse_tensor(message: memoryview) -> Shaped[np.ndarray, "*shape"]:
    """What `tf.io.parse_tensor` gives for a tensor that `tf.io.serialize_tensor` wrote; a view of `message`.

    That writes numbers as bytes; the forms in which a tensor may list its values are refused.

    Raises:
        UnreadableError: it is cut short or malformed, or of a type that is not in `_TYPES`.
    """
    parts = dict(blocks(message))
    (code,) = [*integers(message, 1)][-1:] or (0,)
    if code not in _TYPES:
        known = ", ".join(dtype.name for dtype in _TYPES.values())
        raise UnreadableError(f"a tensor of TensorFlow's type {code}, which is none of {known}")
    dtype, shape, content = _TYPES[code], _shape(parts.get(2, _EMPTY)), parts.get(4, _EMPTY)
    if len(content) != (n_bytes := prod(shape) * dtype.itemsize):
        raise UnreadableError(f"a {dtype.name} tensor {shape} has {len(content)} bytes instead of {n_bytes}")
    return np.ndarray(shape, dtype, buffer=content)


_EMPTY = memoryview(b"")


def _row(feature: memoryview) -> np.ndarray:
    """The values of one step: numbers [n], one number [], or a tensor of any shape."""
    values = feature_values(feature)
    if isinstance(values, list) and len(values) == 1:
        return parse_tensor(values[0])
    if values is None or not len(values):
        raise UnreadableError("it holds no value")
    if isinstance(values, list):
        raise UnreadableError(f"it holds {len(values)} byte strings instead of one tensor")
    return np.squeeze(values)


def _kind(row: np.ndarray) -> str:
    return f"{row.dtype.name} {list(row.shape)}"


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise UnreadableError(f"{text[:40]!r} is not a number of at most {_MOST_DIGITS} digits")
    return int(text)


def _shape(message: memoryview) -> tuple[int, ...]:
    sizes = []
    for number, axis in blocks(message):
        if number == 2:
            # A size of 0 is not written.
            sizes += [*integers(axis, 1)][-1:] or [0]
    if any(integers(message, 3)) or min(sizes, default=0) < 0:
        raise UnreadableError(f"a tensor whose shape is not known: {sizes}")
    if len(sizes) > _MOST_AXES or prod(sizes) > _MOST_VALUES:
        raise UnreadableError(f"a tensor of {prod(sizes)} values in {len(sizes)} axes")
    return tuple(sizes)
