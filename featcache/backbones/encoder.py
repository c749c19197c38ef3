"""From weights to an encoder, alike for every model: digest, refusals, loading, preprocessing, tokens out.

A family says how its model is made and how a file holds its parameters; blocks after the deepest layer asked
for are neither made nor read.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.base import BackboneInfo
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.inputs import model_input
from featcache.backbones.own import of_own_weights
from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import ViTSize, size_entry
from featcache.backbones.weights.checkpoint import Shapes, TensorFile, open_tensors
from featcache.backbones.weights.digest import checked_digest, remember
from featcache.backbones.weights.key_map import KeyMap
from featcache.backbones.weights.locate import obtain_weights
from featcache.backbones.weights.pixels import saved_pixels, tell_of_other_pixels
from featcache.backbones.weights.wrappers import found_in, unwrapped
from featcache.errors import WeightsError
from featcache.spec import Layer

B = TypeVar("B", bound="PretrainedBackbone")


@runtime_checkable
class TokenModel(Protocol):
    """A loaded model: normalised frames to the tokens of chosen layers."""

    def __call__(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEncoder:
    """A token model behind the pixels' preprocessing; see `featcache.backbones.base.Encoder`."""

    info: BackboneInfo
    layers: tuple[Layer, ...]
    model: TokenModel
    device: torch.device
    dtype: torch.dtype

    def __call__(self, pixels: Float[Tensor, "B F rgb Y X"]) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens of every layer, whatever the model computes in."""
        with torch.inference_mode():
            frames = model_input(pixels, self.info, self.device).to(self.dtype)
            return {layer: state.float() for layer, state in self.model(frames, self.layers).items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedBackbone:
    """One model by name; see `featcache.backbones.base.Backbone` for what the methods promise.

    A family's class adds `family`, `network` and `key_map`.
    """

    info: BackboneInfo
    size: ViTSize
    file: Callable[[], Path]
    """Finds the weight file, or raises a WeightsError."""
    own: bool = False
    """Whether the weights are the user's: then their file is looked through for the model."""

    family: ClassVar[str]
    positions: ClassVar[str] = ""
    """The kind of positions in words, where none of the size's numbers tells it."""
    network: ClassVar[type[nn.Module]]
    """A `TokenModel`, made of a size, `n_blocks` and whether the final norm is wanted."""
    skipped_sections: ClassVar[tuple[str, ...]] = ()
    """Other models in the same pickle."""
    computed: ClassVar[tuple[str, ...]] = ()
    """Parameters that its authors computed and never trained; training here leaves them as they are too."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Where a torch pickle may hold the model beside other things: the first that is there is taken."""
        return ()

    @classmethod
    def named(cls: type[B], name: str, weights_dir: Path | None) -> B:
        """The registered model `name`, its weights in `<weights_dir>/<name>/` or the Hugging Face cache."""
        model = BACKBONES[name]

        def file() -> Path:
            assert model.release is not None, "only a model that has weights looks for them"
            path = obtain_weights(name, model.release, weights_dir)
            tell_of_other_pixels(path, model.info.mean, model.info.std)
            return path

        return cls(info=model.info, size=model.size, file=file)

    def of_weights(self: B, file: Path, source: str) -> B:
        """The same architecture with the weights of a user's `file`, which came from `source`.

        Mean and std are the model's, unless a processor's config beside the file says others.

        Raises:
            WeightsError: a config beside the file is another model's.
        """
        self.check_config(file.with_name(CONFIG_FILE))
        info = of_own_weights(self.info, file, source)
        if (saved := saved_pixels(file)) is not None:
            info = replace(info, mean=saved[0], std=saved[1])
        return replace(self, info=info, file=lambda: file, own=True)

    def check_config(self, path: Path) -> None:
        """Refuse the config beside weights, where there is one, that says what no shape tells.

        Raises:
            WeightsError: it is another model's.
        """

    def architecture(self) -> base.JSON:
        """Family, kind of positions and the size's numbers, for the fingerprint."""
        positions = {"positions": self.positions} if self.positions else {}
        return {"family": self.family, **positions, **size_entry(self.size)}

    def weights_digest(self) -> str:
        """Sha256 of the weight file's bytes, which are the released ones or compared with those of before."""
        return checked_digest(self.file())

    def preprocessing(self) -> base.JSON:
        """Exact-overlap resize, and mean and std where the model has them."""
        return base.preprocessing(self.info)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> base.Encoder:
        """The model up to the deepest of `layers`, in `dtype` on `device`.

        Raises:
            CallError: a layer the model does not have.
            WeightsError: there is no file, or it is damaged, not this model's, lacks the final norm, or holds
                numbers that are not finite.
        """
        for layer in layers:
            base.check_layer(layer, self.info)
        model = meta(self.model, *deepest(layers))
        state = self.read(model.state_dict(), device, dtype)
        model.load_state_dict(state, assign=True)
        return ClipEncoder(info=self.info, layers=layers, model=model.eval(), device=device, dtype=dtype)

    def read(
        self, wanted: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The parameters of the names and shapes of `wanted`, in `dtype` on `device`.

        Raises:
            WeightsError: as `load`.
        """
        with self.weights() as found:
            file, key_map = self._located(found)
            key_map.check(file.shapes, file.origin)
            if not key_map.entries.keys() >= wanted.keys():
                raise WeightsError(
                    f"{file.origin} holds no norm for tokens, only one for their mean: ask for layer "
                    f"{self.info.n_blocks} instead of {self.info.last_layer.name}, or use the file of the "
                    "pretraining."
                )
            return key_map.read(
                file, wanted, device, lambda name: torch.float32 if self.stays_float32(name) else dtype
            )

    def _located(self, file: TensorFile) -> tuple[TensorFile, KeyMap]:
        if not self.own:
            return unwrapped(file, self.key_map)
        return found_in(file, self.key_map, what=self.info.title, preferred=self.sections)

    def model(self, n_blocks: int, norms: tuple[int, ...]) -> nn.Module:
        """The network cut after `n_blocks`, with its own norm after each of the blocks `norms`."""
        return self.network(self.size, n_blocks=n_blocks, normed=bool(norms))

    def key_map(self, found: Shapes) -> KeyMap:
        """How a file whose tensors are `found` holds the whole model."""
        raise NotImplementedError

    def stays_float32(self, name: str) -> bool:
        """Whether parameter `name` is kept in float32 whatever the model computes in."""
        return False

    @contextmanager
    def weights(self) -> Iterator[TensorFile]:
        """The weight file, open as long as the context lasts; remembered when that ends well.

        Raises:
            WeightsError: it is missing, cannot be read, or holds models that are not known.
        """
        path = self.file()
        checked_digest(path)
        sections = () if self.own else self.sections
        with open_tensors(path, sections=sections, skipped=self.skipped_sections, every=self.own) as file:
            yield file
        remember(path)

    def whole(self) -> nn.Module:
        """The whole model without memory behind it."""
        return meta(self.model, self.info.n_blocks, self.info.norms)


def meta(
    model: Callable[[int, tuple[int, ...]], nn.Module], n_blocks: int, norms: tuple[int, ...]
) -> nn.Module:
    """A model without memory behind it, on torch's meta device."""
    with torch.device("meta"):
        return model(n_blocks, norms).requires_grad_(False)


def deepest(layers: tuple[Layer, ...]) -> tuple[int, tuple[int, ...]]:
    """Blocks to run for `layers`, and those after which a norm is wanted."""
    return max(layer.block for layer in layers), tuple(
        sorted(layer.block for layer in layers if layer.normed)
    )
