"""The results table: one row a run and readout, in Parquet.

The table is a folder of one small file a run, which appears whole or not at all, so that array jobs append
without a shared ledger to corrupt; Parquet readers take the folder as one table. Each file is sealed
(`featcache.system.sealed`) and names its run, so that damage, and a file of another run, are noticed.

The name of a run is its own digits, spelled as syllables: sixteen bits become five letters, consonants and
vowels in turn (Wilkerson, A Proposal for Proquints, 2009), so `9693d2e333be` is `nipig-tarog-gavuv`. Nothing
has to be kept, and the beginning of a name is that of a run: as many letters as no other run shares will do.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from featcache.errors import DamagedFileError
from featcache.system.files import publish
from featcache.system.sealed import parquet_sealed, read_parquet

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("finished", pa.timestamp("s", tz="UTC")),  # its last scoring
        ("task", pa.string()),
        ("task_spec", pa.string()),  # what --task was given: the name, or file.py:OBJECT
        ("task_identity", pa.string()),  # JSON: what defines loss and score; null where older
        ("backbone", pa.string()),
        ("backbone_title", pa.string()),
        ("weights", pa.string()),  # of the user's own: where from, and digest; null of released ones
        ("control", pa.string()),  # null, or why this row is a control
        ("layer", pa.string()),  # that readouts see
        (
            "tuned",
            pa.string(),
        ),  # frozen, partial or whole: of the backbone; null where older, which is frozen
        ("tuned_blocks", pa.int32()),  # upper blocks below the layer; null unless partial
        ("backbone_lr", pa.float64()),  # what the backbone's updates were multiplied by; null where frozen
        ("readout", pa.string()),
        ("metric", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("val", pa.float64()),  # of the last step, over the whole val split
        ("best_val", pa.float64()),  # of the best point of the curve: over the first minival_clips only
        ("best_step", pa.int64()),
        ("test", pa.float64()),  # of the last step; null unless asked for
        ("scores", pa.string()),  # JSON: split -> every score of the last step
        ("exactness", pa.string()),
        ("views", pa.int32()),  # of a training clip; null where each draw is a new one
        ("view_seed", pa.int64()),  # of the training store's views after the first; null where it has one
        ("seed", pa.int64()),
        ("steps", pa.int64()),
        ("batch", pa.int32()),
        ("n_train", pa.int64()),
        ("n_val", pa.int64()),
        ("n_test", pa.int64()),
        ("parameters", pa.int64()),
        ("recipe", pa.string()),  # JSON
        ("readout_config", pa.string()),  # JSON
        ("train_store", pa.string()),
        ("val_store", pa.string()),
        ("test_store", pa.string()),
        ("train_fingerprint", pa.string()),
        ("val_fingerprint", pa.string()),
        ("test_fingerprint", pa.string()),
        ("targets", pa.string()),  # JSON: split -> fingerprint of its targets
        ("seconds", pa.float64()),  # of training, evaluations included, over all processes that took part
        ("together", pa.int32()),  # runs that shared these seconds in one pass; null where older
        ("sweep", pa.string()),  # the sweep that trained it first; null for single runs
        ("device", pa.string()),  # it was trained on
        ("software", pa.string()),  # JSON: versions it was trained with
        ("command", pa.string()),  # what repeats this row
    ]
)


NEVER_NULL = ("run", "finished", "task", "readout")
"""Columns that tell rows apart."""

OBJECTS = ("scores", "recipe", "readout_config", "targets", "software", "task_identity")
"""Columns that hold a JSON object each."""


CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aiou"

SHOWN = 11
"""Letters of a name in tables: two words, 32 bits, of which a thousand runs hardly ever share any."""


def name_of(run: str) -> str:
    """The name of a run, given its digits; whatever is not of hexadecimal digits in fours is its own name."""
    if len(run) % 4 or not re.fullmatch(r"[0-9a-f]+", run):
        return run
    return "-".join(_word(int(run[i : i + 4], 16)) for i in range(0, len(run), 4))


def short_name_of(run: str) -> str:
    """What tables show of a name."""
    return name_of(run)[:SHOWN]


def is_named(run: str, text: str) -> bool:
    """Whether `text` is a run, or the beginning of its name or digits: three letters at least."""
    return text == run or (len(text) > 2 and (run.startswith(text) or name_of(run).startswith(text)))


def _word(number: int) -> str:
    """Five letters of sixteen bits: 4, 2, 4, 2 and 4 of them."""
    letters = ((CONSONANTS, 12), (VOWELS, 10), (CONSONANTS, 6), (VOWELS, 4), (CONSONANTS, 0))
    return "".join(alphabet[number >> shift & len(alphabet) - 1] for alphabet, shift in letters)


def add_run(results_dir: Path, run: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of one run; a second call for the same run replaces them.

    Raises:
        ValueError: a row has a field that `SCHEMA` does not know.
    """
    unknown = {key for row in rows for key in row} - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"results have no columns {sorted(unknown)}; add them to SCHEMA.")
    folder = table_path(results_dir)
    path = folder / f"{run}.parquet"
    publish(path, parquet_sealed(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)))
    return path


