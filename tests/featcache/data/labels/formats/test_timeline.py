from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from featcache.data.labels.base import Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.formats.timeline import Event, Media, Observation, place


def put(observation: Observation, videos: Any, **choices: Any) -> Any:
    drafts = Drafts(Path("p.boris"), videos)
    place([observation], drafts, Choices(**choices))
    return drafts.annotations("boris", [])


def seconds(*times: str) -> list[Fraction]:
    return [Fraction(time) for time in times]


def test_a_state_over_a_joint_is_split_there_and_a_point_belongs_to_one_file(videos: Any) -> None:
    start, stop, at = seconds("3.2", "5", "4")
    observation = Observation(
        name="o",
        media=(Media(name="a.mp4", seconds=Fraction(4)), Media(name="b.mp4", seconds=Fraction(6))),
        events=(
            Event(where="1", label="run", start=start, stop=stop),
            Event(where="2", label="hop", start=at, is_point=True),
        ),
    )
    a, b = put(observation, videos(a=(10, 40), b=(10, 60))).videos
    assert [(bout.first, bout.stop) for bout in a.bouts] == [(32, 40)]
    assert [(bout.first, bout.stop) for bout in b.bouts] == [(0, 10)]
    assert (a.points, [point.frame for point in b.points]) == ((), [0])


def test_a_first_file_that_is_not_at_hand_still_takes_its_time(videos: Any) -> None:
    start, stop = seconds("5", "6")
    observation = Observation(
        name="o",
        media=(Media(name="gone.mp4", seconds=Fraction(4)), Media(name="b.mp4")),
        events=(Event(where="1", label="run", start=start, stop=stop),),
    )
    (b,) = put(observation, videos(b=(10, 60))).videos
    assert [(bout.first, bout.stop) for bout in b.bouts] == [(10, 20)]


def test_an_event_after_the_end_is_refused(videos: Any) -> None:
    (start, stop) = seconds("11", "12")
    observation = Observation(
        name="o",
        media=(Media(name="a.mp4"),),
        events=(Event(where="1", label="run", start=start, stop=stop),),
    )
    found = put(observation, videos(a=(10, 100)))
    assert [(remark.kind, remark.weight) for remark in found.remarks] == [("after_end", "refuse")]


def test_modifiers_make_classes_on_request_and_are_said_where_they_do_not(videos: Any) -> None:
    start, stop = seconds("1", "2")
    whole = Event(where="1", label="groom", start=start, stop=stop, modifiers=("head", ""))
    observation = Observation(
        name="o",
        media=(Media(name="a.mp4"),),
        events=(
            whole,
            replace(whole, modifiers=()),
            replace(whole, modifiers=("", "left"), stop=None, start=Fraction(4)),
        ),
    )
    together = put(observation, videos(a=(10, 100)))
    assert together.classes == ("groom",)
    (said,) = [remark for remark in together.remarks if remark.kind == "modifiers"]
    assert "groom (head), groom (-, left) stand for their behaviours: --modifiers" in said.text
    apart = put(observation, videos(a=(10, 100)), modifiers=True)
    assert apart.classes == ("groom (head)", "groom")
    # A state that was never closed leaves the class unknown that it would have been of.
    assert [span.label for span in apart.videos[0].unknown] == ["groom (-, left)"]
    assert "modifiers" not in {remark.kind for remark in apart.remarks}
