"""What is known of each frame of a user's own video beside its pixels: a number, or the places of points.

`scivid data init` puts it in a NumPy file a video, `frame_values/<video>.<name>.npy`, whose rows are the
video's frames; one of a single row is of the video as a whole. NaN is what nobody knows. Rows are mapped, so
that of ten hours no more is read than a clip has.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b, file_digest
from io import BytesIO
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Int32

from featcache.clips import Clip
from featcache.data.readers.base import UnreadableError, named
from featcache.system.files import publish

FOLDER = "frame_values"
"""Below the folder of videos."""

MOST_TRACKED = 64
"""Points of a clip: as many as training draws of those of a benchmark's."""

_WAY_OUT = "Move the manifest away and run `scivid data init` again, which makes it anew."


def path_of(data_dir: Path, source: str, name: str) -> Path:
    """The file of one video and one thing that is known of its frames."""
    return data_dir / FOLDER / f"{source}.{name}.npy"


def write_values(data_dir: Path, source: str, values: Mapping[str, np.ndarray]) -> None:
    """Write what is known of a video's frames, by name: a row a frame, or one of the whole video."""
    for name, rows in values.items():
        content = BytesIO()
        np.save(content, rows, allow_pickle=False)
        publish(path_of(data_dir, source, name), content.getvalue())


def read_values(data_dir: Path, clip: Clip, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """What is known of the frames from a clip's first to its video's last, a row a frame, not read yet.

    Args:
        data_dir: the folder of videos.
        clip: of one of them.
        names: what a value is called -> its name in the file's; as `Dataset.features`.

    Raises:
        DataError: a file is missing, is no array, or has other rows than the video has frames.
    """
    found = dict[str, np.ndarray]()
    for target, name in names.items():
        path = path_of(data_dir, clip.source, name)
        with named(str(path), _WAY_OUT):
            try:
                rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as problem:
                raise UnreadableError(f"it cannot be read ({problem})") from None
            n_frames = clip.record + clip.n_source
            if len(rows) not in (1, n_frames):
                raise UnreadableError(f"it has {len(rows)} rows for the {n_frames} frames of {clip.source}")
        of_video = len(rows) == 1 < n_frames
        found[target] = (rows[0] if rows.ndim > 1 else rows) if of_video else rows[clip.record :]
    return found


def tracks_of_clip(found: Mapping[str, np.ndarray], frames: Int32[np.ndarray, " F"]) -> dict[str, np.ndarray]:
    """Of a whole video's `tracks` and `visibility` a clip's frames, and points seen in the first of them.

    What is nowhere has the coordinates -1. Of a benchmark's record all frames and points are kept, as a
    view's start counts the former and training draws of the latter; here neither is needed.
    """
    visible = found["visibility"][frames]
    first = np.argsort(~visible[0], kind="stable")[:MOST_TRACKED]
    tracks = found["tracks"][frames][:, first]
    known = np.isfinite(tracks).all(axis=-1)
    return {
        "tracks": np.where(rearrange(known, "f q -> f q 1"), tracks, np.float32(-1)),
        "visibility": visible[:, first] & known,
    }


def digest_of(data_dir: Path, sources: Iterable[str], names: Iterable[str]) -> str:
    """A digest of all that is known of some videos; of a missing file that it is missing."""
    digest, keys = blake2b(digest_size=16), list(names)
    for source in sources:
        for name in keys:
            path = path_of(data_dir, source, name)
            digest.update(f"{source}\0{name}\0".encode())
            if path.is_file():
                with path.open("rb") as file:
                    digest.update(file_digest(file, lambda: blake2b(digest_size=16)).digest())
    return digest.hexdigest()
