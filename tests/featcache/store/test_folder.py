"""What lies beside the shards."""

from pathlib import Path

import pyarrow.parquet as pq


def test_the_clip_table_says_where_a_clip_is_unless_frames_are_stored(example, tmp_path: Path) -> None:
    table = pq.read_table(example().write().path / "clips.parquet")
    assert table["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert table["position"].to_pylist() == [0, 1, 2, 0, 1, 2, 0]
