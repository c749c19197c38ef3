"""Where a backbone's weights are, their digest, and what to tell a user who does not have them.

Looking (`find_weights`) never touches the network, so that listing backbones is instant; `obtain_weights` may
download from the Hugging Face hub. Either way the bytes are named by their digest, not by where they were.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError

from featcache.backbones.weights.shard_index import INDEX_FILE, files_of, is_index
from featcache.errors import WeightsError

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weight file, the one that is taken first first."""
ANY_WEIGHTS = (*WEIGHT_FILES, INDEX_FILE)

_PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HubWeights:
    """One model repository of the Hugging Face hub."""

    hub_id: str
    revision: str
    """The commit to take, so that a later upload changes nothing; `main` where no commit was known to us."""
    owner: str
    licence: str
    commercial: bool
    n_bytes: int
    """Size of the weights, for messages."""
    gated: bool = False
    """Whether they are given only to an account that has accepted the licence."""
    in_shards: bool = False
    """Whether they come in several files with an index."""

    @property
    def first_choice(self) -> str:
        """What the weights are looked for as, first."""
        return INDEX_FILE if self.in_shards else WEIGHT_FILES[0]

    @property
    def files(self) -> str:
        """What is needed, as messages say it."""
        also = ", and the files it names" if self.in_shards else ""
        return f"{CONFIG_FILE} and {self.first_choice}{also}"

    @property
    def wanted(self) -> str:
        """The same, as `hf download` takes it."""
        if self.in_shards:
            return f'{self.hub_id} --include {CONFIG_FILE} "model*.safetensors*"'
        return f"{self.hub_id} {CONFIG_FILE} {self.first_choice}"

    @property
    def url(self) -> str:
        """The page a person would open."""
        return f"https://huggingface.co/{self.hub_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFiles:
    """The files of a model as transformers saves it."""

    config: Path
    weights: Path
    """The weights, or the index of the files they are in."""


def folder_weights(folder: Path) -> WeightFiles:
    """The files in a folder of the user's.

    Raises:
        WeightsError: the folder lacks the config or the weights.
    """
    weights = next((folder / name for name in ANY_WEIGHTS if (folder / name).is_file()), None)
    lacking = [CONFIG_FILE] if not (folder / CONFIG_FILE).is_file() else []
    if weights is None:
        lacking.append(" or ".join(WEIGHT_FILES))
    else:
        lacking += [path.name for path in files_of(weights) if not path.is_file()]
    if weights is None or lacking:
        raise WeightsError(
            f"{folder} lacks {' and '.join(lacking)}: put the model's files there, as they were saved."
        )
    return WeightFiles(config=folder / CONFIG_FILE, weights=weights)


def find_weights(name: str, hub: HubWeights, weights_dir: Path | None) -> WeightFiles | None:
    """What is on this machine: `<weights_dir>/<name>/` first, then the Hugging Face cache; no network.

    Raises:
        WeightsError: `<weights_dir>/<name>/` exists but is not complete.
    """
    if weights_dir is not None and (weights_dir / name).is_dir():
        return folder_weights(weights_dir / name)
    config = _cached(hub, CONFIG_FILE)
    weights = next(filter(None, (_cached(hub, file) for file in ANY_WEIGHTS)), None)
    # A download that was broken off leaves an index without all of its files.
    if config is None or weights is None or not all(path.is_file() for path in files_of(weights)):
        return None
    return WeightFiles(config=config, weights=weights)


def obtain_weights(name: str, hub: HubWeights, weights_dir: Path | None) -> WeightFiles:
    """What `find_weights` finds, else a download into the Hugging Face cache, unless HF_HUB_OFFLINE is set.

    Raises:
        WeightsError: neither; says which files, whose, under which licence, how large, and how to get them.
    """
    found = find_weights(name, hub, weights_dir)
    if found is not None:
        return found
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            missing_message(name, hub, weights_dir, "the hub was not asked: HF_HUB_OFFLINE is set")
        )
    try:
        return _download(hub)
    except Exception as problem:  # whatever the HTTP client in use raises, the user's way out is the same
        reason = f"the hub gave no answer ({_first_line(problem)})"
        raise WeightsError(missing_message(name, hub, weights_dir, reason)) from problem


def missing_message(name: str, hub: HubWeights, weights_dir: Path | None, reason: str) -> str:
    """All a user needs in order to get the files."""
    looked = [f"the Hugging Face cache {constants.HF_HUB_CACHE}"]
    if weights_dir is not None:
        looked.insert(0, f"the folder {weights_dir / name}")
    size = f"{hub.n_bytes / 1e9:.2f} GB" if hub.n_bytes >= 1e9 else f"{hub.n_bytes / 1e6:.0f} MB"
    terms = hub.licence if hub.commercial else f"{hub.licence}, not for commercial use"
    place = (
        f"{weights_dir / name}/"
        if weights_dir is not None
        else f"<folder>/{name}/, with SCIVID_WEIGHTS_DIR=<folder>"
    )
    return (
        f"the weights of {name} are not here: {hub.files} ({size}) of {hub.hub_id}, "
        f"by {hub.owner}, licence {terms}.\n"
        f"Looked in {' and in '.join(looked)}; {reason}.\n"
        f"{_way_to_get(name, hub, weights_dir)}\n"
        f"Or put these files (the weights also as {WEIGHT_FILES[1]}) into {place}"
    )


def download_command(name: str, weights_dir: Path | None) -> str:
    """The call that fetches a registered backbone's weights, where anybody may have them."""
    return f"scivid data download --weights {name} --weights-dir {weights_dir or '<folder>'}"


def _way_to_get(name: str, hub: HubWeights, weights_dir: Path | None) -> str:
    if not hub.gated:
        return f"Where there is a network: {download_command(name, weights_dir)}"
    target = "" if weights_dir is None else f" --local-dir {weights_dir / name}"
    return (
        f"Accept the licence at {hub.url} with an account of your own, then: hf auth login && "
        f"hf download {hub.wanted} --revision {hub.revision}{target}"
    )


def file_digest(path: Path) -> str:
    """Sha256 of a weight file's bytes, in hex; a file is read once a process, until its size or time changes.

    Of weights in several files it is that of a line a file: its name and its own digest.
    """
    if is_index(path):
        lines = [f"{part.name} {file_digest(part)}\n" for part in files_of(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_digest(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(hub: HubWeights, file: str) -> Path | None:
    found = try_to_load_from_cache(hub.hub_id, file, cache_dir=constants.HF_HUB_CACHE, revision=hub.revision)
    return Path(found) if isinstance(found, str) else None


def _download(hub: HubWeights) -> WeightFiles:
    # One question without retries first: the client's own download asks for minutes when nobody answers.
    choices = (INDEX_FILE,) if hub.in_shards else WEIGHT_FILES
    file = next(file for file in choices if file == choices[-1] or _on_hub(hub, file))
    config, weights = (
        Path(hf_hub_download(hub.hub_id, name, revision=hub.revision)) for name in (CONFIG_FILE, file)
    )
    if hub.in_shards:
        for part in files_of(weights):
            hf_hub_download(hub.hub_id, part.name, revision=hub.revision)
    return WeightFiles(config=config, weights=weights)


def _on_hub(hub: HubWeights, file: str) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(hub.hub_id, file, revision=hub.revision), timeout=_PROBE_SECONDS)
    except EntryNotFoundError:
        return False
    return True


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
