"""How a released file holds our parameters: one table for each model, by which the file is checked and read.

A key that nobody reads is how a model comes out silently wrong, so every key of a file is in the table, or
among those that tokens do not need; anything else is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.backbones.weights.checkpoint import Shapes, TensorFile
from featcache.errors import WeightsError, few

_MOST_LISTED = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one of our parameters is in a released file, and how the two differ."""

    keys: tuple[str | None, ...]
    """The released keys whose tensors make the parameter, one after the other along its first axis; None for
    one that is missing and stands for zeros (a family without biases of keys)."""
    shape: tuple[int, ...]
    """Shape of each key's tensor in the file."""
    axes: str = ""
    """An einops pattern from the file's axes to ours; empty where they are the same."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Lengths of those axes of the pattern that the shape does not tell."""
    layer: int | None = None
    """Index on the tensor's first axis, where the file stacks all blocks of a stage in one tensor."""
    plus: float = 0.0
    """Added to the file's numbers, in float32."""
    then: Callable[..., Tensor] | None = None
    """Makes the parameter of what was read, in float32 (of nothing where there are no keys): a position table
    at the grid of the run."""

    def fill(self, parameter: Tensor, file: TensorFile) -> None:
        """Copy the numbers from the file into our parameter, cast on the way.

        On a GPU they travel as they are in the file: it transposes and casts faster than the host.
        """
        if self.then is not None:
            pieces = [self._read(key, file, torch.device("cpu")).float() for key in self.keys]
            parameter.copy_(self.then(*([torch.cat(pieces)] if pieces else [])))
            return
        start = 0
        for key in self.keys:
            piece = self._read(key, file, parameter.device)
            parameter[start : start + len(piece)].copy_(piece)
            start += len(piece)
        assert start == len(parameter), "the pieces of a checked file fill the parameter"

    def _read(self, key: str | None, file: TensorFile, device: torch.device) -> Tensor:
        whole = torch.zeros(self.shape) if key is None else file.read(key)
        own = (whole if self.layer is None else whole[self.layer]).to(device)
        turned = rearrange(own, self.axes, **self.lengths) if self.axes else own
        return turned.float() + self.plus if self.plus else turned


Entries = dict[str, Entry]
"""Our parameter's name -> its entry."""


@dataclass(frozen=True, slots=True)
class KeyMap:
    """How a released file holds one whole model."""

    entries: Entries
    """For every parameter that the file can fill."""
    skipped: tuple[str, ...] = ()
    """Beginnings of the released keys that tokens do not need."""

    @property
    def shapes(self) -> Shapes:
        """Every released key that is used, and the shape of its tensor in the file."""
        return {key: entry.shape for entry in self.entries.values() for key in entry.keys if key is not None}

    def fits(self, found: Shapes) -> bool:
        """Whether a file, of key -> shape `found`, is the whole model's."""
        return self.n_problems(found) == 0

    def n_problems(self, found: Shapes) -> int:
        """Keys of a file, of key -> shape `found`, that are missing, unknown or of another shape."""
        return sum(map(len, self._problems(found).values()))

    def listed(self, found: Shapes) -> str:
        """These keys in words, of each kind the first few; empty where the file fits."""
        problems = self._problems(found)
        return "; ".join(f"{few(keys, _MOST_LISTED)} {what}" for what, keys in problems.items() if keys)

    def check(self, found: Shapes, origin: str) -> None:
        """Refuse a file, of key -> shape `found`, that is not the whole model's.

        Raises:
            WeightsError: lists the keys that are missing, unknown or of another shape.
        """
        if listed := self.listed(found):
            raise WeightsError(
                f"{origin} does not fit its model{_common(found)}: {listed}. Use the files as they were "
                "released."
            )

    def _problems(self, found: Shapes) -> dict[str, list[str]]:
        wanted = self.shapes
        return {
            "missing": sorted(wanted.keys() - found.keys()),
            "unknown": sorted(
                key for key in found.keys() - wanted.keys() if not key.startswith(self.skipped)
            ),
            "of another shape": [
                f"{key} {found[key]} instead of {shape}"
                for key, shape in sorted(wanted.items())
                if found.get(key, shape) != shape
            ],
        }

    def read(
        self,
        file: TensorFile,
        wanted: Mapping[str, Tensor],
        device: torch.device,
        dtype: Callable[[str], torch.dtype],
    ) -> dict[str, Tensor]:
        """The `wanted` parameters of a checked file, on `device`, each in the dtype of its name.

        Raises:
            WeightsError: the file holds NaN or infinity, or a number that the dtype does not reach.
        """
        # All memory first, then the numbers: what is needed on the way cannot leave holes between them.
        parameters = {
            name: torch.empty_like(tensor, dtype=dtype(name), device=device)
            for name, tensor in wanted.items()
        }
        for name, parameter in parameters.items():
            self.entries[name].fill(parameter, file)
            if not _all_finite(parameter):
                _refuse_not_finite(self.entries[name], parameter, file)
        return parameters


