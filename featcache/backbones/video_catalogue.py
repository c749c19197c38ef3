"""4DS, V-JEPA and VideoMAEv2 before anything is loaded: sizes, released files, licences, token grids.

Plain values, so that listing backbones imports neither torch nor transformers. All three are one kind of
model, a pre-norm ViT on tubelets (`featcache.backbones.vit`), and differ in what the fields below say.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from featcache.backbones.base import BackboneInfo, block_at_fraction
from featcache.backbones.releases import ReleasedFile
from featcache.backbones.sizes import IMAGENET_MEAN, IMAGENET_STD, BlockSize, ViTSize
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOrPickle(ReleasedFile):
    """A file that was released in several ways: the one on the hub, or a torch pickle of any name."""

    def find(self, name: str, weights_dir: Path | None) -> Path | None:
        """`<weights_dir>/<name>/<file>`, else the one `.pth` or `.bin` beside it.

        Raises:
            WeightsError: there are several.
        """
        released = ReleasedFile.find(self, name, weights_dir)
        if released is not None or weights_dir is None:
            return released
        folder = weights_dir / name
        pickles = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".bin"))
        if len(pickles) > 1:
            raise WeightsError(
                f"{folder} holds {', '.join(path.name for path in pickles)}: leave the one that is {name}."
            )
        return pickles[0] if pickles else None


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTSize(ViTSize):
    """The numbers that make one of our video ViTs."""

    positions: Literal["stored", "sinusoid"]
    """A table in the weight file, or VideoMAE's sinusoid of the token number, which no file holds."""
    table: tuple[int, int, int] | None = None
    """(steps, rows, columns) of a stored table made for clips of another size, stretched to this one's."""
    gelu: Literal["erf", "tanh"] = "erf"
    final_norm: bool = True

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is made anew, and its methods still mean the first one.
        ViTSize.__post_init__(self)
        if self.table is not None and (self.positions != "stored" or min(self.table) < 1):
            raise CallError(f"table {self.table} must be positive, and goes with stored positions only.")

    @property
    def stored_grid(self) -> tuple[int, int, int]:
        """(steps, rows, columns) of the position table as released."""
        return self.table or self.grid.shape[:3]

    @property
    def n_params(self) -> int:
        """As released, so with a stored position table and the last norm, whatever it is applied to."""
        table = prod(self.stored_grid) * self.block.width if self.positions == "stored" else 0
        blocks = self.depth * self.block.n_params
        return self.embedding_params + table + blocks + 2 * self.block.width * self.final_norm

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds, attention included, norms and activations not."""
        n_tokens = self.grid.steps * self.grid.tokens_per_step
        return 2 * (self.embedding_multiply_adds + self.depth * self.block.multiply_adds(n_tokens)) / 1e9


def _fourds(width: int, depth: int, heads: int, mlp: int) -> VideoViTSize:
    block = BlockSize(width=width, heads=heads, mlp=mlp)
    return VideoViTSize(
        block=block, depth=depth, patch=(2, 16, 16), input_size=(224, 224),
        positions="stored", gelu="tanh", final_norm=False,
    )  # fmt: skip


def _vjepa(width: int, depth: int, side: int) -> VideoViTSize:
    block = BlockSize(width=width, heads=16, mlp=4 * width)
    return VideoViTSize(
        block=block, depth=depth, patch=(2, 16, 16), input_size=(side, side), positions="stored"
    )


def _videomaev2(width: int, depth: int, heads: int, mlp: int, patch: int = 16) -> VideoViTSize:
    block = BlockSize(width=width, heads=heads, mlp=mlp, biases="qv")
    return VideoViTSize(
        block=block, depth=depth, patch=(2, patch, patch), input_size=(224, 224), positions="sinusoid"
    )


FOURDS_SIZES: dict[str, VideoViTSize] = {
    "4ds_b_dist_e": _fourds(768, 12, 12, 3072),
    "4ds_l": _fourds(1024, 24, 16, 4096),
    "4ds_e": _fourds(1792, 56, 16, 15360),
}
"""4DS (Carreira et al., Scaling 4D Representations, 2024)."""

VJEPA_SIZES: dict[str, VideoViTSize] = {
    "vjepa_l": _vjepa(1024, 24, 224),
    "vjepa_h": _vjepa(1280, 32, 224),
    "vjepa_h384": _vjepa(1280, 32, 384),
}
"""V-JEPA (Bardes et al., TMLR 2024)."""

VIDEOMAEV2_SIZES: dict[str, VideoViTSize] = {
    "videomaev2_b": _videomaev2(768, 12, 12, 3072),
    "videomaev2_l": _videomaev2(1024, 24, 16, 4096),
    "videomaev2_h": _videomaev2(1280, 32, 16, 5120),
    "videomaev2_g": _videomaev2(1408, 40, 16, 6144, patch=14),
}
"""VideoMAEv2 (Wang et al., CVPR 2023)."""

_BUCKET = "https://storage.googleapis.com/representations4d/checkpoints"
_META = "https://dl.fbaipublicfiles.com/jepa"
_HUB = "https://huggingface.co/OpenGVLab"


def _npz(file: str, url: str | None, n_bytes: int) -> ReleasedFile:
    return ReleasedFile(file=file, url=url, n_bytes=n_bytes, owner="Google DeepMind", licence="CC-BY-4.0")


def _jepa(name: str, n_bytes: int) -> ReleasedFile:
    # Encoder, target encoder, predictor and Adam's state in one file; sizes counted from that.
    url = f"{_META}/{name}/{name}.pth.tar"
    return ReleasedFile(
        file=f"{name}.pth.tar", url=url, n_bytes=n_bytes, owner="Meta", licence="CC-BY-NC-4.0"
    )


def _opengv(name: str, n_bytes: int) -> ReleasedFile:
    url = f"{_HUB}/VideoMAEv2-{name}/resolve/main/model.safetensors"
    return FileOrPickle(
        file="model.safetensors", url=url, n_bytes=n_bytes, owner="OpenGVLab", licence="CC-BY-NC-4.0"
    )


VIDEO_FILES: dict[str, ReleasedFile] = {
    "4ds_b_dist_e": _npz("scaling4d_dist_b.npz", f"{_BUCKET}/scaling4d_dist_b.npz", 349_810_000),
    "4ds_l": _npz("scaling4d_l.npz", None, 1_222_000_000),
    "4ds_e": _npz("scaling4d_e.npz", f"{_BUCKET}/scaling4d_e.npz", 15_238_100_000),
    "vjepa_l": _jepa("vitl16", 5_130_000_000),
    "vjepa_h": _jepa("vith16", 10_400_000_000),
    "vjepa_h384": _jepa("vith16-384", 10_430_000_000),
    "videomaev2_b": _opengv("Base", 345_000_000),
    "videomaev2_l": _opengv("Large", 1_220_000_000),
    "videomaev2_h": _opengv("Huge", 2_530_000_000),
    "videomaev2_g": _opengv("giant", 4_050_000_000),
}
"""Name -> its file; sizes are rounded."""

_TITLES = {
    "4ds_b_dist_e": "4DS-B distilled from 4DS-e, self-supervised",
    "4ds_l": "4DS-L, self-supervised (never released)",
    "4ds_e": "4DS-e, self-supervised",
    "vjepa_l": "V-JEPA-L, self-supervised on VideoMix2M",
    "vjepa_h": "V-JEPA-H, self-supervised on VideoMix2M",
    "vjepa_h384": "V-JEPA-H at 384 pixels, self-supervised on VideoMix2M",
    "videomaev2_b": "VideoMAEv2-B, self-supervised on UnlabeledHybrid",
    "videomaev2_l": "VideoMAEv2-L, self-supervised on UnlabeledHybrid",
    "videomaev2_h": "VideoMAEv2-H, self-supervised on UnlabeledHybrid",
    "videomaev2_g": "VideoMAEv2-g, self-supervised on UnlabeledHybrid",
}


def fourds_info(name: str, size: VideoViTSize) -> BackboneInfo:
    """4DS takes pixels in [0, 1] as they are, and has no norm after its last block.

    The benchmark reads it at 0.95 of its depth, for every task: its list of states is [tokens, input of block
    0, ..., input of block L-1], so entry k >= 1 is the output of block k - 1, counted from 1 (entry 11 of
    4DS-B: after 10 of 12 blocks), and the last block's output is not in it (`block_at_fraction`).
    """
    return _info(
        name,
        size,
        commercial=True,
        default=Layer(block_at_fraction(0.95, size.depth)),
        cubic=True,
        plain=True,
    )


def vjepa_info(name: str, size: VideoViTSize) -> BackboneInfo:
    """V-JEPA's own output is its last block, normed."""
    return _info(name, size, commercial=False, default=Layer(size.depth, True))


