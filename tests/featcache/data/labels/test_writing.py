"""What is written is read back by our own importers: the same bouts, to the frame."""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featcache.data.labels.base import Bout, VideoLabels
from featcache.data.labels.reading import read_labels
from featcache.data.labels.videos import Video, Videos
from featcache.data.labels.writing import write_labels
from featcache.errors import CallError

CLASSES = ("chase", "groom left", "Schlafen, müde", "never")
RATES = ("30", "30000/1001", "25", "7.5", "240", "1")


def labels_of(source: str, rate: str, seed: int, n_frames: int = 500) -> VideoLabels:
    """Bouts of one frame and of many, at both ends, one behind the other in other classes."""
    rng, bouts = np.random.default_rng(seed), [Bout(label="chase", first=0, stop=1)]
    for label in CLASSES[:3]:
        edges = np.unique(rng.integers(2, n_frames, size=24))
        edges = np.append(edges[: len(edges) // 2 * 2 - 1], n_frames)
        bouts += [Bout(label=label, first=int(a), stop=int(b)) for a, b in edges.reshape(-1, 2)]
    bouts.sort(key=lambda bout: (bout.first, bout.label))
    video = Video(source=source, n_frames=n_frames, rate=Fraction(rate))
    return VideoLabels(video=video, bouts=tuple(bouts))


def plain(labels: VideoLabels) -> set[tuple[str, int, int]]:
    return {(bout.label, bout.first, bout.stop) for bout in labels.bouts}


@pytest.mark.parametrize("rate", RATES)
def test_boris_comes_back_to_the_frame(tmp_path: Path, rate: str) -> None:
    written = [labels_of("a.mp4", rate, 0), labels_of("deep/b.mp4", rate, 1)]
    assert write_labels(tmp_path / "out.boris", written, CLASSES) == [tmp_path / "out.boris"]
    videos = Videos(tmp_path, [of.video for of in written])
    found = read_labels([tmp_path / "out.boris"], videos)
    assert set(found.classes) == set(CLASSES)
    assert {of.video.source: plain(of) for of in found.videos} == {
        of.video.source: plain(of) for of in written
    }
    assert not any(of.unknown for of in found.videos)
    assert {remark.weight for remark in found.remarks} <= {"say"}


@pytest.mark.parametrize("rate", RATES)
def test_boris_comes_back_to_the_frame_from_the_program(tmp_path: Path, rate: str) -> None:
    """The program keeps milliseconds, opens files in the machine's own encoding, and sorts events."""
    of = labels_of("a.mp4", rate, 2)
    (file,) = write_labels(tmp_path / "out.boris", [of], CLASSES)
    project = json.loads(file.read_text("ascii"))
    events = project["observations"]["a.mp4"]["events"]
    for event in events:
        event[0] = float(Decimal(event[0]).quantize(Decimal("0.001")))
    events.sort(key=lambda event: event[:3])
    file.write_text(json.dumps(project))
    (found,) = read_labels([file], Videos(tmp_path, [of.video])).videos
    assert plain(found) == plain(of)


@pytest.mark.parametrize("rate", RATES)
def test_annot_comes_back_to_the_frame(tmp_path: Path, rate: str) -> None:
    written = [labels_of("a.mp4", rate, 0), labels_of("deep/a.mp4", rate, 1)]
    files = write_labels(tmp_path / "out.annot", written, CLASSES)
    assert [file.name for file in files] == ["out_a.annot", "out_a_2.annot"]
    for file, of in zip(files, written, strict=True):
        (found,) = read_labels([file], Videos(tmp_path, [of.video])).videos
        assert plain(found) == plain(of)
        assert not found.unknown


def test_a_video_in_which_nothing_happens(tmp_path: Path) -> None:
    nothing = VideoLabels(video=Video(source="a.mp4", n_frames=50, rate=Fraction(25)))
    for ending in ("boris", "annot"):
        (file,) = write_labels(tmp_path / f"out.{ending}", [nothing], CLASSES)
        (found,) = read_labels([file], Videos(tmp_path, [nothing.video])).videos
        assert not found.bouts


def test_an_annot_file_is_of_one_video() -> None:
    from featcache.data.labels.formats import annot

    with pytest.raises(CallError, match="of one video"):
        annot.write([], CLASSES)
