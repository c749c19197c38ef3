"""Rows say all that the table has columns for; what is known of a training stays when more is scored."""

import json
from typing import Any

from readouts.results.table import SCHEMA
from readouts.training.record import OF_THE_TRAINING, scored_later


def test_a_row_says_all_that_the_table_has_columns_for(trained: Any) -> None:
    for row in trained.rows:
        unsaid = {name for name in SCHEMA.names if row[name] is None}
        assert unsaid == {"control", "view_seed", "test", "n_test", "test_store", "test_fingerprint", "sweep"}
        assert json.loads(row["scores"])["val"]["mean_AP"] == row["val"]
        assert json.loads(row["software"]).keys() == {"scivid", "torch", "numpy", "scikit-learn"}
        assert json.loads(row["targets"]).keys() == {"train", "val"}


def test_what_is_known_of_a_training_stays() -> None:
    before = {name: f"old {name}" for name in OF_THE_TRAINING} | {"readout": "linear", "command": "train"}
    new = {name: f"new {name}" for name in OF_THE_TRAINING} | {"readout": "linear", "test": 0.5}
    other = {**new, "readout": "attention"}
    kept, unknown = scored_later([{**new, "command": ""}, {**other, "command": ""}], [before])
    assert kept == {**before, "test": 0.5}
    assert unknown == {**other, "command": ""}
    (asked,) = scored_later([{**new, "command": "train --test"}], [before])
    assert asked == {**before, "test": 0.5, "command": "train --test"}
