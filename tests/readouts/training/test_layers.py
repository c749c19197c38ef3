"""Runs of several layers: one pass reads each layer once, and changes nothing of a run of one layer."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from readouts.features import batches
from readouts.features.find import open_task_splits
from readouts.features.preloading import Preloads
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.studies import study_grids
from readouts.tasks import load_task
from readouts.training.loop import train, train_together
from readouts.training.run import Run, in_passes, spanning
from readouts.training.settings import configure
from readouts.training.trainer import load_state

CPU = torch.device("cpu")
SETTINGS = ["steps=12", "minival_every=6", "batch=8", "lr=0.01", "width=16", "heads=2"]


@pytest.fixture(scope="module")
def cache(make_split_in, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers: of noise, of the odd classes and of the even ones; and an int8 store of the same."""
    folder, rng = tmp_path_factory.mktemp("layers"), np.random.default_rng(0)
    for role, n in (("train", 24), ("val", 12)):
        labels = rng.integers(2, size=(n, 7))
        first, second, third = rng.normal(scale=0.1, size=(3, n, 2, 2, 2, 2, 8))
        second[..., 1:7:2] += labels[:, None, None, None, None, 1::2]
        third[..., 0:7:2] += labels[:, None, None, None, None, ::2]
        for dtype in ("float16", "int8"):
            make_split_in(
                folder,
                role,
                first,
                labels,
                deeper={2: second, 3: third},
                backbone=f"toy_{dtype}",
                dtype=dtype,
            )
    return folder


def run_of(cache: Path, layer: str, *readouts: str, seed: int = 0, dtype: str = "float16") -> Run:
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(cache, "flyvsfly", f"toy_{dtype}", roles=("train", "val"), layer=layer)
    known = [
        text for text in SETTINGS if readouts != ("linear",) or ("width" not in text and "heads" not in text)
    ]
    return configure(task, splits, readouts=readouts or None, settings=known, seed=seed)


