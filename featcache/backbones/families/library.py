"""Any vision transformer of transformers or timm, from a folder or repository that holds it: `hf:ORG/NAME`.

Its configs say how large pixels are, how many frames there are, mean and std. What no config says is seen on
the model itself, before any weight is read: a pass without memory shows how many tokens a block gives, and
whether the last ones are normed. When the weights are there, each patch has to be the token of its own place:
tokens are in the order of step, row and column, or the model is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.base import BackboneInfo
from featcache.backbones.encoder import ClipEncoder, deepest
from featcache.backbones.families import videomae
from featcache.backbones.families.libraries import OWN_FILE, Library, library_of
from featcache.backbones.own import tidy_name
from featcache.backbones.sizes import Grid
from featcache.backbones.weights.digest import checked_digest, remember
from featcache.errors import CallError, WeightsError, few
from featcache.spec import Layer, TokenGrid

MOST_EXTRA = 32
"""Tokens that are no patches (class token, registers), before those that are: more are another grid."""

IMAGE_FRAMES = 16
"""Frames of a clip that an image model is given, one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryModel:
    """One such model; see `featcache.backbones.base.Backbone` for what the methods promise."""

    info: BackboneInfo
    library: Library
    patch: Grid
    n_extra: int
    """Tokens before those of patches."""

    def weights_digest(self) -> str:
        """Sha256 of the weight file's bytes."""
        return checked_digest(self.library.weights())

    def architecture(self) -> base.JSON:
        """The library's class, and its config."""
        return {"family": self.library.name, "patch": list(self.patch), **self.library.architecture()}

    def preprocessing(self) -> base.JSON:
        """Exact-overlap resize, and mean and std."""
        return base.preprocessing(self.info)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> base.Encoder:
        """The model up to the deepest of `layers`, in `dtype` on `device`.

        Raises:
            CallError: a layer the model does not have.
            WeightsError: its files are not complete, or not its; or its tokens are in another order.
        """
        for layer in layers:
            base.check_layer(layer, self.info)
        path = self.library.weights()
        checked_digest(path)
        model = self.library.loaded(dtype).requires_grad_(False).eval()
        n_blocks, _ = deepest(layers)
        # One at least: what it is given is the embedding.
        del blocks_of(model)[max(1, n_blocks) :]
        tokens = _Tokens(model.to(device), self)
        tokens.refuse_other_order(device, dtype)
        remember(path)
        return ClipEncoder(info=self.info, layers=layers, model=tokens, device=device, dtype=dtype)


