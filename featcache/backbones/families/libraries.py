"""The libraries that know vision transformers by name: what a folder of theirs says, and how it is run."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import Grid
from featcache.backbones.weights.checkpoint import open_tensors
from featcache.backbones.weights.locate import cached_repository, folder_weights
from featcache.backbones.weights.pixels import FILES, Triple, saved_pixels
from featcache.errors import CallError, WeightsError, few
from featcache.system.json_files import read_json

OWN_FILE = "Wrap it in a file of your own: my_model.py:BACKBONE."


@dataclass(kw_only=True)
class Library(ABC):
    """A model's folder as one library reads it."""

    folder: Path
    source: str
    """As the user named it, without a path of their machine."""
    label: str
    """What its stores are called."""
    entries: dict[str, Any]
    """Of its config."""

    name: ClassVar[str]

    @property
    def is_videomae(self) -> bool:
        """Whether it is a VideoMAE, whose layout differs among releases of transformers: we have our own."""
        return self.entries.get("model_type") == "videomae"

    @property
    def n_frames(self) -> int | None:
        """Frames of a clip; None of an image model."""
        return None

    @property
    @abstractmethod
    def title(self) -> str:
        """The library's class or name of the architecture."""

    @property
    @abstractmethod
    def patch(self) -> Grid:
        """(frames, rows, columns) of one token."""

    @abstractmethod
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, columns) that its configs name, the one it is meant to be run at first."""

    @abstractmethod
    def mean_std(self) -> tuple[Triple | None, Triple | None]:
        """For pixels in [0, 1]."""

    @abstractmethod
    def architecture(self) -> dict[str, object]:
        """What defines the function beside the weights."""

    def weights(self) -> Path:
        """The weight file, beside the config."""
        return folder_weights(self.folder)

    @abstractmethod
    def built(self) -> nn.Module:
        """The model, its parameters as they fall."""

    @abstractmethod
    def loaded(self, dtype: torch.dtype) -> nn.Module:
        """The model with its weights, on the CPU: every parameter from the file, or none."""

    @abstractmethod
    def run(self, model: nn.Module, clip: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S D"]:
        """Its last tokens of a clip of normalised frames."""


def library_of(place: str) -> Library:
    """The folder or the repository `ORG/NAME[@REVISION]` that `place` names, as its library reads it.

    Raises:
        WeightsError: it is not there, has no config, or one of neither library.
    """
    path = Path(place).expanduser()
    folder = path if path.is_dir() else cached_repository(place)
    if folder is None:
        raise WeightsError(
            f"{place} is no folder here, and no repository in the Hugging Face cache. Where there is a "
            f"network: hf download {place}"
        )
    folder_weights(folder)  # which says what is missing
    config = read_config(folder / CONFIG_FILE)
    source = folder.resolve().name if path.is_dir() else place
    label = source.partition("@")[0].rpartition("/")[2]
    kind = Timm if "architecture" in config else Transformers
    return kind(folder=folder, source=source, label=label, entries=config)


def read_config(path: Path) -> dict[str, Any]:
    """A config's entries.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        entries = read_json(path)
        if not isinstance(entries, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as problem:
        raise WeightsError(
            f"{path} is not a model's config ({problem}): give the folder that transformers or timm saved."
        ) from problem
    return entries


@dataclass(kw_only=True)
class Transformers(Library):
    """A folder that transformers saved; of models of several kinds of input the part for pixels."""

    name: ClassVar[str] = "transformers"

    def __post_init__(self) -> None:
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
            config = getattr(config, "vision_config", config)
            self.config: Any = config
            self.kind: Any = AutoModel._model_mapping[type(config)]
        except Exception as problem:  # each release has its own for what it does not know
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise CallError(
                f"{self.source} is no model that the installed transformers knows ({reason}). {OWN_FILE}"
            ) from problem

    @property
    def title(self) -> str:
        """The library's class."""
        return str(self.kind.__name__)

    @property
    def patch(self) -> Grid:
        """`tubelet_size` and `patch_size` of the config."""
        tubelet: Any = getattr(self.config, "tubelet_size", None)
        size: Any = getattr(self.config, "patch_size", None)
        if isinstance(tubelet, list | tuple) and len(tubelet) == 3:
            frames, rows, columns = tubelet
            return int(frames), int(rows), int(columns)
        if size is None:
            raise CallError(
                f"{self.source}: its config names no patch_size, so its grid cannot be known. {OWN_FILE}"
            )
        rows, columns = _pair(size)
        return int(tubelet) if tubelet is not None and self.n_frames else 1, rows, columns

    @property
    def n_frames(self) -> int | None:
        """`num_frames` or `frames_per_clip` of the config."""
        named = [getattr(self.config, key, None) for key in ("num_frames", "frames_per_clip")]
        return next((int(n) for n in named if n is not None), None)

    def sizes(self) -> list[tuple[int, int]]:
        """What the processor crops or resizes to, then what the config was made for.

        A config's own `crop_size` is where positions are taken from: then nothing else will do.
        """
        if (own := getattr(self.config, "crop_size", None)) is not None:
            return [_pair(own)]
        processor = self._processor()
        named = [processor.get(key) for key in ("crop_size", "size")]
        named.append(getattr(self.config, "image_size", None))
        found = list(dict.fromkeys(size for one in named if (size := _size(one))))
        if not found:
            raise CallError(
                f"{self.source}: neither its config nor its processor's names an image size. {OWN_FILE}"
            )
        return found

    def mean_std(self) -> tuple[Triple | None, Triple | None]:
        """Those of the processor's config, which must be there."""
        saved = saved_pixels(self.folder / CONFIG_FILE)
        if saved is None or self._processor().get("do_rescale", True) is False:
            raise CallError(
                f"{self.source}: no preprocessor_config.json beside its config says how pixels are "
                f"normalised. Put there the one of its repository. {OWN_FILE}"
            )
        return saved

    def architecture(self) -> dict[str, object]:
        """The class, and every entry of the config that is not about files."""
        config = {key: value for key, value in self.config.to_diff_dict().items() if key not in _ABOUT_FILES}
        return {"class": self.title, "config": config}

    def built(self) -> nn.Module:
        """The class made of the config."""
        model: nn.Module = self.kind(self.config)
        return model

    def loaded(self, dtype: torch.dtype) -> nn.Module:
        """Every parameter from the file, or none."""
        model, told = self.kind.from_pretrained(
            self.folder, config=self.config, dtype=dtype, local_files_only=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
        lacking = [*told["missing_keys"], *map(str, told["mismatched_keys"])]
        _refuse_lacking(self.weights(), self.title, lacking)
        found: nn.Module = model
        return found

    def run(self, model: nn.Module, clip: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S D"]:
        """Its `last_hidden_state`."""
        pixels = clip if self.n_frames else rearrange(clip, "b 1 c y x -> b c y x")
        more = {"skip_predictor": True} if self.config.model_type == "vjepa2" else {}
        given: dict[str, Any] = {str(model.main_input_name): pixels, **more}
        last: Tensor = model(**given).last_hidden_state
        return last

    def _processor(self) -> dict[str, Any]:
        """The entries of the processor's config; none where there is none."""
        path = next((path for name in FILES if (path := self.folder / name).is_file()), None)
        return {} if path is None else read_config(path)


_ABOUT_FILES = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
"""Entries of a config that change nothing of what is computed."""


@dataclass(kw_only=True)
class Timm(Library):
    """A folder that timm saved, or a repository of its organisation on the hub."""

    name: ClassVar[str] = "timm"

    @property
    def title(self) -> str:
        """The library's name of the architecture."""
        return str(self.entries["architecture"])

    @property
    def patch(self) -> Grid:
        """That of the model's embedding."""
        with torch.device("meta"):
            embedding = getattr(self.built(), "patch_embed", None)
        size = getattr(embedding, "patch_size", None)
        if size is None:
            raise CallError(f"{self.source}: {self.title} has no patch embedding of one size. {OWN_FILE}")
        return (1, *_pair(size))

    def sizes(self) -> list[tuple[int, int]]:
        """`input_size` of the config."""
        _, rows, columns = self._pretrained("input_size")
        return [(int(rows), int(columns))]

    def mean_std(self) -> tuple[Triple, Triple]:
        """Those of the config."""
        mean, std = (tuple(float(one) for one in self._pretrained(key)) for key in ("mean", "std"))
        return mean, std  # type: ignore[return-value]

    def architecture(self) -> dict[str, object]:
        """The name, and what it is made with."""
        return {"class": self.title, "config": dict(self.entries.get("model_args", {}))}

    def built(self) -> nn.Module:
        """The model by its name."""
        model: nn.Module = _timm().create_model(
            self.title, pretrained=False, num_classes=0, **self.entries.get("model_args", {})
        )
        return model

    def loaded(self, dtype: torch.dtype) -> nn.Module:
        """Every parameter from the file, or none; heads are left out."""
        model = self.built()
        with open_tensors(self.weights()) as file:
            state = {name: file.read(name) for name in file.shapes.keys() & model.state_dict().keys()}
        try:
            lacking, _ = model.load_state_dict(state, strict=False)
        except RuntimeError as problem:
            raise WeightsError(f"{self.weights()} is not {self.title}: {problem}") from problem
        _refuse_lacking(self.weights(), self.title, lacking)
        return model.to(dtype)

    def run(self, model: nn.Module, clip: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S D"]:
        """Its tokens before any pooling."""
        last: Tensor = model.forward_features(rearrange(clip, "b 1 c y x -> b c y x"))  # type: ignore[operator]
        return last

    def _pretrained(self, key: str) -> Any:
        found = self.entries.get("pretrained_cfg", {}).get(key)
        if found is None:
            raise CallError(f"{self.source}: its config says nothing of {key} (pretrained_cfg). {OWN_FILE}")
        return found


def _refuse_lacking(path: Path, what: str, names: Sequence[str]) -> None:
    """Refuse weights without some of a model's parameters, which the library would draw at random."""
    if names:
        raise WeightsError(
            f"{path} lacks {few(sorted(names))} of {what}, which would be random: fetch the files again."
        )


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as problem:
        raise WeightsError(f"timm cannot be imported ({problem}): pip install 'scivid[timm]'") from problem
    return timm


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, list | tuple) else (value, value)
    return int(rows), int(columns)


def _size(named: Any) -> tuple[int, int] | None:
    """Rows and columns of an entry of a config, where it names both."""
    if isinstance(named, dict):
        named = (named.get("height"), named.get("width"))
    if named is None or (isinstance(named, list | tuple) and (len(named) != 2 or None in named)):
        return None
    return _pair(named)
