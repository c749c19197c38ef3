"""The page: what it says is in the table and the stores, and it needs nothing but itself."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.store.targets import TargetArray, Targets
from readouts.features.find import open_task_splits
from readouts.report.page import comparison, write_report
from readouts.results.per_clip import read_predictions
from readouts.results.significance import kept
from readouts.results.table import add_run, load_results
from readouts.tasks import load_task
from readouts.training.loop import train
from readouts.training.settings import configure

MakeSplit = Callable[..., FeatureStore]
MakeTargets = Callable[..., Targets]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is looked at here, not its intervals."""
    monkeypatch.setattr(kept, "RESAMPLES", 20)


@pytest.fixture
def folders(make_split: MakeSplit, tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    for role in ("train", "val"):
        labels = np.eye(7, dtype=int)[rng.integers(7, size=14)]
        make_split(role, rng.normal(size=(14, 1, 2, 2, 2, 8)), labels, backbone_title="a <toy>")
    cache, results = tmp_path / "features", tmp_path / "results"
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    run = configure(task, splits, settings=["steps=4", "minival_every=2", "width=16"])
    train(run, results_dir=results, device=torch.device("cpu"), command="scivid train-readout --seed 0")
    return results, cache


def test_the_page_is_whole_and_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    results, cache = folders
    page = tmp_path / "deep" / "report.html"
    write_report(page, results_dir=results, cache_dir=cache, manifest=load_manifest())
    text = page.read_text()
    assert "Fly behaviour" in text
    assert "a &lt;toy&gt;" in text  # escaped
    assert "baseline: label frequency" in text
    assert "0.894" in text  # 4DS-e, published
    assert "scivid train-readout --seed 0" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)


def test_ours_baselines_and_published_stand_in_one_table(folders: tuple[Path, Path]) -> None:
    results, cache = folders
    (title, rows), domain, baselines = comparison(results, cache, load_manifest())
    assert title == "Fly behaviour: mAP, readouts of frozen backbones"
    assert [row["backbone"] for row in rows[:3]] == ["toy", "toy", "4DS-e (published)"]
    assert [row.get("seeds") for row in rows[:3]] == [1, 1, None]
    assert {"backbone": "Resize (published)", "readout": "attention", "test": "0.095"} in rows
    row = {"backbone": "VideoPrism-g (published)", "readout": None, "split not said": "0.920"}
    assert domain == ("Fly behaviour: mAP, models of the domain", [row])
    assert [row["backbone"] for row in baselines[1]] == ["baseline: label frequency"]


def test_the_page_begins_with_all_tasks_and_ends_with_stores(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    results = folders[0]
    rows = load_results(results)
    add_run(results, "s", [{**rows[0], "run": "s", "sweep": "steps", "recipe": '{"steps": 8}'}])
    add_run(results, "t", [{**rows[0], "run": "t", "sweep": "steps", "recipe": '{"steps": 2}'}])
    text = page_of(folders, tmp_path)
    places = [text.index(f">{title}</h2>") for title in
              ("Overview", "Fly behaviour", "Sweeps", "Cost against score", "Feature stores")]  # fmt: skip
    assert places == sorted(places)
    assert re.search(r"(?s)Overview.*attention, best of 4.*published.*4DS-e.*</table>", text)
    assert "scivid certify --backbone toy --task flyvsfly" in text
    assert (results / "token_figures").is_dir()


def test_tables_are_written_beside_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    results, cache = folders
    write_report(
        tmp_path / "r.html", results_dir=results, cache_dir=cache, manifest=load_manifest(),
        csv=tmp_path / "r.csv", markdown=tmp_path / "r.md",
    )  # fmt: skip
    n_published = len(load_manifest().task("flyvsfly").published.rows)
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3 + n_published
    assert "| baseline: label frequency |" in (tmp_path / "r.md").read_text()


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="run `scivid demo`"):
        write_report(tmp_path / "r.html", results_dir=tmp_path, cache_dir=tmp_path, manifest=load_manifest())


