from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.sweeps.grid import expand, parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.studies import STUDIES, family, published_beside, study_grids
from readouts.tasks import load_task

KNOWN = (
    "resize",
    "videomae_b",
    "videomae_l",
    "videomae_random",
    "videomae_random_s",
    "4ds_b_dist_e",
    "4ds_e",
)
KNOWN = (*KNOWN, "vjepa_h", "vjepa_h384", "dinov3_s", "dinov3_hplus")


def asked(
    name: str, task: str = "flyvsfly", backbone: str = "4ds_e", over: str = ""
) -> list[dict[str, object]]:
    manifest = load_manifest()
    extra = [parse_grid(over)] if over else []
    grids = study_grids(name, task=task, backbone=backbone, manifest=manifest, known=KNOWN, over=extra)
    return [dict(grid) for grid in grids]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_grid_that_its_axis_is_part_of(name: str) -> None:
    manifest = load_manifest()
    grids = study_grids(name, task="flyvsfly", backbone="4ds_e", manifest=manifest, known=KNOWN)
    task = load_task("flyvsfly", manifest)
    found = expand(grids, {"flyvsfly": task})
    assert {cell.seed for cell in found.cells} == {0, 1, 2}
    # What is not trained is no axis of a grid.
    assert (STUDIES[name].along in grids[0]) == (name != "robustness")


@pytest.mark.parametrize(
    ("name", "axis", "values"),
    [
        ("depth", "layer", ("all",)),
        ("order", "backbone", ("4ds_e", "4ds_e_shuffled")),
        ("data", "train_fraction", ("0.01", "0.05", "0.25", "1")),
        ("scale", "backbone", ("4ds_b_dist_e", "4ds_e")),
        ("views", "train_views", ("1", "2", "4", "8")),
    ],
)
def test_what_a_study_varies(name: str, axis: str, values: tuple[str, ...]) -> None:
    grid, *others = asked(name)
    # And, over depth, once more: all layers together.
    assert [one["readout"] for one in others] == ([("attention_layers",)] if name == "depth" else [])
    assert grid[axis] == values


def test_readouts_are_those_that_fit_the_task() -> None:
    fly, typhoon, stir = (
        set(asked("readout", task)[0]["readout"]) for task in ("flyvsfly", "typhoon", "stir")
    )  # type: ignore[call-overload]
    assert {"linear", "attention", "knn", "logistic"} <= fly and "ridge" not in fly
    assert {"linear", "attention", "knn", "ridge"} <= typhoon and "logistic" not in typhoon
    assert "tracking" in stir and not {"linear", "knn"} & stir


def test_the_users_values_are_laid_over() -> None:
    (grid,) = asked("data", over="train_fraction=0.1,1 seed=7 steps=400")
    assert (grid["train_fraction"], grid["seed"], grid["steps"]) == (("0.1", "1"), ("7",), ("400",))


@pytest.mark.parametrize(
    ("backbone", "members"),
    [
        ("videomae_b", ("videomae_b", "videomae_l")),
        ("videomae_random_s", ("videomae_random", "videomae_random_s")),
        ("vjepa_h384", ("vjepa_h", "vjepa_h384")),
        ("dinov3_s", ("dinov3_s", "dinov3_hplus")),
        ("mine", ("mine",)),
    ],
)
def test_a_family_differs_in_size_only(backbone: str, members: tuple[str, ...]) -> None:
    assert family(backbone, KNOWN) == members


@pytest.mark.parametrize(
    ("name", "task", "backbone", "said"),
    [
        ("width", "flyvsfly", "4ds_e", "there are readout, depth"),
        ("scale", "flyvsfly", "resize", "resize has no relatives"),
        ("views", "weatherbench2", "4ds_e", "never augmented"),
        ("data", "flyvfly", "4ds_e", "no task is called"),
    ],
)
def test_what_cannot_be_asked_is_refused(name: str, task: str, backbone: str, said: str) -> None:
    with pytest.raises(CallError, match=said):
        asked(name, task, backbone)


def test_the_papers_rows_stand_beside_ours() -> None:
    manifest = load_manifest()

    def beside(name: str, task: str, backbone: str) -> list[tuple[object, object, object]]:
        lines = published_beside(name, task=task, backbone=backbone, manifest=manifest)
        assert all("test" in line or (task, line["val"]) in {("stir", "0.578"), ("typhoon", "3.88")}
                   for line in lines)  # fmt: skip
        return [(line["backbone"], line["readout"], line["test"]) for line in lines if "test" in line]

    # PROTOCOL: linear against cross-attention was published for 4DS-e.
    both = [("4DS-e (published)", "attention", "0.817"), ("4DS-e (published)", "linear", "0.525")]
    assert beside("readout", "calms21", "videomae_b") == both
    assert beside("scale", "flyvsfly", "4ds_e") == [
        ("4DS-e (published)", "attention", "0.894"),
        ("4DS-e (published)", "linear", "0.568"),
        ("4DS-B-dist-e (published)", "attention", "0.843"),
    ]
    assert beside("order", "stir", "vjepa_h_shuffled") == [("V-JEPA-H (published)", "tracking", "0.443")]
    assert beside("depth", "typhoon", "videomae_b") == []
    assert beside("depth", "mine.py:TASK", "4ds_e") == []


def test_stores_of_shuffled_frames_are_made_with_the_option(tmp_path: Path) -> None:
    manifest = load_manifest()
    grids = study_grids("order", task="flyvsfly", backbone="resize", manifest=manifest, known=KNOWN)
    plan = plan_sweep(grids, Folders(cache_dir=tmp_path, results_dir=tmp_path, manifest=manifest))
    assert [one.command for one in plan.missing] == [
        f"scivid extract --backbone resize --task flyvsfly --cache-dir {tmp_path}",
        f"scivid extract --backbone resize --task flyvsfly --shuffle-frames --cache-dir {tmp_path}",
    ]
