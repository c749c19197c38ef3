"""Google's own protobuf runtime as the witness of what we write, and small generated data folders."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from featcache.synthetic import generate, load_generator

TYPES = {"bytes": (12, 3), "float": (2, 3), "int64": (3, 3), "string": (9, 1)}


def _message(file: Any, name: str, fields: list[tuple[str, int, str]]) -> Any:
    """Add a message; a field type that is not a scalar names another message; `*` marks repeated ones."""
    message = file.message_type.add(name=name)
    for field, number, kind in fields:
        if kind in TYPES:
            kind_number, label = TYPES[kind]
            message.field.add(name=field, number=number, type=kind_number, label=label)
        else:
            type_name = f".check.{kind.removeprefix('*')}"
            label = 3 if kind.startswith("*") else 1
            message.field.add(name=field, number=number, type=11, type_name=type_name, label=label)
    return message


def _map(file: Any, name: str, value: str) -> None:
    """`map<string, value>` as the wire knows it: repeated entries of key and value."""
    _message(file, f"{name}Entry", [("key", 1, "string"), ("value", 2, value)])
    _message(file, name, [("entries", 1, f"*{name}Entry")])


@pytest.fixture(scope="session")
def sequence_example() -> Callable[[bytes], Any]:
    """Parser of one SequenceExample, from the numbers in tensorflow/core/example/{example,feature}.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="check.proto", package="check", syntax="proto3")
    for name, kind in (("BytesList", "bytes"), ("FloatList", "float"), ("Int64List", "int64")):
        _message(file, name, [("value", 1, kind)])
    lists = [("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List")]
    _message(file, "Feature", lists)
    _message(file, "FeatureList", [("feature", 1, "*Feature")])
    _map(file, "Features", "Feature")
    _map(file, "FeatureLists", "FeatureList")
    _message(file, "SequenceExample", [("context", 1, "Features"), ("feature_lists", 2, "FeatureLists")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName("check.SequenceExample"))
    return lambda record: cls.FromString(record)


@pytest.fixture(scope="session")
def read_shard() -> Callable[[Path], list[bytes]]:
    def read(path: Path) -> list[bytes]:
        reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
        assert reader.ok(), path
        assert reader.writer_options_string().startswith("group_size:1,")
        n_records = reader.num_records()
        records: list[bytes] = reader.read(list(range(n_records))) if n_records else []
        reader.close()
        return records

    return read


@pytest.fixture(scope="session")
def few() -> Callable[[str], dict[str, int]]:
    """The smallest set whose items can come in a wrong order: two of the first split."""

    def sizes(name: str) -> dict[str, int]:
        first, *others = load_generator(name).profiles["tiny"]
        return {first: 2, **dict.fromkeys(others, 0)}

    return sizes


@pytest.fixture(scope="session")
def made(
    few: Callable[[str], dict[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of the smallest set of a name, with seed 0, made once by one worker; for reading only."""

    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        generate(name, folder, profile=few(name), workers=1)
        return folder

    return make
