"""Where in a file a model's tensors are: under which names of wrappers, of state dicts, of models beside it.

A released file has its tensors where its authors put them, and may have been saved once more inside a wrapper
of training (`unwrapped`). A user's own is looked through (`found_in`): state dicts may be nested in others,
and the model may be a part of another one. Whatever is taken is told in one line.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from featcache.backbones.weights.checkpoint import Shapes, TensorFile
from featcache.backbones.weights.key_map import KeyMap
from featcache.errors import WeightsError, few

_WRAPPERS = ("module", "_orig_mod", "model", "backbone", "state_dict", "net", "network", "encoder")
"""What data-parallel training, compilation and common training scripts put before the names of a model."""

_AVERAGED = ("target_encoder", "ema_encoder", "teacher", "ema", "model_ema", "state_dict_ema")
"""What a moving average of the weights is called: beside the ones it is of, it is the one to use."""

_BESIDE = ("head", "classifier", "decoder", "encoder_to_decoder", "predictor", "projector", "mask_token")
"""Parts of a trained model that tokens do not need, by the beginning of their names: heads of any kind."""

_DEEPEST = 6
"""Names one inside the other, before those of the model."""

Table = Callable[[Shapes], KeyMap]
"""A model's table of keys, given the keys and shapes of a file."""


def unwrapped(file: TensorFile, key_map: Table) -> tuple[TensorFile, KeyMap]:
    """The file under the keys of its model, where a wrapper of training put its own name before all of them.

    That is told in one line. A file that fits as it is stays as it is, and so does one that fits in no way.
    The table of what is given comes with it: to make one takes the whole model's names.

    Raises:
        WeightsError: it would fit without a word that is no wrapper's, as `teacher`: perhaps another model.
    """
    words, shapes = [], file.shapes
    table = as_it_is = key_map(shapes)
    while not table.fits(shapes):
        first = {key.partition(".")[0] for key in shapes}
        if len(first) != 1 or any("." not in key for key in shapes):
            return file, as_it_is
        words.append(first.pop())
        shapes = {key.partition(".")[2]: shape for key, shape in shapes.items()}
        table = key_map(shapes)
    if not words:
        return file, table
    prefix = "".join(f"{word}." for word in words)
    if strange := [word for word in words if word not in _WRAPPERS]:
        raise WeightsError(
            f"{file.origin}: every key begins with {prefix!r}, and without it all of them fit. "
            f"{strange[0]!r} may name another model than the one that is wanted, so it is not taken: if it "
            "is right, say so by giving the file with --weights."
        )
    logging.getLogger(__name__).warning(
        f"{file.origin}: every key begins with {prefix!r}, the mark of a model that was saved inside a "
        "wrapper: read without it"
    )
    return _part(file, prefix, shapes), table


@dataclass(frozen=True, slots=True)
class _Place:
    """A part of a file that may be the model: what its keys begin with, and what is there."""

    prefix: str
    shapes: Shapes
    table: KeyMap
    left_out: list[str]
    """Heads and the like, under the same beginning."""

    @property
    def keys(self) -> frozenset[str]:
        """The file's own names of what the model takes."""
        return frozenset(self.prefix + key for key in self.table.shapes)

    @property
    def n_wrong(self) -> int:
        return self.table.n_problems(self.shapes)


def found_in(
    file: TensorFile, key_map: Table, *, what: str, preferred: Sequence[str]
) -> tuple[TensorFile, KeyMap]:
    """The part of a user's file that is the model, told in one line where it is not all of the file.

    Args:
        file: nested state dicts have their names before the keys, with points between.
        key_map: the model's table.
        what: the model, as messages call it.
        preferred: the family's own names of what to take where several parts fit.

    Raises:
        WeightsError: no part fits, which names the keys and shapes that do not; or several do, none of which
            is by its name the one to use.
    """
    places = [place for prefix in _prefixes(file.shapes) if (place := _place(file, prefix, key_map))]
    # Of two beginnings that lead to the same tensors the shorter: the model's table has the rest of it.
    fitting = list({place.keys: place for place in reversed(places) if not place.n_wrong}.values())[::-1]
    if not fitting:
        nearest = min(places, key=lambda place: place.n_wrong, default=None)
        if nearest is None:
            raise WeightsError(f"{file.origin} holds no tensors that could be {what}: give its own weights.")
        under = f" under {nearest.prefix!r}" if nearest.prefix else ""
        raise WeightsError(
            f"{file.origin} is not {what}: {nearest.table.listed(nearest.shapes)}{under}. Give the model "
            "whose weights these are, or the file that was trained from this one."
        )
    chosen = _chosen(fitting, file.origin, preferred)
    others = [place.prefix for place in fitting if place is not chosen]
    if chosen.prefix or chosen.left_out or others:
        parts = [f"read from under {chosen.prefix!r}"] if chosen.prefix else ["read"]
        parts += [f"and not from {', '.join(map(repr, others))}, which would fit as well"] if others else []
        parts += [f"without {few(chosen.left_out)}"] if chosen.left_out else []
        logging.getLogger(__name__).warning(f"{file.origin}: {what} is {' '.join(parts)}")
    return _part(file, chosen.prefix, chosen.shapes), chosen.table


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Beginnings of many keys that end with a name, not with the number of a block; the shortest first."""
    counts: dict[str, int] = {"": len(list(keys))}
    for key in keys:
        words = key.split(".")
        for depth in range(1, min(len(words), _DEEPEST + 1)):
            if words[depth - 1].isdigit():
                break
            prefix = ".".join(words[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return sorted((prefix for prefix, n in counts.items() if n > _FEWEST), key=lambda one: (len(one), one))


_FEWEST = 8
"""A block has more tensors."""


def _place(file: TensorFile, prefix: str, key_map: Table) -> _Place | None:
    """What is under a beginning; None where the model's first block is not there."""
    every = {key[len(prefix) :]: shape for key, shape in file.shapes.items() if key.startswith(prefix)}
    table = key_map(every)
    wanted = table.shapes
    if len(wanted.keys() & every.keys()) < _FEWEST:
        return None
    left_out = [key for key in every if key not in wanted and key.startswith(_BESIDE)]
    return _Place(prefix, {key: every[key] for key in every if key not in left_out}, table, left_out)


def _chosen(fitting: list[_Place], origin: str, preferred: Sequence[str]) -> _Place:
    for word in (*preferred, *_AVERAGED):
        named = [place for place in fitting if word in place.prefix.split(".")]
        if len(named) == 1:
            return named[0]
    plain = [place for place in fitting if all(word in _WRAPPERS for word in place.prefix.split(".")[:-1])]
    if len(fitting) == 1 or len(plain) == 1:
        return (plain or fitting)[0]
    raise WeightsError(
        f"{origin} holds several models that fit, under {', '.join(repr(one.prefix) for one in fitting)}: "
        "save the one that is meant by itself."
    )


def _part(file: TensorFile, prefix: str, shapes: Shapes) -> TensorFile:
    part_of = {name: file.part_of[prefix + name] for name in shapes if prefix + name in file.part_of}
    return TensorFile(shapes, lambda name: file.read(prefix + name), file.origin, part_of)
