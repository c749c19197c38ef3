"""What a manifest says of a task's recipe."""

from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.tasks import load_task


def recipe(tmp_path: Path, text: str) -> object:
    (tmp_path / "own.yaml").write_text(f"tasks: {{flyvsfly: {{recipe: {text}}}}}")
    return load_task("flyvsfly", load_manifest(tmp_path / "own.yaml")).recipe


def test_a_manifest_changes_single_settings(tmp_path: Path) -> None:
    shipped = load_task("flyvsfly", load_manifest()).recipe
    found = recipe(tmp_path, "{steps: 2000, lr: 1e-2, precision: tf32}")
    assert (found.steps, found.lr, found.precision) == (2000, 0.01, "tf32")  # type: ignore[attr-defined]
    assert (found.weight_decay, found.batch) == (shipped.weight_decay, shipped.batch)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{stepz: 3}", r"tasks\.flyvsfly\.recipe: no setting is called 'stepz'.* Did you mean 'steps'"),
        ("{steps: 2.5}", r"recipe\.steps: 2\.5 is not a whole number"),
        ("{lr: fast}", r"recipe\.lr: 'fast' is not a number"),
        ("{steps: 0}", "recipe steps=0 must be at least 1"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        recipe(tmp_path, text)
