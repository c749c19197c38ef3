"""The study of robustness on the page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featcache.manifest import load_manifest
from readouts.report.gaps import Gaps
from readouts.report.sweeps.robustness import robustness_panels
from readouts.report.sweeps.sections import sweep_sections
from readouts.results.table import add_run
from readouts.results.task_results import load_task_results
from readouts.sweeps.studies import STUDIES

MakeRow = Callable[..., dict[str, Any]]


def lines_of(run: str, drop: float) -> list[dict[str, Any]]:
    scores = {("", 0): 0.8, ("blur", 1): 0.7 - drop, ("blur", 2): 0.5 - drop, ("reversed", 3): 0.8}
    return [
        {"run": run, "readout": "attention", "corruption": kind, "severity": severity, "role": "val",
         "score": score, "n": 9, "fingerprint": "ab"}
        for (kind, severity), score in scores.items()
    ]  # fmt: skip


def test_a_curve_a_corruption_and_a_table_of_all(make_row: MakeRow, tmp_path: Path) -> None:
    for seed in (0, 1):
        add_run(tmp_path, f"r{seed}", [make_row(run=f"r{seed}", seed=seed)])
    study = STUDIES["robustness"]
    found = [*lines_of("r0", 0.0), *lines_of("r1", 0.1), *lines_of("elsewhere", 0.0)]
    about = {
        "title": study.title, "question": study.question, "along": study.along, "runs": ["r0", "r1"],
        "robustness": found,
    }  # fmt: skip
    (tmp_path / "sweeps/robustness-flyvsfly-toy").mkdir(parents=True)
    (tmp_path / "sweeps/robustness-flyvsfly-toy/sweep.json").write_text(json.dumps(about))
    tasks = load_task_results(tmp_path, [], load_manifest())[0]
    (section,) = sweep_sections(tasks, tmp_path, Gaps())
    assert section.name.startswith("Robustness") and section.tasks == []
    (panel,) = section.robustness
    assert panel.title == "Fly behaviour, attention" and panel.seeds == 2
    assert panel.severities == [1, 2, 3] and "as filmed 0.800 ± 0.000" in panel.score
    assert panel.image.startswith("data:image/svg+xml")
    assert [row["corruption"] for row in panel.table] == ["blur", "reversed"]
    first, second, third = panel.table[0]["cells"]
    assert first == {"score": "0.650", "change": "-0.150"} and panel.table[0]["amounts"] == "1, 2, 4"
    assert second["score"] == "0.450" and third == {"score": "", "change": ""}
    assert robustness_panels(tasks[0], [line for line in found if not line["severity"]]) == []
