"""Predictions as tables: a row a frame in Parquet or CSV, a row a bout, a row a video and class."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from featcache.system.files import Staged, publish
from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart

ENDINGS = (".parquet", ".csv")
OF_EACH_FRAME = ("video", "frame", "time")


def columns_named(names: Sequence[str]) -> list[str]:
    """The columns of the scores; a class that is called as a column of ours is called `... score`."""
    return [f"{name} score" if name in OF_EACH_FRAME else name for name in names]


def write_frames(
    path: Path,
    parts: Iterable[VideoPart],
    names: Sequence[str],
    scores: Callable[[VideoPart], Iterable[FrameScores]],
) -> None:
    """Every frame of every video: `video`, `frame` from 0, `time` in seconds, and its scores.

    Args:
        path: ends as one of `ENDINGS`.
        parts: of the videos.
        names: of the scores.
        scores: those of one video.
    """
    fields = [("video", pa.string()), ("frame", pa.int64()), ("time", pa.float64())]
    schema = pa.schema(fields + [(name, pa.float32()) for name in columns_named(names)])
    write_rows(path, schema, (_table(part, block, schema) for part in parts for block in scores(part)))


def write_rows(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Tables one after the other in one file, whole or not at all; none is held once it is written."""
    with Staged(path) as staged:
        with os.fdopen(os.dup(staged.fd), "wb") as sink:
            writer = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
            with writer(sink, schema) as file:
                for table in tables:
                    file.write_table(table)
        staged.publish()


def _table(part: VideoPart, block: FrameScores, schema: pa.Schema) -> pa.Table:
    frames = np.arange(block.first, block.first + len(block.scores))
    video = pa.DictionaryArray.from_arrays(np.zeros(len(frames), np.int32), [part.video]).cast(pa.string())
    columns = [video, pa.array(frames), pa.array(frames / float(part.rate))]
    columns += [pa.array(np.ascontiguousarray(column)) for column in block.scores.T]
    return pa.Table.from_arrays(columns, schema=schema)


def bout_rows(part: VideoPart, bouts: Iterable[Bout], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a bout, in the order of their starts; `stop` is the time at which its last frame ends."""
    rate = float(part.rate)
    return [
        {
            "video": part.video,
            "class": names[bout.output],
            "first frame": bout.first,
            "last frame": bout.stop - 1,
            "start": round(bout.first / rate, 6),
            "stop": round(bout.stop / rate, 6),
            "mean score": round(bout.score, 4),
        }
        for bout in sorted(bouts, key=lambda bout: (bout.first, bout.output))
    ]


def value_rows(part: VideoPart, blocks: Iterable[FrameScores], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a value: its mean over the frames of a video, the least and the greatest."""
    n, total = 0, np.zeros(len(names))
    least, most = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for block in blocks:
        n += len(block.scores)
        total += block.scores.sum(axis=0, dtype=np.float64)
        least, most = np.minimum(least, block.scores.min(axis=0)), np.maximum(most, block.scores.max(axis=0))
    numbers = np.stack([total / n, least, most], axis=1).tolist()
    return [
        {
            "video": part.video,
            "value": name,
            **dict(zip(("mean", "min", "max"), map(_short, of), strict=True)),
        }
        for name, of in zip(names, numbers, strict=True)
    ]


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as CSV, with their heading even where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    publish(path, text.getvalue().encode())


SUMMARY_COLUMNS = ("video", "class", "bouts", "seconds", "mean bout")
