from collections.abc import Sequence
from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.sweeps.grid import (
    Cell,
    Expansion,
    expand,
    parse_grid,
    read_grids,
    tasks_of,
)
from readouts.tasks import load_task


def expanded(*texts: str) -> Expansion:
    grids = [parse_grid(text) for text in texts]
    tasks = {name: load_task(name, load_manifest()) for name in tasks_of(grids)}
    return expand(grids, tasks)


def short(cells: Sequence[Cell]) -> list[tuple[str, tuple[str, ...]]]:
    return [(cell.readout, cell.settings) for cell in cells]


def test_a_grid_is_names_with_values() -> None:
    assert parse_grid("task=flyvsfly  backbone=a,b lr=1e-4,3e-4,1e-4") == {
        "task": ("flyvsfly",),
        "backbone": ("a", "b"),
        "lr": ("1e-4", "3e-4"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "'lr' is not name=value"),
        ("lr=", "lr has an empty value"),
        ("lr=1e-4,,3e-4", "lr has an empty value"),
        ("lr=1 lr=2", "write lr=1,2"),
        ("", "is empty"),
        ("task='flyvsfly", "close every quote"),
    ],
)
def test_what_is_no_grid_is_refused(text: str, said: str) -> None:
    with pytest.raises(CallError, match=said) as caught:
        parse_grid(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task=flyvsfly backbone=a widht=1", "Did you mean 'width'"),
        ("task=flyvsfly backbone=a readout=atention", "Did you mean 'attention'"),
        ("task=flyvsfly backbone=a readout=dpt", "readout=dpt does not fit flyvsfly"),
        (
            "task=typhoon backbone=a readout=logistic",
            "readout=logistic does not fit typhoon: for typhoon there are .*, ridge",
        ),
        ("task=flyvsfly", "names no backbone"),
        ("backbone=a", "names no task"),
        ("task=flyvsfly backbone=a seed=one", "seed=one: 'one' is not a whole number"),
    ],
)
def test_what_no_run_could_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(CallError, match=said):
        expanded(text)


def test_every_combination_is_one_run() -> None:
    found = expanded("task=flyvsfly backbone=a,b layer=1,2 readout=linear lr=1e-4,3e-4 seed=0,1,2")
    assert len(found.cells) == 2 * 2 * 2 * 3
    assert found.cells[0] == Cell(
        task="flyvsfly", backbone="a", readout="linear", layer="1", seed=0, settings=("lr=1e-4",)
    )
    assert found.notes == ()


def test_a_setting_that_a_readout_lacks_does_not_multiply_its_runs() -> None:
    found = expanded("task=flyvsfly backbone=a readout=linear,attention width=128,256 lr=1e-4")
    assert short(found.cells) == [
        ("linear", ("lr=1e-4",)),
        ("attention", ("width=128", "lr=1e-4")),
        ("attention", ("width=256", "lr=1e-4")),
    ]
    assert found.notes == ("linear has no width: it is run once for all values of width",)


def test_a_probe_has_settings_of_its_own_and_no_recipe() -> None:
    found = expanded("task=flyvsfly backbone=a readout=knn,linear k=5,10 lr=1e-4,3e-4 train_fraction=0.1")
    assert short(found.cells) == [
        ("knn", ("k=5", "train_fraction=0.1")),
        ("knn", ("k=10", "train_fraction=0.1")),
        ("linear", ("lr=1e-4", "train_fraction=0.1")),
        ("linear", ("lr=3e-4", "train_fraction=0.1")),
    ]


def test_a_readout_goes_with_the_tasks_it_fits() -> None:
    found = expanded("task=flyvsfly,weatherbench2 backbone=a readout=linear,dpt")
    assert [(cell.task, cell.readout) for cell in found.cells] == [
        ("flyvsfly", "linear"),
        ("weatherbench2", "dpt"),
    ]
    assert found.notes == (
        "dpt does not fit flyvsfly: left out there",
        "linear does not fit weatherbench2: left out there",
    )


def test_a_run_of_two_grids_is_run_once() -> None:
    found = expanded("task=flyvsfly backbone=a seed=0,1", "task=flyvsfly backbone=a,b")
    # Both readouts of the task, three (backbone, seed) each; backbone a with seed 0 comes twice.
    assert len(found.cells) == 6
    assert found.notes == ("2 runs are asked for more than once: each is run once",)


def test_a_file_holds_a_grid_or_several(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("task: flyvsfly\nseed: [0, 1]\nlr: [1e-4, 0.001]\n")
    one = {"task": ("flyvsfly",), "seed": ("0", "1"), "lr": ("1e-4", "0.001")}
    assert read_grids(file) == [one]
    file.write_text("- {task: flyvsfly}\n- {task: calms21, width: 8}\n")
    assert read_grids(file) == [{"task": ("flyvsfly",)}, {"task": ("calms21",), "width": ("8",)}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: []", "seed has an empty value"),
        ("seed: {a: 1}", "seed has an empty value"),
        ("[]", "expected a mapping"),
        ("3", "expected a mapping"),
        ("a: [", "not YAML"),
        ("a: 2020-13-45", "not YAML"),
        ("[" * 3000, "not YAML"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(CallError, match=said):
        read_grids(file)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_bytes("task: fl\xfcge".encode("latin-1"))
    with pytest.raises(CallError, match=r"grid\.yaml is not YAML in UTF-8"):
        read_grids(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="give a file of grids"):
        read_grids(tmp_path / "none.yaml")
