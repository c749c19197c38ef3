"""What is known of each backbone before anything is loaded: size, source, licence, token grid, cost.

`scivid list backbones` and `scivid plan` read only this, so neither torch nor transformers is imported.
Parameters and arithmetic are computed from the sizes; the tests hold them against published counts.
"""

from dataclasses import dataclass, replace
from math import prod

from featcache.backbones.base import BackboneInfo
from featcache.backbones.sizes import IMAGENET_MEAN, IMAGENET_STD
from featcache.backbones.video_catalogue import VIDEO_INFOS
from featcache.backbones.vit_catalogue import VIT_INFOS
from featcache.backbones.weights.locate import HubWeights
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAESize:
    """The numbers that make a VideoMAE encoder: a pre-norm ViT on tubelets (Tong et al., NeurIPS 2022)."""

    input_size: tuple[int, int] = (224, 224)
    n_frames: int = 16
    patch: tuple[int, int, int] = (2, 16, 16)
    """(frames, rows, columns) of a tubelet."""
    width: int
    depth: int
    heads: int
    mlp: int
    eps: float = 1e-12
    """Of every LayerNorm; 1e-12 in the hub's configs, where the authors' code has 1e-6."""
    activation: str = "gelu"
    qv_bias: bool = True
    """Biases of query and value; the key has none."""
    final_norm: bool = True
    """False for fine-tuned models, which normalise the mean of the tokens instead of the tokens."""

    def __post_init__(self) -> None:
        video = (self.n_frames, *self.input_size)
        if any(size % patch for size, patch in zip(video, self.patch, strict=True)):
            raise CallError(f"tubelets of {self.patch} do not divide {video} (frames, rows, columns).")
        if self.width % self.heads:
            raise CallError(f"width {self.width} is not a multiple of {self.heads} heads.")

    @property
    def grid(self) -> TokenGrid:
        """Tokens of one clip."""
        steps, rows, columns = (
            n // p for n, p in zip((self.n_frames, *self.input_size), self.patch, strict=True)
        )
        return TokenGrid(steps=steps, rows=rows, columns=columns, channels=self.width)

    @property
    def n_params(self) -> int:
        """Parameters of the encoder; the sinusoid position table is none."""
        biases = 2 * self.width if self.qv_bias else 0
        attention = 4 * self.width**2 + biases + self.width
        mlp = 2 * self.width * self.mlp + self.mlp + self.width
        embedding = self._patch_weights + self.width
        return embedding + self.depth * (attention + mlp + 4 * self.width) + 2 * self.width * self.final_norm

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds, attention included, norms and activations not."""
        n = self.grid.steps * self.grid.tokens_per_step
        block = n * (4 * self.width**2 + 2 * self.width * self.mlp) + 2 * n**2 * self.width
        return 2 * (n * self._patch_weights + self.depth * block) / 1e9

    @property
    def _patch_weights(self) -> int:
        return 3 * prod(self.patch) * self.width


VIDEOMAE_SIZES: dict[str, VideoMAESize] = {
    "videomae_b": VideoMAESize(width=768, depth=12, heads=12, mlp=3072),
    "videomae_l": VideoMAESize(width=1024, depth=24, heads=16, mlp=4096),
    "videomae_h": VideoMAESize(width=1280, depth=32, heads=16, mlp=5120, final_norm=False),
    "videomae_random": VideoMAESize(input_size=(112, 112), width=192, depth=2, heads=12, mlp=768),
    "videomae_random_s": VideoMAESize(input_size=(128, 128), width=192, depth=2, heads=12, mlp=768),
    "videomae_random_b": VideoMAESize(width=768, depth=12, heads=12, mlp=3072),
}

_NANJING = "the Multimedia Computing Group of Nanjing University"

HUB: dict[str, HubWeights] = {
    "videomae_b": HubWeights(
        hub_id="MCG-NJU/videomae-base", revision="dc740ceda42fce44faed2ea03c6d447db72f6af9",
        owner=_NANJING, licence="CC-BY-NC-4.0", commercial=False, n_bytes=376_924_301,
    ),
    "videomae_l": HubWeights(
        hub_id="MCG-NJU/videomae-large", revision="12da269a02d3e1fbbb7011e610e591fea8061dca",
        owner=_NANJING, licence="CC-BY-NC-4.0", commercial=False, n_bytes=1_372_166_773,
    ),
    "videomae_h": HubWeights(
        hub_id="MCG-NJU/videomae-huge-finetuned-kinetics", revision="main",
        owner=_NANJING, licence="CC-BY-NC-4.0", commercial=False, n_bytes=2_528_477_760,
    ),
}  # fmt: skip

_VIDEOMAE_TITLES = {
    "videomae_b": "VideoMAE-B, self-supervised on Kinetics-400",
    "videomae_l": "VideoMAE-L, self-supervised on Kinetics-400",
    "videomae_h": "VideoMAE-H fine-tuned on Kinetics-400 labels (the hub has no self-supervised H)",
    "videomae_random": "A small VideoMAE with random weights",
    "videomae_random_s": "A small VideoMAE with random weights, for colour and fields",
    "videomae_random_b": "VideoMAE-B with random weights",
}


_RANDOM_PIXELS = {
    "videomae_random": ((0.75,) * 3, (0.065,) * 3),
    "videomae_random_s": ((0.45,) * 3, (0.25,) * 3),
}
"""Mean and std of a control whose filters never saw data. The first are those of bright, low-contrast lab
footage, without which the constant part of a frame drowns what moves in it (mAP of the demo's flies 0.64
instead of 0.78). The others are those of colour footage, which the first would blow up until the positions of
tokens drown: a tracking readout then never learns to tell times apart."""


def videomae_info(
    name: str, size: VideoMAESize, *, title: str, hub: HubWeights | None = None
) -> BackboneInfo:
    """What follows from a VideoMAE's size, and from where its weights come."""
    return BackboneInfo(
        name=name,
        title=title,
        source=hub.url if hub else "this machine",
        licence=hub.licence if hub else "that of its files",
        commercial=hub.commercial if hub else False,
        public=hub is not None,
        params_m=size.n_params / 1e6,
        gflop=size.gflop,
        n_blocks=size.depth,
        input_size=size.input_size,
        n_frames=size.n_frames,
        grid=size.grid,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        final_norm=size.final_norm,
        # The benchmark's public code reads the model's own output, whatever depth its configs name.
        default_layers=(Layer(size.depth, size.final_norm),),
        upsampling="linear",
    )


