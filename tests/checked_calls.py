"""Annotations are checked at each call, as by jaxtyping, at a fraction of its price.

`jaxtyping.jaxtyped` binds the arguments of every call to the signature and checks them twice, of functions
too that have no array anywhere. Here every function is checked once, by the type checker itself, and gets a
scope of axis names only where its annotations name axes. What needs more, as sizes that are computed from
arguments ("{rows}"), is left to jaxtyping.

`install` comes before the first import of what is checked.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import FunctionType
from typing import Any, ForwardRef, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

CHECK = beartype(conf=BeartypeConf(violation_type=TypeCheckError))
"""Raises what jaxtyping does, which is a TypeError."""
SCOPE = jaxtyped("context")


def install() -> None:
    """Have jaxtyping's import hook, which decorates by this name, use `checked`."""
    jaxtyping.jaxtyped = checked  # type: ignore[assignment]


def checked(thing: Any = None, *, typechecker: Callable[[Any], Any] = CHECK) -> Any:
    """A function or method whose calls are checked; a data class, whose fields are when one is made."""
    if thing is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(vars(thing)["__init__"], typechecker=typechecker)
        return thing
    if isinstance(thing, classmethod | staticmethod):
        return type(thing)(checked(thing.__func__, typechecker=typechecker))
    if isinstance(thing, property):
        parts = (thing.fget, thing.fset, thing.fdel)
        return property(*(part and checked(part, typechecker=typechecker) for part in parts))
    parts = [part for hint in getattr(thing, "__annotations__", {}).values() for part in _parts(hint)]
    if not isinstance(thing, FunctionType) or any(_is_for_jaxtyping(part) for part in parts):
        return jaxtyped(thing, typechecker=typechecker)
    arrays = any(_is_array(part) for part in parts)
    # A generator gives its values when the scope has ended: as of jaxtyping, only its arguments are checked.
    if arrays and inspect.isgeneratorfunction(thing):
        return jaxtyped(thing, typechecker=typechecker)
    return _in_a_scope(CHECK(thing)) if arrays else CHECK(thing)


def _in_a_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with axis names of its own at each call."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with SCOPE:
            return function(*args, **kwargs)

    return call


def _parts(hint: Any) -> Iterator[Any]:
    """An annotation and all within it."""
    yield hint
    for part in hint if isinstance(hint, list | tuple) else get_args(hint):
        yield from _parts(part)


def _is_array(part: Any) -> bool:
    return inspect.isclass(part) and issubclass(part, AbstractArray)


def _is_for_jaxtyping(part: Any) -> bool:
    """Names that are yet to be resolved, and axes that are computed from the arguments."""
    return isinstance(part, str | ForwardRef) or (_is_array(part) and "{" in part.dim_str)
