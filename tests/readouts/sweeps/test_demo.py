"""The demo's settings are settings: each is one of the recipe or of a head that the task trains."""

from dataclasses import fields

import pytest

from featcache.backbones import BACKBONES
from featcache.manifest import load_manifest
from readouts.heads import SHAPE_SETTINGS
from readouts.sweeps.demo import DEMO, DEMO_TUNED
from readouts.tasks import load_task
from readouts.tasks.base import Recipe


def test_the_demo_shows_all_five_tasks() -> None:
    assert set(DEMO) == set(load_manifest().tasks)


@pytest.mark.parametrize("name", list(DEMO))
def test_every_setting_is_read(name: str) -> None:
    backbones, settings = DEMO[name]
    if name in DEMO_TUNED:
        assert len(backbones) == 1  # whose layers these are
        settings = [*settings, *DEMO_TUNED[name].settings]
    assert set(backbones) <= set(BACKBONES)
    task = load_task(name, load_manifest())
    heads = {setting for kind in task.readouts for setting in task.head_config(kind)} - SHAPE_SETTINGS
    known = heads | {field.name for field in fields(Recipe)}
    assert {setting.partition("=")[0] for setting in settings} <= known
