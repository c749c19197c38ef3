"""Where DINOv2, DINOv3, V-JEPA 2 and VideoPrism come from, and what is known of them beforehand.

Part of the catalogue: plain values, neither torch nor transformers is imported.
"""

from featcache.backbones.base import BackboneInfo, Upsampling
from featcache.backbones.releases import ReleasedFile
from featcache.backbones.sizes import (
    DINOV2_SIZES,
    DINOV3_SIZES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VIDEOPRISM_SIZES,
    VJEPA2_SIZES,
    Dinov2Size,
    Dinov3Size,
    VideoPrismSize,
    Vjepa2Size,
)
from featcache.backbones.weights.locate import WEIGHT_FILES, HubWeights
from featcache.spec import Layer

AnySize = Dinov2Size | Dinov3Size | Vjepa2Size | VideoPrismSize

_META = "Meta AI"
_APACHE = "Apache-2.0"
_DINOV3_LICENCE = "DINOv3 License"

_HUB_IDS = {
    "dinov2_s": "facebook/dinov2-small",
    "dinov2_b": "facebook/dinov2-base",
    "dinov2_l": "facebook/dinov2-large",
    "dinov2_g": "facebook/dinov2-giant",
    "vjepa2_l": "facebook/vjepa2-vitl-fpc64-256",
    "vjepa2_h": "facebook/vjepa2-vith-fpc64-256",
    "vjepa2_g": "facebook/vjepa2-vitg-fpc64-256",
    "vjepa2_g384": "facebook/vjepa2-vitg-fpc64-384",
    "dinov3_s": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "dinov3_b": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "dinov3_l": "facebook/dinov3-vitl16-pretrain-lvd1689m",
    "dinov3_hplus": "facebook/dinov3-vith16plus-pretrain-lvd1689m",
    "dinov3_7b": "facebook/dinov3-vit7b16-pretrain-lvd1689m",
}

_PREDICTOR_PARAMS = 22_000_000
"""That V-JEPA 2's files hold beside the encoder, roughly."""

_TITLES = {
    "dinov2_s": "DINOv2-S, self-supervised on images, a frame at a time",
    "dinov2_b": "DINOv2-B, self-supervised on images, a frame at a time",
    "dinov2_l": "DINOv2-L, self-supervised on images, a frame at a time",
    "dinov2_g": "DINOv2-g, self-supervised on images, a frame at a time",
    "videoprism_b": "VideoPrism-B as released (not the weights of its paper)",
    "videoprism_l": "VideoPrism-L as released (not the weights of its paper)",
    "videoprism_g": "VideoPrism-g, never released",
    "vjepa2_l": "V-JEPA 2-L, self-supervised on video",
    "vjepa2_h": "V-JEPA 2-H, self-supervised on video",
    "vjepa2_g": "V-JEPA 2-g, self-supervised on video",
    "vjepa2_g384": "V-JEPA 2-g at 384 pixels, self-supervised on video",
    "dinov3_s": "DINOv3-S, self-supervised on images, a frame at a time",
    "dinov3_b": "DINOv3-B, self-supervised on images, a frame at a time",
    "dinov3_l": "DINOv3-L, self-supervised on images, a frame at a time",
    "dinov3_hplus": "DINOv3-H+, self-supervised on images, a frame at a time",
    "dinov3_7b": "DINOv3-7B, self-supervised on images, a frame at a time",
}

_SIZES: dict[str, AnySize] = {**DINOV2_SIZES, **VIDEOPRISM_SIZES, **VJEPA2_SIZES, **DINOV3_SIZES}


def _hub(name: str) -> HubWeights:
    gated = name in DINOV3_SIZES
    extra = _PREDICTOR_PARAMS if name in VJEPA2_SIZES else 0
    return HubWeights(
        hub_id=_HUB_IDS[name],
        revision="main",
        owner=_META,
        licence=_DINOV3_LICENCE if gated else _APACHE,
        commercial=True,
        n_bytes=4 * (_SIZES[name].n_params + extra),
        gated=gated,
        in_shards=name == "dinov3_7b",
    )


def _meta_file(letter: str, size: Dinov2Size) -> ReleasedFile:
    model = f"dinov2_vit{letter}14"
    return ReleasedFile(
        file=f"{model}_pretrain.pth",
        url=f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth",
        n_bytes=4 * size.n_params,
        owner=_META,
        licence=_APACHE,
    )


def _flax_file(model: str, size: VideoPrismSize, *, released: bool = True) -> ReleasedFile:
    file = f"flax_{model.replace('-', '_')}_repeated.npz"
    return ReleasedFile(
        file=file,
        url=f"https://huggingface.co/google/videoprism-{model}/resolve/main/{file}" if released else None,
        n_bytes=4 * size.n_params,
        owner="Google",
        also=WEIGHT_FILES[:1],
        licence=_APACHE if released else "none given",
    )


VIT_HUB: dict[str, HubWeights] = {name: _hub(name) for name in _HUB_IDS}
"""Repositories of the Hugging Face hub that hold `config.json` and `model.safetensors`."""

FILES: dict[str, ReleasedFile] = {
    **{name: _meta_file(name[-1], size) for name, size in DINOV2_SIZES.items()},
    "videoprism_b": _flax_file("base-f16r288", VIDEOPRISM_SIZES["videoprism_b"]),
    "videoprism_l": _flax_file("large-f8r288", VIDEOPRISM_SIZES["videoprism_l"]),
    "videoprism_g": _flax_file("giant-f8r288", VIDEOPRISM_SIZES["videoprism_g"], released=False),
}
"""Single files that a model can be loaded from, beside the hub's or instead of them."""


def vit_info(name: str, size: AnySize) -> BackboneInfo:
    """What follows from a model's size, and from where its weights come."""
    found = VIT_HUB.get(name) or FILES[name]
    return BackboneInfo(
        name=name,
        title=_TITLES[name],
        source=found.url or "not public",
        licence=found.licence,
        commercial=found.url is not None,
        public=found.url is not None and name not in DINOV3_SIZES,
        params_m=size.n_params / 1e6,
        gflop=size.gflop,
        n_blocks=size.depth,
        input_size=size.input_size,
        n_frames=size.n_frames,
        grid=size.grid,
        mean=None if isinstance(size, VideoPrismSize) else IMAGENET_MEAN,
        std=None if isinstance(size, VideoPrismSize) else IMAGENET_STD,
        default_layers=(Layer(size.depth, normed=True),),
        upsampling=_upsampling(size),
        frame_level=isinstance(size, Dinov2Size | Dinov3Size),
    )


def _upsampling(size: AnySize) -> Upsampling | None:
    """As the benchmark stretches a VideoMAE's steps; models with a step a frame need none."""
    return None if size.grid.steps == size.n_frames else "linear"


VIT_INFOS: dict[str, BackboneInfo] = {name: vit_info(name, size) for name, size in _SIZES.items()}
