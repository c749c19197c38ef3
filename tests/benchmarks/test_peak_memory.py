"""The script that measures peak memory: its parts on sizes known by hand."""

import sys
from pathlib import Path

import pytest

from featcache import synthetic
from featcache.data.readers import open_reader
from featcache.manifest import load_manifest
from tests.benchmarks import peak_memory as script


def memory_of_python(code: str, folder: Path) -> script.Memory:
    return script.memory_of([sys.executable, "-c", code], folder / "log.txt")


def test_what_is_held_for_a_while_is_the_peak_and_what_stays_is_steady(tmp_path: Path) -> None:
    hold, wait = "held = bytearray(b'1') * 100_000_000; ", "import time; time.sleep({}); "
    nothing = memory_of_python(wait.format(0.4), tmp_path)
    code = hold + wait.format(0.2) + "del held; " + wait.format(1)
    found = memory_of_python(code, tmp_path)
    assert found.peak - nothing.peak == pytest.approx(100, abs=5)
    assert found.steady - nothing.steady == pytest.approx(0, abs=5)
    assert found.resident > found.peak


def test_a_command_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        memory_of_python("raise SystemExit('no such thing')", tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "n_clips"), [("stir", "full_val", 2), ("weatherbench2", "train", 1)]
)
def test_an_enlarged_set_has_so_many_times_the_clips(
    name: str, split: str, n_clips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, generator = load_manifest().dataset(name), synthetic.load_generator(name)
    monkeypatch.setitem(generator.profiles, "demo", {**generator.profiles["demo"], split: n_clips})
    synthetic.generate(name, tmp_path / "once", profile={split: n_clips})
    larger = script.enlarged(dataset, dataset.split(split), tmp_path / "once", tmp_path / "thrice", 3)
    ids = open_reader(dataset, split, larger).scan().index.clips["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 3 * n_clips


def test_the_table_says_how_much_more_the_largest_set_takes() -> None:
    def measurement(factor: int, peak: float) -> script.Measurement:
        memory = script.Memory(peak=peak, steady=90.0, resident=2 * peak)
        return script.Measurement(
            task="stir", stage="extract", factor=factor, clips=5 * factor, memory=memory
        )

    rows = script.table([measurement(1, 100.0), measurement(10, 125.0)]).splitlines()
    assert rows[0] == "| task | stage | clips at 1x | 1x | 10x | 10x / 1x |"
    assert rows[2] == "| stir | extract | 5 | 100 / 90 | 125 / 90 | 1.25 / 1.00 |"
