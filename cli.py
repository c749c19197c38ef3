"""`scivid`: the command line, thin.

It reads options, calls the library, shows progress, and turns errors into one message and an exit code:
0 done, 1 the work failed, 2 the call was wrong. Heavy imports stand inside the commands, so that
`scivid --help` answers at once.
"""

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from featcache.buckets.path import BucketPath, place
from featcache.errors import CallError, DataError, StoreError, TrainingError
from featcache.spec import SHUFFLED
from featcache.system.console import (
    command_line,
    extract_command,
    flush_output,
    is_standard_output,
    prepare_output,
    reporter,
    show_table,
)
from featcache.system.ending import ending_of, stops_raised
from featcache.system.versions import version_of

# Before torch is loaded: its OpenMP threads would otherwise spin between kernels and starve the threads
# that decode and read ahead (a readout's 200 steps took 33 s instead of 5 on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    import torch

    from featcache.extract.job import Extraction
    from featcache.manifest import Manifest
    from featcache.store.feature_store import FeatureStore
    from featcache.system.cluster.client import Cluster, Where
    from readouts.certify.certificate import Certificate
    from readouts.sweeps.grid import Grid
    from readouts.sweeps.plan import Folders, Plan
    from readouts.sweeps.run import Outcome
    from readouts.training.run import Run


F = TypeVar("F", bound=Callable[..., Any])


class _Commands(TyperGroup):
    """Turns the errors a user should read into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        prepare_output()
        try:
            with stops_raised():
                done = super().invoke(ctx)
                flush_output()
        except (Exception, KeyboardInterrupt) as problem:
            ending = ending_of(problem)
            if ending is None or ctx.params.get("debug"):
                raise
            message, code = ending
            with suppress(OSError):
                typer.echo(f"scivid: {message}" if message else "", err=True, nl=bool(message))
            raise typer.Exit(code) from None
        return done


class _Console(Console):
    """One that leaves to `_Commands` what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise


class _Command(TyperCommand):
    """Takes `~` for the home folder in every path, as no shell does after `=`, and URLs for buckets."""

    def invoke(self, ctx: Any) -> Any:
        ctx.params = {name: _at_home(name, value) for name, value in ctx.params.items()}
        return super().invoke(ctx)


def _at_home(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_at_home(name, one) for one in value)
    # A backbone or a task may be an object in a file of the user's own.
    if not (isinstance(value, Path) or (isinstance(value, str) and name in ("backbone", "task", "weights"))):
        return value
    home = os.path.expanduser(value)  # noqa: PTH111 (text may be a name instead of a path)
    if home.startswith("~"):
        user = home.split("/")[0]
        raise CallError(f"{value}: there is no home folder {user}. Write ./{value} for a name that has a ~.")
    found = place(Path(home)) if isinstance(value, Path) else home
    if isinstance(found, BucketPath) and name not in MAY_BE_IN_A_BUCKET:
        option = f"--{name.replace('_', '-')}"
        raise CallError(
            f"{option} {found}: stores, data and weights may be in a bucket, this has to be local. If it is "
            f"to be read, copy it first: aws s3 sync {found} ./{found.name}"
        )
    return found


class _App(typer.Typer):
    """Whose commands are such."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        return super().command(name, cls=_Command, **options)


app = _App(
    cls=_Commands,
    help="Run a frozen video model once, then train SciVid readouts from its cached tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose panels cut the names of options on narrow terminals
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = _App(help="Where the data are, what is missing, and a miniature to try.", no_args_is_help=True)
app.add_typer(data_app, name="data")
console = _Console(
    highlight=False, soft_wrap=True, width=None if os.isatty(1) or "COLUMNS" in os.environ else 240
)

BackboneOption = Annotated[
    str, typer.Option(help="Of `scivid list backbones`, NAME@WEIGHTS, hf:ORG/NAME, or my_model.py:BACKBONE.")
]
TaskOption = Annotated[str, typer.Option(help="A name of `scivid list tasks`.")]
DataDir = Annotated[
    Path,
    typer.Option(envvar="SCIVID_DATA_DIR", help="The data, laid out as the official bucket; may be s3://..."),
]
CacheDir = Annotated[
    Path,
    typer.Option(
        envvar="SCIVID_CACHE_DIR", help="Where feature stores are: a folder, or s3://bucket/features."
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SCIVID_WEIGHTS_DIR",
        help="Weights, a folder a backbone; may be s3://... Else the hub's.",
    ),
]
ResultsDir = Annotated[Path, typer.Option(envvar="SCIVID_RESULTS_DIR", help="Where results are.")]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", help="A manifest of your own, laid over data_manifest.yaml.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]

Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Of Dask, tcp://host:8786: its workers, with a GPU each, do the work; --device cpu: without."
    ),
]
LocalWorkers = Annotated[
    int | None, typer.Option(min=1, help="Work in so many processes here, with a GPU each if there are any.")
]

MAY_BE_IN_A_BUCKET = ("cache_dir", "store", "data_dir", "weights_dir")
"""Parameters of commands, other than which take local folders only."""

DATA_DIR, CACHE_DIR, RESULTS_DIR = Path("~/data/scivid"), Path("features"), Path("results")


SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as lr=1e-4; `scivid list settings --task ...` has all of them."),
]


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"scivid {version_of('scivid')}")
        raise typer.Exit()


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which and leave.")
    ] = False,
) -> None:
    """Options that go for every command; `_Commands` reads them."""
    if context.invoked_subcommand in ("extract", "predict"):
        from featcache.system.device import return_freed_buffers

        return_freed_buffers()


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="backbones, tasks, readouts, settings, stores, runs or results")
    ] = "tasks",
    task: Annotated[str | None, typer.Option(help="Whose settings, stores, runs or results.")] = None,
    weights_dir: WeightsDir = None,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
    manifest: ManifestFile = None,
) -> None:
    """What there is: backbones, tasks, readouts, their settings; stores, runs, and results side by side."""
    from featcache import listings as known

    listings: dict[str, Callable[[], list[dict[str, object]]]] = {
        "backbones": lambda: known.backbone_rows(weights_dir, _manifest(manifest)),
        "tasks": lambda: known.task_rows(_manifest(manifest)),
        "readouts": lambda: _readout_rows(_manifest(manifest)),
        "settings": lambda: _setting_rows(task, _manifest(manifest)),
        "stores": lambda: _below(cache_dir, known.store_rows(cache_dir, task)),
        "runs": lambda: _run_rows(results_dir, task),
    }
    if what == "results":
        _show_results(results_dir, cache_dir, _manifest(manifest), task)
        return
    if what not in listings:
        raise CallError(f"scivid list {what}: there are lists of {', '.join([*listings, 'results'])}.")
    show_table(console, listings[what](), empty=f"no {what} yet")


@data_app.command("status")
def data_status(
    task: Annotated[str | None, typer.Option(help="Whose data; else all, a manifest's own first.")] = None,
    data_dir: DataDir = DATA_DIR,
    manifest: ManifestFile = None,
) -> None:
    """Which splits are on disk, whether they are complete, and where the missing ones come from."""
    from featcache.listings import data_rows

    console.print(f"data folder {data_dir} (SCIVID_DATA_DIR or --data-dir)", markup=False)
    rows, lines = data_rows(_manifest(manifest), data_dir, task)
    show_table(console, rows, empty="no data sets")
    for line in lines:
        console.print(line, markup=False)


@data_app.command("download")
def data_download(
    weights: Annotated[str, typer.Option(help="A name of `scivid list backbones`.")],
    weights_dir: WeightsDir = None,
) -> None:
    """Fetch a backbone's weights from their authors. Goes on where an earlier call stopped."""
    from featcache.backbones.download import download_weights

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
    console.print(f"next: export SCIVID_DATA_DIR={data_dir}", markup=False)


