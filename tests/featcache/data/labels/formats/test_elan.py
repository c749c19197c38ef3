from typing import Any

import pytest

from featcache.errors import DataError

FILES = ("elan/duo.eaf", "elan/duo_export.txt")


@pytest.mark.parametrize("file", FILES)
def test_tiers_are_asked_and_nothing_is_negative_before(file: str, read: Any) -> None:
    found = read(file)
    (asked,) = [remark for remark in found.remarks if remark.weight == "ask"]
    assert asked.kind == "tiers"
    assert "'notes' (1: sound lost?)" in asked.text
    assert "--tier A" in asked.text
    assert not found.videos[0].is_labelled


@pytest.mark.parametrize("file", FILES)
def test_chosen_tiers_are_the_truth(file: str, read: Any, truth: Any, kinds: Any) -> None:
    found, tiers = read(file, tiers=("A", "B")), truth("elan")["tiers"]
    (labels,) = found.videos
    for tier in ("A", "B"):
        bouts = [[*map(float, b.seconds), b.label] for b in labels.bouts if b.subject == tier]
        assert bouts == tiers[tier]
    assert {"tier_left", "rare", "subjects"} <= kinds(found)


def test_a_tier_may_be_the_class(read: Any) -> None:
    (labels,) = read("elan/duo.eaf", tiers=("notes",), tier_is="class").videos
    assert [(b.label, b.first, b.stop, b.subject) for b in labels.bouts] == [("notes", 0, 13, "")]


def test_a_path_of_another_machine_is_said(read: Any, kinds: Any) -> None:
    assert "other_path" in kinds(read("elan/duo.eaf"))
    assert "guessed_video" in kinds(read("elan/duo_export.txt"))


EAF = """<ANNOTATION_DOCUMENT><HEADER>
<MEDIA_DESCRIPTOR MEDIA_URL="a.mp4" MIME_TYPE="video/mp4" {origin}/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="t2" TIME_VALUE="2000"/>
<TIME_SLOT TIME_SLOT_ID="t3"/></TIME_ORDER>
<TIER TIER_ID="child"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="r1" ANNOTATION_REF="a1">
<ANNOTATION_VALUE>fast</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="A"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2">
<ANNOTATION_VALUE>run</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="t2" TIME_SLOT_REF2="t3">
<ANNOTATION_VALUE>sit</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"""


def test_an_annotation_that_refers_to_another_has_its_time(videos: Any, read_text: Any) -> None:
    found = read_text("a.eaf", EAF.format(origin=""), videos(a=(10, 100)), tiers=("A", "child"))
    assert {(b.label, b.subject, b.first, b.stop) for b in found.videos[0].bouts} == {
        ("run", "A", 10, 20), ("fast", "child", 10, 20)
    }  # fmt: skip
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("no_time", "A, a2")]


def test_the_medium_may_start_before_the_annotations(videos: Any, read_text: Any, kinds: Any) -> None:
    found = read_text("a.eaf", EAF.format(origin='TIME_ORIGIN="500"'), videos(a=(10, 100)), tiers=("A",))
    assert [(b.first, b.stop) for b in found.videos[0].bouts] == [(15, 25)]
    assert "offset" in kinds(found)


@pytest.mark.parametrize(
    "times", ["1.000\t2.500\t1.500", "00:00:01.000\t00:00:02.500\t00:00:01.500", "1000\t2500\t1500"]
)
def test_an_export_has_its_times_in_any_form(times: str, videos: Any, read_text: Any) -> None:
    found = read_text("a.txt", f"A\t\t{times}\trun\n", videos(a=(10, 100)), tiers=("A",))
    assert [(b.label, b.first, b.stop) for b in found.videos[0].bouts] == [("run", 10, 25)]


def test_an_export_with_a_heading_and_each_time_three_times(videos: Any, read_text: Any) -> None:
    names = [
        f"{what} - {form}"
        for what in ("Begin", "End", "Duration")
        for form in ("hh:mm:ss.ms", "ss.msec", "msec")
    ]
    cells = "0:00:00.000\t0.000\t0\t0:00:01.500\t1.500\t1500\t0:00:01.500\t1.500\t1500"
    text = "\t".join(["Tier", "Participant", *names, "Value"]) + f"\nA\tp1\t{cells}\trun\n"
    found = read_text("a.txt", text, videos(a=(10, 100)), tiers=("A",))
    assert [(b.label, b.first, b.stop) for b in found.videos[0].bouts] == [("run", 0, 15)]


@pytest.mark.parametrize("text", ["<ANNOTATION_DOCUMENT>", '<!DOCTYPE a [<!ENTITY x "y">]><a/>'])
def test_what_is_no_document_is_one_message(text: str, videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"a\.eaf (is no ELAN document|declares entities)"):
        read_text("a.eaf", text, videos(a=(10, 100)))


def test_names_of_media_are_addresses(videos: Any, read_text: Any) -> None:
    text = EAF.format(origin="").replace('"a.mp4"', '"file:///C:/films/my%20film.mp4"')
    (labels,) = read_text("a.eaf", text, videos(names={"my film.mp4": (10, 100)}), tiers=("A",)).videos
    assert [(b.first, b.stop) for b in labels.bouts] == [(10, 20)]


def test_other_units_than_milliseconds_are_refused(videos: Any, read_text: Any) -> None:
    text = EAF.format(origin="").replace("<HEADER>", '<HEADER TIME_UNITS="PAL-frames">')
    with pytest.raises(DataError, match="counts in PAL-frames"):
        read_text("a.eaf", text, videos(a=(10, 100)))