def load_results(results_dir: Path | str) -> list[dict[str, Any]]:
    """All rows, the oldest first; an empty list where nothing has run.

    Raises:
        DamagedFileError: a file is not one of ours, or is damaged; names it.
    """
    rows, damaged = readable_results(Path(results_dir))
    if damaged:
        raise damaged[0]
    return rows


def readable_results(results_dir: Path) -> tuple[list[dict[str, Any]], list[DamagedFileError]]:
    """As `load_results` the rows of all files that can be read, and what is to be said of the others."""
    rows, damaged = list[dict[str, Any]](), list[DamagedFileError]()
    for file in sorted(table_path(results_dir).glob("*.parquet")):
        try:
            rows += _rows(file)
        except DamagedFileError as problem:
            damaged.append(problem)
    return sorted(rows, key=lambda row: (row["finished"], row["run"], row["readout"])), damaged


def run_rows(results_dir: Path, run: str) -> list[dict[str, Any]]:
    """The rows of one run, by readout; an empty list where it has not ended yet.

    Raises:
        DamagedFileError: as `load_results`.
    """
    path = table_path(results_dir) / f"{run}.parquet"
    return sorted(_rows(path), key=lambda row: str(row["readout"])) if path.exists() else []


def recorded(
    results_dir: Path, run: str, *, tested_on: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The rows of a run if they say all that is asked for.

    None where test is yet to be scored, or was scored on other clips or labels than `tested_on`, the columns
    that name the test split.

    Raises:
        DamagedFileError: as `load_results`.
    """
    rows = run_rows(results_dir, run)
    return rows if tested_on is None or all(_is_tested_on(row, tested_on) for row in rows) else []


def _is_tested_on(row: Mapping[str, Any], split: Mapping[str, Any]) -> bool:
    targets = json.loads(row["targets"] or "{}")
    found = {
        "test_fingerprint": row["test_fingerprint"],
        "n_test": row["n_test"],
        "targets": targets.get("test"),
    }
    return row["test"] is not None and all(found[name] in (None, value) for name, value in split.items())


def _rows(file: Path) -> list[dict[str, Any]]:
    """The rows of one file; columns that older versions did not write are None."""
    try:
        rows: list[dict[str, Any]] = read_parquet(file, schema=SCHEMA).to_pylist()
        for row in rows:
            _refuse_other(row, run=file.stem)
    except (ValueError, TypeError, RecursionError, OSError) as problem:
        raise DamagedFileError(
            f"{file} cannot be read as results ({problem}): delete it and give the run's command again, "
            "which scores the run anew, and trains it only where its checkpoint is gone."
        ) from problem
    return rows


def _refuse_other(row: Mapping[str, Any], *, run: str) -> None:
    """Refuse a row that no version of ours wrote for this run.

    Raises:
        ValueError: says what it has instead.
    """
    if row["run"] != run:
        raise ValueError(f"holds the run {row['run']}")
    if missing := [name for name in NEVER_NULL if row[name] is None]:
        raise ValueError(f"says nothing in {', '.join(missing)}")
    for name in OBJECTS:
        if row[name] is not None and not isinstance(json.loads(row[name]), dict):
            raise ValueError(f"has {name}={row[name]!r}")


def table_path(results_dir: Path) -> Path:
    """The folder that Parquet readers take as one table."""
    return results_dir / "results.parquet"
