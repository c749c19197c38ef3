"""Weights in several files: an index says which file holds which tensor."""

from pathlib import Path

from featcache.errors import WeightsError
from featcache.system.json_files import read_json

_ENDING = ".index.json"


def is_index(path: Path) -> bool:
    """Whether a weight file is the index of others."""
    return path.name.endswith(_ENDING)


def files_of_tensors(index: Path) -> dict[str, Path]:
    """Name of every tensor -> the file beside the index that holds it.

    Raises:
        WeightsError: the index cannot be read, or names a file that is not beside it.
    """
    try:
        files: dict[str, str] = read_json(index)["weight_map"]
        names = set(files.values())
        if not names or any(Path(name).name != name for name in names):
            raise ValueError(f"it names files that are not beside it: {sorted(names)[:3]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise WeightsError(
            f"{index} is not an index of weight files ({problem}): fetch it again, with the files it names."
        ) from problem
    return {tensor: index.with_name(name) for tensor, name in files.items()}


def files_of(weights: Path) -> tuple[Path, ...]:
    """The files that hold the tensors: those an index names, in order, or the file itself.

    Raises:
        WeightsError: as `files_of_tensors`.
    """
    return tuple(sorted(set(files_of_tensors(weights).values()))) if is_index(weights) else (weights,)