def renamed(model: nn.Module, names: Mapping[str, str | tuple[str, ...]], prefix: str = "") -> Entries:
    """The entries of a file that differs from `model` in names only.

    Args:
        model: the whole model, on the meta device.
        names: what a part of a parameter's name, between dots, is called in the file; several names where the
            file has as many tensors, equal parts of our parameter along its first axis.
        prefix: what every released key begins with.
    """
    entries: Entries = {}
    for name, tensor in model.state_dict().items():
        keys: tuple[str, ...] = (prefix,)
        for part in name.split("."):
            theirs = names.get(part, part)
            theirs = (theirs,) if isinstance(theirs, str) else theirs
            keys = tuple(f"{key}{'.' if key != prefix else ''}{one}" for key in keys for one in theirs)
        first, *others = tensor.shape
        entries[name] = Entry(keys, (first // len(keys), *others))
    return entries


def nested(ours: str, theirs: str, entries: Entries) -> Entries:
    """The same entries, our names and the released keys each with a beginning."""
    return {
        ours + name: replace(entry, keys=tuple(key if key is None else theirs + key for key in entry.keys))
        for name, entry in entries.items()
    }


def stacked(depth: int, layer: int, entries: Entries) -> Entries:
    """The entries of one block whose tensors the file stacks with those of all `depth` blocks of a stage."""
    return {name: replace(entry, shape=(depth, *entry.shape), layer=layer) for name, entry in entries.items()}


def flax_norm(ours: str, theirs: str, width: int, plus: float = 0.0) -> Entries:
    """A LayerNorm of Flax; `plus` is 1 where its scale is stored as what it differs from 1 by."""
    return {
        f"{ours}.weight": Entry((f"{theirs}/scale",), (width,), plus=plus),
        f"{ours}.bias": Entry((f"{theirs}/bias",), (width,)),
    }


def flax_dense(ours: str, theirs: str, n_in: int, n_out: int) -> Entries:
    """A dense layer of Flax, whose kernels are [in, out]."""
    return {
        f"{ours}.weight": Entry((f"{theirs}/kernel",), (n_in, n_out), "i o -> o i"),
        f"{ours}.bias": Entry((f"{theirs}/bias",), (n_out,)),
    }


def _common(found: Shapes) -> str:
    first = {key.partition(".")[0] for key in found}
    return f" (every key of it begins with {first.pop()!r})" if len(first) == 1 and len(found) > 1 else ""


def _all_finite(parameter: Tensor) -> bool:
    low, high = parameter.aminmax()  # NaN goes through both
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _refuse_not_finite(entry: Entry, parameter: Tensor, file: TensorFile) -> None:
    for key in filter(None, entry.keys):
        tensor = file.read(key)
        n_nan, n_not = int(torch.isnan(tensor).sum()), int((~torch.isfinite(tensor)).sum())
        if n_not:
            what = "NaN" if n_nan == n_not else "infinity" if not n_nan else "NaN and infinity"
            raise WeightsError(
                f"{file.part_of.get(key, file.origin)} holds {what} in {key} ({n_not:,} of "
                f"{tensor.numel():,} numbers): a model that went astray in training, or a damaged file. Get "
                "it again, or take an earlier one."
            )
    raise WeightsError(
        f"{file.origin}: numbers of {', '.join(filter(None, entry.keys))} do not fit {parameter.dtype}: "
        "run it in float32 (--precision float32)."
    )