@data_app.command("init")
def data_init(
    folder: Annotated[Path, typer.Argument(help="A folder of videos or fields, at any depth.")],
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="A label file or a folder of them; else those in FOLDER, or its folders as classes."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Look again at FOLDER/scivid.yaml after it was edited.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the task; else the folder's.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 16,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Source frames from one to the next; else about a second a clip."),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Source frames from clip to clip; else clips do not overlap.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Of a clip that a label must cover; else its middle frame counts.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Whose labels count; else those of all.")] = None,
    observation: Annotated[
        list[str] | None, typer.Option(help="BORIS: which of several of one video.")
    ] = None,
    modifiers: Annotated[
        bool, typer.Option(help="BORIS: a class of each behaviour and modifier: groom (head).")
    ] = False,
    channel: Annotated[str | None, typer.Option(help="MARS, Bento, CalMS21: which annotator.")] = None,
    tier: Annotated[list[str] | None, typer.Option(help="ELAN: a tier that holds labels.")] = None,
    tier_is: Annotated[
        str, typer.Option(help="ELAN: subject, or class: the tier's name is the label.")
    ] = "subject",
    unclosed: Annotated[
        str, typer.Option(help="A state without a stop: unknown, or end with the video.")
    ] = "unknown",
    uncoded: Annotated[
        str, typer.Option(help="A video without an event: unknown, or nothing happened.")
    ] = "unknown",
    unit: Annotated[
        str | None, typer.Option(help="seconds, frames or milliseconds, where a file does not tell.")
    ] = None,
    first_frame: Annotated[
        int | None, typer.Option(min=0, max=1, help="Its number, where a file does not tell.")
    ] = None,
    last_frame: Annotated[
        str | None, typer.Option(help="in or out of its bout, where a file does not tell.")
    ] = None,
    video: Annotated[str | None, typer.Option(help="Of a label file that names none.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Of a table of values, where several hold numbers.")
    ] = None,
    value_unit: Annotated[
        str | None, typer.Option(help="Of a table's values, where its heading does not tell.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="Of fields: which, and at which level: z=500. One or three.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Of a tracked point, from which on it is seen.")
    ] = 0.6,
    leave_out: Annotated[bool, typer.Option(help="Go on without what is asked or refused.")] = False,
) -> None:
    """Look at videos and their labels, or at fields, say what is there, and write a manifest to edit."""
    from featcache.data.labels import choices_of, told
    from featcache.data.own_fields import find_containers, set_up_fields
    from featcache.data.own_videos import Wishes, set_up
    from featcache.data.own_videos import check as check_again

    if check:
        with reporter(console) as progress:
            rows, lines = check_again(folder, progress=progress.of("measuring videos"))
        show_table(console, rows, empty="no clip list")
        for line in lines:
            console.print(line, markup=False)
        return
    choices = choices_of(
        observations=tuple(observation or ()),
        modifiers=modifiers,
        channel=channel,
        tiers=tuple(tier or ()),
        tier_is=tier_is,
        unclosed=unclosed,
        uncoded=uncoded,
        unit=unit,
        first_frame=first_frame,
        last_included=last_frame,
        video=video,
        column=column,
        value_unit=value_unit,
        confidence=confidence,
    )
    wishes = Wishes(
        name=name,
        n_frames=frames,
        stride=stride,
        every=every,
        share=share,
        subject=subject,
        leave_out=leave_out,
    )
    with reporter(console) as progress:
        fields = [] if labels else find_containers(folder)
        if fields:
            reading = progress.of("reading the fields of train")
            made = set_up_fields(folder, fields, variable or [], wishes, progress=reading)
        else:
            made = set_up(folder, labels or [], choices, wishes, progress=progress.of("measuring videos"))
    for line in (*made.found, *told(made.remarks)):
        console.print(line, markup=False)
    show_table(console, made.rows, empty="no classes")
    for line in made.assumed:
        console.print(line, markup=False)
    again = extract_command("videomae_b", made.name, manifest=made.manifest, data_dir=folder)
    console.print(f"written: {made.manifest}. Look at it, then: {again}", markup=False)


@app.command()
def extract(
    backbone: BackboneOption,
    task: TaskOption,
    weights: Annotated[
        str | None,
        typer.Option(help="Your own for this architecture: a file, a folder, ORG/NAME in the hub's cache."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test, some of them with commas, or all.")] = "all",
    layers: Annotated[
        str, typer.Option(help="Depth fractions (0.1,0.95), blocks (11), 12_normed, or levels.")
    ] = "default",
    views: Annotated[
        int, typer.Option(min=1, help="Frozen views of a training clip; view 0 is the evaluation view.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random views.")] = 0,
    shuffle_frames: Annotated[
        bool, typer.Option(help="Shuffle each clip's frames: does time matter?")
    ] = False,
    corruption: Annotated[
        str | None,
        typer.Option(help="Of clips to be scored: blur:2, blur, several with commas, or all; a store each."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clip views in one pass; 8 on a CPU, by memory on a GPU.")
    ] = None,
    store_dtype: Annotated[str, typer.Option(help="float16, or int8 with a scale a token.")] = "float16",
    precision: Annotated[str, typer.Option(help="float32, bfloat16; auto: bfloat16 on a GPU.")] = "auto",
    device: Device = "auto",
    attention_kernel: Annotated[
        str | None,
        typer.Option(help="torch, flash, cudnn, efficient or math; a store keeps that of its first run."),
    ] = None,
    decode_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode ahead; left out: by the cores there are.")
    ] = None,
    shard_mb: Annotated[int, typer.Option(min=1, help="MiB a shard: the most that a crash can lose.")] = 256,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave broken records out and list them in the store.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Begin although the disk would not hold all of it.")] = False,
    shards: Annotated[
        str | None,
        typer.Option(help="Only a part, as 3/8, beside other workers; auto: this SLURM task's or rank's."),
    ] = None,
    scheduler: Scheduler = None,
    local_workers: LocalWorkers = None,
    data_dir: DataDir = DATA_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """Stage one: run a frozen backbone once and keep its tokens. Goes on where an earlier run stopped."""
    from featcache.extract.run import Machine, extract_all
    from featcache.extract.workers.claims import Owner
    from featcache.extract.workers.parts import part_named
    from featcache.extract.workers.shards import extract_parts
    from featcache.system.device import choose_attention_kernel, gpu_of_rank

    backbone = backbone if weights is None else f"{backbone}@{weights}"
    part = None if shards is None else part_named(shards, os.environ)
    if (where := _where(scheduler, local_workers)) is not None and part is not None:
        raise CallError("--shards is for workers that are begun by themselves: leave it out.")
    chosen = _device(device, where)
    jobs = _jobs(
        backbone, task, split, layers, views, seed, shuffle_frames, store_dtype, precision, chosen,
        weights_dir, _manifest(manifest), corruption,
    )  # fmt: skip
    machine = Machine(
        device=chosen if part is None else gpu_of_rank(chosen, os.environ),
        batch=batch,
        attention_kernel=None if attention_kernel is None else choose_attention_kernel(attention_kernel),
        decode_threads=decode_threads,
        shard_bytes=shard_mb * 2**20,
    )
    options: dict[str, Any] = {
        "data_dir": data_dir,
        "cache_dir": cache_dir,
        "skip_bad": skip_bad,
        "force": force,
        "say": lambda line: console.print(line, markup=False),
    }
    with reporter(console) as progress:
        options["progress"] = progress
        if where is not None:
            from featcache.extract.workers.remote import Source, extract_on_workers

            source = Source.of(
                backbone, data_dir=options.pop("data_dir"), cache_dir=options.pop("cache_dir"),
                weights_dir=weights_dir, manifest_file=manifest,
            )  # fmt: skip
            with _workers(where, chosen, cache_dir, data_dir) as cluster:
                for store in extract_on_workers(jobs, machine, cluster, source, **options):
                    _tell_of(store)
            return
        if part is None:
            for store in extract_all(jobs, machine, **options):
                _tell_of(store)
            return
        owner = Owner.this_process(os.environ)
        for done in extract_parts(jobs, machine, part, owner, **options):
            console.print(str(done), markup=False)
            if done.store is not None:
                _tell_of(done.store)


def _tell_of(store: "FeatureStore") -> None:
    """Where a store is, how large, and what it lacks."""
    of_frames = "" if store.spec.n_frames is None else f" of {store.spec.n_frames} distinct frames"
    size = f"{store.spec.n_clips} clips{of_frames}, {store.spec.payload_bytes / 1e6:,.1f} MB"
    console.print(f"{store.path}  ({size})", markup=False)
    if skipped := [*store.provenance["skipped_records"], *store.provenance["skipped_clips"]]:
        example = f"{skipped[0]['id']}: {skipped[0]['reason']}"
        console.print(f"left out: {len(skipped)}, for example {example}", markup=False)


def _jobs(
    backbone: str,
    task: str,
    split: str,
    layers: str,
    views: int,
    seed: int,
    shuffle_frames: bool,
    store_dtype: str,
    precision: str,
    device: "torch.device",
    weights_dir: Path | None,
    manifest: "Manifest",
    corruption: str | None = None,
) -> "list[Extraction]":
    """An extraction for every split that is asked for, and every corruption of its clips."""
    from featcache.backbones import load_backbone
    from featcache.backbones.base import resolve_layers
    from featcache.extract.job import plan_extraction, split_roles
    from featcache.spec import Corruption, parse_corruptions
    from featcache.store.spec import TokenDtype
    from featcache.system.device import choose_precision

    dtypes: dict[str, TokenDtype] = {name: name for name in get_args(TokenDtype)}
    if store_dtype not in dtypes:
        raise CallError(f"--store-dtype {store_dtype}: one of {', '.join(dtypes)}.")
    frozen = load_backbone(backbone, weights_dir)
    corruptions: list[Corruption | None] = [None] if corruption is None else [*parse_corruptions(corruption)]
    roles = split_roles(manifest, task, split)
    if corruption is not None and split == "all":
        roles = [role for role in roles if role != "train"]  # readouts learn from clips as filmed
    return [
        plan_extraction(
            manifest,
            task=task,
            role=role,
            backbone=frozen,
            layers=resolve_layers(layers, frozen.info),
            n_views=views,
            seed=seed,
            dtype=choose_precision(precision, device),
            shuffle_frames=shuffle_frames,
            store_dtype=dtypes[store_dtype],
            corruption=one,
        )
        for role in roles
        for one in corruptions
    ]


@app.command()
def plan(
    backbone: BackboneOption,
    task: TaskOption,
    split: Annotated[str, typer.Option(help="train, val, test, some of them with commas, or all.")] = "all",
    layers: Annotated[str, typer.Option(help="As for extract.")] = "default",
    views: Annotated[int, typer.Option(min=1, help="As for extract.")] = 1,
    store_dtype: Annotated[str, typer.Option(help="As for extract.")] = "float16",
    shard_mb: Annotated[int, typer.Option(min=1, help="As for extract.")] = 256,
    tune: Annotated[
        str | None,
        typer.Option(metavar="M|all", help="What train-readout --tune costs, at --layers, and its store."),
    ] = None,
    clips: Annotated[
        list[str] | None, typer.Option(help="role=number, where neither data nor manifest know it.")
    ] = None,
    tflops: Annotated[
        float, typer.Option(help="10^12 operations a second, sustained: an assumption, not measured.")
    ] = 200.0,
    clips_per_second: Annotated[
        float | None, typer.Option(help="Measured for this backbone; goes before --tflops.")
    ] = None,
    steps_per_second: Annotated[float, typer.Option(help="Of a readout: an assumption.")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, help="Devices that extract side by side.")] = 1,
    bucket: Annotated[
        bool, typer.Option(help="The cache is in an object store: tell objects, requests and bytes out.")
    ] = False,
    read_mb_s: Annotated[
        float | None, typer.Option(help="MB a second that one process reads of the cache, as measured.")
    ] = None,
    data_dir: DataDir = DATA_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """What an extraction will cost: bytes, hours, read rate, and after how many readouts it pays."""
    from featcache.extract.at_scale import Site, remarks
    from featcache.extract.plan import Speed, Training, clip_numbers, count_clips, make_plan
    from readouts.tasks import load_task
    from readouts.tuning.backbone import begins_at, layer_seen, load
    from readouts.tuning.cost import TuningCost
    from readouts.tuning.wish import parse_wish

    known, site = _manifest(manifest), Site(workers=workers, bucket=bucket, read_mb_s=read_mb_s)
    recipe, tuning = load_task(task, known).recipe, list[str]()
    if (wish := parse_wish(tune)) is not None:
        tuned = load(backbone, weights_dir)
        seen = layer_seen(tuned, None if layers == "default" else layers)
        layers = begins_at(tuned, wish, seen).name
        cost = TuningCost(info=tuned.info, layer=seen, wish=wish, recipe=recipe, tflops=tflops)
        tuning = cost.sentences()
    jobs = _jobs(
        backbone, task, split, layers, views, 0, False, store_dtype, "auto", _device("auto"), weights_dir,
        known,
    )  # fmt: skip
    given = clip_numbers(clips or [], [job.role for job in jobs])
    counts = {job.role: given[job.role] if job.role in given else count_clips(job, data_dir) for job in jobs}
    found = make_plan(
        jobs,
        counts,
        speed=Speed(tflops=tflops, clips_per_second=clips_per_second),
        training=Training(steps=recipe.steps, batch=recipe.batch, steps_per_second=steps_per_second),
        shard_bytes=shard_mb * 2**20,
    )
    show_table(console, found.rows(), empty="no splits")
    for line in (*found.sentences(), *remarks(found, site), *tuning):
        console.print(line, markup=False)


@app.command()
def validate(
    store: Annotated[list[Path], typer.Argument(help="Stores, targets, or folders of them.")],
    seal: Annotated[
        bool, typer.Option(help="Add the digests that stores of an earlier version lack, where all is right.")
    ] = False,
    golden: Annotated[
        str | None, typer.Option(help="A bundle: hold the tokens of its clips against yours, too.")
    ] = None,
) -> None:
    """Is a store what it claims to be: complete, the shards that were written, values finite."""
    from featcache.store.validation.caches import named

    paths = named(store)
    _refuse(_broken(paths, seal=seal), len(paths))
    if golden is not None:
        from featcache.sharing.golden import compare, golden_for
        from featcache.sharing.sources import read_bundle
        from featcache.store.feature_store import open_features

        bundle = read_bundle(golden)
        for opened in (open_features(path) for path in paths if not path.name.startswith("targets-")):
            console.print(f"{opened.path}: {compare(opened, golden_for(opened, bundle))}", markup=False)


def _broken(paths: list[Path], *, seal: bool = False) -> int:
    """Checks each and says what was found; how many are not what they claim to be."""
    from featcache.store.validation.caches import seal_any, validate_any

    bad = 0
    for path in paths:
        with reporter(console) as progress:
            say = progress.of(f"checking {path.name}")
            found, sealed = seal_any(path, say) if seal else (validate_any(path, say), False)
        for line in (*found.problems, *(f"note: {note}" for note in found.notes if not sealed)):
            console.print(line, markup=False)
        if found.way_out:
            console.print(found.way_out, markup=False)
        verdict = "complete, checksums right, all finite" if found.ok else f"{len(found.problems)} problems"
        size = f"{found.n_chunks} chunks, {found.n_bytes / 1e6:,.1f} MB"
        console.print(f"{path}: {verdict} ({size}){'; sealed now' if sealed else ''}", markup=False)
        bad += not found.ok
    return bad


def _refuse(n_broken: int, of: int) -> None:
    if n_broken:
        raise StoreError(f"{n_broken} of {of} stores are not what they claim to be, see above.")


@app.command()
def export(
    paths: Annotated[list[Path], typer.Argument(help="Stores, or folders of them; last the new folder.")],
    backbone: Annotated[str | None, typer.Option(help="Instead of stores: all of this backbone's.")] = None,
    task: Annotated[str | None, typer.Option(help="Instead of stores: all of this task's.")] = None,
    split: Annotated[str, typer.Option(help="train, val, test, some of them with commas, or all.")] = "all",
    layers: Annotated[
        str | None, typer.Option(help="Some of the stores' layers, as `scivid list stores` names them.")
    ] = None,
    views: Annotated[
        int | None, typer.Option(min=1, help="The first views of a training clip alone.")
    ] = None,
    cache_dir: CacheDir = CACHE_DIR,
) -> None:
    """Write a bundle: stores that another lab imports, and trains from, without data and weights."""
    from featcache.sharing.cut import Cut, parse_layers
    from featcache.sharing.export import export as write
    from featcache.sharing.parts import parse_roles, parts_of, stores_of

    *named, out = paths
    cut = Cut(layers=None if layers is None else parse_layers(layers), n_views=views)
    stores = stores_of(named, cache_dir=cache_dir, backbone=backbone, task=task)
    parts = parts_of(stores, cut=cut, roles=parse_roles(split))
    names = [str(Path(part.path).parent / part.store.path.name) for part in parts]
    options = command_line("export", split=split, layers=layers, views=views)
    with reporter(console) as progress:
        bundle, notes = write(
            parts, out, command=f"{options} {shlex.join([*names, out.name])}", progress=progress
        )
    for folder in bundle.folders:
        console.print(f"{folder.path}  ({len(folder.files)} files, {folder.n_bytes:,} bytes)", markup=False)
    for line in (*map(str, bundle.terms), *(f"note: {note}" for note in notes)):
        console.print(line, markup=False)
    console.print(
        f"{out}: {bundle.n_files + 1} files, {bundle.n_bytes / 1e6:,.1f} MB; to be had with `scivid import`, "
        "from this folder or from the address of a web server that has it",
        markup=False,
    )


@app.command("import")
def import_(
    bundle: Annotated[
        str, typer.Argument(help="A folder that `scivid export` wrote, or its http(s) address.")
    ],
    accept_licence: Annotated[
        list[str] | None, typer.Option(help="Name of a licence that you accept; may be given again.")
    ] = None,
    cache_dir: CacheDir = CACHE_DIR,
) -> None:
    """Bring a bundle's stores into the cache, all verified first. Goes on where an earlier call stopped."""
    from featcache.sharing.arrival import import_bundle

    with reporter(console) as progress:
        came = import_bundle(
            bundle, cache_dir, accepted=accept_licence or [], progress=progress, say=console.out
        )
    for path in came.paths:
        console.print(path, markup=False)
    there = f", {came.n_there} were there already" if came.n_there else ""
    console.print(f"{len(came.paths)} stores are new, {came.n_bytes / 1e6:,.1f} MB{there}", markup=False)


@app.command("train-readout")
def train_readout(
    backbone: Annotated[str, typer.Option(help="Whose stores to read, as `scivid list stores` shows them.")],
    task: TaskOption,
    readout: Annotated[str | None, typer.Option(help="One of the task's, or several with commas.")] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Which layer, where a store holds several; for readouts of several 3,6,9 or all."),
    ] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Of the train store, first digits.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    set_: SetOption = None,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="M|all",
            help="Train the backbone too: its upper M blocks below --layer, from stored tokens, or all of "
            "it, from pixels.",
        ),
    ] = None,
    backbone_lr: Annotated[
        float | None, typer.Option(help="With --tune: what multiplies the backbone's updates; else 0.1.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="With --tune: clips in the backbone at a time; else all.")
    ] = None,
    checkpoint_blocks: Annotated[
        bool, typer.Option(help="With --tune: compute activations again instead of keeping them.")
    ] = False,
    test: Annotated[bool, typer.Option(help="Score the test split too, once, at the end.")] = False,
    device: Device = "auto",
    again: Annotated[bool, typer.Option(help="Train anew although this run is in the table.")] = False,
    resident: Annotated[
        str, typer.Option(help="Keep training and val in the device's memory: auto (on a GPU), yes, no.")
    ] = "auto",
    data_dir: DataDir = DATA_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """Stage two: train readouts from the cache and score them. Goes on where an earlier run stopped."""
    from featcache.system.device import choose_device
    from readouts.features.preloading import preload_choice
    from readouts.results.table import short_name_of
    from readouts.tasks import load_task
    from readouts.training.loop import train
    from readouts.training.settings import configure, refuse_probes, roles_of
    from readouts.tuning.opening import Asked, open_run_splits
    from readouts.tuning.wish import parse_wish

    tuning = parse_wish(
        tune, backbone_lr=backbone_lr, micro_batch=micro_batch, checkpointing=checkpoint_blocks
    )
    wish, readouts = preload_choice(resident), readout.split(",") if readout else None
    known = _manifest(manifest)
    loaded = load_task(task, known)
    where: dict[str, object] = {"cache_dir": cache_dir, "manifest": manifest}
    asked = Asked(
        backbone=backbone, layer=layer, fingerprint=fingerprint, roles=roles_of(loaded, known, test=test),
        cache_dir=cache_dir, weights_dir=weights_dir, data_dir=data_dir,
        extract=extract_command(backbone, loaded.name, **where),
    )  # fmt: skip
    name = asked.store_name
    refuse_probes(readouts or [], task=task, backbone=name, test=test, results_dir=results_dir, **where)
    with reporter(console) as progress:
        splits, tuned = open_run_splits(asked, loaded, known, tuning, progress)
    command = command_line(
        "train-readout",
        **asked.options_with(tuning),
        task=task,
        readout=readout,
        layer=splits["train"].layer_name if tuned is None else tuned.layer.name,
        fingerprint=splits["train"].store.fingerprint[:12],
        seed=seed,
        set=set_,
        test=test,
        results_dir=results_dir,
        **where,
    )
    run = configure(loaded, splits, readouts=readouts, settings=set_ or [], seed=seed, tuning=tuned)
    there = _announced(run, known, asked.extract, results_dir, again=again)
    with reporter(console) as progress, _told("readouts.training"):
        rows = train(
            run,
            results_dir=results_dir,
            device=choose_device(device),
            again=again,
            command=command,
            resident=wish,
            progress=progress,
        )
    for row in rows:
        scores = ", ".join(f"{role} {row[role]:.4f}" for role in ("val", "test") if row[role] is not None)
        result = f"{row['task']} {row['backbone']} {row['readout']}: {row['metric']} {scores}"
        console.print(f"{result}{there}", markup=False)
    folder = run.folder(results_dir).path
    console.print(f"run {short_name_of(run.id)} in {folder}; next: scivid report", markup=False)


@contextmanager
def _told(logger: str) -> "Iterator[None]":
    """Lines that a part of the library says by the way are printed, for the time of the block."""
    handler, log = logging.Handler(logging.INFO), logging.getLogger(logger)
    handler.emit = lambda record: console.print(record.getMessage(), markup=False)  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _announced(run: "Run", known: "Manifest", extract: str, results_dir: Path, *, again: bool) -> str:
    """Says what to know before a run is believed; what to add to its scores where they are there already."""
    from readouts.features.origins import remarks
    from readouts.results.table import recorded, run_rows
    from readouts.training.settings import long_training

    stores = {role: split.store for role, split in run.splits.items()}
    for line in remarks(stores, known, extract=extract):
        console.print(f"note: {line}", markup=False)
    train = run.splits["train"]
    for line in run.tuning.cost(run.recipe) if run.tuning is not None else ():
        console.print(f"note: {line}", markup=False)
    for line in long_training(run.recipe, train.n_usable * train.n_views) if run.is_trained else ():
        console.print(f"note: {line}", markup=False)
    if again or not (rows := run_rows(results_dir, run.id)):
        return ""
    if recorded(results_dir, run.id, tested_on=run.tested_on):
        return f" (was in the table since {rows[0]['finished']:%Y-%m-%d %H:%M}: nothing computed)"
    if any(row["test"] is not None for row in rows):
        console.print("note: test was scored on other clips or labels before; that score is replaced")
    return ""


@app.command()
def sweep(
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help='"task=flyvsfly backbone=a,b lr=1e-4,3e-4 seed=0,1,2"; may be given again. With --study: '
            'settings laid over it, "steps=2000 seed=0".'
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Grids in YAML: names, each with a value or a list.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="A question: readout, depth, order, data, scale, views, robustness.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of the study.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Of the study.")] = None,
    name: Annotated[str | None, typer.Option(help="What its rows are called in the table.")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Show what would run, how long, and what is missing.")
    ] = False,
    together: Annotated[
        int, typer.Option(min=1, help="Runs that share one pass over the data, at most.")
    ] = 16,
    test: Annotated[bool, typer.Option(help="Score test, for what was best on val.")] = False,
    device: Device = "auto",
    scheduler: Scheduler = None,
    local_workers: LocalWorkers = None,
    data_dir: DataDir = DATA_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """Train every combination of a grid, or a study. Skips what is in the table, goes on where it stopped."""
    from readouts.sweeps.grid import parse_grid, read_grids
    from readouts.sweeps.plan import Folders, plan_sweep
    from readouts.sweeps.run import differences, run_sweep, summary, sweep_name
    from readouts.sweeps.studies import ROBUSTNESS

    where, known = _where(scheduler, local_workers), _manifest(manifest)
    grids = [parse_grid(text) for text in grid or []] + (read_grids(file) if file else [])
    about: dict[str, object] = {}
    beside: list[dict[str, object]] = []
    if study is not None:
        grids, about, beside, backbone = _of_study(study, task, backbone, known, grids)
        name = name or f"{study}-{Path(str(task)).stem}-{backbone}"
    elif task or backbone:
        raise CallError("--task and --backbone go with --study; in a grid write task=... backbone=...")
    if not grids:
        raise CallError("nothing to sweep: give --grid, --file or --study.")
    paths: dict[str, Any] = {"manifest_file": manifest, "weights_dir": weights_dir, "data_dir": data_dir}
    folders = Folders(cache_dir=cache_dir, results_dir=results_dir, manifest=known, **paths)
    planned = plan_sweep(grids, folders, together=together, test=test)
    _show_plan(planned, folders, corrupted=study == ROBUSTNESS, test=test)
    if dry_run and planned.missing:
        raise StoreError(f"{planned.n_missing} of {planned.n_runs} runs have no store, see above.")
    if dry_run:
        return
    about |= {
        "grids": [{key: list(values) for key, values in one.items()} for one in grids],
        "command": command_line(
            "sweep", grid=grid, file=file, study=study, task=task, backbone=backbone, name=name,
            together=together, test=test, cache_dir=cache_dir, results_dir=results_dir, manifest=manifest,
        ),
    }  # fmt: skip
    if not planned.passes and not test:
        where = None  # nobody is needed
    chosen = _device(device, where)
    with reporter(console) as progress, ExitStack() as workers:
        cluster = None
        if where is not None:
            cluster = workers.enter_context(_workers(where, chosen, results_dir, cache_dir))
        outcome = run_sweep(
            planned,
            folders,
            name=name or sweep_name(grids),
            device=chosen,
            test=test,
            about=about,
            cluster=cluster,
            progress=progress,
        )
    show_table(console, [*summary(outcome.rows), *beside], empty="no run ended")
    for line in differences(outcome.rows):
        console.print(f"note: {line}", markup=False)
    if study == ROBUSTNESS:
        _score_corrupted(planned, outcome, folders, name or sweep_name(grids), test=test, on=device)
    _tell(outcome, planned.n_runs)


def _show_plan(planned: "Plan", folders: "Folders", *, corrupted: bool, test: bool) -> None:
    """What would be trained and what is missing; of corrupted clips too, where a study is of them."""
    from readouts.sweeps.robustness import missing_stores

    nothing = "nothing can be trained yet" if planned.missing else "nothing is left to train"
    show_table(console, planned.rows(), empty=nothing)
    more = missing_stores(planned.trials, "test" if test else "val", folders) if corrupted else []
    for line in [*planned.sentences(), *more]:
        console.print(line, markup=False)


def _score_corrupted(
    planned: "Plan", outcome: "Outcome", folders: "Folders", name: str, *, test: bool, on: str
) -> None:
    """Score what was trained on every corrupted store that is there; kept in the sweep's record."""
    from readouts.sweeps.robustness import robustness, severities_in_words
    from readouts.sweeps.run import add_to_record
    from readouts.sweeps.studies import ROBUSTNESS

    where: dict[str, Any] = {"role": "test" if test else "val", "device": _device(on)}
    with reporter(console) as progress:
        found = robustness(planned.trials, outcome.rows, folders, progress=progress, **where)
    add_to_record(folders.results_dir, name, {ROBUSTNESS: found})
    show_table(console, severities_in_words(found), empty="no corrupted store is there")


def _of_study(
    study: str, task: str | None, backbone: str | None, known: "Manifest", over: "list[Grid]"
) -> "tuple[list[Grid], dict[str, object], list[dict[str, object]], str]":
    """Grids of a study, what it is about, what the paper has beside it, and the name of its backbone."""
    from featcache.backbones import BACKBONES, backbone_info, store_name
    from readouts.sweeps.studies import published_beside, study_grids, study_of

    if task is None or backbone is None:
        raise CallError(f"--study {study}: say of which --task and --backbone.")
    asked, backbone = study_of(study), store_name(backbone)
    by_size = sorted(BACKBONES, key=lambda one: backbone_info(one).params_m)
    grids = study_grids(study, task=task, backbone=backbone, manifest=known, known=by_size, over=over)
    about: dict[str, object] = {"title": asked.title, "question": asked.question, "along": asked.along}
    return grids, about, published_beside(study, task=task, backbone=backbone, manifest=known), backbone


def _where(scheduler: str | None, local_workers: int | None) -> "Where | None":
    """Who does the work, where it is not this process."""
    if scheduler is None and local_workers is None:
        return None
    from featcache.system.cluster.client import Where

    return Where(scheduler=scheduler, local_workers=local_workers)


def _device(name: str, where: "Where | None" = None) -> "torch.device":
    """The device that computes: this process's, or what every worker has for itself."""
    import torch

    from featcache.system.device import choose_device

    return choose_device(name) if where is None else torch.device(where.device(name))


@contextmanager
def _workers(where: "Where", device: "torch.device", *folders: Path) -> "Iterator[Cluster]":
    """Workers that have such a device each; the first folder is written to."""
    from featcache.system.cluster.client import open_cluster

    with open_cluster(
        where,
        on_gpu=device.type == "cuda",
        folders=folders,
        say=lambda line: console.print(line, markup=False),
    ) as cluster:
        yield cluster


def _tell(outcome: "Outcome", n_runs: int) -> None:
    """Which runs of a sweep others have, and which failed: with either it is not done."""
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    for label in outcome.busy:
        console.print(f"another process is training {label}", markup=False)
    for failure in outcome.failures:
        if failure.run:  # what has no store is said with the plan
            console.print(f"failed: {failure.label}: {failure.error}", markup=False)
    if outcome.failures:
        raise TrainingError(f"{len(outcome.failures)} of {n_runs} runs failed, see above.")
    if outcome.busy:
        raise TrainingError(
            f"{len(outcome.busy)} of {n_runs} runs are being trained by other processes, see above: run the "
            "same command again when they have ended."
        )


@app.command("predict")
def predict_(
    videos: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of them.")] = None,
    run: Annotated[str, typer.Option(help="A run or its folder, or words; of a task the best on val.")] = "",
    out: Annotated[
        list[Path] | None,
        typer.Option(help="table.parquet or .csv, bouts for .boris or .annot; may be given again."),
    ] = None,
    readout: Annotated[str | None, typer.Option(help="Of several; else the run's best on val.")] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Frames from window to window; else half a window.")
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="A class is there from this score on; val: that of the best F1 there, each.")
    ] = "val",
    smooth: Annotated[float, typer.Option(help="Average scores over so many seconds.")] = 0.0,
    points: Annotated[
        Path | None,
        typer.Option(help="Where points to follow begin: a table of video, frame, name, x, y, or poses."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Instead of videos: the clips of this store, a row a clip.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="my_model.py:BACKBONE, where the run's is not a registered one.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows in one pass; 8 on a CPU, 32 on a GPU.")
    ] = None,
    device: Device = "auto",
    results_dir: ResultsDir = RESULTS_DIR,
    weights_dir: WeightsDir = None,
) -> None:
    """What a trained readout says of new videos, frame by frame. Goes on where it was killed."""
    from readouts.results.choice import find_run
    from readouts.tuning.loaded import load_run

    if not run or not out or bool(videos) == (store is not None):
        raise CallError("predict takes --run, --out, and either videos or --store.")
    folder, named = find_run(results_dir, run)
    chosen = _device(device)
    trained = load_run(folder.path, backbone=backbone, device=chosen)
    readout = readout or named or trained.readouts[0]
    if readout not in trained.heads:
        raise CallError(f"--readout {readout}: the run has {', '.join(trained.readouts)}.")
    console.print(f"run {folder.path}, readout {readout}", markup=False)
    if store is not None:
        from featcache.store.feature_store import open_features
        from readouts.predict.splits import predict_split

        with reporter(console) as progress:
            for path in out:
                n = predict_split(
                    trained, readout, open_features(store), path, device=chosen, progress=progress
                )
                console.print(f"{path}: {n} clips", markup=False)
        return
    from readouts.predict.job import Wanted, predict
    from readouts.predict.kinds import kind_of
    from readouts.predict.videos import Watcher, find_videos

    files = find_videos(videos or [])
    kind = kind_of(trained, readout, files, threshold=threshold, points=points)
    wanted = Wanted(kind=kind, outs=out, smooth=smooth)
    watcher = Watcher(
        trained, readout, backbone=backbone, weights_dir=weights_dir, every=every, follows=kind.follows,
        device=chosen, batch=batch or (32 if chosen.type == "cuda" else 8),
    )  # fmt: skip
    for line in kind.sentences(watcher):
        console.print(line, markup=False)
    with reporter(console) as progress:
        found = predict(watcher, files, wanted, progress)
    show_table(console, found.rows, empty="no video")
    for path in found.written:
        console.print(path, markup=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    for problem in found.broken:
        console.print(f"left out: {problem}", markup=False)
    if found.broken:
        raise DataError(f"{len(found.broken)} of {len(files)} videos could not be read, see above.")


@app.command()
def certify(
    backbone: BackboneOption,
    task: TaskOption,
    layer: Annotated[str | None, typer.Option(help="Which layer, where a store holds several.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Of the train store, first digits.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, each way.")] = 20,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs each way; 1 for exact tasks, 3 where views are samples.")
    ] = None,
    val_clips: Annotated[int, typer.Option(min=1, help="Clips to score, evenly spaced over val.")] = 64,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Share of the score by which frozen views may change it.")
    ] = 0.05,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clip views in one pass; 8 on a CPU, 32 on a GPU.")
    ] = None,
    readout: Annotated[str | None, typer.Option(help="One of the task's, or several with commas.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first run.")] = 0,
    set_: SetOption = None,
    tune: Annotated[
        str | None,
        typer.Option(metavar="M", help="Of a run that trains the upper M blocks below --layer, too."),
    ] = None,
    backbone_lr: Annotated[float | None, typer.Option(help="As for train-readout.")] = None,
    device: Device = "auto",
    data_dir: DataDir = DATA_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    weights_dir: WeightsDir = None,
    manifest: ManifestFile = None,
) -> None:
    """Hold a store against its backbone: the same steps online and from the cache, side by side."""
    from featcache.backbones import load_backbone
    from featcache.system.device import choose_device
    from readouts.certify.compare import certify as run
    from readouts.tasks import load_task
    from readouts.training.settings import configure, refuse_probes
    from readouts.tuning.opening import Asked, open_run_splits
    from readouts.tuning.wish import parse_wish

    wish = parse_wish(tune, backbone_lr=backbone_lr)
    # Stores of shuffled frames have the name of the backbone and this.
    plain = backbone.removesuffix(SHUFFLED)
    known, frozen, chosen = _manifest(manifest), load_backbone(plain, weights_dir), choose_device(device)
    loaded, readouts = load_task(task, known), readout.split(",") if readout else None
    refuse_probes(readouts or [], task=task, backbone=backbone, cache_dir=cache_dir, manifest=manifest)
    where: dict[str, object] = {"data_dir": data_dir, "cache_dir": cache_dir, "manifest": manifest}
    asked = Asked(
        backbone=backbone, layer=layer, fingerprint=fingerprint, roles=("train", "val"), cache_dir=cache_dir,
        weights_dir=weights_dir, data_dir=data_dir, extract=extract_command(backbone, loaded.name, **where),
    )  # fmt: skip
    with reporter(console) as progress:
        splits, tuned = open_run_splits(asked, loaded, known, wish, progress)
    command = command_line(
        "certify",
        backbone=backbone,
        task=task,
        tune=tune,
        backbone_lr=backbone_lr,
        layer=splits["train"].layer_name if tuned is None else tuned.layer.name,
        fingerprint=splits["train"].store.fingerprint[:12],
        steps=steps,
        seeds=seeds,
        val_clips=val_clips,
        margin=margin,
        readout=readout,
        seed=seed,
        set=set_,
        **where,
    )
    settings = [*(set_ or []), f"steps={steps}"]
    configured = configure(loaded, splits, readouts=readouts, settings=settings, seed=seed, tuning=tuned)
    with reporter(console) as progress:
        found = run(
            configured,
            frozen,
            known,
            data_dir=data_dir,
            device=chosen,
            seeds=seeds,
            val_clips=val_clips,
            margin=margin,
            batch=batch or (32 if chosen.type == "cuda" else 8),
            command=command,
            progress=progress,
        )
    show_table(console, _both_ways(found), empty="no readouts")
    console.print(f"{found.task} {found.backbone}, layer {found.layer}: {found.text}", markup=False)
    if not found.findings.faithful:
        raise StoreError(f"{splits['train'].store.path} does not stand for its backbone, see above.")


