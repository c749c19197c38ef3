from pathlib import Path
from typing import Any

import pytest

from featcache.data.labels import Choices, read_labels
from featcache.data.labels.base import Importer
from featcache.data.labels.formats import IMPORTERS
from featcache.data.labels.reading import format_of, importer
from featcache.errors import DataError

FORMATS = {
    "boris/boris_mice.boris": "boris",
    "boris/boris_mice_aggregated.csv": "boris_tables",
    "boris/boris_mice_pair_obs1_tabular.tsv": "boris_tables",
    "boris/boris_mice_pair_obs1_binary_1s_resident.tsv": "boris_tables",
    "boris/boris_old_tabular_offset_obs.tsv": "boris_tables",
    "boris/boris_old_aggregated_pair_obs1.csv": "boris_tables",
    "boris/feral_from_boris.json": "feral",
    "calms21/calms21_task1_train.json": "calms21",
    "deepethogram/DATA/mouse_a/mouse_a_labels.csv": "deepethogram",
    "deepethogram/DATA/mouse_a/record.yaml": None,
    "deepethogram/other_csv/mouse_e_labels.csv": "deepethogram",
    "deepethogram/project_config.yaml": None,
    "elan/duo.eaf": "elan",
    "elan/duo_export.txt": "elan",
    "feral/multi.json": "feral",
    "flies/movie1/movie1_actions.mat": "fly_bouts",
    "flies/movie1/movie1_track.mat": None,
    "intervals/clock.csv": "intervals",
    "intervals/frames.csv": "intervals",
    "intervals/seconds.csv": "intervals",
    "mars/mouse1_seconds.annot": "annot",
    "via/via3_project.json": "via",
    "via/via3_segments.csv": "via",
    "videofolder_classes": "folders",
    "videofolder_csv/metadata.csv": "metadata",
    "videofolder_jsonl/train/metadata.jsonl": "metadata",
    "vjepa/train.csv": "lists",
    "videos.json": None,
    "make_videos.py": None,
    "tracks/dlc.csv": None,
    "tracks/via_tracks.csv": None,
}


@pytest.mark.parametrize(("file", "form"), FORMATS.items())
def test_each_file_is_known_for_what_it_is(file: str, form: str | None, own_data: Path) -> None:
    assert format_of(own_data / file) == form


@pytest.mark.parametrize("form", IMPORTERS)
def test_each_member_of_the_family_keeps_its_contract(form: str) -> None:
    assert isinstance(importer(form), Importer)


def test_what_is_not_known_lists_what_is(tmp_path: Path, videos: Any) -> None:
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(DataError, match="there are boris, boris_tables"):
        read_labels([tmp_path / "notes.md"], videos(a=(1, 5)), Choices())
    with pytest.raises(DataError, match="there is no"):
        read_labels([tmp_path / "none.csv"], videos(a=(1, 5)), Choices())


def test_one_file_of_a_folder_that_cannot_be_read_leaves_the_others(tmp_path: Path, videos: Any) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.csv").write_text("video,start,stop,label\na.mp4,0.5,2.5,run\n")
    (folder / "b.boris").write_text("{")
    found = read_labels([folder], videos(a=(10, 100)), Choices())
    assert [labels.video.source for labels in found.videos] == ["a.mp4"]
    assert [(r.kind, r.file) for r in found.remarks if r.weight == "refuse"] == [("unreadable", "b.boris")]


def test_tables_that_cannot_be_read_are_not_needed_beside_a_project(read: Any) -> None:
    found = read("boris", observations=("pair_obs1",))
    assert {r.file for r in found.remarks if r.kind == "left_out"} == {
        f"boris_mice_pair_obs1_binary_1s_{who}.tsv" for who in ("No_focal_subject", "intruder", "resident")
    }
    assert not [r for r in found.remarks if r.weight != "say"]
