from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from featcache.data.own_videos.clips import ClipRule, ListedClip
from featcache.data.own_videos.writing import manifest_text, pattern_of, publish_list, recipe_for
from featcache.errors import DataError
from featcache.manifest import load_manifest


@pytest.mark.parametrize(
    ("sources", "pattern"),
    [
        (["a.mp4", "b.mp4"], "*.mp4"),
        (["x/a.mp4", "x/b.MP4"], "x/*.[Mm][Pp]4"),
        (["x/a.mp4", "y/b.avi"], "**/*.[am][pv][4i]"),
        (["a.mp4", "b.webm"], "*.*"),
    ],
)
def test_a_pattern_matches_every_video(sources: list[str], pattern: str) -> None:
    assert pattern_of(sources) == pattern
    assert all(fnmatchcase(source, pattern.replace("**/", "*")) for source in sources)


def test_a_clip_list_is_rows_of_names_joined_by_semicolons(tmp_path: Path) -> None:
    clips = [ListedClip(source="a, b.mp4", first_frame=8, labels=("run", "sit"))]
    publish_list(tmp_path / "train.csv", clips)
    assert (tmp_path / "train.csv").read_text() == 'video,first_frame,labels\n"a, b.mp4",8,run;sit\n'
    with pytest.raises(DataError, match="has a semicolon"):
        publish_list(tmp_path / "val.csv", [ListedClip(source="a", first_frame=0, labels=("x;y",))])


def test_small_sets_are_trained_for_fewer_steps_and_large_ones_as_the_benchmark_is() -> None:
    assert recipe_for(40) == {"steps": 2_000, "warmup": 100}
    assert recipe_for(6_400) == {"steps": 10_000, "warmup": 500}
    assert recipe_for(26_970) == {}
    assert recipe_for(10_000, batch=16, most=10_000) == {}


@pytest.mark.parametrize("name", ["cages", "yes", "2026", "a: b", "é #1"])
def test_what_is_written_is_a_manifest_whatever_the_names_look_like(name: str, tmp_path: Path) -> None:
    text = manifest_text(
        name,
        said=["a line"],
        files="**/*.mp4",
        splits=["train", "val"],
        kind="classification",
        classes=["no", "12", 'it "is"', "other"],
        background="other",
        rule=ClipRule(n_frames=8, stride=2, every=16),
        version="1",
    )
    (tmp_path / "scivid.yaml").write_text(text)
    manifest = load_manifest(tmp_path / "scivid.yaml")
    dataset, task = manifest.dataset(name), manifest.task(name)
    assert dataset.classes == ("no", "12", 'it "is"', "other")
    assert (dataset.background, dataset.split("val").clips) == ("other", "clip_lists/val.csv")
    assert (task.kind, task.clip.n_frames, task.clip.stride) == ("classification", 8, 2)
    assert task.source_of("train") == (name, "train")


def test_without_labels_clips_are_cut_by_a_step_and_features_extracted(tmp_path: Path) -> None:
    rule = ClipRule(every=16)
    text = manifest_text("x", said=[], files="*.mp4", splits=[], rule=rule, version="1")
    (tmp_path / "scivid.yaml").write_text(text)
    manifest = load_manifest(tmp_path / "scivid.yaml")
    assert (manifest.dataset("x").clip_every, manifest.task("x").kind) == (16, "features")
