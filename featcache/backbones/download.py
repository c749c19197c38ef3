"""A backbone's weight files: where their authors put them, which are not to be had so, fetching the others.

Licences differ: before anything is asked for, the user is told which one holds. Files that are given only to
those who accept terms, or fill out a form, are left to the user.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_url

from featcache.backbones import BACKBONES, backbone_info
from featcache.backbones.catalogue import HUB
from featcache.backbones.releases import ReleasedFile
from featcache.backbones.video_catalogue import VIDEO_FILES
from featcache.backbones.vit_catalogue import FILES, VIT_HUB
from featcache.backbones.weights.fetch import NotOnServerError, Say, fetch
from featcache.backbones.weights.locate import CONFIG_FILE, WEIGHT_FILES, HubWeights
from featcache.errors import CallError, WeightsError
from featcache.system.console import Progress

_CONFIG_BYTES = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One file of a backbone."""

    url: str
    file: str
    """Its name in `<weights_dir>/<backbone>/`, where the loaders look."""
    about: int
    """Bytes, rounded: what a sensible answer is near to."""
    n_bytes: int | None = None
    """Exactly, where that is known; else the server's word is taken."""
    sha256: str | None = None
    """Where it is known; the Hugging Face hub tells it on the way."""
    otherwise: "Download | None" = None
    """What to take where the server has no such file."""


def weights_of(name: str) -> tuple[Download, ...]:
    """The files that a registered backbone is loaded from; none for a backbone without weights.

    Raises:
        CallError: no such backbone, or one of the user's own.
        WeightsError: not to be had without asking, or at all; says what to do.
    """
    if name not in BACKBONES:
        backbone_info(name)  # says so where nothing is called so
        raise CallError(f"{name} is a model of your own: only registered backbones are downloaded.")
    hub, file = {**HUB, **VIT_HUB}.get(name), {**FILES, **VIDEO_FILES}.get(name)
    if hub is not None:
        if not backbone_info(name).public:
            raise WeightsError(_gated(name, hub))
        return _hub_files(hub)
    if file is None:
        return ()
    if file.url is None:
        raise WeightsError(_unreleased(name, file))
    return (Download(url=file.url, file=file.file, about=file.n_bytes),)


def download_weights(
    name: str, weights_dir: Path | None, *, progress: Progress, say: Say
) -> tuple[Path, ...]:
    """Put a backbone's files into `<weights_dir>/<name>/`; those that are there and right are left alone.

    `say` is told the licence before anything is asked for.

    Raises:
        CallError: no such backbone, or no folder given.
        WeightsError: as `weights_of` and `fetch`.
    """
    files, info = weights_of(name), backbone_info(name)
    if not files:
        say(f"{name} needs no weights.")
        return ()
    if weights_dir is None:
        raise CallError("say where weights go: --weights-dir <folder>, or set SCIVID_WEIGHTS_DIR=<folder>.")
    terms = "" if info.commercial else ", NOT FOR COMMERCIAL USE"
    say(
        f"{info.title}: about {_size(sum(file.about for file in files))}, licence {info.licence}{terms}, "
        f"{info.source}"
    )
    return tuple(_obtain(file, weights_dir / name, progress, say) for file in files)


def _obtain(file: Download, folder: Path, progress: Progress, say: Say) -> Path:
    def report(done: int, total: int) -> None:
        progress(f"{folder.name}/{file.file}, MB", done // 10**6, total // 10**6)

    try:
        return fetch(
            file.url,
            folder / file.file,
            n_bytes=file.n_bytes,
            sha256=file.sha256,
            about=file.about,
            progress=report,
            say=say,
        )
    except NotOnServerError:
        if file.otherwise is None:
            raise
        return _obtain(file.otherwise, folder, progress, say)


def _hub_files(hub: HubWeights) -> tuple[Download, ...]:
    def at(file: str, about: int, otherwise: Download | None = None) -> Download:
        url = hf_hub_url(hub.hub_id, file, revision=hub.revision)
        return Download(url=url, file=file, about=about, otherwise=otherwise)

    first, second = WEIGHT_FILES
    return at(CONFIG_FILE, _CONFIG_BYTES), at(first, hub.n_bytes, at(second, hub.n_bytes))


def _gated(name: str, hub: HubWeights) -> str:
    return (
        f"the weights of {name} are given to those who accept their licence ({hub.licence}, {hub.owner}): "
        f"do so at {hub.url} with an account of your own, then\n"
        f"hf auth login && hf download {hub.wanted} --revision {hub.revision} "
        f"--local-dir <weights folder>/{name}"
    )


def _unreleased(name: str, file: ReleasedFile) -> str:
    return (
        f"the weights of {name} were never released by {file.owner}: there is nothing to download. A file of "
        f"your own in that layout can take their place, as <weights folder>/{name}/{file.file}."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