def resize_info(name: str = "resize") -> BackboneInfo:
    """The benchmark's 16 x 16 x 16 means over patches of a 224 x 224 clip: an area resize, as it happens."""
    return BackboneInfo(
        name=name,
        title="Resize: mean colour of each patch, no parameters",
        source="https://github.com/google-deepmind/scivid",
        licence="none needed",
        commercial=True,
        public=True,
        params_m=0.0,
        gflop=0.0,
        n_blocks=0,
        input_size=(16, 16),
        grid=TokenGrid(steps=16, rows=16, columns=16, channels=3),
        resize_once=True,
        final_norm=False,
        default_layers=(Layer(0),),
        control="no model",
    )


def _published(name: str) -> BackboneInfo:
    return videomae_info(name, VIDEOMAE_SIZES[name], title=_VIDEOMAE_TITLES[name], hub=HUB[name])


def _random(name: str) -> BackboneInfo:
    info = videomae_info(name, VIDEOMAE_SIZES[name], title=_VIDEOMAE_TITLES[name])
    mean, std = _RANDOM_PIXELS.get(name, (IMAGENET_MEAN, IMAGENET_STD))
    return replace(
        info,
        mean=mean,
        std=std,
        source="drawn from a seed",
        licence="none needed",
        commercial=True,
        public=True,
        control="random weights",
    )


INFOS: dict[str, BackboneInfo] = {
    "resize": resize_info(),
    **{name: _published(name) for name in HUB},
    **{name: _random(name) for name in ("videomae_random", "videomae_random_s", "videomae_random_b")},
    **VIT_INFOS,
    **VIDEO_INFOS,
}
"""Every registered backbone; `BACKBONES` in the package's `__init__` has the same names."""
