"""What a run keeps of single clips: the outputs of its readouts, and what their scores follow from.

Both files are of one split. Files appear whole or not at all.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int64

from featcache.errors import CallError, StoreError
from featcache.system.files import Staged, publish
from readouts.results.run_folder import RunFolder

EVALUATED = ("val", "test")
"""Splits that runs keep evidence of."""


def write_predictions(
    path: Path,
    clips: Int64[np.ndarray, " n"],
    ids: pa.ChunkedArray,
    outputs: Mapping[str, Float[np.ndarray, "n *O"]],
) -> None:
    """Write clip numbers and ids with every readout's outputs, which other programs read as lists."""
    columns = {kind: _tensor_column(values.astype(np.float32)) for kind, values in outputs.items()}
    with Staged(path) as staged:
        pq.write_table(pa.table({"clip": pa.array(clips), "id": ids, **columns}), staged.temporary)
        staged.publish()


def read_predictions(path: Path) -> tuple[pa.Table, dict[str, Float[np.ndarray, "n *O"]]]:
    """What `write_predictions` wrote: the table of clips, and the outputs by readout.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as problem:
        raise StoreError(f"{path} cannot be read as predictions ({problem}): train with --again.") from None
    kinds = [name for name in table.column_names if name not in ("clip", "id")]
    columns = {kind: table.column(kind).combine_chunks().to_numpy_ndarray() for kind in kinds}
    return table, {kind: np.array(values) for kind, values in columns.items()}


def write_evidence(
    path: Path, clips: Int64[np.ndarray, " n"], evidence: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write clip numbers and, as `readout/name`, what each score follows from, a row per clip."""
    arrays = {f"{kind}/{name}": values for kind, of in evidence.items() for name, values in of.items()}
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, clips=clips, **arrays)
    publish(path, buffer.getvalue())


def load_evidence(
    results_dir: Path, row: Mapping[str, Any], role: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, np.ndarray]]:
    """Clips, and what the score of one row of the results table needs of each.

    Raises:
        CallError: the split is neither val nor test.
        StoreError: the run kept none of that split, or the file is damaged.
    """
    if role not in EVALUATED:
        raise CallError(f"role {role!r}: runs are scored on {' or '.join(EVALUATED)}, name one of them.")
    file = RunFolder.of(results_dir, row).evidence(role)
    prefix = f"{row['readout']}/"
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            evidence = {name.removeprefix(prefix): arrays[name] for name in names}
            clips = arrays["clips"].astype(np.int64)
    except FileNotFoundError:
        raise StoreError(
            f"run {row['run']} kept no evidence of single clips of {role}: {file} is missing. Train it with "
            "--again (and --test for the test split); a task of your own needs score_of and evidence."
        ) from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as problem:
        raise StoreError(f"{file} cannot be read as evidence ({problem}): train with --again.") from problem
    if not evidence:
        raise StoreError(f"{file} holds nothing of readout {row['readout']}: train with --again.")
    return clips, evidence


def _tensor_column(values: Float[np.ndarray, "n *O"]) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
