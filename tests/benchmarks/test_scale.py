"""The simulation runs, at a size that says nothing; and what it stands for does not grow with the split."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import scale


def test_every_step_of_the_simulation_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "BACKBONE", "videomae_random")
    monkeypatch.setattr(scale, "LINKS", 2)
    monkeypatch.setitem(scale.readers.READERS, "generated", "")  # put back
    monkeypatch.setenv(scale.N_CLIPS, "")
    place = scale.Place(tmp_path, 40_000, 3)
    found = {}
    for step in scale.STEPS:
        if step == "list the shards":
            place.simulate(all_shards=True)
        if step == "open":
            monkeypatch.setattr(scale.shard_file, "MOST_LOOKED_AT", 4)
        found[step] = scale.measured(place, step)
    assert place.open().complete
    assert found["open"]["opened"] > 0
    (line,) = scale.table([{"step": "open", **found["open"]}]).splitlines()[2:]
    assert line.startswith("| open | ")


LISTED = """
import sys
from pathlib import Path
from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.system import row_groups
import pyarrow as pa
row_groups.MOST_HELD = 100_000
spool, rows = row_groups.Spool(CLIP_SCHEMA), 50_000
for start in range(0, int(sys.argv[1]), rows):
    names = [f"clip {i}" for i in range(start, start + rows)]
    spool.add(pa.table(
        {"id": names, "source": names, "record": range(rows), "n_source": [16] * rows,
         "labels": [[1, 2]] * rows, "digest": names}, schema=CLIP_SCHEMA))
index = ClipIndex(spool.finish())
row_groups.write_grouped(Path(sys.argv[2]), CLIP_SCHEMA, index.blocks(), {b"digest": index.digest})
kept = ClipIndex(row_groups.RowGroups(Path(sys.argv[2])), index.digests)
assert kept.clip(len(kept) - 1).id == names[-1]
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_clips_that_are_listed(tmp_path: Path) -> None:
    few, many = (
        int(subprocess.check_output([sys.executable, "-c", LISTED, str(n), tmp_path / f"{n}"])) / 1e3
        for n in (200_000, 1_000_000)
    )
    # A table of 800,000 more clips would be 60 MB, and 360 as they come; of each, 8 bytes are held.
    assert many - few < 40, f"{few:.0f} MB for 200,000 clips, {many:.0f} for 1,000,000"