def _both_ways(found: "Certificate") -> list[dict[str, object]]:
    return [
        {
            "readout": head.readout,
            f"{found.findings.metric} online": f"{head.metric_online:.4f}",
            "online, rounded": None if head.metric_rounded is None else f"{head.metric_rounded:.4f}",
            "cached": f"{head.metric_cached:.4f}",
            "gap": f"{head.gap:+.2g}",
            "95 %": None if head.gap_low is None else f"{head.gap_low:+.2g} to {head.gap_high:+.2g}",
            "early losses apart": f"{head.worst_loss_difference:.1g}",
        }
        for head in found.findings.readouts
    ]


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help='A run, or words: "backbone=resize readout=linear", "resize linear".')
    ],
    second: Annotated[str, typer.Argument(help="Another, of the same task.")],
    task: Annotated[str | None, typer.Option(help="Whose runs, where the words fit several.")] = None,
    role: Annotated[str | None, typer.Option(help="val or test; test where both have it.")] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(min=100)] = 2_000,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
    manifest: ManifestFile = None,
) -> None:
    """Is A better than B: paired bootstrap over the videos, sequences or forecasts of a split, and seeds."""
    from readouts.features.find import evaluated_store
    from readouts.results.choice import apart, choose
    from readouts.results.significance.comparison import common_role, compared
    from readouts.results.table import load_results
    from readouts.tasks import load_task

    table = load_results(results_dir)
    a = choose(table, first, task)
    b = choose(table, second, task or a.configuration.best["task"])
    best = a.configuration.best
    chosen = common_role(a.configuration, b.configuration, role)
    found = compared(
        a.configuration,
        b.configuration,
        chosen,
        task=load_task(best["task_spec"] or best["task"], _manifest(manifest)),
        targets=evaluated_store(cache_dir, best, chosen).targets,
        results_dir=results_dir,
        level=level,
        resamples=resamples,
    )
    for name, choice, score in (("A", a, found.first), ("B", b, found.second)):
        console.print(f"{name}: {choice}\n   {chosen} {best['metric']} {score}", markup=False)
    for line in apart(a.configuration, b.configuration):
        console.print(f"   {line}", markup=False)
    better = "higher is better" if found.higher_is_better else "lower is better"
    console.print(f"A - B: {found.difference} ({better})", markup=False)
    console.print(f"{found.verdict}: {found.meaning}", markup=False)