def test_a_results_folder_that_is_not_there_leaves_the_page(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    before = page_of(folders, tmp_path)
    with pytest.raises(CallError, match=r"no results folder .*typo: name yours"):
        page_of((tmp_path / "typo", folders[1]), tmp_path)
    assert (tmp_path / "r.html").read_text() == before


def page_of(folders: tuple[Path, Path], tmp_path: Path) -> str:
    results, cache = folders
    write_report(tmp_path / "r.html", results_dir=results, cache_dir=cache, manifest=load_manifest())
    return (tmp_path / "r.html").read_text()


def test_a_row_of_an_unknown_task_does_not_hide_the_others(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    row = load_results(folders[0])[0]
    add_run(folders[0], "other", [{**row, "run": "other", "task": "moths", "task_spec": None, "val": 0.125}])
    text = page_of(folders, tmp_path)
    assert "Fly behaviour" in text
    assert "baseline: label frequency" in text
    assert re.search(r"Scores only: [^<]*moths", text)
    assert "0.125" in text
    assert "moths: mAP, readouts of frozen backbones" in [
        title for title, _ in comparison(*folders, load_manifest())
    ]


def test_a_broken_store_is_named_and_the_rest_is_shown(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (store,) = find_stores(folders[1], "flyvsfly", "val")
    shard = store.shard_path(store.spec.layers[0], 0)
    shard.write_bytes(shard.read_bytes()[:-1])
    text = page_of(folders, tmp_path)
    assert re.search(r"<li>[^<]*flyvsfly/val/toy", text)
    assert "Fly behaviour" in text
    assert "flyvsfly / toy" in text


def test_a_task_from_a_file_is_reported_by_the_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from featcache.manifest import load_manifest\n"
        "from readouts.tasks import load_task\n"
        "TASK = replace(load_task('flyvsfly', load_manifest()), name='own')\n"
    )
    row = load_results(folders[0])[0]
    add_run(folders[0], "own", [{**row, "run": "own", "task": "own", "task_spec": f"{file}:TASK"}])
    assert "Scores only" not in page_of(folders, tmp_path)


def test_a_run_whose_predictions_are_lost_is_shown_without_pictures(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (predictions,) = folders[0].glob("flyvsfly/toy-*/predictions_val.parquet")
    assert "Precision and recall" in page_of(folders, tmp_path)
    predictions.unlink()
    text = page_of(folders, tmp_path)
    assert "Precision and recall" not in text
    assert "Scores only" not in text
    assert "baseline: label frequency" in text


SERIES = ("clip", "view", "hour")


@pytest.fixture
def storms(make_split: MakeSplit, make_targets: MakeTargets, tmp_path: Path) -> tuple[Path, Path]:
    """A run on series that fall by 2 hPa an hour, and its stores."""
    rng = np.random.default_rng(2)
    for role in ("train", "val"):
        start = rng.uniform(920, 1000, size=(8, 1, 1))
        series = (start - 2 * np.arange(24)).astype("<f4")
        array = TargetArray(shape=series.shape, dtype=series.dtype, axes=SERIES, blocks=[series])
        targets = make_targets(8, f"features/typhoon/{role}", series=array)
        tokens = np.broadcast_to(start[..., None, None, None] / 1000, (8, 1, 2, 2, 2, 8))
        make_split(role, tokens, np.zeros((8, 7), int), task="typhoon", targets=targets.path.name)
    cache, results = tmp_path / "features", tmp_path / "results"
    task = load_task("typhoon", load_manifest())
    splits = open_task_splits(cache, "typhoon", "toy", roles=("train", "val"))
    run = configure(task, splits, settings=["steps=4", "minival_every=2", "width=16"])
    train(run, results_dir=results, device=torch.device("cpu"))
    return results, cache


def test_a_task_of_numbers_has_its_own_pictures_and_no_labels(
    storms: tuple[Path, Path], tmp_path: Path
) -> None:
    text = page_of(storms, tmp_path)
    assert "Scores only" not in text
    assert "Pressure against time" in text
    assert "Error against lead time" in text
    assert "predicted and true labels" not in text
    assert "baseline: last input value" in text
    assert "baseline: training mean" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)


def test_large_scores_have_one_digit_and_the_better_ones_are_lower(storms: tuple[Path, Path]) -> None:
    (title, rows), _, (_, without) = comparison(*storms, load_manifest())
    assert title == "Typhoon pressure: RMSE (hPa), readouts of frozen backbones"
    baselines = {row["backbone"]: row["val"] for row in without}
    # 2 hPa an hour: the mean over 1, 2, 3, 6 and 12 hours of twice as much.
    assert baselines["baseline: last input value"] == "9.600"
    assert re.fullmatch(r"\d\d\.\d", str(baselines["baseline: training mean"]))
    assert {"backbone": "Resize (published)", "readout": "attention", "test": "10.0"} in rows
    assert len(list(storms[0].glob("typhoon/baselines.json"))) == 1


def test_a_forecast_is_drawn_from_what_was_kept(
    make_split: MakeSplit, make_targets: MakeTargets, tmp_path: Path
) -> None:
    """Predictions on disk, arrays of five axes, through a whole page."""
    manifest = tmp_path / "mine.yaml"
    manifest.write_text("datasets: {weatherbench2: {frame_size: [9, 18]}}")
    loaded = load_manifest(manifest)
    rng = np.random.default_rng(3)
    axes = ("time", "row", "column", "variable")
    for role in ("train", "val"):
        fields = (rng.normal(size=(22, 9, 18, 3)) + 10).astype("<f4")
        places = (np.arange(6)[:, None] + np.arange(17)).astype("<i4")
        lines = {"row": np.linspace(90, -90, 9), "column": np.arange(0.0, 360, 20)}
        targets = make_targets(
            6,
            f"features/weatherbench2/{role}",
            fields=TargetArray(shape=fields.shape, dtype=fields.dtype, axes=axes, blocks=[fields]),
            places=places,
            time=TargetArray(
                shape=(22,), dtype=np.dtype("<i8"), axes=("time",), blocks=[12 * np.arange(22, dtype="<i8")]
            ),
            **{
                name: TargetArray(
                    shape=v.shape, dtype=np.dtype("<f4"), axes=(axis,), blocks=[v.astype("<f4")]
                )
                for name, (axis, v) in zip(("latitude", "longitude"), lines.items(), strict=True)
            },
        )
        tokens, none = rng.normal(size=(6, 1, 1, 2, 4, 8)), np.zeros((6, 7), int)
        make_split(role, tokens, none, task="weatherbench2", targets=targets.path.name)
    splits = open_task_splits(tmp_path / "features", "weatherbench2", "toy", roles=("train", "val"))
    settings = ["steps=2", "batch=2", "minival_every=1", "features=8", "head_channels=8"]
    run = configure(load_task("weatherbench2", loaded), splits, settings=settings)
    (row,) = train(run, results_dir=tmp_path / "results", device=torch.device("cpu"))
    _, kept = read_predictions(run.folder(tmp_path / "results"), "val")
    assert kept["dpt"].shape == (4, 16, 9, 18, 3)
    assert row["n_val"] == 6
    page = tmp_path / "r.html"
    write_report(page, results_dir=tmp_path / "results", cache_dir=tmp_path / "features", manifest=loaded)
    text = page.read_text()
    assert "Scores only" not in text
    assert all(f"{name}: truth, forecast, errors" in text for name in ("Z500", "T850", "Q700"))
    assert "baseline: persistence" in text


DAMAGED = {
    "a curve": ("results/flyvsfly/toy-*/history.jsonl", "label frequency"),
    "predictions": ("results/flyvsfly/toy-*/predictions_val.parquet", "training loss and mAP"),
    "statistics of clips": ("results/flyvsfly/toy-*/evidence_val.npz", "Precision and recall"),
    "previews": ("features/flyvsfly/val/toy-*.zarr/previews.parquet", "Precision and recall"),
    "a certificate": ("features/flyvsfly/train/toy-*.zarr/certificate.json", "Precision and recall"),
    "a row of the table": ("results/results.parquet/*.parquet", "flyvsfly / toy"),
    "a sweep": ("results/sweeps/mine/sweep.json", "Precision and recall"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_costs_its_own_part_of_the_page_and_is_named_at_the_top(
    folders: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "results" / "sweeps" / "mine").mkdir(parents=True)
    pattern, still_shown = DAMAGED[kind]
    for folder in tmp_path.glob(pattern.rpartition("/")[0]):
        name = pattern.rpartition("/")[2]
        file = next(folder.glob(name), folder / name)
        file.write_bytes(b"damaged")
    page = tmp_path / "r.html"
    missing = write_report(page, results_dir=folders[0], cache_dir=folders[1], manifest=load_manifest())
    text = page.read_text()
    assert [message for message in missing if str(file) in message]
    assert file.name in text[: text.index("<nav>")]
    assert still_shown in text
    if kind not in ("a row of the table", "a sweep"):
        assert re.search(f"Not shown: [^<]*{re.escape(file.name)}", text)


def test_a_curve_that_ends_early_is_not_drawn(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Of before curves were sealed, one that was cut at a line."""
    (curve,) = folders[0].glob("flyvsfly/toy-*/history.jsonl")
    curve.write_text("")
    assert re.search(
        r"Not shown: [^<]*history\.jsonl does not reach the last step, 4", page_of(folders, tmp_path)
    )


def test_a_whole_page_says_of_nothing_that_it_is_missing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert write_report(page, results_dir=folders[0], cache_dir=folders[1], manifest=load_manifest()) == []
    assert "Not all could be shown" not in page.read_text()
