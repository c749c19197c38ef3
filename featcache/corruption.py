"""How clips can be corrupted on purpose, in words and numbers: values only, no pixels.

Readouts are trained on clips as they were filmed and scored on corrupted ones: what does a backbone's token
still say? Severities are those of `SEVERITIES`, the mildest first; `featcache.data.corruptions` makes the
pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from featcache.errors import CallError, did_you_mean

SEVERITIES: Mapping[str, tuple[float, float, float]] = {
    "blur": (1.0, 2.0, 4.0),  # standard deviation of a Gaussian, in pixels of the clip
    "noise": (0.05, 0.1, 0.2),  # standard deviation of Gaussian noise, black to white being 1
    "occlusion": (0.25, 0.4, 0.6),  # side of a grey rectangle as a share of the frame's, in one place
    "compression": (30.0, 15.0, 5.0),  # quality of JPEG
    "dropped": (0.25, 0.5, 0.75),  # share of the frames in whose place the one before stays
    "reversed": (0.25, 0.5, 1.0),  # share of the clip that is played backwards, piece by piece
}
"""Kind -> its amount at severity 1, 2 and 3."""


@dataclass(frozen=True, order=True, slots=True)
class Corruption:
    """One kind at one severity."""

    kind: str
    severity: int

    def __post_init__(self) -> None:
        if self.kind not in SEVERITIES:
            raise CallError(
                f"no corruption is called {self.kind!r}: there are {', '.join(SEVERITIES)}."
                f"{did_you_mean(self.kind, SEVERITIES)}"
            )
        if not 1 <= self.severity <= len(SEVERITIES[self.kind]):
            raise CallError(f"{self.kind}:{self.severity}: severities are 1 to {len(SEVERITIES[self.kind])}.")

    @property
    def amount(self) -> float:
        """As `SEVERITIES` has it."""
        return SEVERITIES[self.kind][self.severity - 1]

    @property
    def ending(self) -> str:
        """What the names of backbones end with, in paths and tables, whose clips were corrupted so."""
        return f"_{self.kind}{self.severity}"

    def as_dict(self) -> dict[str, object]:
        """For the fingerprint."""
        return {"kind": self.kind, "severity": self.severity, "amount": self.amount}


def parse_corruptions(text: str) -> tuple[Corruption, ...]:
    """Those that `text` names, each once: `all`, or with commas `blur` (at every severity) and `blur:2`.

    Raises:
        CallError: no such kind or severity.
    """
    found: dict[Corruption, None] = {}
    for word in SEVERITIES if text.strip() == "all" else text.split(","):
        kind, colon, severity = word.strip().partition(":")
        if colon and not severity.isdigit():
            raise CallError(f"{word.strip()!r} is no corruption: write blur:2, blur, or all.")
        every = range(1, 1 + len(SEVERITIES.get(kind, (0.0,))))
        found |= {Corruption(kind, number): None for number in ([int(severity)] if colon else every)}
    return tuple(found)
