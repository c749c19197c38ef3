"""The results table: one row a run and readout, in Parquet.

The table is a folder of one small file a run, written under a temporary name and renamed, so that array
jobs append without a shared ledger to corrupt; Parquet readers take the folder as one table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("finished", pa.timestamp("s", tz="UTC")),
        ("task", pa.string()),
        ("backbone", pa.string()),
        ("backbone_title", pa.string()),
        ("control", pa.string()),  # null, or why this row is a control
        ("layer", pa.string()),
        ("readout", pa.string()),
        ("metric", pa.string()),
        ("val", pa.float64()),  # of the last step, over the whole val split
        ("best_val", pa.float64()),  # of the best evaluation on the same clips as the curve
        ("best_step", pa.int64()),
        ("test", pa.float64()),  # of the last step; null unless asked for
        ("scores", pa.string()),  # JSON: split -> every score of the last step
        ("exactness", pa.string()),
        ("views", pa.int32()),
        ("seed", pa.int64()),
        ("steps", pa.int64()),
        ("batch", pa.int32()),
        ("n_train", pa.int64()),
        ("n_val", pa.int64()),
        ("parameters", pa.int64()),
        ("recipe", pa.string()),  # JSON
        ("readout_config", pa.string()),  # JSON
        ("train_store", pa.string()),
        ("val_store", pa.string()),
        ("train_fingerprint", pa.string()),
        ("val_fingerprint", pa.string()),
        ("seconds", pa.float64()),
        ("device", pa.string()),
        ("software", pa.string()),  # JSON
        ("command", pa.string()),  # what repeats this row
    ]
)


def add_run(results_dir: Path, run: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of one run; a second call for the same run replaces them.

    Raises:
        ValueError: a row has a field that `SCHEMA` does not know.
    """
    unknown = {key for row in rows for key in row} - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"results have no columns {sorted(unknown)}; add them to SCHEMA.")
    folder = table_path(results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run}.parquet"
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), temporary)
    temporary.replace(path)
    return path


def load_results(results_dir: Path) -> list[dict[str, Any]]:
    """All rows, the oldest first; an empty list where nothing has run."""
    files = sorted(table_path(results_dir).glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file, schema=SCHEMA).to_pylist()]
    return sorted(rows, key=lambda row: (row["finished"], row["run"], row["readout"]))


def table_path(results_dir: Path) -> Path:
    """The folder that Parquet readers take as one table."""
    return results_dir / "results.parquet"
