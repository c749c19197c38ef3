"""Every command of `docs/fine-tuning.md` runs, on the smallest generated data and a tiny backbone."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from readouts.results.table import load_results
from tests.tunable import write_model

TEXT = (Path(__file__).resolve().parents[1] / "docs/fine-tuning.md").read_text()
CALLS = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()
]


def _replaced(line: str, by: dict[str, str]) -> str:
    """A line in which names of the page's backbone and layers are those of the test's."""
    return re.sub("|".join(map(re.escape, by)), lambda found: by[found[0]], line)


@pytest.mark.slow
def test_every_command_runs(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "data").symlink_to(tiny_data)
    monkeypatch.chdir(tmp_path)
    smaller = {"videomae_random": write_model(tmp_path), "1,2_normed": "2,3", "2_normed": "3"}
    for line in CALLS:
        scivid, *words = shlex.split(_replaced(line, smaller))
        assert scivid == "scivid"
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    kinds = {row["tuned"] for row in load_results(Path("demo/results"))}
    assert kinds == {"frozen", "partial", "whole"}
