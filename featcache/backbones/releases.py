"""Weight files as their authors released them: every key accounted for, and what to say when there is none.

A model says which keys it takes and which it knows to leave out; anything else in a file is an error, because
a key that nobody reads is how a model comes out silently wrong.
"""

from dataclasses import dataclass
from pathlib import Path

from featcache.backbones.weights.locate import download_command
from featcache.errors import WeightsError

_MOST_LISTED = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedFile:
    """One file that holds a whole model, and needs no config beside it."""

    file: str
    """Its name, as released and as looked for in `<weights_dir>/<backbone>/`."""
    url: str | None
    """Where anybody can get it; absent where it was never released."""
    n_bytes: int
    owner: str
    licence: str
    also: tuple[str, ...] = ()
    """Other names that are taken where `file` is not there: the same model in other layouts."""

    def find(self, name: str, weights_dir: Path | None) -> Path | None:
        """`<weights_dir>/<name>/<file>`, or one of the other names, if it is there."""
        if weights_dir is None:
            return None
        paths = (weights_dir / name / file for file in (self.file, *self.also))
        return next((path for path in paths if path.is_file()), None)

    def obtain(self, name: str, weights_dir: Path | None) -> Path:
        """What `find` finds.

        Raises:
            WeightsError: nothing; says which file, whose, under which licence, how large, where to put it.
        """
        path = self.find(name, weights_dir)
        if path is None:
            raise WeightsError(self._missing(name, weights_dir))
        return path

    def _missing(self, name: str, weights_dir: Path | None) -> str:
        size = f"{self.n_bytes / 1e9:.2f} GB" if self.n_bytes >= 1e9 else f"{self.n_bytes / 1e6:.0f} MB"
        place = (weights_dir if weights_dir is not None else Path("<folder>")) / name / self.file
        setting = "" if weights_dir is not None else ", where SCIVID_WEIGHTS_DIR=<folder>"
        way_out = (
            f"Where there is a network: {download_command(name, weights_dir)}\n(it comes from {self.url})"
            if self.url is not None
            else "It was never released; a file of your own in that layout can take its place."
        )
        return (
            f"the weights of {name} are not here: {self.file} ({size}), by {self.owner}, "
            f"licence {self.licence}.\nLooked for {place}{setting}.\n{way_out}"
        )


def check_keys(
    found: dict[str, tuple[int, ...]],
    wanted: dict[str, tuple[int, ...]],
    *,
    left_out: tuple[str, ...],
    origin: str,
) -> None:
    """Refuse a file that is not the model's: it holds `wanted`, keys that begin as `left_out` says, no other.

    Both are key -> shape. `wanted` is the whole model in the file's own names, also where only some blocks
    will be read.

    Raises:
        WeightsError: lists the keys that are missing, unknown or of another shape.
    """
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(key for key in found.keys() - wanted.keys() if not key.startswith(left_out)),
        "of another shape": [
            f"{key} {found[key]} instead of {shape}"
            for key, shape in sorted(wanted.items())
            if found.get(key, shape) != shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{_some(keys)} {what}" for what, keys in problems.items() if keys)
        raise WeightsError(f"{origin} does not fit its model: {listed}. Use the files as they were released.")


def _some(keys: list[str]) -> str:
    rest = f" and {len(keys) - _MOST_LISTED} more" if len(keys) > _MOST_LISTED else ""
    return ", ".join(keys[:_MOST_LISTED]) + rest
