"""What was found when a store was held against the backbone it came from: the verdict, kept with the store.

Nothing is run here: the tolerances, the rules of the verdict, the interval of a gap, and `certificate.json`.
Reports read it without knowing a backbone; `readouts.certify.compare` makes it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from math import isnan, nan
from pathlib import Path
from statistics import fmean, variance
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from featcache.errors import DamagedFileError
from featcache.system.files import publish, read_regular
from featcache.system.sealed import json_sealed, json_unsealed
from readouts.results.significance.bootstrap import reach_of

FILE = "certificate.json"
"""The name of the file, in the folder of the train store: sealed JSON, an entry a layer."""

LARGEST = 2**26
"""Bytes; an entry holds the losses of every step, a few hundred kB at the most."""

CERTIFICATE_VERSION = 2
"""Raised when a verdict means something else; older certificates are then as good as none."""

EARLY_STEPS = 3
"""Losses that are compared tightly. Later ones drift apart for a reason of their own: Adam divides each
gradient by its own size, so a weight whose gradient is all rounding moves as far as any other, and trainings
that differ in the last bit part step by step, as two repeats on other hardware do. At a high learning rate a
handful of steps is enough (a forecast's at lr=1e-2: 1e-6 apart after 4 steps, 3e-2 after 8)."""

TOKEN_TOLERANCE: Mapping[str, float] = MappingProxyType({"float32": 2.0**-12, "bfloat16": 2.0**-5})
"""How far tokens may be apart beyond the rounding of the stored dtype, by the precision of the backbone: RMS
over a clip view, in standard deviations of each channel. It leaves room for the backbone's own rounding,
which changes with the batch that a clip is in: half of float16's own (2^-11) for float32, eight times that of
bfloat16 (2^-8) for bfloat16, as its layers add up. Measured: a random ViT of 12 blocks in bfloat16 is 0.018
away from itself in float32; frames in reverse order move its tokens by 0.13, one pixel to the right those of
a ViT of 2 blocks by 0.15."""

LOSS_TOLERANCE: Mapping[str, float] = MappingProxyType({"float32": 2.0**-10, "bfloat16": 2.0**-6})
"""How far early losses may be apart, relative to the larger: a step of float16, as one token may be (a loss
averages over thousands and stays far below), and for bfloat16 two of its steps."""

INT8_LOSS_TOLERANCE = 2.0**-6
"""The same where tokens are stored in int8: two steps of a 127th of a token's largest channel."""

ROUNDING_MARGIN: Mapping[str, float] = MappingProxyType({"float32": 2.0, "bfloat16": 8.0})
"""Early losses may be this many times as far apart as rounding alone takes them, put on the backbone's own
tokens. No fixed tolerance holds where tokens hardly vary over their channels: LayerNorm blows rounding up.
The rest is for the backbone's own, as in `TOKEN_TOLERANCE`. Measured on flat grey clips, where rounding moves
losses by 1e-2: with noise in float32's last bits 1.003 times as much at the most; noise of twice bfloat16's
rounding moves them 3 to 6.5 times as far as that rounding."""

SCORE_TOLERANCE = 0.01
"""Share of a score by which it may move before the rounding is said to show."""

NOISE_MARGIN = 0.05
"""Share of the score online within which the whole interval of a gap must lie for frozen views to be as good
as fresh ones: an interval that holds 0 may only say that too little was seen."""

Record = TypeVar("Record", "Certificate", "Findings", "ReadoutComparison", "TokenAgreement")
Verdict = Literal["exact", "within rounding", "within noise", "undecided", "differs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenAgreement:
    """Stored tokens against those computed anew."""

    n_clip_views: int
    beyond_rounding: float
    """How far the worst clip view is off (`TOKEN_TOLERANCE`), the rounding of the stored dtype taken off."""
    moved: float
    """How far rounding and all else moved tokens, in the same unit, mean of the clip views."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadoutComparison:
    """What the two ways gave one head, which was trained both ways."""

    readout: str
    metric_online: float
    """The mean score over seeds."""
    metric_cached: float
    gap: float
    """`metric_cached` less `metric_online`."""
    gap_low: float | None
    """End of the 95 % interval over seeds and evaluation clusters; None with one seed, which has none."""
    gap_high: float | None
    evaluation_gap: float
    """The score of the heads that were trained online on stored tokens, less theirs on computed ones."""
    worst_loss_difference: float
    """The relative difference over the first `EARLY_STEPS` steps and all seeds."""
    metric_rounded: float | None
    """The score of heads that learned from rounded computed tokens; None where views are samples."""
    loss_difference_rounded: float | None
    """The `worst_loss_difference` of those heads: what rounding alone does."""
    losses_online: tuple[float, ...]
    """The loss of every step, of the first seed."""
    losses_cached: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was measured, before it is judged."""

    exactness: str
    """What the store says of itself: `exact`, `exact, 8 views`, `4 frozen views`."""
    precision: str
    """The backbone's: float32 or bfloat16."""
    dtype: str
    """The stored tokens': float16 or int8."""
    train_tokens: TokenAgreement
    val_tokens: TokenAgreement
    readouts: tuple[ReadoutComparison, ...]
    metric: str
    steps: int
    seeds: int
    margin: float | None = None
    """Share of the score by which frozen views may change it; None where an older version did not say."""

    @property
    def exact(self) -> bool:
        """Whether the store promises what the online pipeline would show, and not samples of it."""
        return is_exact(self.exactness)

    @property
    def faithful(self) -> bool:
        """Whether the store holds what it says it does; if so, `differs` is what its frozen views cost."""
        return not [*_token_reasons(self), *(_loss_reasons(self) if self.exact else ())]

    @property
    def loss_tolerance(self) -> float:
        """How far early losses may be apart where rounding does not show."""
        tolerance = LOSS_TOLERANCE[self.precision]
        return tolerance if self.dtype == "float16" else max(tolerance, INT8_LOSS_TOLERANCE)

    def loss_allowance(self, head: ReadoutComparison) -> float:
        """How far early losses of a head may be apart, rounding counted in."""
        return max(
            self.loss_tolerance, ROUNDING_MARGIN[self.precision] * (head.loss_difference_rounded or 0.0)
        )

    @property
    def headline(self) -> ReadoutComparison:
        """The head whose scores are furthest apart."""
        return max(
            self.readouts, key=lambda found: abs(found.gap) if found.gap == found.gap else float("inf")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """The verdict on one layer of a train store and the validation store that belongs to it."""

    task: str
    backbone: str
    layer: str
    train_fingerprint: str
    val_fingerprint: str
    batch: int
    n_val_clips: int
    verdict: Verdict
    text: str
    """The verdict and its reasons, in one line."""
    findings: Findings
    device: str
    command: str
    made: str
    """When, in ISO 8601, UTC."""
    version: int = CERTIFICATE_VERSION


def is_exact(exactness: str) -> bool:
    """Whether a store that says so of itself holds what the online pipeline would show, not samples of it."""
    return exactness.startswith("exact")


def judge(found: Findings) -> tuple[Verdict, str]:
    """The verdict, and the line that says why.

    Stored tokens must be those of the backbone, whatever the task. Early losses of exact tasks must agree
    too, or be no further apart than rounding alone takes them (`ROUNDING_MARGIN`); where views are frozen
    samples, the gap to fresh ones is within noise if its whole interval lies within the margin; else it
    differs if the interval leaves out 0, and is undecided if not. The scores of an exact task do not fail it:
    equal heads on equal tokens can only drift apart (`EARLY_STEPS`), and an average precision of few clips
    jumps when two near outputs swap ranks. Where losses or scores show rounding, it is not exact.
    """
    reasons = [*_token_reasons(found), *(_loss_reasons(found) if found.exact else _gap_reasons(found))]
    if reasons:
        return "differs", f"differs: {'; '.join(reasons)}"
    head = found.headline
    n, m = found.train_tokens.n_clip_views, found.val_tokens.n_clip_views
    rest = max(found.train_tokens.beyond_rounding, found.val_tokens.beyond_rounding)
    more = f" ({rest:.0e} more)" if rest else ""
    tokens = f"{n} training and {m} validation clip views agree to the rounding of {found.dtype}{more}"
    if found.exact and (shown := _rounding_shown(found)):
        # The dtype whose rounding counts: that of the store, or of a backbone that is coarser.
        coarsest = "bfloat16" if (found.precision, found.dtype) == ("bfloat16", "float16") else found.dtype
        return "within rounding", (
            f"within rounding, as good as {coarsest} can be: {tokens}. The rounding moves tokens by "
            f"{found.train_tokens.moved:.1g} of their spread, {'; '.join(shown)}"
        )
    if found.exact:
        worst = max(readout.worst_loss_difference for readout in found.readouts)
        return "exact", (
            f"exact: {tokens}, early losses to {worst:.0e}; after {found.steps} steps {found.metric} "
            f"{head.metric_online:.4f} online, {head.metric_cached:.4f} cached ({head.readout})"
        )
    said = (
        f"{tokens}; {found.exactness} instead of fresh ones: {found.metric} {head.gap:+.4f} "
        f"{_interval(head)} after {found.steps} steps, {found.seeds} seeds ({head.readout})"
    )
    if all(_is_within(found, one) for one in found.readouts):
        return "within noise", f"within noise, {_margin(found):.0%} of the score: {said}"
    return "undecided", (
        f"undecided: {said}, where {_margin(found):.0%} of the score would be noise: give more --seeds, or "
        "--val-clips"
    )


def _token_reasons(found: Findings) -> list[str]:
    tolerance = TOKEN_TOLERANCE[found.precision]
    compared = {"training": found.train_tokens, "validation": found.val_tokens}
    # Not `>`: NaN is no agreement either.
    return [
        f"{role} tokens are {tokens.beyond_rounding:.2g} of their spread away from what the backbone gives "
        f"(allowed {tolerance:.1g}): other preprocessing, frames, views or weights"
        for role, tokens in compared.items()
        if not tokens.beyond_rounding <= tolerance
    ]


def _loss_reasons(found: Findings) -> list[str]:
    return [
        f"early losses of {head.readout} differ by {head.worst_loss_difference:.2g} (allowed "
        f"{found.loss_allowance(head):.1g}; rounding alone makes {head.loss_difference_rounded:.1g})"
        for head in found.readouts
        if not head.worst_loss_difference <= found.loss_allowance(head)
    ]


def _rounding_shown(found: Findings) -> list[str]:
    """Where losses or scores tell stored tokens from computed ones, and what rounding alone does there."""
    losses = [
        f"early losses of {head.readout} by {head.worst_loss_difference:.1g}, "
        f"{head.worst_loss_difference / found.train_tokens.moved:.2g} times as much "
        f"(online tokens that are rounded: by {head.loss_difference_rounded:.1g})"
        for head in found.readouts
        if head.worst_loss_difference > found.loss_tolerance
    ]
    scores = [
        f"{found.metric} of {head.readout} after {found.steps} steps from {head.metric_online:.4f} to "
        f"{head.metric_cached:.4f} (online tokens that are rounded: to {head.metric_rounded:.4f}), "
        f"{head.evaluation_gap:+.1e} for the very same head"
        for head in found.readouts
        if max(abs(head.gap), abs(head.evaluation_gap)) > SCORE_TOLERANCE * abs(head.metric_online)
    ]
    return [*losses, *scores]


def _gap_reasons(found: Findings) -> list[str]:
    return [
        f"{found.exactness} instead of fresh ones change {found.metric} of {head.readout} by {head.gap:+.4f} "
        f"{_interval(head)} after {found.steps} steps of {found.seeds} seeds"
        for head in found.readouts
        if head.gap_low is None
        or head.gap_high is None
        or not (head.gap_low <= 0 <= head.gap_high or _is_within(found, head))
    ]


def _margin(found: Findings) -> float:
    return NOISE_MARGIN if found.margin is None else found.margin


def _is_within(found: Findings, head: ReadoutComparison) -> bool:
    """Whether no gap that the interval of a head holds is beyond the margin."""
    most = _margin(found) * abs(head.metric_online)
    return all(end is not None and abs(end) <= most for end in (head.gap_low, head.gap_high))


def _interval(head: ReadoutComparison) -> str:
    return f"[{head.gap_low:+.4f}, {head.gap_high:+.4f}]"


def gap_interval(
    gaps: Sequence[float], cluster_deviation: float = 0.0, n_clusters: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the mean gap, where trainings and evaluation clips are samples both.

    Student's t over seeds, and over a bootstrap of evaluation clusters, added in quadrature as independent
    errors are; (None, None) of a single gap.

    Args:
        gaps: one a seed.
        cluster_deviation: standard deviation of the mean gap when evaluation clusters are drawn again.
        n_clusters: how many clusters there are; below 2 their part is unknown and skipped.
    """
    if len(gaps) < 2:
        return None, None
    errors = [(variance(gaps) / len(gaps), len(gaps) - 1)]
    if n_clusters > 1:
        # A resample of n clusters varies too little, by n - 1 in n.
        errors.append((cluster_deviation**2 * n_clusters / (n_clusters - 1), n_clusters - 1))
    half = reach_of(*errors)
    return fmean(gaps) - half, fmean(gaps) + half


def worst_difference(online: Sequence[float], cached: Sequence[float]) -> float:
    """The largest relative difference of the first `EARLY_STEPS` losses; NaN if one of them is."""
    pairs = list(zip(online, cached, strict=True))[:EARLY_STEPS]
    apart = [abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in pairs]
    return nan if any(map(isnan, apart)) else max(apart)


def write_certificate(store_path: Path, certificate: Certificate) -> None:
    """Keep it with the train store, in place of an earlier one of the same layer."""
    kept = dict[str, Certificate]()
    # A damaged one is lost already, and takes nothing along.
    with suppress(DamagedFileError):
        kept = _read_all(store_path)
    kept[certificate.layer] = certificate
    # A loss that is no number is a finding: NaN is kept as Python's JSON has it.
    content = json_sealed(kept, sort_keys=False, allow_nan=True, indent=1, default=asdict)
    publish(store_path / FILE, content)


def read_certificate(store_path: Path, layer: str | None = None) -> Certificate | None:
    """The certificate of a train store's `layer`, or of the layer certified last; None where there is none.

    One of another version of scivid, whose verdict may mean something else, counts as none.

    Raises:
        DamagedFileError: the file is there and cannot be read.
    """
    kept = _read_all(store_path)
    if layer is not None:
        return kept.get(layer)
    return max(kept.values(), key=lambda certificate: certificate.made, default=None)


def _read_all(store_path: Path) -> dict[str, Certificate]:
    path = store_path / FILE
    try:
        entries, _ = json_unsealed(read_regular(path, limit=LARGEST))
        return {
            layer: _certificate(entry)
            for layer, entry in entries.items()
            if entry["version"] == CERTIFICATE_VERSION
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DamagedFileError(
            f"{path} cannot be read as a certificate ({problem}): delete it and run `scivid certify` again."
        ) from problem


def _certificate(entry: Mapping[str, Any]) -> Certificate:
    found = dict(entry["findings"])
    for head in found["readouts"]:
        head |= {name: tuple(head[name]) for name in ("losses_online", "losses_cached")}
    found["readouts"] = tuple(_of(ReadoutComparison, head) for head in found["readouts"])
    found |= {name: _of(TokenAgreement, found[name]) for name in ("train_tokens", "val_tokens")}
    return _of(Certificate, {**entry, "findings": _of(Findings, found)})


def _of(kind: type[Record], entry: Mapping[str, Any]) -> Record:
    """A record from its entry in the file, which may have fields of before, and lack those with a default."""
    known = [field.name for field in fields(kind) if field.name in entry or field.default is MISSING]
    return kind(**{name: entry[name] for name in known})
