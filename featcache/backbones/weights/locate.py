"""Where a backbone's weights are on this machine, and what to tell a user who lacks them or has others.

Nothing here touches the network: weights are downloaded by `scivid data download`, never by an extraction.
"""

import re
from pathlib import Path

from huggingface_hub import constants

from featcache.backbones.release import CONFIG_FILE, INDEX_FILE, WEIGHT_FILES, Release
from featcache.backbones.weights.digest import refuse_unlike
from featcache.backbones.weights.shard_index import files_of
from featcache.buckets.fetched import fetched
from featcache.buckets.path import BucketPath
from featcache.errors import WeightsError

_SAVED = (*WEIGHT_FILES, INDEX_FILE)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def folder_weights(folder: Path) -> Path:
    """The weights, or the index of their files, in a folder as transformers saves it, with `config.json`.

    Raises:
        WeightsError: the folder lacks the config or the weights.
    """
    weights = next((folder / name for name in _SAVED if (folder / name).is_file()), None)
    lacking = [CONFIG_FILE] if not (folder / CONFIG_FILE).is_file() else []
    if weights is None:
        lacking.append(" or ".join(WEIGHT_FILES))
    else:
        lacking += [path.name for path in files_of(weights) if not path.is_file()]
    if weights is None or lacking:
        raise WeightsError(
            f"{folder} lacks {' and '.join(lacking)}: put the model's files there, as they were saved, or "
            "finish their download."
        )
    return weights


def own_weights(place: str) -> Path:
    """The file of weights that a user named: a file, a folder that has one, or a repository of the hub.

    A repository is looked for in the Hugging Face cache only; `ORG/NAME`, or `ORG/NAME@REVISION`.

    Raises:
        WeightsError: nothing is there, or a folder does not say which file it is; says what to do.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    folder = path if path.is_dir() else cached_repository(place)
    if folder is None:
        raise WeightsError(
            f"{place} is no file or folder here, and no repository in the Hugging Face cache "
            f"{constants.HF_HUB_CACHE}. Where there is a network: hf download {place}"
        )
    saved = next((folder / name for name in _SAVED if (folder / name).is_file()), None)
    if saved is not None:
        return saved
    files = sorted(file for file in folder.glob("*") if file.suffix in _SUFFIXES and file.is_file())
    if len(files) != 1:
        what = f"holds {', '.join(file.name for file in files)}" if files else "holds no weights"
        raise WeightsError(f"{folder} {what}: name the file ({', '.join(_SUFFIXES)}).")
    return files[0]


def cached_repository(repository: str) -> Path | None:
    """The folder of `ORG/NAME[@REVISION]` in the Hugging Face cache; None where it is not there."""
    name, _, revision = repository.partition("@")
    if not _REPOSITORY.fullmatch(name):
        return None
    # Takes a third of a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision or None, local_files_only=True, cache_dir=constants.HF_HUB_CACHE
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    return Path(found)


def find_weights(name: str, release: Release, weights_dir: Path | None) -> Path | None:
    """The weights of backbone `name`: in `<weights_dir>/<name>/`, else in the Hugging Face cache; no network.

    Raises:
        WeightsError: `<weights_dir>/<name>/` exists but is not complete, or does not say which file it is.
    """
    folder = None if weights_dir is None else weights_dir / name
    if folder is not None and folder.is_dir():
        single = next((folder / file for file in release.files if (folder / file).is_file()), None)
        if single is None and release.any_pickle:
            single = _only_pickle(folder)
        if single is not None:
            return single
        if release.config:
            return folder_weights(folder)
    return None if release.hub_id is None else _find_in_cache(release)


def obtain_weights(name: str, release: Release, weights_dir: Path | None) -> Path:
    """What `find_weights` finds, where it is the released file or nobody knows that one's digest.

    Raises:
        WeightsError: nothing; says which files, whose, under which licence, how large, and how to get them.
            Or another file than the released one.
    """
    if isinstance(weights_dir, BucketPath):
        weights_dir = _brought(name, weights_dir)
    found = find_weights(name, release, weights_dir)
    if found is not None:
        own = f"Weights of your own are given with --weights, or as --backbone {name}@{found}"
        way_out = f"Move it away. {how_to_get(name, release, weights_dir)}\n{own}"
        refuse_unlike(found, release.digests, way_out)
        return found
    folder = Path("<folder>") / name if weights_dir is None else weights_dir / name
    setting = ", where SCIVID_WEIGHTS_DIR=<folder>" if weights_dir is None else ""
    cache = "" if release.hub_id is None else f" and in the Hugging Face cache {constants.HF_HUB_CACHE}"
    listed = " and ".join(release.names) + (", and the files it names" if release.sharded else "")
    raise WeightsError(
        f"the weights of {name} are not here: {listed} ({release.size}), by {release.owner}, licence "
        f"{release.terms}.\nLooked in {folder}{setting}{cache}.\n{how_to_get(name, release, weights_dir)}"
    )


def _brought(name: str, weights_dir: BucketPath) -> Path:
    """The local folder with what a bucket has of a backbone; the bucket's own where that is nothing."""
    wanted = weights_dir.bucket.all_below((weights_dir / name).key)
    return fetched(weights_dir, wanted) if wanted else weights_dir


def how_to_get(name: str, release: Release, weights_dir: Path | None) -> str:
    """What a user must do, or that nothing can be done."""
    folder = Path("<folder>") / name if weights_dir is None else weights_dir / name
    also = f" (the weights also as {WEIGHT_FILES[1]})" if release.config else ""
    by_hand = f"Or put the files into {folder} yourself{also}."
    if release.gated:
        wanted = (
            f'--include {CONFIG_FILE} "model*.safetensors*"' if release.sharded else " ".join(release.names)
        )
        return (
            f"Accept the licence ({release.licence}, {release.owner}) at {release.source} with an account of "
            f"your own, then: hf auth login && hf download {release.hub_id} {wanted} --revision "
            f"{release.revision} --local-dir {folder}. {by_hand}"
        )
    if not release.public:
        return (
            f"They were never released by {release.owner}; a file of your own in that layout can take their "
            f"place, as {folder / release.files[0]}."
        )
    target = "<folder>" if weights_dir is None else weights_dir
    return (
        f"Where there is a network: scivid data download --weights {name} --weights-dir {target}\n"
        f"(from {release.source}). {by_hand}"
    )


def _only_pickle(folder: Path) -> Path | None:
    pickles = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".bin"))
    if len(pickles) > 1:
        names = ", ".join(path.name for path in pickles)
        raise WeightsError(f"{folder} holds {names}: leave the one that is {folder.name}.")
    return pickles[0] if pickles else None


def _find_in_cache(release: Release) -> Path | None:
    cached = {name: _cached(release, name) for name in (CONFIG_FILE, *_SAVED, *release.files[:1])}
    if release.config and cached[CONFIG_FILE] is None:
        return None
    choices = _SAVED if release.config else release.files[:1]
    weights = next((path for name in choices if (path := cached[name]) is not None), None)
    # A download that was broken off leaves an index without all of its files.
    whole = weights is not None and all(path.is_file() for path in files_of(weights))
    return weights if whole else None


def _cached(release: Release, file: str) -> Path | None:
    # Takes a third of a second, and is needed only where no folder has the weights.
    from huggingface_hub import try_to_load_from_cache

    assert release.hub_id is not None, "only the hub's files are in its cache"
    found = try_to_load_from_cache(
        release.hub_id, file, cache_dir=constants.HF_HUB_CACHE, revision=release.revision
    )
    return Path(found) if isinstance(found, str) else None
