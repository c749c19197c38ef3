"""A backbone's weight files, from the Hugging Face hub or their authors' servers, in one way for both.

Licences differ: before anything is asked for, the user is told which one holds. Files that are given only to
those who accept terms, or that were never released, are left to the user. The hub's own client tells size and
digest; it does not go on where an earlier call stopped (huggingface_hub 2.4), so the bytes come by `fetch`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError

from featcache.backbones import BACKBONES, backbone_info
from featcache.backbones.release import WEIGHT_FILES, Release
from featcache.backbones.weights.digest import forget, remember
from featcache.backbones.weights.locate import how_to_get
from featcache.errors import CallError, WeightsError
from featcache.system.console import Progress
from featcache.system.fetch import Say, fetch

_SHA256 = re.compile(r"[0-9a-f]{64}")


def download_weights(
    name: str, weights_dir: Path | None, *, progress: Progress, say: Say
) -> tuple[Path, ...]:
    """Put a backbone's files into `<weights_dir>/<name>/`; those that are there and right are left alone.

    `say` is told source, licence and size before anything is asked for.

    Raises:
        CallError: no such backbone, or one of the user's own, or no folder given.
        WeightsError: not to be had without asking, or at all; says what to do.
        DownloadError: it did not come, or not whole and right.
    """
    release = _release_of(name)
    if release is None:
        say(f"{name} needs no weights.")
        return ()
    if not release.public:
        raise WeightsError(
            f"the weights of {name} cannot be fetched for you. {how_to_get(name, release, weights_dir)}"
        )
    if weights_dir is None:
        raise CallError("say where weights go: --weights-dir <folder>, or set SCIVID_WEIGHTS_DIR=<folder>.")
    terms = "" if release.commercial else ", NOT FOR COMMERCIAL USE"
    title = backbone_info(name).title
    say(f"{title}: about {release.size}, licence {release.licence}{terms}, {release.source}")
    return tuple(_obtain(file, weights_dir / name, progress, say) for file in _offers(release))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """One file that a server has."""

    name: str
    url: str
    n_bytes: int
    """Rounded where the server was not asked."""
    sha256: str | None


def _obtain(offer: _Offer, folder: Path, progress: Progress, say: Say) -> Path:
    def report(done: int, total: int) -> None:
        progress(f"{folder.name}/{offer.name}, MB", done // 10**6, total // 10**6)

    path, about = folder / offer.name, offer.n_bytes
    was_there = path.is_file()
    fetch(offer.url, path, about=about, sha256=offer.sha256, progress=report, say=say)
    if not was_there:
        forget(path)
    if offer.sha256 is not None:
        remember(path, digest=offer.sha256)
    return path


def _offers(release: Release) -> list[_Offer]:
    """The files of a release; of the hub's, size and digest as the hub tells them."""
    if release.hub_id is None:
        assert release.url is not None, "what is public is on the hub or has an address"
        name = release.files[0]
        sha256 = release.digests.get(name)
        return [_Offer(name=name, url=release.url, n_bytes=release.n_bytes, sha256=sha256)]
    *others, weights = release.names
    try:
        try:
            found = _on_hub(release, weights)
        except EntryNotFoundError:
            if not release.config:
                raise
            found = _on_hub(release, WEIGHT_FILES[1])
        return [*(_on_hub(release, name) for name in others), found]
    except WeightsError:
        raise
    except Exception as problem:  # whatever the HTTP client in use raises, the user's way out is the same
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise WeightsError(
            f"{release.source}: the hub gave no answer ({reason}). Try again later, or get the files by hand."
        ) from problem


def _on_hub(release: Release, name: str) -> _Offer:
    assert release.hub_id is not None, "asked of the hub's releases only"
    url = hf_hub_url(release.hub_id, name, revision=release.revision)
    told = get_hf_file_metadata(url)
    # Small files have another digest, which is not that of their bytes.
    sha256 = told.etag if told.etag is not None and _SHA256.fullmatch(told.etag) else None
    known = release.digests.get(name)
    if known is not None and sha256 != known:
        raise WeightsError(
            f"{release.source} offers another {name} than the one that was released: its sha256 is {sha256}, "
            f"not {known}. Nothing was fetched. Look there for what changed, and get the file by hand."
        )
    return _Offer(name=name, url=url, n_bytes=told.size or release.n_bytes, sha256=sha256)


def _release_of(name: str) -> Release | None:
    if name not in BACKBONES:
        backbone_info(name)  # says so where nothing is called so
        raise CallError(f"{name} is a model of your own: only registered backbones are downloaded.")
    return BACKBONES[name].release