class _Tokens:
    """The loaded model: normalised frames to the tokens of chosen layers."""

    def __init__(self, model: nn.Module, of: LibraryModel) -> None:
        self.model, self.of = model, of

    def __call__(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Patch tokens at `layers`, of which none is deeper than the model was cut."""
        library, info = self.of.library, self.of.info
        given = rearrange(frames, "b f ... -> (b f) 1 ...") if info.frame_level else frames
        with _watched(self.model) as states:
            last = library.run(self.model, given)
        grid, found = info.grid, {}
        for layer in layers:
            state = last if layer.normed else states[layer.block]
            found[layer] = rearrange(
                state[:, self.of.n_extra :], "(b f) (t h w) d -> b (f t) h w d", b=len(frames),
                t=grid.steps if not info.frame_level else 1, h=grid.rows, w=grid.columns,
            )  # fmt: skip
        return found

    def refuse_other_order(self, device: torch.device, dtype: torch.dtype) -> None:
        """Change a patch of a clip: the embedding of the token of its place has to change, and no other.

        Raises:
            WeightsError: another one does, or several.
        """
        info, (depth, rows, columns) = self.of.info, self.of.patch
        grid = (1 if info.frame_level else info.grid.steps, info.grid.rows, info.grid.columns)
        clip = torch.zeros(1, depth * grid[0], 3, *info.input_size, device=device, dtype=dtype)
        first = tuple(0 for _ in grid)
        places = {tuple(int(axis == other) for other in range(3)) for axis in range(3)}
        before = self._embedded(clip)
        for step, row, column in sorted({first, tuple(n - 1 for n in grid)} | places):
            if step >= grid[0] or row >= grid[1] or column >= grid[2]:
                continue
            changed = clip.clone()
            at = ((step, depth), (row, rows), (column, columns))
            in_time, down, across = (slice(number * n, (number + 1) * n) for number, n in at)
            changed[:, in_time, :, down, across] = 1.0
            moved = (self._embedded(changed) != before).any(dim=-1)[0].nonzero().flatten().tolist()
            place = self.of.n_extra + (step * grid[1] + row) * grid[2] + column
            if moved != [place]:
                raise WeightsError(
                    f"{self.of.library.source}: the patch of step {step}, row {row}, column {column} is not "
                    f"token {place} of its embedding but {few(moved, 3) or 'none'}: its tokens are not one a "
                    f"patch in the order of step, row and column. {OWN_FILE}"
                )

    def _embedded(self, clip: Float[Tensor, "1 F rgb Y X"]) -> Float[Tensor, "1 S D"]:
        """What the first block is given of a clip; no block runs."""
        found: list[Tensor] = []

        def stop(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(_state(given, named))
            raise _Enough

        handle = blocks_of(self.model)[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.inference_mode():
                self.of.library.run(self.model, clip)
        except _Enough:
            pass
        finally:
            handle.remove()
        return found[0]


class _Enough(Exception):  # noqa: N818 (it is no error)
    """The embedding is known: the rest of the pass is not needed."""


def _state(given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The tokens among what a block is given."""
    tokens: Tensor = given[0] if given else named["hidden_states"]
    return tokens


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Blocks run -> the tokens then, filled by a pass of the model."""
    states: dict[int, Tensor] = {}

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states[0] = _state(given, named)

    def after(number: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states[number] = output[0] if isinstance(output, tuple) else output

        return keep

    blocks = blocks_of(model)
    handles = [block.register_forward_hook(after(i)) for i, block in enumerate(blocks, start=1)]
    handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The list of modules that holds most of a model's parameters: its blocks.

    Raises:
        CallError: there is none.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise CallError(f"{type(model).__name__} has no list of blocks, whose tokens could be kept.")
    return max(lists, key=lambda module: sum(parameter.numel() for parameter in module.parameters()))


def open_place(place: str) -> base.Backbone:
    """The model of a folder, or of a repository in the hub's cache.

    Raises:
        WeightsError: nothing is there, or its files are not complete.
        CallError: its grid, sizes or normalisation cannot be known; says which.
    """
    library = library_of(place)
    if library.is_videomae:
        return videomae.open_folder(library.folder)
    problems = []
    for size in library.sizes():
        try:
            return _seen(library, size)
        except CallError as problem:
            problems.append(str(problem))
    raise CallError(f"{library.source} cannot be run as it is: {'; '.join(dict.fromkeys(problems))}")


def _seen(library: Library, size: tuple[int, int]) -> LibraryModel:
    """What a pass on the meta device shows of the model at an input size."""
    depth, rows, columns = patch = library.patch
    n_frames, is_video = library.n_frames or 1, library.n_frames is not None
    if any(length % part for length, part in zip((n_frames, *size), patch, strict=True)):
        raise CallError(f"patches of {patch} do not divide {(n_frames, *size)} (frames, rows, columns)")
    grid = (n_frames // depth, size[0] // rows, size[1] // columns)
    with torch.device("meta"):
        model = library.built().eval()
        clip = torch.empty(1, n_frames, 3, *size)
    try:
        with torch.inference_mode(), _watched(model) as states:
            last = library.run(model, clip)
    except Exception as problem:  # whatever a library's code raises of a size that is not its
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise CallError(f"at {size[0]} x {size[1]} pixels it fails ({reason})") from problem
    shapes = {tuple(state.shape) for state in states.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise CallError(f"its blocks give tokens of several kinds, {sorted(shapes)}, not of one grid")
    _, n_tokens, width = shapes.pop()
    n_extra = n_tokens - prod(grid)
    if not 0 <= n_extra <= MOST_EXTRA:
        raise CallError(f"its blocks give {n_tokens} tokens, where the patches of {size} are {prod(grid)}")
    mean, std = library.mean_std()
    n_blocks = len(blocks_of(model))
    normed = last is not states[n_blocks] and last.shape == states[n_blocks].shape
    steps = grid[0] if is_video else IMAGE_FRAMES
    info = BackboneInfo(
        name=tidy_name(library.label),
        title=f"{library.title} of {library.source}",
        source=library.source,
        licence="that of its files",
        commercial=False,
        public=False,
        params_m=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        n_blocks=n_blocks,
        input_size=size,
        n_frames=n_frames if is_video else IMAGE_FRAMES,
        grid=TokenGrid(steps=steps, rows=grid[1], columns=grid[2], channels=width),
        mean=mean,
        std=std,
        final_norm=normed,
        default_layers=(Layer(n_blocks, normed),),
        upsampling="linear" if is_video and steps != n_frames else None,
        frame_level=not is_video,
        weights_from=library.source,
    )
    return LibraryModel(info=info, library=library, patch=patch, n_extra=n_extra)
