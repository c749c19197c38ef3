"""What follows of a model's family and size: pixels, steps, layers, whose weights they are."""

from featcache.backbones.model import IMAGENET_MEAN, vit_info
from featcache.backbones.release import Release
from featcache.backbones.sizes import BlockSize, ViTSize, Vjepa21Size
from featcache.spec import Layer

BLOCK = BlockSize(width=4, heads=2, mlp=6)
SIZE = ViTSize(block=BLOCK, depth=20, patch=(2, 2, 2), input_size=(4, 6), n_frames=4)


def test_a_family_says_how_pixels_go_in_and_which_layer_is_read() -> None:
    plain, normed = vit_info("x", "fourds", SIZE), vit_info("x", "vjepa", SIZE)
    assert (plain.mean, normed.mean) == (None, IMAGENET_MEAN)
    assert (plain.upsampling, normed.upsampling) == ("cubic", "linear")
    assert (plain.default_layers, normed.default_layers) == ((Layer(17),), (Layer(20, normed=True),))
    assert vit_info("x", "videomaev2", SIZE).default_layers == (Layer(20),)


def test_norms_at_several_depths_are_told() -> None:
    size = Vjepa21Size(
        block=BLOCK, depth=4, patch=(1, 2, 2), input_size=(4, 6), n_frames=1, levels=(1, 2, 3, 4)
    )
    info = vit_info("x", "vjepa21", size)
    assert (info.levels, info.norms, info.upsampling) == ((1, 2, 3), (1, 2, 3, 4), None)


def test_without_a_release_the_weights_are_the_user_s() -> None:
    info = vit_info("x", "vjepa", SIZE)
    assert (info.source, info.public, info.commercial) == ("this machine", False, False)
    release = Release(owner="they", licence="MIT", n_bytes=1, url="https://there/x.pth", files=("x.pth",))
    told = vit_info("x", "vjepa", SIZE, title="X", release=release)
    assert (told.title, told.source, told.licence, told.public) == ("X", "https://there/x.pth", "MIT", True)
