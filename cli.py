"""`scivid`: the command line, thin.

It reads options, calls the library, shows progress, and turns errors into one message and an exit code:
0 done, 1 the work failed, 2 the call was wrong. Heavy imports stand inside the commands, so that
`scivid --help` answers at once.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from featcache.errors import CallError, ScividError, StoreError
from featcache.progress import reporter
from featcache.terminal import command_line, show_table

# Before torch is loaded: its OpenMP threads would otherwise spin between kernels and starve the threads
# that decode and read ahead (a readout's 200 steps took 33 s instead of 5 on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from featcache.manifest import Manifest


class _Commands(TyperGroup):
    """Turns the errors a user should read into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ScividError, OSError) as problem:
            if ctx.params.get("debug"):
                raise
            message = (
                str(problem)
                if isinstance(problem, ScividError)
                else ": ".join(map(str, filter(None, (problem.strerror, problem.filename))))
            )
            typer.echo(f"scivid: {message}", err=True)
            raise typer.Exit(getattr(problem, "exit_code", 1)) from None


app = typer.Typer(
    cls=_Commands,
    help="Run a frozen video model once, then train SciVid readouts from its cached tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(
    help="Where the data are, what is missing, and a miniature to try.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)

BackboneOption = Annotated[
    str, typer.Option(help="A name of `scivid list backbones`, or my_model.py:BACKBONE.")
]
TaskOption = Annotated[str, typer.Option(help="A name of `scivid list tasks`.")]
DataDir = Annotated[
    Path, typer.Option(envvar="SCIVID_DATA_DIR", help="The data, laid out as the official bucket.")
]
CacheDir = Annotated[Path, typer.Option(envvar="SCIVID_CACHE_DIR", help="Where feature stores are.")]
WeightsDir = Annotated[
    Path | None,
    typer.Option(envvar="SCIVID_WEIGHTS_DIR", help="Weights, a folder a backbone; else the hub's cache."),
]
ResultsDir = Annotated[Path, typer.Option(envvar="SCIVID_RESULTS_DIR", help="Where results are.")]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", help="A manifest of your own, laid over data_manifest.yaml.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]

DATA_DIR, CACHE_DIR, RESULTS_DIR = Path("~/data/scivid"), Path("features"), Path("results")


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Options that go for every command; `_Commands` reads them."""
    if context.invoked_subcommand == "extract":
        from featcache.device import return_freed_buffers

        return_freed_buffers()


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="backbones, tasks, readouts or stores")] = "tasks",
    weights_dir: WeightsDir = None,
    cache_dir: CacheDir = CACHE_DIR,
    manifest: ManifestFile = None,
) -> None:
    """What there is: backbones, tasks, readouts, or the stores on disk."""
    from featcache import listings as known

    listings: dict[str, Callable[[], list[dict[str, object]]]] = {
        "backbones": lambda: known.backbone_rows(weights_dir),
        "tasks": lambda: known.task_rows(_manifest(manifest)),
        "readouts": _readout_rows,
        "stores": lambda: known.store_rows(cache_dir),
    }
    if what not in listings:
        raise CallError(f"scivid list {what}: there are lists of {', '.join(listings)}.")
    _show(listings[what](), empty=f"no {what} yet")


@data_app.command("status")
def data_status(
    data_dir: DataDir = DATA_DIR,
    manifest: ManifestFile = None,
) -> None:
    """Which splits are on disk, whether they are complete, and where the missing ones come from."""
    from featcache.listings import data_rows

    console.print(f"data folder {data_dir.expanduser()} (SCIVID_DATA_DIR or --data-dir)", markup=False)
    _show(data_rows(_manifest(manifest), data_dir.expanduser()), empty="no data sets")


@data_app.command("download")
def data_download(
    weights: Annotated[str, typer.Option(help="A name of `scivid list backbones`.")],
    weights_dir: WeightsDir = None,
) -> None:
    """Fetch a backbone's weights from their authors. Goes on where an earlier call stopped."""
    from featcache.download import download_weights

    with reporter(console) as progress:
        paths = download_weights(weights, weights_dir, progress=progress, say=console.out)
    for path in paths:
        console.print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB", markup=False)


