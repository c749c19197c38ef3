"""The how-to of one's own values, points and fields: every command that it shows runs as it stands.

The model is `resize`, which needs no weights, or the page's own, and training is short; nothing else changes.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from readouts.results.table import load_results
from readouts.tasks import from_file
from readouts.tasks.base import Recipe
from tests.own_measurements import write_bright, write_dots, write_fields, write_glow, write_points
from tests.test_docs import scivid

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/own-values.md").read_text()
CALLS = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()
]
QUICK = "--set steps=4 --set batch=4 --set minival_every=4 --set warmup=1"
HEADS = {"sky": " --set features=8 --set head_channels=8"}


def as_it_stands(line: str) -> list[str]:
    line = line.replace("videomae_b", "resize")
    if "STORE" in line:
        (store,) = Path("features/sky/test").glob("resize-*.zarr")
        line = line.replace("STORE.zarr", store.name)
    if " train-readout " in line:
        line += f" {QUICK}" + HEADS.get(line.split("--task ")[1].split()[0], " --set width=16 --set heads=2")
    return shlex.split(line)


@pytest.mark.slow
def test_every_line_runs(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cfgrib", reason="needs scivid[fields]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIVID_DATA_DIR", "flies")
    write_bright(Path("bright"))
    write_glow(Path("glow.csv"))
    shutil.copytree("bright", "new")
    Path("begin.csv").write_text("frame,name,x,y\n3,nose,10,8\n")
    write_points(write_dots(Path("dots")), "dlc.csv")
    write_fields(Path("sky"), "GRIB")
    Path("flies").symlink_to(tiny_data)
    shutil.copytree(ROOT / "docs/examples", "docs/examples")
    assert len(CALLS) == 16
    for line in CALLS:
        scivid(as_it_stands(line))
    metrics = {(row["task"], row["metric"]) for row in load_results(Path("results"))}
    assert metrics == {
        ("bright", "glow/rmse"), ("dots", "average_over_thresholds"), ("sky", "z500/rmwse"),
        ("flyvsfly", "mean_AP"),
    }  # fmt: skip
    assert "Glow: predicted against true" in Path("report.html").read_text()


def test_the_loss_of_ones_own_keeps_the_tasks_recipe() -> None:
    task = from_file.task_from_file(f"{ROOT / 'docs/examples/focal.py'}:TASK")
    assert task.recipe == Recipe(weight_decay=0.0)
    assert task.head_config("attention")["width"] == 128
