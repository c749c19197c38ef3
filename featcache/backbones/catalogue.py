"""Every registered model: what it is, how large, where its weights are released, which family it belongs to.

`scivid list backbones` reads only this, so neither torch nor transformers is imported for it.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from featcache.backbones.base import BackboneInfo
from featcache.backbones.digests import KNOWN
from featcache.backbones.model import IMAGENET_MEAN, IMAGENET_STD, Model, vit_info
from featcache.backbones.release import Release
from featcache.backbones.sizes import (
    BlockSize,
    Dinov2Size,
    Dinov3Size,
    VideoMAESize,
    VideoPrismSize,
    VideoViTSize,
    ViTSize,
    Vjepa21Size,
)
from featcache.spec import Layer, TokenGrid


class Blocks(NamedTuple):
    """How wide and how many the blocks of a model are."""

    width: int
    depth: int
    heads: int
    mlp: int

    def block(self, **more: Any) -> BlockSize:
        """One of them; `more` is what a family adds."""
        return BlockSize(width=self.width, heads=self.heads, mlp=self.mlp, **more)


SMALL, BASE = Blocks(384, 12, 6, 1536), Blocks(768, 12, 12, 3072)
LARGE, HUGE = Blocks(1024, 24, 16, 4096), Blocks(1280, 32, 16, 5120)
"""The sizes of Dosovitskiy et al. (ICLR 2021), and the small one of Touvron et al. (ICML 2021)."""
TINY = Blocks(192, 2, 12, 768)


def _model(family: str, name: str, title: str, size: ViTSize, release: Release) -> Model:
    if name in KNOWN:
        release = replace(release, revision=KNOWN[name].revision, digests=KNOWN[name].sha256)
    info = vit_info(name, family, size, title=title, release=release)
    return Model(family=family, info=info, size=size, release=release)


def _resize() -> Model:
    """The benchmark's 16 x 16 x 16 means over patches of a 224 x 224 clip: an area resize, as it happens."""
    info = BackboneInfo(
        name="resize",
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
    return Model(family="resize", info=info)


def _videomae_size(blocks: Blocks, *, side: int = 224, final_norm: bool = True) -> VideoMAESize:
    return VideoMAESize(
        # 1e-12 is in the hub's configs, where the authors' code has 1e-6.
        block=blocks.block(biases="qv", eps=1e-12),
        depth=blocks.depth,
        patch=(2, 16, 16),
        input_size=(side, side),
        final_norm=final_norm,
    )


def _videomae(
    name: str, title: str, size: VideoMAESize, n_bytes: int, hub_id: str, revision: str = "main"
) -> Model:
    release = Release(
        owner="the Multimedia Computing Group of Nanjing University",
        licence="CC-BY-NC-4.0",
        commercial=False,
        n_bytes=n_bytes,
        config=True,
        hub_id=f"MCG-NJU/{hub_id}",
        revision=revision,
    )
    return _model("videomae", name, title, size, release)


def _random(
    name: str,
    title: str,
    size: VideoMAESize,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Model:
    """A control. Its filters never saw data, so mean and std must fit the footage.

    Bright, low-contrast lab footage needs its own, or the constant part of a frame drowns what moves in it
    (mAP of the demo's flies 0.64 instead of 0.78). Those would blow colour footage up until the positions of
    tokens drown: a tracking readout then never learns to tell times apart.
    """
    info = replace(
        vit_info(name, "videomae", size, title=title),
        mean=mean,
        std=std,
        source="drawn from a seed",
        licence="none needed",
        commercial=True,
        public=True,
        control="random weights",
    )
    return Model(family="videomae", info=info, size=size)


def _dinov2(letter: str, hub: str, blocks: Blocks, *, gated: bool = False) -> Model:
    size = Dinov2Size(
        block=blocks.block(gated=gated, scaled=True),
        depth=blocks.depth,
        patch=(1, 14, 14),
        input_size=(224, 224),
    )
    release = Release(
        owner="Meta AI",
        licence="Apache-2.0",
        n_bytes=4 * size.n_params,
        files=(f"dinov2_vit{letter.lower()}14_pretrain.pth",),
        config=True,
        hub_id=f"facebook/dinov2-{hub}",
    )
    title = f"DINOv2-{letter}, self-supervised on images, a frame at a time"
    return _model("dinov2", f"dinov2_{letter.lower()}", title, size, release)


def _dinov3(
    name: str, letter: str, hub: str, blocks: Blocks, *, sharded: bool = False, **block: Any
) -> Model:
    size = Dinov3Size(
        block=blocks.block(**{"biases": "qv", "scaled": True, "eps": 1e-5, **block}),
        depth=blocks.depth,
        patch=(1, 16, 16),
        input_size=(224, 224),
    )
    release = Release(
        owner="Meta AI",
        licence="DINOv3 License",
        n_bytes=4 * size.n_params,
        config=True,
        sharded=sharded,
        hub_id=f"facebook/dinov3-vit{hub}-pretrain-lvd1689m",
        gated=True,
    )
    title = f"DINOv3-{letter}, self-supervised on images, a frame at a time"
    return _model("dinov3", f"dinov3_{name}", title, size, release)


def _vjepa2(name: str, title: str, hub: str, blocks: Blocks, side: int = 256) -> Model:
    size = ViTSize(block=blocks.block(), depth=blocks.depth, patch=(2, 16, 16), input_size=(side, side))
    release = Release(
        owner="Meta AI",
        licence="Apache-2.0",
        # The files hold a predictor of about 22 million parameters beside the encoder.
        n_bytes=4 * (size.n_params + 22_000_000),
        config=True,
        hub_id=f"facebook/vjepa2-{hub}",
    )
    return _model("vjepa2", name, f"V-JEPA 2-{title}, self-supervised on video", size, release)


def _vjepa21(name: str, file: str, n_bytes: int, blocks: Blocks, levels: tuple[int, int, int, int]) -> Model:
    letter, distilled = file[3], "dist" in file
    size = Vjepa21Size(
        block=blocks.block(),
        depth=blocks.depth,
        patch=(2, 16, 16),
        input_size=(384, 384),
        levels=levels,
        distilled=distilled,
    )
    release = Release(
        owner="Meta AI",
        # Of the repository: nothing else is said of the weights.
        licence="MIT",
        # Two encoders, the predictor and Adam's state.
        n_bytes=n_bytes,
        files=(f"vjepa2_1_{file}_384.pt", "model.safetensors"),
        url=f"https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_{file}_384.pt",
    )
    how = "distilled from G" if distilled else "self-supervised on video and images"
    letter = letter if name.endswith(("g", "gigantic")) else letter.upper()
    return _model("vjepa21", name, f"V-JEPA 2.1-{letter} at 384 pixels, {how}", size, release)


def _videoprism(letter: str, file: str, spatial: Blocks, steps: int, *, released: bool = True) -> Model:
    size = VideoPrismSize(
        block=spatial.block(),
        depth=spatial.depth + 4,
        patch=(1, 18, 18),
        input_size=(288, 288),
        table=(steps, 16, 16),
    )
    release = Release(
        owner="Google",
        licence="Apache-2.0" if released else "none given",
        commercial=released,
        n_bytes=4 * size.n_params,
        files=(f"flax_{file.replace('-', '_')}_repeated.npz", "model.safetensors"),
        hub_id=f"google/videoprism-{file}" if released else None,
    )
    what = " as released (not the weights of its paper)" if released else ", never released"
    return _model("videoprism", f"videoprism_{letter.lower()}", f"VideoPrism-{letter}{what}", size, release)


def _fourds(
    name: str, title: str, file: str, n_bytes: int, blocks: Blocks, *, released: bool = True
) -> Model:
    size = VideoViTSize(
        block=blocks.block(),
        depth=blocks.depth,
        patch=(2, 16, 16),
        input_size=(224, 224),
        positions="stored",
        gelu="tanh",
        final_norm=False,
    )
    bucket = "https://storage.googleapis.com/representations4d/checkpoints"
    release = Release(
        owner="Google DeepMind",
        licence="CC-BY-4.0",
        n_bytes=n_bytes,
        files=(file,),
        url=f"{bucket}/{file}" if released else None,
    )
    return _model("fourds", name, title, size, release)


def _vjepa(name: str, title: str, file: str, n_bytes: int, blocks: Blocks, side: int = 224) -> Model:
    size = VideoViTSize(
        block=blocks.block(),
        depth=blocks.depth,
        patch=(2, 16, 16),
        input_size=(side, side),
        positions="stored",
    )
    release = Release(
        owner="Meta",
        licence="CC-BY-NC-4.0",
        commercial=False,
        # Encoder, target encoder, predictor and Adam's state in one file; sizes counted from that.
        n_bytes=n_bytes,
        files=(f"{file}.pth.tar",),
        url=f"https://dl.fbaipublicfiles.com/jepa/{file}/{file}.pth.tar",
    )
    return _model("vjepa", name, f"V-JEPA-{title}, self-supervised on VideoMix2M", size, release)


def _videomaev2(letter: str, hub: str, n_bytes: int, blocks: Blocks, patch: int = 16) -> Model:
    size = VideoViTSize(
        block=blocks.block(biases="qv"),
        depth=blocks.depth,
        patch=(2, patch, patch),
        input_size=(224, 224),
        positions="sinusoid",
    )
    release = Release(
        owner="OpenGVLab",
        licence="CC-BY-NC-4.0",
        commercial=False,
        n_bytes=n_bytes,
        files=("model.safetensors",),
        any_pickle=True,
        hub_id=f"OpenGVLab/VideoMAEv2-{hub}",
    )
    title = f"VideoMAEv2-{letter}, self-supervised on UnlabeledHybrid"
    return _model("videomaev2", f"videomaev2_{letter.lower()}", title, size, release)


_ON_KINETICS = "self-supervised on Kinetics-400"
_MODELS = (
    _resize(),
    _videomae(
        "videomae_b", f"VideoMAE-B, {_ON_KINETICS}", _videomae_size(BASE),
        376_924_301, "videomae-base",
    ),
    _videomae(
        "videomae_l", f"VideoMAE-L, {_ON_KINETICS}", _videomae_size(LARGE),
        1_372_166_773, "videomae-large", "12da269a02d3e1fbbb7011e610e591fea8061dca",
    ),
    _videomae(
        "videomae_h", "VideoMAE-H fine-tuned on Kinetics-400 labels (the hub has no self-supervised H)",
        _videomae_size(HUGE, final_norm=False), 2_528_477_760, "videomae-huge-finetuned-kinetics",
    ),
    _random(
        "videomae_random", "A small VideoMAE with random weights", _videomae_size(TINY, side=112),
        (0.75,) * 3, (0.065,) * 3,
    ),
    _random(
        "videomae_random_s", "A small VideoMAE with random weights, for colour and fields",
        _videomae_size(TINY, side=128), (0.45,) * 3, (0.25,) * 3,
    ),
    _random("videomae_random_b", "VideoMAE-B with random weights", _videomae_size(BASE)),
    _dinov2("S", "small", SMALL),
    _dinov2("B", "base", BASE),
    _dinov2("L", "large", LARGE),
    _dinov2("g", "giant", Blocks(1536, 40, 24, 4096), gated=True),
    _videoprism("B", "base-f16r288", BASE, 16),
    _videoprism("L", "large-f8r288", LARGE, 8),
    _videoprism("g", "giant-f8r288", Blocks(1408, 40, 16, 6144), 8, released=False),
    _vjepa2("vjepa2_l", "L", "vitl-fpc64-256", LARGE),
    _vjepa2("vjepa2_h", "H", "vith-fpc64-256", HUGE),
    _vjepa2("vjepa2_g", "g", "vitg-fpc64-256", Blocks(1408, 40, 22, 6144)),
    _vjepa2("vjepa2_g384", "g at 384 pixels", "vitg-fpc64-384", Blocks(1408, 40, 22, 6144), side=384),
    _vjepa21("vjepa21_b", "vitb_dist_vitG", 1_664_223_428, BASE, (3, 6, 9, 12)),
    _vjepa21("vjepa21_l", "vitl_dist_vitG", 5_151_198_524, LARGE, (6, 12, 18, 24)),
    _vjepa21("vjepa21_g", "vitg", 16_900_000_000, Blocks(1408, 40, 22, 6144), (10, 20, 30, 40)),
    # Not at 36: the third is where its authors put it.
    _vjepa21("vjepa21_gigantic", "vitG", 30_200_000_000, Blocks(1664, 48, 26, 8192), (12, 24, 38, 48)),
    _dinov3("s", "S", "s16", SMALL),
    _dinov3("b", "B", "b16", BASE),
    _dinov3("l", "L", "l16", LARGE),
    _dinov3("hplus", "H+", "h16plus", Blocks(1280, 32, 20, 5120), gated=True),
    _dinov3("7b", "7B", "7b16", Blocks(4096, 40, 32, 8192), gated=True, biases="", sharded=True),
    _fourds(
        "4ds_b_dist_e", "4DS-B distilled from 4DS-e, self-supervised",
        "scaling4d_dist_b.npz", 349_810_000, BASE,
    ),
    _fourds(
        "4ds_l", "4DS-L, self-supervised (never released)",
        "scaling4d_l.npz", 1_222_000_000, LARGE, released=False,
    ),
    _fourds(
        "4ds_e", "4DS-e, self-supervised",
        "scaling4d_e.npz", 15_238_100_000, Blocks(1792, 56, 16, 15360),
    ),
    _vjepa("vjepa_l", "L", "vitl16", 5_130_000_000, LARGE),
    _vjepa("vjepa_h", "H", "vith16", 10_400_000_000, HUGE),
    _vjepa("vjepa_h384", "H at 384 pixels", "vith16-384", 10_430_000_000, HUGE, side=384),
    _videomaev2("B", "Base", 345_000_000, BASE),
    _videomaev2("L", "Large", 1_220_000_000, LARGE),
    _videomaev2("H", "Huge", 2_530_000_000, HUGE),
    _videomaev2("g", "giant", 4_050_000_000, Blocks(1408, 40, 16, 6144), patch=14),
)  # fmt: skip

BACKBONES: dict[str, Model] = {model.info.name: model for model in _MODELS}
"""Every registered model by its name."""
