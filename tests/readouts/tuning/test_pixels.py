"""Runs that train the whole backbone from pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError, StoreError
from readouts.features.batches import training_batches
from readouts.features.draws import Draws
from readouts.results.table import load_results
from readouts.training.loop import train
from readouts.training.step import TrainState, build_preparation, take_tuned_step
from readouts.training.trainer import load_state
from readouts.training.tuning import FRESH_VIEWS, given_to
from readouts.tuning.wish import Wish

CPU = torch.device("cpu")
ALL = Wish(blocks=None, backbone_lr=0.5)
SHORT = ("steps=4", "minival_every=2", "batch=3")


def test_pixels_are_those_that_the_store_is_of(place: Any) -> None:
    run = place.run(ALL)
    state = TrainState(run, CPU)
    assert state.backbone is not None and run.tuning is not None
    stored = run.training.store
    for role, views in (("train", [0, 1, 1]), ("val", [0, 0, 0])):
        split, feed = run.splits[role], run.feed(role)
        assert feed is not None
        wanted = (np.array([2, 0, 1]), np.array(views), None)
        (batch,) = feed(run.task.select, [wanted], CPU)
        tokens = split.store.read([2, 0, 1], views=views, layer=run.tuning.layer)
        expected = torch.from_numpy(tokens).flatten(2, 3).float()
        found = state.backbone.tokens(given_to(batch))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
        assert batch.targets["labels"].shape == (3, 7)
    assert stored.spec.n_views == 2


def test_every_draw_is_a_view_of_its_own_and_depends_on_the_step_alone(place: Any) -> None:
    draws = place.run(ALL, SHORT).draws
    assert isinstance(draws, Draws) and draws.n_views == FRESH_VIEWS
    views = np.concatenate([draws.at(step)[1] for step in range(50)])
    assert len(set(views.tolist())) == len(views) and views.min() > 2
    again = place.run(ALL, SHORT).draws
    np.testing.assert_array_equal(again.at(31)[1], draws.at(31)[1])
    assert place.run(Wish(blocks=2), SHORT).draws.n_views == 2


def test_a_killed_run_ends_with_the_same_bits_and_says_what_it_is(place: Any, tmp_path: Path) -> None:
    run = place.run(ALL, SHORT)
    rows = train(run, results_dir=tmp_path / "calm", device=CPU)
    for row in rows:
        assert (row["tuned"], row["tuned_blocks"], row["backbone_lr"]) == ("whole", None, 0.5)
        assert (row["exactness"], row["views"], row["layer"]) == ("exact", None, "3")

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, results_dir=tmp_path / "killed", device=CPU, progress=kill)
    train(run, results_dir=tmp_path / "killed", device=CPU)
    first, second = (load_state(run.folder(tmp_path / at).state)[0] for at in ("calm", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    begun = dict(TrainState(run, CPU).learned.named_parameters())
    for part in ("embedding.weight", "positions", "blocks.0.norm1.bias", "blocks.2.down.weight"):
        name = f"backbone.model.{part}"
        assert not torch.equal(first[f"weight/{name}"], begun[name].detach()), name
    assert not any("blocks.3" in name for name in first)


def test_some_clips_at_a_time_give_the_same_numbers(place: Any) -> None:
    found = []
    for wish in (ALL, replace(ALL, micro_batch=2)):
        run = place.run(wish, (*SHORT, "dropout=0.5"))
        state, prepare = TrainState(run, CPU), build_preparation(run)
        batches = training_batches(
            run.training, run.task.select, run.draws, range(3), CPU, feed=run.feed("train")
        )
        losses = [take_tuned_step(state, given_to(one), prepare, one.targets) for one in batches]
        found.append((losses, [p.detach() for p in state.learned.parameters()]))
    (whole, after), (parts, others) = found
    for step, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)
    for p, expected_p in zip(others, after, strict=True):
        torch.testing.assert_close(p, expected_p, rtol=1e-3, atol=2e-4)


def test_the_command_tells_the_cost_first_and_repeats_itself(place: Any, tmp_path: Path) -> None:
    settings = [word for setting in SHORT for word in ("--set", setting)]
    words = [
        "train-readout", "--backbone", place.backbone, "--task", "flyvsfly", "--readout", "linear",
        "--tune", "all", *settings, "--data-dir", place.data, "--cache-dir", place.cache,
        "--results-dir", tmp_path,
    ]  # fmt: skip
    code, said = place.scivid(*words)
    assert code == 0, said
    assert "note: --tune all decodes 3 clips and runs small up to layer 3 at each of 4 steps, about" in said
    (row,) = load_results(tmp_path)
    code, said = place.scivid(*row["command"].split()[1:])
    assert code == 0 and "nothing computed" in said


def test_what_is_not_there_is_told(place: Any, tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"--set train_views: --tune all shows each clip in a new view"):
        place.run(ALL, (*SHORT, "train_views=1"))
    with pytest.raises(StoreError, match=r"needs a store of layer 3, of which the clips and targets are"):
        place.run(ALL, SHORT, cache_dir=tmp_path)