@data_app.command("demo")
def data_demo(
    data_dir: Annotated[Path, typer.Option(envvar="SCIVID_DATA_DIR")] = Path("demo/data"),
    profile: Annotated[str, typer.Option(help="demo or tiny")] = "demo",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write a miniature SciVid in the official layout; its labels depend on what moves."""
    from featcache import synthetic

    for name in synthetic.DATASETS:
        with reporter(console) as progress:
            made = synthetic.generate(
                name, data_dir, profile=profile, seed=seed, progress=progress.of(f"generating {name}")
            )
        what = f"{made.n_written} files written" if made.n_written else "there already"
        console.print(f"{name}: {what}, {made.n_bytes / 1e6:,.1f} MB below {data_dir}", markup=False)


@app.command()
def extract(
    backbone: BackboneOption,
    task: TaskOption,
    split: Annotated[str, typer.Option(help="train, val, test, some of them with commas, or all.")] = "all",
    layers: Annotated[
        str, typer.Option(help="Depth fractions (0.1,0.95), block numbers (11), 12_normed.")
    ] = "default",
    views: Annotated[
        int, typer.Option(min=1, help="Frozen views of a training clip; view 0 is the evaluation view.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random views.")] = 0,
    shuffle_frames: Annotated[
        bool, typer.Option(help="Shuffle each clip's frames: does time matter?")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clip views in one pass; 8 on a CPU, 32 on a GPU.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16; auto: bfloat16 on a GPU.")] = "auto",
    device: Device = "auto",
    decode_threads: Annotated[int, typer.Option(min=1, help="Threads that decode ahead of the model.")] = 4,
    shard_mb: Annotated[int, typer.Option(min=1, help="MiB a shard: the most that a crash can lose.")] = 256,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave broken records out and list them in the store.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """Stage one: run a frozen backbone once and keep its tokens. Goes on where an earlier run stopped."""
    from featcache.backbones import load_backbone
    from featcache.backbones.base import resolve_layers
    from featcache.device import choose_device, choose_precision
    from featcache.extract import Machine
    from featcache.extract import extract as run
    from featcache.job import plan_extraction, split_roles

    known = _manifest(manifest)
    frozen = load_backbone(backbone, weights_dir)
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen)
    machine = Machine(
        device=chosen,
        batch=batch or (32 if chosen.type == "cuda" else 8),
        decode_threads=decode_threads,
        shard_bytes=shard_mb * 2**20,
    )
    for role in split_roles(known, task, split):
        job = plan_extraction(
            known,
            task=task,
            role=role,
            backbone=frozen,
            layers=resolve_layers(layers, frozen.info),
            n_views=views,
            seed=seed,
            dtype=dtype,
            shuffle_frames=shuffle_frames,
        )
        with reporter(console) as progress:
            store = run(
                job,
                machine,
                data_dir=data_dir.expanduser(),
                cache_dir=cache_dir,
                skip_bad=skip_bad,
                progress=progress,
            )
        size = f"{store.spec.n_clips} clips, {store.spec.payload_bytes / 1e6:,.1f} MB"
        console.print(f"{store.path}  ({size})", markup=False)
        left_out = [*store.provenance["skipped_records"], *store.provenance["skipped_clips"]]
        if left_out:
            console.print(
                f"left out: {len(left_out)}, for example {left_out[0]['id']}: {left_out[0]['reason']}"
            )


@app.command()
def validate(
    store: Annotated[list[Path], typer.Argument(help="Stores, as `scivid list stores` shows them.")],
) -> None:
    """Is a store what it claims to be: complete, checksums right, values finite."""
    _refuse(_broken(store), len(store))


def _broken(stores: list[Path]) -> int:
    """Checks each and says what was found; how many are not what they claim to be."""
    from featcache.validate import validate as check

    bad = 0
    for path in stores:
        with reporter(console) as progress:
            found = check(path, progress=progress.of(f"checking {path.name}"))
        for line in (*found.problems, *(f"note: {note}" for note in found.notes)):
            console.print(line, markup=False)
        verdict = "complete, checksums right, all finite" if found.ok else f"{len(found.problems)} problems"
        size = f"{found.n_chunks} chunks, {found.n_bytes / 1e6:,.1f} MB"
        console.print(f"{path}: {verdict} ({size})", markup=False)
        bad += not found.ok
    return bad


def _refuse(n_broken: int, of: int) -> None:
    if n_broken:
        raise StoreError(f"{n_broken} of {of} stores are not what they claim to be, see above.")


@app.command("train-readout")
def train_readout(
    backbone: Annotated[str, typer.Option(help="Whose stores to read, as `scivid list stores` shows them.")],
    task: TaskOption,
    readout: Annotated[str | None, typer.Option(help="One of the task's, or several with commas.")] = None,
    layer: Annotated[str | None, typer.Option(help="Which layer, where a store holds several.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Of the train store, first digits.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting such as lr=1e-4.")] = None,
    test: Annotated[bool, typer.Option(help="Score the test split too, once, at the end.")] = False,
    device: Device = "auto",
    again: Annotated[bool, typer.Option(help="Train anew although this run is in the table.")] = False,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
    manifest: ManifestFile = None,
) -> None:
    """Stage two: train readouts from the cache and score them. Goes on where an earlier run stopped."""
    from featcache.backbones import store_name
    from featcache.device import choose_device
    from readouts.features import open_task_splits
    from readouts.tasks import load_task
    from readouts.train import configure, train

    loaded = load_task(task, _manifest(manifest))
    backbone = store_name(backbone)
    splits = open_task_splits(
        cache_dir,
        loaded.name,
        backbone,
        layer=layer,
        fingerprint=fingerprint,
        roles=("train", "val", *(["test"] * test)),
    )
    command = command_line(
        "train-readout",
        backbone=backbone,
        task=task,
        readout=readout,
        layer=splits["train"].layer.name,
        fingerprint=splits["train"].store.fingerprint[:12],
        seed=seed,
        set=set_,
        test=test,
        cache_dir=cache_dir,
        results_dir=results_dir,
        manifest=manifest,
    )
    run = configure(
        loaded, splits, readouts=readout.split(",") if readout else None, settings=set_ or [], seed=seed
    )
    with reporter(console) as progress:
        rows = train(
            run,
            results_dir=results_dir,
            device=choose_device(device),
            again=again,
            command=command,
            progress=progress,
        )
    for row in rows:
        scores = ", ".join(f"{role} {row[role]:.4f}" for role in ("val", "test") if row[role] is not None)
        console.print(f"{row['task']} {row['backbone']} {row['readout']}: {row['metric']} {scores}")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    results_dir: ResultsDir = RESULTS_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    manifest: ManifestFile = None,
) -> None:
    """One self-contained page: results beside the published ones, curves, clips, tokens as pictures."""
    from readouts.report import write_report

    write_report(out, results_dir=results_dir, cache_dir=cache_dir, manifest=_manifest(manifest))
    console.print(f"report: {out.resolve()} (open it in a browser)", markup=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Everything goes below this folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """All of it on generated data, in minutes on two cores: data, features, readouts, table, report."""
    from featcache.store import find_stores
    from readouts.demo import DEMO

    data_dir, cache_dir, results_dir = folder / "data", folder / "features", folder / "results"
    data_demo(data_dir=data_dir, profile="demo", seed=seed)
    for task, (backbones, recipe) in DEMO.items():
        for backbone in backbones:
            extract(backbone=backbone, task=task, data_dir=data_dir, cache_dir=cache_dir)
            train_readout(
                backbone=backbone,
                task=task,
                seed=seed,
                set_=recipe,
                test=True,
                cache_dir=cache_dir,
                results_dir=results_dir,
            )
    stores = [store.path for store in find_stores(cache_dir)]
    n_broken = _broken(stores)
    _show_comparison(results_dir, cache_dir)
    report(out=folder / "report.html", results_dir=results_dir, cache_dir=cache_dir)
    _refuse(n_broken, len(stores))


def _manifest(extra: Path | None) -> "Manifest":
    from featcache.manifest import load_manifest

    return load_manifest(extra)


def _readout_rows() -> list[dict[str, object]]:
    from readouts.heads import HEADS

    return [{"readout": name, "class": head.__name__} for name, head in HEADS.items()]


def _show(rows: list[dict[str, object]], *, empty: str) -> None:
    show_table(console, rows, empty=empty)


def _show_comparison(results_dir: Path, cache_dir: Path, manifest: Path | None = None) -> None:
    from readouts.report import comparison

    for title, rows in comparison(results_dir, cache_dir, _manifest(manifest)):
        console.print(f"\n[bold]{title}[/bold]")
        _show(rows, empty="no results")


if __name__ == "__main__":
    app()
