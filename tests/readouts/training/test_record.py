"""Rows say all that the table has columns for; what is known of a training stays when more is scored."""

import json
from typing import Any

from readouts.results.table import SCHEMA
from readouts.training.record import OF_THE_TRAINING, scored_later


def test_a_row_says_all_that_the_table_has_columns_for(trained: Any) -> None:
    for row in trained.rows:
        unsaid = {name for name in SCHEMA.names if row[name] is None}
        of_test = {"test", "n_test", "test_store", "test_fingerprint"}
        assert unsaid == {"control", "weights", "view_seed", "sweep", "tuned_blocks", "backbone_lr", *of_test}
        assert row["tuned"] == "frozen"
        assert json.loads(row["scores"])["val"]["mean_AP"] == row["val"]
        assert json.loads(row["software"]).keys() == {"scivid", "torch", "numpy", "scikit-learn"}
        assert json.loads(row["targets"]).keys() == {"train", "val"}


def test_a_row_says_what_its_run_and_its_stores_are(trained: Any) -> None:
    run = trained.run
    stores = {role: split.store for role, split in run.splits.items()}
    assert {role: len(store.clips) for role, store in stores.items()} == {"train": 48, "val": 24}
    points = [json.loads(line) for line in run.folder(trained.results).curve.read_text().splitlines()]
    for row in trained.rows:
        ours = [point for point in points if point["readout"] == row["readout"]]
        best = max(ours, key=lambda point: point["mean_AP"])
        wanted = {
            "run": run.id, "task": "flyvsfly", "task_spec": "flyvsfly", "metric": "mean_AP",
            "higher_is_better": True, "seed": 3, "steps": 40, "batch": 16, "together": 1, "views": 1,
            "layer": "1", "backbone": "toy", "backbone_title": "a toy", "exactness": "exact",
            "n_train": 48, "n_val": 24, "command": "scivid train-readout ...",
            "train_store": stores["train"].path.name, "train_fingerprint": stores["train"].fingerprint,
            "val_store": stores["val"].path.name, "val_fingerprint": stores["val"].fingerprint,
            "best_val": best["mean_AP"], "best_step": best["step"], "val": ours[-1]["val/mean_AP"],
        }  # fmt: skip
        assert {name: row[name] for name in wanted} == wanted
        assert json.loads(row["readout_config"]) == dict(run.readouts[row["readout"]])
        assert json.loads(row["recipe"]) == run.recipe_settings
        assert json.loads(row["targets"]) == {
            role: store.header.targets.fingerprint for role, store in stores.items()
        }


def test_what_is_known_of_a_training_stays() -> None:
    before = {name: f"old {name}" for name in OF_THE_TRAINING} | {"readout": "linear", "command": "train"}
    new = {name: f"new {name}" for name in OF_THE_TRAINING} | {"readout": "linear", "test": 0.5}
    other = {**new, "readout": "attention"}
    kept, unknown = scored_later([{**new, "command": ""}, {**other, "command": ""}], [before])
    assert kept == {**before, "test": 0.5}
    assert unknown == {**other, "command": ""}
    (asked,) = scored_later([{**new, "command": "train --test"}], [before])
    assert asked == {**before, "test": 0.5, "command": "train --test"}
