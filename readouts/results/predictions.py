"""The outputs of a run's readouts on single clips of a split, in Parquet, for figures and statistics."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int64

from featcache.errors import StoreError
from featcache.system.files import Staged


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


def _tensor_column(values: Float[np.ndarray, "n *O"]) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
