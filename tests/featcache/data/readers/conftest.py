"""Records, shards and manifest entries for the readers' tests, encoded by Google's protobuf."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from featcache.manifest import Dataset, Split

_F: Any = descriptor_pb2.FieldDescriptorProto


def _message(name: str, *fields: Any) -> descriptor_pb2.DescriptorProto:
    return descriptor_pb2.DescriptorProto(name=name, field=fields)


def _field(name: str, number: int, kind: str, *, many: bool = False, **options: Any) -> Any:
    """A field of a scalar kind in capitals, or of the message `kind`."""
    scalar = kind.isupper()
    return _F(
        name=name,
        number=number,
        label=_F.LABEL_REPEATED if many else _F.LABEL_OPTIONAL,
        type=getattr(_F, f"TYPE_{kind}") if scalar else _F.TYPE_MESSAGE,
        type_name=None if scalar else f".example.{kind}",
        **options,
    )


def _with_map(name: str, field: str, value: str) -> descriptor_pb2.DescriptorProto:
    entry = _message("Entry", _field("key", 1, "STRING"), _field("value", 2, value))
    entry.options.map_entry = True
    message = _message(name, _field(field, 1, f"{name}.Entry", many=True))
    message.nested_type.append(entry)
    return message


def _sequence_example(*, packed: bool) -> type[Any]:
    options = descriptor_pb2.FieldOptions(packed=packed)
    feature = _message(
        "Feature",
        *(
            _field(f"{kind}_list", number, f"{kind.title()}List", oneof_index=0)
            for number, kind in ((1, "bytes"), (2, "float"), (3, "int64"))
        ),
    )
    feature.oneof_decl.add(name="kind")
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="example", syntax="proto3")
    file.message_type.extend(
        [
            _message("BytesList", _field("value", 1, "BYTES", many=True)),
            _message("FloatList", _field("value", 1, "FLOAT", many=True, options=options)),
            _message("Int64List", _field("value", 1, "INT64", many=True, options=options)),
            feature,
            _message("FeatureList", _field("feature", 1, "Feature", many=True)),
            _with_map("Features", "feature", "Feature"),
            _with_map("FeatureLists", "feature_list", "FeatureList"),
            _message(
                "SequenceExample",
                _field("context", 1, "Features"),
                _field("feature_lists", 2, "FeatureLists"),
            ),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message: type[Any] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("example.SequenceExample")
    )
    return message


@pytest.fixture(scope="session")
def messages() -> dict[bool, type[Any]]:
    """The class of `tf.train.SequenceExample`; True: numbers are packed, as TensorFlow writes them."""
    return {packed: _sequence_example(packed=packed) for packed in (True, False)}


def _tensor(*, packed: bool) -> type[Any]:
    options = descriptor_pb2.FieldOptions(packed=packed)
    kinds = {5: "FLOAT", 6: "DOUBLE", 7: "INT32", 10: "INT64", 11: "BOOL"}
    file = descriptor_pb2.FileDescriptorProto(name="tensor.proto", package="example", syntax="proto3")
    file.message_type.extend(
        [
            _message("Dim", _field("size", 1, "INT64"), _field("name", 2, "STRING")),
            _message("Shape", _field("dim", 2, "Dim", many=True), _field("unknown_rank", 3, "BOOL")),
            _message(
                "Tensor",
                _field("dtype", 1, "INT32"),
                _field("tensor_shape", 2, "Shape"),
                _field("version_number", 3, "INT32"),
                _field("tensor_content", 4, "BYTES"),
                *(_field(f"val_{n}", n, kind, many=True, options=options) for n, kind in kinds.items()),
            ),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("example.Tensor"))
    return message


@pytest.fixture(scope="session")
def tensor_messages() -> dict[bool, type[Any]]:
    """The class of TensorFlow's `TensorProto`; True: numbers are packed. The list of field n is `val_n`."""
    return {packed: _tensor(packed=packed) for packed in (True, False)}


def _jpegs() -> tuple[bytes, ...]:
    levels = (np.full((24, 32, 1), 10 * k, np.uint8) for k in range(20))
    return tuple(simplejpeg.encode_jpeg(level, 95, "GRAY") for level in levels)


@dataclass(frozen=True)
class Shards:
    """A data set of record files in a folder of its own."""

    folder: Path
    message: type[Any]
    jpegs: tuple[bytes, ...] = field(default_factory=_jpegs)
    """Grey frames of 24 x 32; frame k is of level 10 k."""

    def record(
        self, frames: Sequence[bytes], labels: Sequence[int] = (), name: str = "image/encoded"
    ) -> bytes:
        """Encode a clip: its frames (already images), its labels, and the name its frames go by."""
        example = self.message()
        example.context.feature["clip/label/index"].int64_list.value.extend(labels)
        example.context.feature["clip/name"].bytes_list.value.append(b"not asked for")
        steps = example.feature_lists.feature_list[name]
        for frame in frames:
            steps.feature.add().bytes_list.value.append(frame)
        return bytes(example.SerializeToString())

    def path(self, shard: int, n_shards: int) -> Path:
        return self.folder / f"full/mice/val.array_record-{shard:05d}-of-{n_shards:05d}"

    def write(self, shards: Sequence[Sequence[bytes]], options: str = "group_size:1") -> None:
        for shard, records in enumerate(shards):
            path = self.path(shard, len(shards))
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = ArrayRecordWriter(str(path), options)
            for record in records:
                writer.write(record)
            writer.close()

    def dataset(self, **changes: Any) -> Dataset:
        files = "full/mice/val.array_record-{shard:05d}-of-{n_shards:05d}"
        split = Split(name="val", files=files, n_shards=changes.pop("n_shards", 3))
        entry: dict[str, Any] = {
            "name": "mice",
            "title": "",
            "source": "https://example.org/mice",
            "licence": "",
            "citation": "",
            "version": "1",
            "reader": "sequence_example",
            "splits": {"val": split},
            "bucket": "gs://bucket/full/mice",
            "features": {"image": "image/encoded", "labels": "clip/label/index"},
            "channels": 1,
            "classes": ("run", "rest"),
        }
        return Dataset(**{**entry, **changes})


@pytest.fixture
def shards(tmp_path: Path, messages: dict[bool, type[Any]]) -> Shards:
    return Shards(tmp_path, messages[True])
