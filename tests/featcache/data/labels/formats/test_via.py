import json
from typing import Any

import pytest

from featcache.errors import DataError


@pytest.mark.parametrize("file", ["via3_segments.csv", "via3_project.json"])
def test_both_forms_are_the_truth(file: str, read: Any, truth: Any, kinds: Any) -> None:
    found = read(f"via/{file}")
    rows = [[v.video.source, *map(float, b.seconds), b.label] for v in found.videos for b in v.bouts]
    rows += [[v.video.source, float(p.seconds), None, p.label] for v in found.videos for p in v.points]
    assert sorted(map(str, rows)) == sorted(map(str, truth("via")["segments"]))
    assert {"zero_length", "points"} <= kinds(found)


def export(*rows: tuple[str, dict[str, str]], attributes: dict[str, Any]) -> str:
    columns = "metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata"
    lines = [f"# ATTRIBUTE = {json.dumps(attributes)}", f"# CSV_HEADER = {columns}"]
    for times, values in rows:
        quoted = json.dumps(values).replace('"', '""')
        lines.append(f'"1_x","[""a.mp4""]",0,"{times}","[]","{quoted}"')
    return "\n".join([*lines, ""])


SELECT = {"1": {"aname": "behaviour", "type": 4, "options": {"0": "dig", "1": "eat"}}}


def test_an_option_that_is_not_there_is_refused(videos: Any, read_text: Any) -> None:
    found = read_text("v.csv", export(("[1,2]", {"1": "7"}), attributes=SELECT), videos(a=(10, 100)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("unknown_class", "row 3")]


def test_boxes_hold_several_options_and_texts_are_labels(videos: Any, read_text: Any) -> None:
    attributes = {"1": SELECT["1"] | {"type": 2}, "2": {"aname": "note", "type": 1, "options": {}}}
    text = export(("[1,2]", {"1": "0,1", "2": "loud"}), attributes=attributes)
    (labels,) = read_text("v.csv", text, videos(a=(10, 100))).videos
    assert {b.label for b in labels.bouts} == {"dig", "eat", "loud"}


def test_options_of_one_name_are_told_apart_by_their_attribute(videos: Any, read_text: Any) -> None:
    attributes = {"1": SELECT["1"], "2": SELECT["1"] | {"aname": "second"}}
    found = read_text("v.csv", export(("[1,2]", {"2": "0"}), attributes=attributes), videos(a=(10, 100)))
    assert found.videos[0].bouts[0].label == "second dig"


def test_what_is_no_export_is_one_message(videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"v\.csv is no project or export of VIA 3"):
        read_text("v.csv", "# CSV_HEADER = a,b\n1,2,3\n", videos(a=(10, 100)))
