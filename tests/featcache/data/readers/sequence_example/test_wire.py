"""Our wire reader against Google's protobuf, over messages it wrote, and over bytes nobody should write."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.sequence_example.wire import feature_values, parse_sequence_example

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("int64_list"), st.lists(INT64, max_size=20)),
    st.tuples(st.just("float_list"), st.lists(FLOAT32, max_size=20)),
    st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=300), max_size=4)),
    st.tuples(st.none(), st.just([])),
)
NAMES = st.text(max_size=12)
CONTEXTS = st.dictionaries(NAMES, VALUES, max_size=4)
STEPS = st.dictionaries(NAMES, st.lists(VALUES, max_size=5), max_size=3)


class _All:
    def __contains__(self, name: object) -> bool:
        return True


ALL = _All()


def fill(feature: Any, values: tuple[str | None, list[Any]]) -> None:
    kind, content = values
    if kind is not None:
        feature_list = getattr(feature, kind)
        feature_list.SetInParent()
        feature_list.value.extend(content)


def build(message: type[Any], context: dict[str, Any], steps: dict[str, list[Any]]) -> bytes:
    example = message()
    for name, values in context.items():
        fill(example.context.feature[name], values)
    for name, values_of_steps in steps.items():
        feature_list = example.feature_lists.feature_list[name]
        for values in values_of_steps:
            fill(feature_list.feature.add(), values)
    return bytes(example.SerializeToString())


def plain(found: Any) -> tuple[str | None, list[Any]]:
    """What `feature_values` gave, as the strategies write it."""
    if found is None:
        return None, []
    if isinstance(found, list):
        return "bytes_list", [bytes(value) for value in found]
    return {"<f4": "float_list", "<i8": "int64_list"}[found.dtype.str], found.tolist()


@pytest.mark.parametrize("packed", [True, False])
@settings(deadline=None)
@given(context=CONTEXTS, steps=STEPS)
def test_reads_what_protobuf_writes(
    messages: dict[bool, type[Any]], packed: bool, context: dict[str, Any], steps: dict[str, list[Any]]
) -> None:
    example = parse_sequence_example(build(messages[packed], context, steps), ALL)
    assert {name: plain(feature_values(value)) for name, value in example.context.items()} == context
    found = {name: [plain(feature_values(step)) for step in list_] for name, list_ in example.steps.items()}
    assert found == steps


@settings(deadline=None)
@given(context=CONTEXTS, steps=STEPS, wanted=st.sets(NAMES, max_size=2))
def test_gives_the_wanted_features_and_names_the_others(
    messages: dict[bool, type[Any]], context: dict[str, Any], steps: dict[str, list[Any]], wanted: set[str]
) -> None:
    example = parse_sequence_example(build(messages[True], context, steps), wanted)
    assert set(example.context) == set(context) & wanted
    assert set(example.steps) == set(steps) & wanted
    assert sorted(example.other_names) == sorted([*(set(context) - wanted), *(set(steps) - wanted)])


@settings(deadline=None)
@given(first=CONTEXTS, second=CONTEXTS, steps=STEPS)
def test_messages_put_end_to_end_are_merged_as_in_protobuf(
    messages: dict[bool, type[Any]],
    first: dict[str, Any],
    second: dict[str, Any],
    steps: dict[str, list[Any]],
) -> None:
    joined = build(messages[True], first, steps) + build(messages[True], second, {})
    example = parse_sequence_example(joined, ALL)
    found = {name: plain(feature_values(value)) for name, value in example.context.items()}
    assert found == {**first, **second}


def test_kinds_replace_each_other_and_the_same_kind_goes_on(messages: dict[bool, type[Any]]) -> None:
    def encoded(kind: str, values: list[Any]) -> bytes:
        feature = type(messages[True]().context.feature["a"])()
        fill(feature, (kind, values))
        return bytes(feature.SerializeToString())

    more = encoded("int64_list", [1]) + encoded("int64_list", [2, -3])
    assert plain(feature_values(memoryview(more))) == ("int64_list", [1, 2, -3])
    other = more + encoded("float_list", [0.5])
    assert plain(feature_values(memoryview(other))) == ("float_list", [0.5])


def test_values_are_not_copied(messages: dict[bool, type[Any]]) -> None:
    record = build(messages[True], {"f": ("float_list", [1.0, 2.0])}, {"b": [("bytes_list", [b"abc"])]})
    example = parse_sequence_example(record, ALL)
    values = feature_values(example.steps["b"][0])
    assert isinstance(values, list)
    assert values[0].obj is record
    assert example.context["f"].obj is record


def test_fields_nobody_knows_are_passed_over(messages: dict[bool, type[Any]]) -> None:
    known = build(messages[True], {"a": ("int64_list", [7])}, {})
    # Field 9 as varint, as 8 bytes, as 4 bytes, as a block; and field 1, the context, as a varint.
    unknown = b"\x48\x05" + b"\x49" + bytes(8) + b"\x4d" + bytes(4) + b"\x4a\x02hi" + b"\x08\x01"
    example = parse_sequence_example(unknown + known, ALL)
    assert plain(feature_values(example.context["a"])) == ("int64_list", [7])


def read_all(data: bytes) -> None:
    """Every path of the reader; only UnreadableError may come out."""
    try:
        example = parse_sequence_example(data, ALL)
        for feature in (*example.context.values(), *(step for s in example.steps.values() for step in s)):
            feature_values(feature)
    except UnreadableError:
        pass


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_all(data)


@settings(deadline=None)
@given(context=CONTEXTS, steps=STEPS, data=st.data())
def test_damaged_records_are_read_or_refused(
    messages: dict[bool, type[Any]], context: dict[str, Any], steps: dict[str, list[Any]], data: st.DataObject
) -> None:
    record = bytearray(build(messages[True], context, steps))
    if record:
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    read_all(bytes(record))


def test_every_cut_of_a_record_is_refused(messages: dict[bool, type[Any]]) -> None:
    record = build(messages[True], {"labels": ("int64_list", [1, -1])}, {})
    for size in range(1, len(record)):
        with pytest.raises(UnreadableError):
            parse_sequence_example(record[:size], ALL)


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        (b"\x12\x05\x0a\x03abc", "multiple of 4"),
        (b"\x1a\x0d\x0a\x0b" + b"\xff" * 11, "10 bytes"),
        (b"\x1a\x02\x0a\x05", "only 0 left"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "field number 0"),
    ],
)
def test_says_what_is_malformed(feature: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        feature_values(memoryview(feature))


def test_names_must_be_text() -> None:
    with pytest.raises(UnreadableError, match="UTF-8"):
        parse_sequence_example(b"\x0a\x05\x0a\x03\x0a\x01\xff", ALL)


def test_large_floats_keep_their_bits(messages: dict[bool, type[Any]]) -> None:
    values = np.random.default_rng(0).normal(size=65_536).astype(np.float32)
    record = build(messages[True], {}, {"infrared": [("float_list", values.tolist())]})
    np.testing.assert_array_equal(
        feature_values(parse_sequence_example(record, ALL).steps["infrared"][0]), values
    )
