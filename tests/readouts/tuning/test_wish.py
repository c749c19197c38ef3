"""What `--tune` and the options beside it may say."""

import pytest

from featcache.errors import CallError
from readouts.tuning.wish import Wish, parse_wish


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_blocks_is_refused(wrong: str) -> None:
    with pytest.raises(CallError, match=f"--tune {wrong}: write how many upper blocks"):
        parse_wish(wrong)


def test_options_of_a_backbone_that_is_not_tuned_are_refused() -> None:
    assert parse_wish(None) is None
    with pytest.raises(CallError, match="--backbone-lr: of a backbone that is tuned"):
        parse_wish(None, backbone_lr=0.1)
    assert parse_wish("all") == Wish(blocks=None)


def test_what_is_asked_for_repeats_as_options() -> None:
    asked = parse_wish("2", backbone_lr=0.3, micro_batch=4, checkpointing=True)
    assert asked == Wish(blocks=2, backbone_lr=0.3, micro_batch=4, checkpointing=True)
    assert asked.options == {
        "tune": "2", "backbone_lr": 0.3, "micro_batch": 4, "checkpoint_blocks": True,
    }  # fmt: skip
    assert Wish(blocks=None).options["tune"] == "all"
