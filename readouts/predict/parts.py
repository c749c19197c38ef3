"""The scores of one video on disk, from which everything else is written: a row a frame, never all in memory.

A part is sealed and appears whole or not at all, so a predict that was killed goes on with the videos that
have none.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from featcache.errors import DamagedFileError
from featcache.system.files import Staged
from featcache.system.sealed import KEY, UNSEALED, check_file, seal_file
from readouts.predict.frames import FrameScores

FORM = 2
"""Raised when a part of the same video would be another one."""


def part_name(about: Mapping[str, Any]) -> str:
    """The name of the part of a video under all that decides it, JSON values."""
    text = json.dumps({"form": FORM, **about}, sort_keys=True)
    return f"{blake2b(text.encode(), digest_size=8).hexdigest()}.parquet"


def write_part(
    path: Path,
    blocks: Iterable[FrameScores],
    names: Sequence[str],
    *,
    video: str,
    rate: Fraction,
    begins: int = 0,
    numbers: int = 1,
) -> None:
    """Write the scores of a video's frames as they come.

    Args:
        path: of the part.
        blocks: consecutive frames, from 0.
        names: of the scores, or of points that have several.
        video: as tables are to name it.
        rate: frames a second.
        begins: which frame of the video the first one is.
        numbers: of each of them in a frame.
    """
    about = {
        "part": path.name, "video": video, "rate": str(rate), "names": json.dumps(list(names)),
        "begins": str(begins), KEY: UNSEALED,
    }  # fmt: skip
    schema = pa.schema([(str(i), pa.float32()) for i in range(numbers * len(names))], metadata=about)
    with Staged(path) as staged:
        with os.fdopen(os.dup(staged.fd), "wb") as sink, pq.ParquetWriter(sink, schema) as file:
            for block in blocks:
                arrays = [pa.array(np.ascontiguousarray(column)) for column in block.scores.T]
                file.write_table(pa.Table.from_arrays(arrays, schema=schema))
        seal_file(staged.fd)
        staged.publish()


class VideoPart:
    """A part that is there."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            DamagedFileError: it is not what was written.
        """
        self.path = path
        try:
            check_file(path, required=True)
            self._file = pq.ParquetFile(path)
            about = {name.decode(): value.decode() for name, value in self._file.metadata.metadata.items()}
            self.video, self.rate = about["video"], Fraction(about["rate"])
            self.names, self.begins = tuple(json.loads(about["names"])), int(about["begins"])
            if about["part"] != path.name:
                raise ValueError(f"is of {about['part']}")
        except (OSError, ValueError, KeyError, pa.ArrowException) as problem:
            raise DamagedFileError(
                f"{path} cannot be read as the scores of a video ({problem}): delete it and give the same "
                "command again."
            ) from problem

    @property
    def n_frames(self) -> int:
        """Frames of the video from there on, as they were decoded."""
        return int(self._file.metadata.num_rows)

    def blocks(self) -> Iterator[FrameScores]:
        """The scores, in order."""
        first = 0
        for group in range(self._file.num_row_groups):
            table = self._file.read_row_group(group)
            scores: Float[np.ndarray, "F O"] = np.stack([c.to_numpy() for c in table.columns], axis=1)
            yield FrameScores(first=first, scores=scores)
            first += len(scores)
