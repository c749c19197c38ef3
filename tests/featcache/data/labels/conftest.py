"""The label files of `own_data` with their videos, read as a user reads them, and frame by frame."""

from collections.abc import Callable
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from featcache.data.labels import Annotations, Choices, Videos, read_labels
from featcache.data.labels.base import UNKNOWN, YES, VideoLabels
from featcache.data.labels.videos import Video


@pytest.fixture(scope="session")
def read(own_data: Path) -> Callable[..., Annotations]:
    """Reads files of `own_data` for the videos of their folder."""
    measured = dict[str, Videos]()

    def read(*files: str, **choices: Any) -> Annotations:
        top = files[0].split("/")[0]
        if top not in measured:
            measured[top] = Videos.below(own_data / top)
        return read_labels([own_data / file for file in files], measured[top], Choices(**choices))

    return read


@pytest.fixture
def videos(tmp_path: Path) -> Callable[..., Videos]:
    """Videos of so many frames a second and frames, as files of nothing: `videos(a=(25, 100))` is `a.mp4`."""

    def make(*, names: dict[str, tuple[Any, int]] | None = None, **of: tuple[Any, int]) -> Videos:
        named = {f"{stem}.mp4": size for stem, size in of.items()} | (names or {})
        for name in named:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        return Videos(
            tmp_path,
            [Video(source=name, n_frames=n, rate=Fraction(rate)) for name, (rate, n) in named.items()],
        )

    return make


@pytest.fixture
def read_text(tmp_path: Path) -> Callable[..., Annotations]:
    """Reads a file of this name and text."""

    def read(name: str, text: str | bytes, videos: Videos, **choices: Any) -> Annotations:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_labels([path], videos, Choices(**choices))

    return read


def _runs(labels: VideoLabels, subject: str | None = None, nothing: str = "(none)") -> list[list[Any]]:
    names = sorted({bout.label for bout in labels.bouts if subject in (None, bout.subject)})
    states = labels.states(names, subject=subject)
    texts = [
        "?" if names and (column == UNKNOWN).all() else
        "+".join(name for name, state in zip(names, column, strict=True) if state == YES) or nothing
        for column in states.T
    ]  # fmt: skip
    return [[text, len(list(run))] for text, run in groupby(texts)]


@pytest.fixture(scope="session")
def runs() -> Callable[..., list[list[Any]]]:
    """Labels of a video as the truth has them: [text, number of frames], labels joined by +."""
    return _runs


def _of(annotations: Annotations, name: str) -> VideoLabels:
    (found,) = [labels for labels in annotations.videos if labels.video.source.endswith(name)]
    return found


@pytest.fixture(scope="session")
def of() -> Callable[[Annotations, str], VideoLabels]:
    """The labels of one video, by the end of its path."""
    return _of


@pytest.fixture(scope="session")
def kinds() -> Callable[[Annotations], set[str]]:
    return lambda annotations: {remark.kind for remark in annotations.remarks}