@app.command()
def clean(
    weights: Annotated[
        bool, typer.Option(help="The weights of ended runs too: they can no longer predict.")
    ] = False,
    apply: Annotated[bool, typer.Option(help="Remove it; without this nothing is touched.")] = False,
    cache_dir: CacheDir = CACHE_DIR,
    results_dir: ResultsDir = RESULTS_DIR,
) -> None:
    """What nothing reads any more, with its bytes: targets without a store, leftovers, old weights."""
    from featcache.store.validation import cleaning as of_cache
    from featcache.system.files import remove
    from readouts.results import cleaning as of_results

    found = of_cache.removable_of(cache_dir) | of_results.removable_of(results_dir, weights=weights)
    sizes = {path: _bytes_of(path) for path in found}
    show_table(
        console,
        [{"path": path, "MB": f"{sizes[path] / 1e6:,.1f}", "why": why} for path, why in found.items()],
        empty=f"nothing to remove in {cache_dir} and {results_dir}",
    )
    for path in found if apply else ():
        remove(path)
    if found:
        end = "removed" if apply else "nothing was removed: add --apply"
        console.print(f"{len(found)} things, {sum(sizes.values()) / 1e6:,.1f} MB: {end}", markup=False)


def _bytes_of(path: Path) -> int:
    """What a file takes, or a folder with all below it."""
    return sum(file.lstat().st_size for file in (path, *path.rglob("*")) if not file.is_dir())


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    csv: Annotated[Path | None, typer.Option(help="Its rows as CSV, too.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Its tables as Markdown, too.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Every run's curve as TensorBoard events (needs tensorboard).")
    ] = None,
    results_dir: ResultsDir = RESULTS_DIR,
    cache_dir: CacheDir = CACHE_DIR,
    manifest: ManifestFile = None,
) -> None:
    """One self-contained page: results beside the published ones, sweeps, cost, clips, tokens as pictures."""
    from readouts.report.page import write_report

    known = _manifest(manifest)
    missing = write_report(
        out, results_dir=results_dir, cache_dir=cache_dir, manifest=known, csv=csv, markdown=markdown
    )
    written = [path for path in (out, csv, markdown) if path is not None]
    # Not into a table that goes there.
    told = Console(stderr=True, soft_wrap=True) if any(map(is_standard_output, written)) else console
    for path in written[1:]:
        told.print(f"table: {path.resolve()}", markup=False)
    if tensorboard is not None:
        from readouts.report.tensorboard import write_events

        n_runs, unread = write_events(tensorboard, results_dir=results_dir)
        missing += [message for message in unread if message not in missing]
        told.print(f"curves of {n_runs} runs: tensorboard --logdir {tensorboard}", markup=False)
    for message in missing:
        told.print(f"not shown: {message}", markup=False)
    told.print(f"report: {out.resolve()} (open it in a browser)", markup=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Everything goes below this folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option()] = 0,
    full: Annotated[bool, typer.Option("--full", help="Twice the backbones, steps and runs.")] = False,
) -> None:
    """All of it on generated data, in minutes on two cores: data, features, readouts, a sweep, a report."""
    from featcache.store.feature_store import find_stores
    from readouts.sweeps.demo import FULL, SHORT

    shown, started = FULL if full else SHORT, time.monotonic()
    data_dir, cache_dir, results_dir = folder / "data", folder / "features", folder / "results"
    where: dict[str, Any] = {"cache_dir": cache_dir, "results_dir": results_dir}

    def begin(number: int, what: str) -> None:
        seconds = int(time.monotonic() - started)
        console.print(f"\n[bold]{number} of 5: {what}[/bold] ({seconds // 60}:{seconds % 60:02})")

    begin(1, "a miniature SciVid in the official layout; what is to be told depends on what moves")
    data_demo(data_dir=data_dir, profile="demo", seed=seed)
    begin(2, "each frozen backbone runs once over each task, and readouts train from its tokens")
    for task, (backbones, recipe) in shown.trained.items():
        for backbone in backbones:
            upper = shown.tuned.get(task)
            layers = "default" if upper is None else upper.stored
            extract(backbone=backbone, task=task, layers=layers, data_dir=data_dir, cache_dir=cache_dir)
            layer = None if upper is None else upper.layer
            train = partial(train_readout, backbone=backbone, task=task, layer=layer, seed=seed, test=True)
            train(set_=list(recipe), **where)
            if upper is not None:
                train(set_=list(upper.settings), tune=upper.tune, **where)
    begin(3, "ablations from the cache: many readouts share one pass, test is scored for what val selects")
    sweep(grid=list(shown.grids), name="demo", test=True, **where)
    begin(4, "is a cache as good as its backbone? the same steps with it in the loop; every checksum")
    for task, (backbone, settings) in shown.certified.items():
        certify(
            backbone=backbone, task=task, steps=5, val_clips=16, set_=list(settings), data_dir=data_dir,
            cache_dir=cache_dir,
        )  # fmt: skip
    stores = [store.path for store in find_stores(cache_dir)]
    n_broken = _broken(stores)
    begin(5, "results beside baselines and published numbers, as tables and as a page")
    _show_results(results_dir, cache_dir, _manifest(None))
    report(out=folder / "report.html", **where)
    _refuse(n_broken, len(stores))
    console.print(
        f"\nTry next, with these (the folders of the demo):\n"
        f"  export SCIVID_DATA_DIR={data_dir} SCIVID_CACHE_DIR={cache_dir} SCIVID_RESULTS_DIR={results_dir}\n"
        "  scivid list runs\n"
        "  scivid compare resize videomae_random --task calms21\n"
        '  scivid sweep --grid "task=calms21 backbone=videomae_random lr=1e-2,3e-3 steps=200"',
        markup=False,
    )