def videomaev2_info(name: str, size: VideoViTSize) -> BackboneInfo:
    """The files on the hub hold no norm for tokens, those of the pretraining do: the default needs none."""
    return _info(name, size, commercial=False, default=Layer(size.depth))


def _info(
    name: str,
    size: VideoViTSize,
    *,
    commercial: bool,
    default: Layer,
    cubic: bool = False,
    plain: bool = False,
) -> BackboneInfo:
    release = VIDEO_FILES.get(name)
    return BackboneInfo(
        name=name,
        title=_TITLES.get(name, name),
        source="this machine" if release is None else release.url or release.owner,
        licence="that of its file" if release is None else release.licence,
        commercial=commercial,
        public=release is not None and release.url is not None,
        params_m=size.n_params / 1e6,
        gflop=size.gflop,
        n_blocks=size.depth,
        input_size=size.input_size,
        n_frames=size.n_frames,
        grid=size.grid,
        mean=None if plain else IMAGENET_MEAN,
        std=None if plain else IMAGENET_STD,
        final_norm=size.final_norm,
        default_layers=(default,),
        upsampling="cubic" if cubic else "linear",
    )


VIDEO_INFOS: dict[str, BackboneInfo] = {
    **{name: fourds_info(name, size) for name, size in FOURDS_SIZES.items()},
    **{name: vjepa_info(name, size) for name, size in VJEPA_SIZES.items()},
    **{name: videomaev2_info(name, size) for name, size in VIDEOMAEV2_SIZES.items()},
}
