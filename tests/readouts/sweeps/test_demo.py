"""The demo's settings are settings: each is one of the recipe or of a head that the task trains."""

from dataclasses import fields

import pytest

from featcache.backbones import BACKBONES
from featcache.manifest import load_manifest
from readouts.heads import SHAPE_SETTINGS
from readouts.sweeps.demo import FULL, SHORT, Demo
from readouts.sweeps.grid import expand, parse_grid, tasks_of
from readouts.tasks import load_task
from readouts.tasks.base import Recipe

both = pytest.mark.parametrize("shown", [FULL, SHORT], ids=["full", "short"])


@both
def test_the_demo_shows_all_five_tasks(shown: Demo) -> None:
    assert set(shown.trained) == set(load_manifest().tasks)
    assert shown.backbones <= set(BACKBONES)
    assert shown.certified


@both
def test_every_setting_is_read(shown: Demo) -> None:
    for name, (backbones, settings) in shown.trained.items():
        if name in shown.tuned:
            assert len(backbones) == 1  # whose layers these are
            settings = [*settings, *shown.tuned[name].settings]
        task = load_task(name, load_manifest())
        heads = {setting for kind in task.readouts for setting in task.head_config(kind)} - SHAPE_SETTINGS
        known = heads | {field.name for field in fields(Recipe)}
        assert {setting.partition("=")[0] for setting in settings} <= known


def test_what_is_swept_has_its_stores_and_the_short_one_is_a_part() -> None:
    n_runs = {}
    for name, shown in (("full", FULL), ("short", SHORT)):
        grids = [parse_grid(text) for text in shown.grids]
        cells = expand(grids, {task: load_task(task, load_manifest()) for task in tasks_of(grids)}).cells
        assert {(cell.task, cell.backbone) for cell in cells} <= {
            (task, backbone) for task, (backbones, _) in shown.trained.items() for backbone in backbones
        }
        n_runs[name] = len(cells)
    # A probe is fitted once, whatever the seeds.
    assert n_runs == {"full": 72, "short": 29}
    assert set(SHORT.certified) <= set(FULL.certified)
