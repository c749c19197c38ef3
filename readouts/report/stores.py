"""The feature stores on the page: facts, certificates, and what the tokens look like."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.store.feature_store import FeatureStore
from featcache.system.console import command_line
from readouts.certify.certificate import read_certificate
from readouts.report import figures
from readouts.report.gaps import Gaps, pictures_of
from readouts.report.token_figures import LayerFigures, token_figures
from readouts.results.costs import cost_of
from readouts.results.formatting import counted
from readouts.results.task_results import ROLES

PREVIEWS_SHOWN, PREVIEWS_OF = 2, "val"
"""One split shows what a backbone sees; the others would say the same, three times as long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPreview:
    """A clip as the backbone saw it, and below it its tokens, a strip for each layer."""

    frames: str
    tokens: Mapping[str, str]
    """Layer -> its strip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSection:
    """The stores of one backbone for one task."""

    name: str
    title: str
    facts: Mapping[str, str]
    splits: Sequence[Mapping[str, str]]
    """For each store its split, clips, bytes, seconds and name."""
    certificates: Sequence[Mapping[str, str]]
    previews: Sequence[ClipPreview]
    depth: str
    """Norms and ranks by layer as a figure; empty where there is one layer."""
    channels: int
    layers: Sequence[LayerFigures]
    skipped: Sequence[str]
    missing: Sequence[str]
    """What is not shown, and why."""


def store_sections(stores: Sequence[FeatureStore], results_dir: Path) -> tuple[list[StoreSection], list[str]]:
    """A section for each task and backbone, and the messages of stores that cannot be read."""
    groups: dict[tuple[str, str], list[FeatureStore]] = {}
    # Corrupted clips are scored, not trained from: the study of robustness shows what came of them.
    for store in (store for store in stores if "corruption" not in store.attrs):
        groups.setdefault((store.attrs["task"], store.attrs["backbone"]), []).append(store)
    sections, gaps = [], Gaps()
    for (task, backbone), ours in groups.items():
        with gaps.around(f"stores of {task} / {backbone}"):
            sections.append(_section(f"{task} / {backbone}", ours, results_dir))
    return sections, gaps.messages


def _section(name: str, stores: Sequence[FeatureStore], results_dir: Path) -> StoreSection:
    first = stores[0]
    ordered = sorted(stores, key=lambda store: ROLES.index(store.attrs["role"]))
    previews: list[ClipPreview] = []
    layers: list[LayerFigures] = []
    gaps = Gaps()
    for store in ordered:
        if store.attrs["role"] == PREVIEWS_OF:
            shown, found = _previewed(store, gaps), list[LayerFigures]()
            with gaps.around(f"tokens of {store.path}"):
                found = token_figures(store, list(shown), results_dir)
            layers += found
            previews += [_preview(clip, frames, found) for clip, frames in shown.items()]
    certificates = [_certificate(store, gaps) for store in ordered if store.attrs["role"] == "train"]
    return StoreSection(
        name=name,
        title=str(first.attrs["backbone_title"]),
        facts={
            "token grid": " x ".join(map(str, first.spec.grid.shape)),
            "layers": ", ".join(dict.fromkeys(layer.name for s in ordered for layer in s.spec.layers)),
            "training views": str(ordered[0].attrs["exactness"]),
            "licence of the weights": str(first.attrs["licence"]),
            **({"weights": str(first.attrs["weights"])} if "weights" in first.attrs else {}),
        },
        splits=[_facts(store) for store in ordered],
        certificates=certificates,
        previews=previews,
        depth=_depth(layers) if len(layers) > 1 else "",
        channels=first.spec.grid.channels,
        layers=layers,
        skipped=[
            json.dumps(entry) for store in ordered for entry in store.provenance.get("skipped_clips", [])
        ],
        missing=gaps.messages,
    )


def _facts(store: FeatureStore) -> dict[str, str]:
    spec, cost = store.spec, cost_of([store])
    return {
        "role": str(store.attrs["role"]),
        "clips": f"{spec.n_clips:,} x {spec.n_views}",
        "size": f"{_size(spec.payload_bytes)}, {spec.dtype}",
        "seconds": "" if cost.seconds is None else f"{cost.seconds:,.0f} s",
        "joules": "" if cost.joules is None else f"{cost.joules:,.0f} J",
        "store": store.path.name,
    }


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def _certificate(store: FeatureStore, gaps: Gaps) -> dict[str, str]:
    """The verdict of every certified layer is one line; without one, the command that makes it.

    A store does not know where its data, weights and manifest are; the page says what to add.
    """
    found, verdict = None, "cannot be read"
    with gaps.around(f"certificate of {store.path}"):
        found, verdict = read_certificate(store.path), "not certified"
    if found is not None:
        stale = "" if found.train_fingerprint == store.fingerprint else " (of another state of this store)"
        steps, seeds = found.findings.steps, counted(found.findings.seeds, "seed")
        about = f"layer {found.layer}, {steps} steps, {seeds}{stale}"
        return {"verdict": found.verdict, "text": found.text, "about": about, "command": found.command}
    command = command_line(
        "certify",
        backbone=store.attrs["backbone"],
        task=store.attrs["task"],
        layer=store.spec.layers[-1].name,
        fingerprint=store.fingerprint[:12],
        cache_dir=store.path.parents[2],
    )
    about = "with the --data-dir, --weights-dir and --manifest that its scivid extract was given"
    return {"verdict": verdict, "text": "", "about": about, "command": command}


def _previewed(store: FeatureStore, gaps: Gaps) -> dict[int, bytes]:
    """A few clips that have tokens -> their frames as a JPEG strip."""
    pictures = pictures_of(store, gaps)
    usable = [(clip, frames) for clip, frames in pictures.items() if clip not in store.skipped_clips]
    return dict(usable[:: max(1, len(usable) // PREVIEWS_SHOWN)][:PREVIEWS_SHOWN])


def _preview(clip: int, frames: bytes, layers: Sequence[LayerFigures]) -> ClipPreview:
    tokens = {one.layer: one.strips[str(clip)] for one in layers if str(clip) in one.strips}
    return ClipPreview(frames=figures.jpeg(frames), tokens=tokens)


def _depth(layers: Sequence[LayerFigures]) -> str:
    return figures.by_depth(
        [one.layer for one in layers],
        [one.norm for one in layers],
        {
            "participation ratio": [one.participation_ratio for one in layers],
            "entropy": [one.entropy_rank for one in layers],
        },
    )
