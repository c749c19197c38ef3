"""The quirks of `own_data`: each is answered as it asks, and a new one has to find its answer here."""

from pathlib import Path
from typing import Any

import pytest

from featcache.data.labels.remarks import KINDS, Remarks, told
from featcache.errors import DataError

BORIS, AGGREGATED = "boris/boris_mice.boris", "boris/boris_mice_aggregated.csv"
PAIR_TABLE, UNPAIRED = "boris/boris_mice_pair_obs1_tabular.csv", "boris/boris_mice_unpaired_obs_tabular.tsv"
BINARY, FERAL_BORIS = "boris/boris_mice_pair_obs1_binary_1s_resident.tsv", "boris/feral_from_boris.json"
OLD_PAIR, OLD_OFFSET = "boris/boris_old_tabular_pair_obs1.csv", "boris/boris_old_tabular_offset_obs.tsv"
OLD_AGGREGATED = "boris/boris_old_aggregated_pair_obs1.csv"
CLASSES, CSV, JSONL = "videofolder_classes", "videofolder_csv", "videofolder_jsonl"
HANDLED, REFUSED_WHOLE = "handled", "refused whole"

# (truth, part of it, quirk) -> (what to read, the kind of remark that answers; HANDLED where the tests of the
# format show it to the frame and no word is needed).
ANSWERS: dict[tuple[str, str, str], tuple[str | tuple[str, ...], str]] = {
    ("boris", "", "auto_stop"): (BORIS, HANDLED),
    ("boris", "", "stop_is_a_toggle"): (BORIS, HANDLED),
    ("boris", "", "two_observers"): (BORIS, "observers"),
    ("boris", "", "rate"): (BORIS, "rate"),
    ("boris", "", "unpaired"): (BORIS, "unclosed"),
    ("boris", "", "live"): (BORIS, "live"),
    ("boris", "", "queue"): (BORIS, HANDLED),
    ("boris", "", "offset"): (BORIS, "offset"),
    ("boris", "", "nothing_coded"): (BORIS, "nothing_coded"),
    ("boris", "", "closed_by_program"): (BORIS, "closed_by_program"),
    ("boris", "", "past_end"): (BORIS, "past_end"),
    ("boris", "", "points"): (BORIS, "points"),
    ("boris", "", "none_modifier"): (BORIS, HANDLED),
    ("boris", "", "class_with_space"): (BORIS, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "offset_lost"): ((BORIS, AGGREGATED), "disagree"),
    ("boris", "boris_mice_aggregated.csv / .tsv", "cut"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "joint"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "source_prefix"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "no_focal_subject"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "columns_move"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_aggregated.csv / .tsv", "rate"): (AGGREGATED, "rate"),
    ("boris", "boris_mice_aggregated.csv / .tsv", "na"): (AGGREGATED, HANDLED),
    ("boris", "boris_mice_pair_obs1_tabular.csv / .tsv", "start_stop_rows"): (PAIR_TABLE, HANDLED),
    ("boris", "boris_mice_unpaired_obs_tabular.tsv", "unpaired"): (UNPAIRED, "unclosed"),
    ("boris", "boris_mice_unpaired_obs_tabular.tsv", "long_number"): (UNPAIRED, HANDLED),
    ("boris", "boris_mice_pair_obs1_binary_1s_*.tsv", "double_heading"): (BINARY, REFUSED_WHOLE),
    ("boris", "boris_mice_pair_obs1_binary_1s_*.tsv", "points_counted"): (BINARY, REFUSED_WHOLE),
    ("boris", "feral_from_boris.json", "row_count"): (FERAL_BORIS, "row_count"),
    ("boris", "feral_from_boris.json", "offset_lost"): ((BORIS, FERAL_BORIS), "disagree"),
    ("boris", "feral_from_boris.json", "empty"): (FERAL_BORIS, "one_class"),
    ("boris", "feral_from_boris.json", "split_without_labels"): (FERAL_BORIS, "no_labels"),
    ("boris", "feral_from_boris.json", "stop_included"): (FERAL_BORIS, "from_boris"),
    ("boris", "boris_old_tabular_pair_obs1.csv", "lines_before_heading"): (OLD_PAIR, HANDLED),
    ("boris", "boris_old_tabular_pair_obs1.csv", "names"): (OLD_PAIR, HANDLED),
    ("boris", "boris_old_tabular_pair_obs1.csv", "total_length"): (OLD_OFFSET, "length"),
    ("boris", "boris_old_tabular_offset_obs.tsv", "offset"): (OLD_OFFSET, "offset"),
    ("boris", "boris_old_tabular_offset_obs.tsv", "total_length"): (OLD_OFFSET, "length"),
    ("boris", "boris_old_aggregated_pair_obs1.csv", "one_modifier_column"): (OLD_AGGREGATED, HANDLED),
    ("boris", "boris_old_aggregated_pair_obs1.csv", "point_stop"): (OLD_AGGREGATED, HANDLED),
    ("calms21", "", "no_rate"): ("calms21", "no_rate"),
    ("calms21", "", "other_is_background"): ("calms21", HANDLED),
    ("calms21", "", "rare"): ("calms21", "rare"),
    ("deepethogram", "", "minus_one"): ("deepethogram", "unlabelled"),
    ("deepethogram", "", "row_count"): ("deepethogram", "row_count"),
    ("deepethogram", "", "multi"): ("deepethogram", HANDLED),
    ("deepethogram", "", "all_zero"): ("deepethogram", "all_zero"),
    ("deepethogram", "", "index_column"): ("deepethogram", HANDLED),
    ("deepethogram", "", "no_background"): ("deepethogram", HANDLED),
    ("deepethogram", "", "rare"): ("deepethogram", "rare"),
    ("elan", "", "tiers"): ("elan/duo.eaf", "tiers"),
    ("elan", "", "media_path"): ("elan/duo.eaf", "other_path"),
    ("elan", "", "milliseconds"): ("elan/duo.eaf", HANDLED),
    ("elan", "", "no_heading"): ("elan/duo_export.txt", HANDLED),
    ("elan", "", "comment_tier"): ("elan/duo.eaf", "tiers"),
    ("elan", "", "rare"): ("elan/duo.eaf --tier A", "rare"),
    ("feral", "", "row_count"): ("feral/single.json", "row_count"),
    ("feral", "", "inference"): ("feral/single.json", HANDLED),
    ("feral", "", "one_class_split"): ("feral/single.json", "one_class"),
    ("feral", "", "rare"): ("feral/single.json", "rare"),
    ("feral", "", "no_background_class"): ("feral/multi.json", HANDLED),
    ("flies", "", "from_one"): ("flies", HANDLED),
    ("flies", "", "two_flies"): ("flies", "subjects"),
    ("flies", "", "nan_track"): ("flies", "no_track"),
    ("flies", "", "columns"): ("flies", HANDLED),
    ("flies", "", "empty_cells"): ("flies", HANDLED),
    ("flies", "", "rare"): ("flies", "rare"),
    ("intervals", "seconds.csv", "zero_length"): ("intervals/seconds.csv", "zero_length"),
    ("intervals", "seconds.csv", "backwards"): ("intervals/seconds.csv", "backwards"),
    ("intervals", "seconds.csv", "past_end"): ("intervals/seconds.csv", "past_end"),
    ("intervals", "seconds.csv", "no_video"): ("intervals/seconds.csv", "no_video"),
    ("intervals", "seconds.csv", "overlap"): ("intervals/seconds.csv", "subjects"),
    ("intervals", "frames.csv", "stop_included"): ("intervals/frames.csv", "last_frame"),
    ("intervals", "frames.csv", "rare"): ("intervals/frames.csv", "rare"),
    ("intervals", "clock.csv", "clock_and_comma"): ("intervals/clock.csv", HANDLED),
    ("intervals", "clock.csv", "trailing_space"): ("intervals/clock.csv", HANDLED),
    ("intervals", "clock.csv", "case"): ("intervals/clock.csv", "case"),
    ("mars", "mouse1_seconds.annot", "integer_row"): ("mars/mouse1_seconds.annot", HANDLED),
    ("mars", "mouse1_seconds.annot", "two_channels"): ("mars/mouse1_seconds.annot", "channels"),
    ("mars", "mouse1_seconds.annot", "seq_name"): ("mars/mouse1_seconds.annot", "other_ending"),
    ("mars", "mouse1_seconds.annot", "empty_class"): ("mars/mouse1_seconds.annot", "empty_class"),
    ("mars", "mouse2_frames.annot", "counting"): ("mars/mouse2_frames.annot", "counting"),
    ("mars", "mouse2_frames.annot", "rate"): ("mars/mouse2_frames.annot", "rate"),
    ("mars", "mouse2_frames.annot", "movie_on_next_line"): ("mars/mouse2_frames.annot", HANDLED),
    ("via", "", "ids"): ("via/via3_project.json", HANDLED),
    ("via", "", "comment_lines"): ("via/via3_segments.csv", HANDLED),
    ("via", "", "point"): ("via/via3_project.json", "zero_length"),
    ("via", "", "space"): ("via/via3_project.json", HANDLED),
    ("videofolder", CLASSES, "same_name"): (CLASSES, "leak"),
    ("videofolder", CLASSES, "class_missing"): (CLASSES, "class_missing"),
    ("videofolder", CLASSES, "junk"): (CLASSES, "not_video"),
    ("videofolder", CLASSES, "empty_class"): (CLASSES, "empty_class"),
    ("videofolder", CLASSES, "upper_case"): (CLASSES, HANDLED),
    ("videofolder", CLASSES, "space"): (CLASSES, HANDLED),
    ("videofolder", CSV, "missing_file"): (CSV, "no_video"),
    ("videofolder", CSV, "unlisted"): (CSV, "unlisted"),
    ("videofolder", CSV, "group"): (CSV, HANDLED),
    ("videofolder", JSONL, "multi"): (JSONL, HANDLED),
    ("videofolder", JSONL, "empty_list"): (JSONL, "labelled_nothing"),
    ("vjepa", "", "space_in_path"): ("vjepa", HANDLED),
    ("vjepa", "", "absolute"): ("vjepa", "other_path"),
    ("vjepa", "", "leak"): ("vjepa", "leak"),
    ("vjepa", "", "unseen_class"): ("vjepa", "class_missing"),
    ("vjepa", "", "no_names"): ("vjepa", "numbers"),
}
NOT_LABELS = {"fields", "tracks"}


def quirks(node: Any, part: str = "") -> list[tuple[str, str, str]]:
    """(part, id, what is owed) of each quirk of a truth, wherever it stands."""
    found = []
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "quirks":
                found += [(part, quirk["id"], quirk["importer"]) for quirk in value]
            elif isinstance(value, dict):
                found += quirks(value, "" if key in ("files", "videos") else key)
    return found


def test_every_quirk_of_every_truth_has_its_answer(own_data: Path, truth: Any) -> None:
    names = {path.stem for path in (own_data / "truth").glob("*.json")} - NOT_LABELS
    found = {(name, part, quirk): owed for name in names for part, quirk, owed in quirks(truth(name))}
    assert found.keys() == ANSWERS.keys()
    # What may not be taken in silence is not, and what is to be refused is.
    silent = [key for key, owed in found.items() if ANSWERS[key][1] == HANDLED and "handle" not in owed]
    assert not silent
    refused = [key for key, owed in found.items() if owed == "refuse"]
    assert all(KINDS[ANSWERS[key][1]][0] == "refuse" for key in refused)


@pytest.mark.parametrize(("key", "answer"), ANSWERS.items(), ids=["-".join(key) for key in ANSWERS])
def test_the_answer_is_given(key: Any, answer: Any, read: Any, kinds: Any) -> None:
    files, kind = answer
    if kind == REFUSED_WHOLE:
        with pytest.raises(DataError, match="binary table"):
            read(files)
        return
    tiers = ("A",) if "--tier A" in str(files) else ()
    files = (files.split(" --")[0],) if isinstance(files, str) else files
    found = read(*files, tiers=tiers)
    if kind != HANDLED:
        assert kind in kinds(found)


def test_every_kind_that_is_used_is_in_the_table_and_every_one_there_is_used() -> None:
    data = Path(__file__).resolve().parents[4] / "featcache/data"
    files = [*data.glob("labels/**/*.py"), *data.glob("own_videos/*.py")]
    sources = " ".join(path.read_text() for path in files if path.name != "remarks.py")
    assert not [kind for kind in KINDS if f'"{kind}"' not in sources]


def test_a_remark_names_its_file_and_place_once() -> None:
    remarks = Remarks(Path("x/labels.csv"))
    remarks.add("rate", "row 2", "is odd.")
    remarks.add("rate", "row 2", "is odd.")
    assert [str(remark) for remark in remarks.all] == ["labels.csv, row 2: is odd."]
    with pytest.raises(KeyError):
        remarks.add("nonsense", "", "is odd.")


def test_paths_of_another_machine_are_told_once_a_file() -> None:
    of_files = []
    for name in ("a.csv", "b.csv"):
        remarks = Remarks(Path(name))
        for video in ("1.mp4", "2.mp4", "3.mp4"):
            remarks.add("other_path", "", f"'D:/{video}' is not a path here: taken for {video}.")
            remarks.add("rare", "row 3", f"one frame of {video}.")
        of_files += remarks.all
    assert told([*of_files[:6], *of_files[6:8]]) == [
        "a.csv: 'D:/1.mp4' is not a path here: taken for 1.mp4, and so on for 2 more.",
        *(f"a.csv, row 3: one frame of {video}.mp4." for video in "123"),
        "b.csv: 'D:/1.mp4' is not a path here: taken for 1.mp4.",
        "b.csv, row 3: one frame of 1.mp4.",
    ]
