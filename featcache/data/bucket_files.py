"""Which objects of a bucket are the files of a split, before any reader looks at one."""

import re
from pathlib import Path

from featcache.buckets.client import Listed
from featcache.buckets.fetched import fetched
from featcache.buckets.path import BucketPath
from featcache.errors import DataError
from featcache.manifest import Dataset, Split

_SPECIAL = re.compile(r"\*\*/|\*|\?|\[[^\]]*\]|\{[^}]*\}")
"""What of the manifest's `files` stands for several names."""

_STANDS_FOR = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}


def local_data(dataset: Dataset, split: str, data_dir: Path) -> Path:
    """The local data folder with the files of a split: the one given, or what was brought from a bucket.

    Raises:
        DataError: the bucket has none of them, or there is no room for them.
    """
    if not isinstance(data_dir, BucketPath):
        return data_dir
    entry = dataset.split(split)
    wanted = split_objects(entry, data_dir)
    if not wanted:
        raise DataError(
            f"{data_dir} has no files of {dataset.name}/{split}, which are {entry.files}: name another data "
            f"folder (SCIVID_DATA_DIR), or copy them there. They come from {dataset.source}."
        )
    return fetched(data_dir, wanted)


def split_objects(split: Split, data_dir: BucketPath) -> list[Listed]:
    """The objects below a data folder that are files of a split, or in a folder that is one."""
    names = [name for name in (split.files, split.also, split.clips) if name is not None]
    skip = len(data_dir.key) + bool(data_dir.key)
    found: dict[str, Listed] = {}
    for name in names:
        fits = re.compile(f"{_as_regex(name)}(?:/.*)?", re.DOTALL)
        folder = _SPECIAL.split(name)[0].rpartition("/")[0]
        below = data_dir / folder if folder else data_dir
        found |= {one.key: one for one in below.bucket.all_below(below.key) if fits.fullmatch(one.key[skip:])}
    return list(found.values())


def _as_regex(pattern: str) -> str:
    """A glob, or a name with fields for numbers, as a regular expression."""
    pieces, end = [], 0
    for special in _SPECIAL.finditer(pattern):
        pieces.append(re.escape(pattern[end : special.start()]))
        text = special[0]
        if text[0] == "{":
            pieces.append(r"\d+")
        elif text[0] == "[":
            pieces.append("[^" + text[2:] if text[1] == "!" else text)
        else:
            pieces.append(_STANDS_FOR[text])
        end = special.end()
    return "".join([*pieces, re.escape(pattern[end:])])
