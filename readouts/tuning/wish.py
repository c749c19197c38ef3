"""What a call asks to be trained of a backbone, in its own words."""

from dataclasses import dataclass

from featcache.errors import CallError
from readouts.training.tuning import BACKBONE_LR

WHOLE = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is to be tuned."""

    blocks: int | None
    """Upper blocks below the layer that readouts see; None: all, from pixels."""
    backbone_lr: float = BACKBONE_LR
    micro_batch: int = 0
    checkpointing: bool = False

    @property
    def text(self) -> str:
        """What `--tune` was given."""
        return WHOLE if self.blocks is None else str(self.blocks)

    @property
    def options(self) -> dict[str, object]:
        """The options of the command line that ask for it."""
        return {
            "tune": self.text,
            "backbone_lr": self.backbone_lr,
            "micro_batch": self.micro_batch or None,
            "checkpoint_blocks": self.checkpointing,
        }


def parse_wish(
    tune: str | None,
    *,
    backbone_lr: float | None = None,
    micro_batch: int | None = None,
    checkpointing: bool = False,
) -> Wish | None:
    """What `--tune` and the options beside it ask for; None of a frozen backbone.

    Raises:
        CallError: not `all` and no number of blocks, or options without `--tune`.
    """
    if tune is None:
        given = {
            "--backbone-lr": backbone_lr is not None,
            "--micro-batch": micro_batch is not None,
            "--checkpoint-blocks": checkpointing,
        }
        if lone := [name for name, there in given.items() if there]:
            raise CallError(
                f"{', '.join(lone)}: of a backbone that is tuned. Add --tune M or --tune {WHOLE}."
            )
        return None
    blocks = None if tune == WHOLE else _number(tune)
    rate = BACKBONE_LR if backbone_lr is None else backbone_lr
    return Wish(blocks=blocks, backbone_lr=rate, micro_batch=micro_batch or 0, checkpointing=checkpointing)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise CallError(
            f"--tune {text}: write how many upper blocks to train, 1 or more, or {WHOLE} for the whole "
            "backbone from pixels."
        )
    return int(text)