def _manifest(extra: Path | None) -> "Manifest":
    from featcache.manifest import load_manifest

    return load_manifest(extra)


def _below(cache_dir: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The stores by their places in the cache, which is said once."""
    if rows:
        console.print(f"below {cache_dir}:", markup=False)
    return [row | {"store": str(row["store"]).removeprefix(f"{cache_dir}/")} for row in rows]


def _run_rows(results_dir: Path, task: str | None) -> list[dict[str, object]]:
    from readouts.results.choice import listed_runs
    from readouts.results.table import readable_results

    rows, damaged = readable_results(results_dir)
    for problem in damaged:
        console.print(f"not shown: {problem}", markup=False)
    return listed_runs(rows, task)


def _show_results(results_dir: Path, cache_dir: Path, known: "Manifest", task: str | None = None) -> None:
    """The page's tables: configurations, published rows, baselines, of each task and group."""
    from readouts.report.page import comparison

    tables = comparison(results_dir, cache_dir, known, task)
    for title, rows in tables:
        console.print(f"\n[bold]{title}[/bold]")
        show_table(console, rows, empty="no results")
    if not tables:
        console.print("no results yet")


def _readout_rows(known: "Manifest") -> list[dict[str, object]]:
    from readouts.tasks import KINDS, load_task
    from readouts.training.settings import readout_rows

    tasks = {name: load_task(name, known) for name, task in known.tasks.items() if task.kind in KINDS}
    return readout_rows(tasks)


def _setting_rows(task: str | None, known: "Manifest") -> list[dict[str, object]]:
    from readouts.tasks import load_task
    from readouts.training.settings import setting_rows

    if task is None:
        raise CallError("scivid list settings: say of which --task, for defaults differ.")
    return setting_rows(load_task(task, known))


if __name__ == "__main__":
    app()
