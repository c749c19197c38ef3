"""The videos of the measurement are as long as it says; its table names both commands."""

from pathlib import Path

from featcache.data.labels.videos import Videos
from tests.benchmarks.long_videos import Measurement, long_video, table
from tests.benchmarks.peak_memory import Memory


def test_a_video_is_as_long_as_it_says(tmp_path: Path) -> None:
    (video,) = Videos.below(long_video(tmp_path / "a", 0.01))
    assert video.seconds == 36
    assert len((tmp_path / "a/bouts.csv").read_text().splitlines()) > 5


def test_the_table_has_a_row_a_measurement() -> None:
    memory = Memory(peak=400.4, steady=350.0, resident=800.0)
    found = [Measurement(command="predict", hours=hours, memory=memory) for hours in (10.0, 1.0)]
    assert table(found).splitlines()[2:] == ["| predict | 1 | 400 | 350 |", "| predict | 10 | 400 | 350 |"]
