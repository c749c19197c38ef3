"""What runs keep of single clips: the outputs of some in Parquet, per-clip statistics of all in npz.

Outputs are for figures, and for other programs, which read them as lists. The statistics, arrays named
`readout/name`, are kept so that intervals and differences of scores need no second look at a split. Both are
sealed and say whose they are: Parquet in its metadata, npz in the comment of the zip.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.system.files import publish, read_regular
from featcache.system.sealed import (
    KEY,
    UNSEALED,
    BrokenSealError,
    check_seal,
    parquet_sealed,
    read_parquet,
    seal,
)
from readouts.metrics.base import PerClip
from readouts.results.run_folder import RunFolder

EVALUATED = ("val", "test")
"""Splits that runs keep per-clip statistics of."""

LARGEST = 2**32
"""Bytes of a file of statistics."""


def write_predictions(
    folder: RunFolder,
    role: str,
    clips: Int64[np.ndarray, " n"],
    ids: pa.ChunkedArray,
    outputs: Mapping[str, Float[np.ndarray, "n *O"]],
) -> None:
    """Write clip numbers and ids with every readout's outputs, which other programs read as lists."""
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray
    columns = {kind: tensors(np.ascontiguousarray(of, np.float32)) for kind, of in outputs.items()}
    whose = {"run": folder.run, "role": role}
    table = pa.table({"clip": pa.array(clips), "id": ids, **columns}, metadata=whose)
    publish(folder.predictions(role), parquet_sealed(table))


def read_predictions(folder: RunFolder, role: str) -> tuple[pa.Table, dict[str, Float[np.ndarray, "n *O"]]]:
    """What `write_predictions` wrote: the table of clips, and the outputs by readout.

    Raises:
        StoreError: the file is missing or damaged, or of another run or split.
    """
    path = folder.predictions(role)
    try:
        table = read_parquet(path)
        _refuse_other(
            {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}, folder, role
        )
        _refuse_nulls(table)
        kinds = [name for name in table.column_names if name not in ("clip", "id")]
        columns = {kind: table.column(kind).combine_chunks().to_numpy_ndarray() for kind in kinds}
    except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as problem:
        raise DamagedFileError(
            f"{path} cannot be read as predictions ({problem}): train with --again."
        ) from None
    return table, {kind: np.array(values) for kind, values in columns.items()}


def write_per_clip(
    folder: RunFolder, role: str, clips: Int64[np.ndarray, " n"], per_clip: Mapping[str, PerClip]
) -> None:
    """Write the numbers of the clips [n], and the statistics [n ...] of every head."""
    arrays = {f"{kind}/{name}": values for kind, of in per_clip.items() for name, values in of.items()}
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, clips=clips, **arrays)
    with ZipFile(buffer, "a") as archive:
        archive.comment = json.dumps({"run": folder.run, "role": role, KEY: UNSEALED}).encode()
    publish(folder.per_clip(role), seal(buffer.getvalue()))


def load_per_clip(
    results_dir: Path, row: Mapping[str, Any], role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray]]:
    """Numbers of the clips [n], and the statistics [n ...] that a row of the table was scored from.

    Raises:
        CallError: the split is neither val nor test.
        StoreError: the run kept none of that split, or the file is damaged, or of another run or split.
    """
    return read_per_clip(RunFolder.of(results_dir, row), str(row["readout"]), role)


def read_per_clip(
    folder: RunFolder, readout: str, role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray]]:
    """The same of a readout of the run in a folder."""
    if role not in EVALUATED:
        raise CallError(f"role {role!r}: runs are scored on {' or '.join(EVALUATED)}, name one of them.")
    file, prefix = folder.per_clip(role), f"{readout}/"
    try:
        content = read_regular(file, limit=LARGEST)
        _refuse_other(_comment(content), folder, role)
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            per_clip = {name.removeprefix(prefix): arrays[name] for name in names}
            clips = arrays["clips"].astype(np.int64)
    except FileNotFoundError:
        raise StoreError(
            f"run {folder.run} kept no statistics of single clips of {role}: {file} is missing. Train it "
            "with --again (and --test for the test split)."
        ) from None
    except _UNREADABLE as problem:
        raise DamagedFileError(
            f"{file} cannot be read as per-clip statistics ({problem}): train with --again."
        ) from problem
    if any(len(rows) != len(clips) for rows in per_clip.values()):
        raise StoreError(f"{file} has other rows than its {len(clips)} clips: train with --again.")
    if not per_clip:
        raise StoreError(f"{file} holds nothing of readout {readout}: train with --again.")
    return clips, per_clip


_UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, RecursionError, MemoryError,
    NotImplementedError, BadZipFile, struct.error, zlib.error,
)  # fmt: skip
"""What numpy and zipfile say of bytes that are no npz."""


def _comment(content: bytes) -> Mapping[str, Any]:
    """What an npz says of itself; nothing, where an earlier version wrote it.

    Raises:
        ValueError: the seal is broken.
    """
    sealed = check_seal(content)
    with ZipFile(BytesIO(content)) as archive:
        if not archive.comment:
            return {}
    if not sealed:
        raise BrokenSealError
    return dict(json.loads(archive.comment))


def _refuse_other(whose: Mapping[str, Any], folder: RunFolder, role: str) -> None:
    """Refuse what was copied from another run, or from another split of this one.

    Raises:
        ValueError: worded as the end of a sentence that begins with the file.
    """
    for name, ours in (("run", folder.run), ("role", role)):
        if whose.get(name, ours) != ours:
            raise ValueError(f"is of {name} {whose[name]}")


def _refuse_nulls(table: pa.Table) -> None:
    if any(table.column(name).null_count for name in table.column_names):
        raise ValueError("lacks values")


def paired_per_clip(
    results_dir: Path, row_a: Mapping[str, Any], row_b: Mapping[str, Any], role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Numbers of the clips [n], and the statistics [n ...] of two rows that were scored on the same ones.

    Raises:
        CallError: the rows are of different tasks or scores; or as `load_per_clip`.
        StoreError: of other targets or clips; or as `load_per_clip`.
    """
    for column in ("task", "metric"):
        if row_a[column] != row_b[column]:
            raise CallError(
                f"runs {row_a['run']} and {row_b['run']} have {column} {row_a[column]!r} and "
                f"{row_b[column]!r}: only runs of one task and score can be compared."
            )
    targets_a, targets_b = (json.loads(row["targets"]).get(role) for row in (row_a, row_b))
    clips_a, per_clip_a = load_per_clip(results_dir, row_a, role)
    clips_b, per_clip_b = load_per_clip(results_dir, row_b, role)
    if targets_a != targets_b or not np.array_equal(clips_a, clips_b):
        shared = len(np.intersect1d(clips_a, clips_b)) if targets_a == targets_b else "none"
        raise StoreError(
            f"runs {row_a['run']} and {row_b['run']} were scored on {len(clips_a)} and {len(clips_b)} clips "
            f"of {role}, {shared} of them the same: extract both backbones from the same files, with the "
            "same clips left out, and train again."
        )
    return clips_a, per_clip_a, per_clip_b
