"""Bring a bundle into a cache: all of it is verified before any of it is visible.

Files come into a folder of the import's own inside the cache, which is named by the digest of the index: a
later call goes on there. When every file has its digest, and every store is found to be what its header and
its place say, folders are renamed to where they belong, targets before the stores that need them.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from featcache.errors import CallError, StoreError
from featcache.sharing.bundle import Bundle, SharedFolder, bundle_from
from featcache.sharing.checks import check_store, check_targets, is_there
from featcache.sharing.sources import Source, open_source
from featcache.sharing.terms import model_of
from featcache.system.console import Progress
from featcache.system.fetch import Say
from featcache.system.files import make_directory, remove, require_room, sync_directory
from featcache.system.locks import Lock

HIDDEN = ".import-"
"""How the folder begins that files come into: no listing of stores looks there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """What an import did."""

    paths: tuple[Path, ...]
    """Stores that are new in the cache."""
    n_there: int
    """Stores that were there before, the same."""
    n_bytes: int
    """Of all files that are new."""


def import_bundle(
    place: str, cache_dir: Path, *, accepted: Sequence[str], progress: Progress, say: Say
) -> Arrival:
    """Bring the stores of a bundle into a cache, with their targets; those that are there are left alone.

    `say` is told what made the bundle, and the licences, before anything but the index is asked for.

    Args:
        place: a folder, or the http or https address of one.
        cache_dir: the cache; made if need be.
        accepted: names of the licences that the user accepts.
        progress: told of bytes in MB.
        say: told what a user should know although nothing failed.

    Raises:
        CallError: there is no bundle, or a licence has to be accepted first.
        StoreError: a file is not what was exported, or another store is where one belongs.
        DownloadError: a file did not come; what has come is kept for the next call.
        OSError: what the operating system refuses here; likewise.
    """
    source = open_source(place)
    content = source.index()
    bundle = bundle_from(content, source.origin)
    for line in (bundle.origin, *map(str, bundle.terms)):
        say(line)
    _refuse_unaccepted(bundle, accepted)
    coming = cache_dir / f"{HIDDEN}{sha256(content).hexdigest()[:16]}"
    make_directory(cache_dir)
    busy = f"this bundle is being imported into {cache_dir} by another process."
    lock = Lock(coming.with_name(f"{coming.name}.lock"), wait=True, busy=busy)
    try:
        return _Import(source, bundle, cache_dir, coming, progress, say).run()
    finally:
        lock.release()


def _refuse_unaccepted(bundle: Bundle, accepted: Sequence[str]) -> None:
    """Refuse a bundle with features of weights that are given only to those who accept their licence.

    The index says so, and the catalogue of this installation, whatever the index says.
    """
    asked = {one.licence: one.source for one in bundle.terms if one.must_accept == "yes"}
    for folder in bundle.folders:
        model = model_of(PurePosixPath(folder.path).name.rpartition("-")[0])
        if model is not None and model.release is not None and model.release.gated:
            asked[model.release.licence] = model.release.source
    given = {name.casefold() for name in accepted}
    if lacking := {name: source for name, source in asked.items() if name.casefold() not in given}:
        told = "; ".join(f"{name} ({source})" for name, source in lacking.items())
        options = " ".join(f'--accept-licence "{name}"' for name in lacking)
        raise CallError(
            f"features in this bundle are of weights whose licence has to be accepted first: {told}. "
            f"Read it, then say so: {options}. Nothing but the index was fetched."
        )


@dataclass(frozen=True, slots=True)
class _Import:
    """One import, by whoever holds its lock."""

    source: Source
    bundle: Bundle
    cache_dir: Path
    coming: Path
    progress: Progress
    say: Say

    def run(self) -> Arrival:
        if self.coming.is_symlink():
            raise StoreError(f"{self.coming} is a link: remove it.")
        folders = dict(enumerate(self.bundle.folders))
        wanted = {n: folder for n, folder in folders.items() if not self._was_there(n, folder)}
        self._bring(wanted)
        targets = {
            folder.path: check_targets(self._at(n) if n in wanted else self.cache_dir / folder.path, folder)
            for n, folder in folders.items()
            if folder.holds_targets
        }
        for n, folder in wanted.items():
            if not folder.holds_targets:
                check_store(self._at(n), folder, targets)
        for n, folder in sorted(wanted.items(), key=lambda one: not one[1].holds_targets):
            self._publish(n, folder)
        with suppress(OSError):  # all is where it belongs; what stays is empty, and the next call removes it
            remove(self.coming)
        new = {n: self.cache_dir / folder.path for n, folder in wanted.items() if not folder.holds_targets}
        n_stores = sum(not folder.holds_targets for folder in folders.values())
        return Arrival(
            paths=tuple(new.values()),
            n_there=n_stores - len(new),
            n_bytes=sum(folder.n_bytes for folder in wanted.values()),
        )

    def _at(self, n: int) -> Path:
        """Where folder number `n` is until it is visible."""
        return self.coming / str(n)

    def _was_there(self, n: int, folder: SharedFolder) -> bool:
        """Whether the cache has it; asked of its `zarr.json` alone, which vouches for the rest."""
        root = next(file for file in folder.files if file.path == "zarr.json")
        self.source.bring(f"{folder.path}/{root.path}", root, self._file(n, root.path), _ignored, self.say)
        return is_there(self.cache_dir / folder.path, self._at(n), folder)

    def _bring(self, wanted: dict[int, SharedFolder]) -> None:
        """Every file of these folders, whole and with its digest; and nothing else beside them."""
        total = sum(folder.n_bytes for folder in wanted.values())
        came = sum(path.stat().st_size for path in self.coming.rglob("*") if path.is_file())
        way_out = "give another folder with --cache-dir"
        require_room(self.cache_dir, max(0, total - came), what="the bundle", way_out=way_out)
        done = 0
        for n, folder in wanted.items():
            for file in folder.files:

                def told(n_bytes: int, before: int = done) -> None:
                    self.progress("importing, MB", (before + n_bytes) // 10**6, total // 10**6)

                self.source.bring(
                    f"{folder.path}/{file.path}", file, self._file(n, file.path), told, self.say
                )
                done += file.n_bytes
            self._tidy(n, folder)

    def _file(self, n: int, path: str) -> Path:
        file = self._at(n) / path
        make_directory(file.parent)
        return file

    def _tidy(self, n: int, folder: SharedFolder) -> None:
        """Remove what an earlier, killed import left beside the files, and sync the folders' names."""
        known = {self._at(n) / file.path for file in folder.files}
        for path in self._at(n).rglob("*"):
            if path.is_dir():
                sync_directory(path)
            elif path not in known:
                remove(path)
        sync_directory(self._at(n))

    def _publish(self, n: int, folder: SharedFolder) -> None:
        to = self.cache_dir / folder.path
        make_directory(to.parent)
        try:
            self._at(n).rename(to)
        except OSError:
            # Another bundle may have brought the same meanwhile.
            if not is_there(to, self._at(n), folder):
                raise
        sync_directory(to.parent)


def _ignored(n_bytes: int) -> None:
    """Nobody follows the bytes of one small file."""
