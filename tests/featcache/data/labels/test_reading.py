import copy
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from featcache.data.labels import Choices, Videos, read_labels
from featcache.data.labels.base import Importer
from featcache.data.labels.formats import IMPORTERS
from featcache.data.labels.reading import format_of, importer, read_one
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


STRAY = (None, 0, -1, 1.5, "x", "", [], {}, True, [1], {"a": 1}, 1e300, [[]], 10**20, "1")


def changed(document: Any, draw: random.Random) -> None:
    """Put something stray somewhere into a document, or take something out."""
    node = document
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = draw.choice(places)
        if not isinstance(node[place], dict | list) or not node[place] or draw.random() < 0.25:
            break
        node = node[place]
    if draw.random() < 0.2:
        del node[place]
    else:
        node[place] = copy.deepcopy(draw.choice(STRAY))


@pytest.mark.parametrize(
    "file",
    ["boris/boris_mice.boris", "feral/single.json", "feral/multi.json", "calms21/calms21_task1_test.json",
     "via/via3_project.json"],
)  # fmt: skip
def test_something_stray_in_a_file_is_read_or_one_message(file: str, own_data: Path, tmp_path: Path) -> None:
    draw, form = random.Random(file), format_of(own_data / file)
    document = json.loads((own_data / file).read_text())
    for sequence in document.get("annotator-id_0", {}).values():
        sequence["keypoints"] = []
    videos = Videos.below((own_data / file).parent)
    for n in range(60):
        stray = copy.deepcopy(document)
        changed(stray, draw)
        path = tmp_path / f"{n}{Path(file).suffix}"
        path.write_text(json.dumps(stray))
        with suppress(DataError):
            read_one(str(form), path, videos, Choices())


@pytest.mark.parametrize("file", [file for file, form in FORMATS.items() if form not in (None, "folders")])
def test_a_file_that_is_cut_short_is_read_or_one_message(file: str, own_data: Path, tmp_path: Path) -> None:
    content = (own_data / file).read_bytes()
    videos = Videos(own_data, [])
    path = tmp_path / Path(file).name
    for part in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(len(content) * part)])
        with suppress(DataError):
            read_one(str(FORMATS[file]), path, videos, Choices(tiers=("A",)))


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
