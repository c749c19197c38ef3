"""Containers to clips: which clips a split has, and the pixels of the frames that are asked for.

Offers `READERS`, `open_reader`, `data_status`, `split_status` and `UnreadableFileError`. A member is a class
with the interface of `featcache.data.readers.base.Reader`, named by its import path, so that listing them
opens no library.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

from featcache.buckets.path import BucketPath
from featcache.data.bucket_files import split_objects
from featcache.data.readers.base import Reader, ReaderType, SplitStatus
from featcache.data.readers.base import UnreadableFileError as UnreadableFileError
from featcache.manifest import Dataset, Split

READERS: dict[str, str] = {
    "sequence_example": "featcache.data.readers.sequence_example.reader:SequenceExampleReader",
    "video_file": "featcache.data.readers.video.reader:VideoFileReader",
    "fields": "featcache.data.readers.weather.reader:WeatherZarrReader",
    "weather_zarr": "featcache.data.readers.weather.reader:WeatherZarrReader",
}
"""A data set's `reader` in the manifest -> where its class is."""


def open_reader(dataset: Dataset, split: str, data_dir: Path) -> Reader:
    """The reader of one split of `dataset`, whose files lie below `data_dir`.

    Raises:
        CallError: there is no such split.
        DataError: files are missing; names them, and how to get them.
    """
    return _reader_type(dataset)(dataset, split, data_dir)


def data_status(dataset: Dataset, data_dir: Path) -> dict[str, SplitStatus]:
    """What there is of each split below `data_dir`: looks at files and their ends, reads no clip."""
    return {split: split_status(dataset, split, data_dir) for split in dataset.splits}


def split_status(dataset: Dataset, split: str, data_dir: Path) -> SplitStatus:
    """What there is of one split, as `data_status`; of one in a bucket, what is listed there."""
    if isinstance(data_dir, BucketPath):
        return _listed_status(dataset.split(split), data_dir)
    return _reader_type(dataset).status(dataset, split, data_dir)


def _listed_status(split: Split, data_dir: BucketPath) -> SplitStatus:
    found = split_objects(split, data_dir)
    return SplitStatus(
        files=split.files,
        n_found=len(found),
        n_expected=split.n_shards,
        n_bytes=sum(one.size or 0 for one in found),
        problems=() if found else (f"{data_dir} has no files {split.files}",),
    )


def _reader_type(dataset: Dataset) -> ReaderType:
    module, _, name = READERS[dataset.reader].partition(":")
    return cast(ReaderType, getattr(import_module(module), name))