def scores(rows: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    return [(row["layer"], row["readout"], row["val"]) for row in rows]


def weights(results: Path, run: Run) -> dict[str, Any]:
    tensors, _ = load_state(run.folder(results).state)
    return {name: tensor.tolist() for name, tensor in tensors.items()}


def test_layers_are_named_in_three_ways(cache: Path) -> None:
    names = [run_of(cache, text, "attention_layers").training.layer_name for text in ("all", "3,1", "1+3")]
    assert names == ["1+2+3", "1+3", "1+3"]
    one = run_of(cache, "2", "linear")
    assert one.decisions["splits"]["train"]["layer"] == "2"
    assert one.pass_key == run_of(cache, "all", "ladder").pass_key


@pytest.mark.parametrize(
    ("layer", "readouts", "said"),
    [
        (
            "1,2",
            ("linear",),
            r"--layer 1\+2: linear reads one layer; several are read by attention_layers, ladder",
        ),
        ("2", ("ladder",), r"--layer 2: ladder reads several layers, .* holds 1, 2, 3: name some or all"),
        ("all", ("linear", "ladder"), "readouts of one layer and of several are runs of their own"),
        ("all", ("logistic",), "logistic reads one layer"),
        ("1,x", ("ladder",), "'x' is not a layer"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cache: Path, layer: str, readouts: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CallError, match=said):
        run_of(cache, layer, *readouts)


def test_layers_behind_norms_of_their_own_are_read_together(make_split_in, tmp_path: Path) -> None:
    # The levels of V-JEPA 2.1.
    levels, draw = (Layer(3, normed=True), Layer(6, normed=True)), np.random.default_rng(0)
    for role, n in (("train", 12), ("val", 6)):
        tokens, labels = draw.normal(size=(3, n, 2, 2, 2, 2, 8)), draw.integers(2, size=(n, 7))
        make_split_in(tmp_path, role, tokens[0], labels, deeper=dict(zip(levels, tokens[1:], strict=True)))
    named = ",".join(layer.name for layer in levels)
    splits = open_task_splits(tmp_path, "flyvsfly", "toy", roles=("train", "val"), layer=named)
    task = load_task("flyvsfly", load_manifest())
    run = configure(task, splits, readouts=("attention_layers",), settings=["steps=1", *SETTINGS[2:]], seed=0)
    (row,) = train(run, results_dir=tmp_path / "results", device=CPU)
    assert row["layer"] == "3_normed+6_normed"


def test_a_layer_that_is_not_there_is_refused(cache: Path) -> None:
    with pytest.raises(StoreError, match="holds layers 1, 2, 3, not 4,5: extract it with --layers 4,5"):
        run_of(cache, "3,4,5", "ladder")
    with pytest.raises(StoreError, match=r"say which with --layer .*--layer all, or some: --layer 1\+2"):
        open_task_splits(cache, "flyvsfly", "toy_float16", roles=("train",))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_each_layer_is_read_once_a_step_for_all_runs_of_a_pass(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    runs = [
        run_of(cache, "2", "linear", dtype=dtype),
        run_of(cache, "all", "attention_layers", dtype=dtype),
        run_of(cache, "all", "ladder", dtype=dtype),
        run_of(cache, "1,3", "attention_layers", dtype=dtype),
    ]
    reads: Counter[str] = Counter()
    mapped = batches.mapped_tokens

    def counted(split: Any, layer: Layer, *wanted: Any) -> Any:
        reads[f"{split.store.attrs['role']} {layer.name}"] += 1
        return mapped(split, layer, *wanted)

    monkeypatch.setattr(batches, "mapped_tokens", counted)
    rows = train_together(runs, results_dir=tmp_path, device=CPU)
    assert {reads[f"train {layer}"] for layer in (1, 2, 3)} == {12}
    assert len({reads[f"val {layer}"] for layer in (1, 2, 3)}) == 1
    assert [row["layer"] for row in rows] == ["2", "1+2+3", "1+2+3", "1+3"]
    # A layer that another run reads beside it changes no bit of a run of one layer.
    alone = train(runs[0], results_dir=tmp_path / "alone", device=CPU)
    assert scores(alone) == scores(rows[:1])
    assert weights(tmp_path / "alone", runs[0]) == weights(tmp_path, runs[0])


def test_a_fusion_knows_what_no_single_layer_does(cache: Path, tmp_path: Path) -> None:
    runs = [run_of(cache, layer, "attention") for layer in ("2", "3")] + [
        run_of(cache, "all", "attention_layers")
    ]
    runs = [replace(run, recipe=replace(run.recipe, steps=60, minival_every=60)) for run in runs]
    second, third, all_layers = (row["val"] for row in train_together(runs, results_dir=tmp_path, device=CPU))
    assert all_layers > max(second, third) + 0.03


def test_a_killed_run_of_several_layers_goes_on_bit_for_bit(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(cache, "all", "attention_layers")
    whole = scores(train(run, results_dir=tmp_path / "whole", device=CPU))
    from readouts.training import loop

    step, taken = loop.take_step, []

    def killed(*given: Any) -> Any:
        taken.append(1)
        if len(taken) == 9:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path / "killed", device=CPU)
    monkeypatch.setattr(loop, "take_step", step)
    assert scores(train(run, results_dir=tmp_path / "killed", device=CPU)) == whole
    # A read into memory first gives the same numbers.
    kept = train_together([run], results_dir=tmp_path / "kept", device=CPU, preloads=Preloads(CPU, "yes"))
    assert scores(kept) == whole
    # So does one through buffers.
    monkeypatch.setattr(FeatureStore, "read_mapped", lambda *given, **named: None)
    assert scores(train(run, results_dir=tmp_path / "buffers", device=CPU)) == whole


def test_runs_of_other_layers_share_a_pass_only_where_several_are_read(cache: Path) -> None:
    one, two, three = (run_of(cache, layer, "linear") for layer in "123")
    both = run_of(cache, "1,2", "ladder")
    assert in_passes([one, two, one], lambda run: run) == [[one, one], [two]]
    assert in_passes([one, two, three, both], lambda run: run) == [[one, two, both], [three]]
    assert spanning([one, two]).training.layers == (Layer(1), Layer(2))
    assert spanning([two, two]) is two


def test_the_depth_study_has_a_row_of_all_layers(cache: Path, tmp_path: Path) -> None:
    manifest = load_manifest()
    folders = Folders(cache_dir=cache, results_dir=tmp_path, manifest=manifest)
    grids = study_grids(
        "depth", task="flyvsfly", backbone="toy_float16", manifest=manifest, known=["toy_float16"]
    )
    plan = plan_sweep(grids, folders)
    rows = Counter((trial.cell.readout, trial.cell.layer) for trial in plan.trials)
    assert rows == {
        **{(readout, layer): 3 for readout in ("linear", "attention") for layer in "123"},
        ("attention_layers", "1+2+3"): 3,
    }
    joint = next(trial for trial in plan.trials if trial.cell.readout == "attention_layers")
    assert "--layer 1+2+3" in joint.command
    # Whoever chooses readouts has those.
    chosen = study_grids(
        "depth", task="flyvsfly", backbone="toy_float16", manifest=manifest, known=["toy_float16"],
        over=[parse_grid("readout=linear")],
    )  # fmt: skip
    assert [grid["readout"] for grid in chosen] == [("linear",)]
    some = plan_sweep(
        [parse_grid("task=flyvsfly backbone=toy_float16 layer=1+3,2+3 readout=ladder")], folders
    )
    assert [trial.run.training.layer_name for trial in some.trials] == ["1+3", "2+3"]
    assert len(some.passes) == 1
