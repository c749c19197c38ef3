"""Every command of `docs/` runs, on the smallest generated data and a backbone that takes no time."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from readouts.results.table import load_results
from tests.tunable import write_model

DOCS = sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.md"))


def calls_of(page: Path) -> list[list[str]]:
    """The words of each command that a page shows."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    calls = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert calls and all(name == "scivid" for name, *_ in calls)
    return [words for _, *words in calls]


def _replaced(word: str, by: dict[str, str]) -> str:
    """A word, in which names of a page's backbone and layers are those of the test's."""
    return re.sub("|".join(map(re.escape, by)), lambda found: by[found[0]], word)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_command_runs(
    page: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "data").symlink_to(tiny_data)
    monkeypatch.chdir(tmp_path)
    smaller = {"videomae_random": write_model(tmp_path), "1,2_normed": "2,3", "2_normed": "3"}
    for words in calls_of(page):
        words = [_replaced(word, smaller) for word in words]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}\n{result.exception!r}"
    kinds = {row["tuned"] for row in load_results(Path("demo/results"))}
    assert kinds == {"frozen", "partial", "whole"}
