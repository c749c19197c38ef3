"""The commands that write, each on a folder of its own, and what of their work must be the same each time."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featcache.synthetic import generate
from featcache.system.sealed import KEY
from tests.faults import world
from tests.faults.calls import Call, Calls
from tests.faults.kinds import result_files
from tests.faults.trial import Ended, Note, run
from tests.faults.world import MODEL, RECIPE, TASK, World, copy

SLOW = 90.0
"""Seconds after which a command hangs: a report takes three of a core."""
LOGS = ("runs.jsonl", "failures.jsonl")
LEFT_BEHIND = (".partial", ".lock")
"""Endings of what a killed process leaves, and the next but one sweeps up."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: what it needs, how it is called, what it is to leave."""

    name: str
    call: Callable[[World], Any]
    folders: tuple[str, ...] = ()
    """Folders of the world that are there before."""
    weight: float = 1.0
    """Its share of the failures: less where it takes seconds."""

    def begin(self, undisturbed: World, folder: Path) -> World:
        """A folder in which it can be called."""
        folder.mkdir(parents=True)
        return copy(undisturbed, folder, *self.folders)


def state(root: Path) -> dict[str, Any]:
    """All that a command left below a folder, but for times and what killed processes left behind."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and not path.name.endswith(LEFT_BEHIND) and path.name not in LOGS:
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.name == "last.safetensors":
        from readouts.training.trainer import load_state

        tensors, about = load_state(path)
        return tensors, {name: value for name, value in about.items() if name != "seconds"}
    if path.parent.name == "results.parquet":
        from readouts.results.table import run_rows

        rows = run_rows(path.parents[1], path.stem)
        return [{**row, "command": None} for row in result_files.timeless(rows)]
    if path.name == "certificate.json":
        return _without(json.loads(path.read_bytes()), ("made", "command", KEY))
    if path.name == "bundle.json":
        return _without(json.loads(path.read_bytes()), ("made", "command", KEY))
    if path.name == "sweep.json":
        return _without(json.loads(path.read_bytes()), ("command", KEY))
    if path.suffix == ".html":
        # Seconds, the day and folders are in its text: that it is whole is told by its end.
        return path.read_text().rstrip().endswith("</html>")
    if path.name in ("intervals.json", "baselines.json") or path.parent.name == "token_figures":
        # Under digests of what decides them, times of runs among it, and more of them after a failure.
        return isinstance(json.loads(path.read_bytes()), dict)
    return path.read_bytes()


def _without(node: Any, names: tuple[str, ...]) -> Any:
    if isinstance(node, Mapping):
        return {key: _without(value, names) for key, value in node.items() if key not in names}
    return [_without(one, names) for one in node] if isinstance(node, list) else node


def demo(here: World) -> None:
    """`data demo` of one small set."""
    generate("digital_typhoon", here.root / "generated", profile={"train": 1, "val": 1, "test": 1}, workers=1)


def extract(here: World, folder: str, objects: str, roles: tuple[str, ...], **options: Any) -> None:
    logging.disable(logging.WARNING)
    world.extract(here, folder, objects, roles, **options)


def train_readout(here: World) -> None:
    settings = [word for setting in RECIPE for word in ("--set", setting)]
    world.command(
        here, "train-readout", "--backbone", "small_clips", "--task", TASK, "--readout", "linear,attention",
        *settings, "--test", "--device", "cpu",
    )  # fmt: skip


def tune(here: World, what: str) -> None:
    """Of a model that can be, the two upper blocks or the whole."""
    there = world.of_tuning(here)
    settings = [word for setting in RECIPE for word in ("--set", setting)]
    world.command(
        there, "train-readout", "--backbone", f"{there.root / 'model.py'}:BACKBONE", "--task", TASK,
        "--tune", what, "--layer", "3", "--readout", "linear,attention", *settings, "--device", "cpu",
    )  # fmt: skip


def certify(here: World) -> None:
    settings = [word for one in RECIPE if not one.startswith("steps") for word in ("--set", one)]
    world.command(
        here, "certify", "--backbone", f"{MODEL}:CLIPS", "--task", TASK, "--steps", "3", "--val-clips", "2",
        *settings, "--device", "cpu",
    )  # fmt: skip


def validate(here: World) -> None:
    stores = sorted(map(str, here.features.glob(f"{TASK}/*/small_clips-*.zarr")))
    world.command(here, "validate", *stores)


def seal(here: World) -> None:
    """Of stores of an earlier version."""
    world.command(here, "validate", "--seal", str(here.earlier))


def predict(here: World) -> None:
    """Of a split of a store: videos are in another world."""
    (store,) = here.features.glob(f"{TASK}/val/small_clips-*.zarr")
    run = min(here.results.glob(f"{TASK}/small_clips-*/last.safetensors")).parent
    world.command(
        here, "predict", "--run", str(run), "--store", str(store), "--out", str(here.root / "out.parquet"),
        "--device", "cpu",
    )  # fmt: skip


def export(here: World) -> None:
    """Into a folder of its own, which has to be gone before."""
    shutil.rmtree(here.exported, ignore_errors=True)
    world.command(here, "export", str(here.features), str(here.exported))


def import_(here: World) -> None:
    world.command(here, "import", str(here.bundle), "--cache-dir", str(here.imported))


COMMANDS = (
    Command(name="data demo", call=demo),
    Command(name="extract", call=partial(extract, folder="features", objects="CLIPS", roles=("val",))),
    Command(
        name="extract, frames", call=partial(extract, folder="frames", objects="FRAMES", roles=("train",))
    ),
    Command(
        name="extract, int8",
        call=partial(extract, folder="int8", objects="CLIPS", roles=("val",), dtype="int8"),
    ),
    Command(name="train-readout", call=train_readout, folders=("features",)),
    Command(name="train-readout --tune 2", call=partial(tune, what="2"), folders=("tuned",)),
    Command(name="train-readout --tune all", call=partial(tune, what="all"), folders=("tuned",)),
    Command(name="sweep", call=world.scivid_sweep, folders=("features",)),
    Command(name="certify", call=certify, folders=("features",), weight=0.7),
    Command(name="validate", call=validate, folders=("features",)),
    Command(name="validate --seal", call=seal, folders=("earlier",)),
    Command(name="predict --store", call=predict, folders=("features", "results")),
    Command(name="export", call=export, folders=("features",)),
    Command(name="import", call=import_, folders=("bundle",)),
    Command(name="report", call=world.report, folders=("features", "results"), weight=0.3),
)


def undisturbed(world_: World, command: Command, folder: Path) -> tuple[Ended, list[Call]]:
    """What the command leaves when nothing happens to it, and the calls that it makes."""
    here = command.begin(world_, folder)

    def counted() -> dict[str, Any]:
        calls = Calls.below(here.root, here.data)
        calls.install()
        command.call(here)
        Note.write(list(calls.made))
        return {}

    ended = run(counted, seconds=120)
    assert ended.how == "ok", f"{command.name} fails undisturbed: {ended}"
    after = run(partial(state, here.root), seconds=60)
    shutil.rmtree(folder)
    assert after.how == "ok", after
    return after, ended.facts


def repeated(command: Command, here: World) -> dict[str, Any]:
    """The same command once more, with nothing in its way, and what it leaves."""
    command.call(here)
    return state(here.root)
