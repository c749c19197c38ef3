"""What a processor's config beside weights says of pixels: taken, compared, refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from featcache.backbones import load_backbone
from featcache.backbones.model import IMAGENET_MEAN, IMAGENET_STD
from featcache.backbones.weights.pixels import FILES, saved_pixels, tell_of_other_pixels
from featcache.errors import WeightsError

HALF = (0.5, 0.5, 0.5)


def write(folder: Path, name: str = FILES[0], **entries: Any) -> Path:
    (folder / name).write_text(json.dumps(entries))
    return folder / "model.safetensors"


@pytest.mark.parametrize("name", FILES)
def test_what_the_config_says(tmp_path: Path, name: str) -> None:
    assert saved_pixels(tmp_path / "model.safetensors") is None
    assert saved_pixels(write(tmp_path, name)) is None
    assert saved_pixels(write(tmp_path, name, image_mean=[0.1, 0.2, 0.3], image_std=HALF)) == (
        (0.1, 0.2, 0.3),
        HALF,
    )
    assert saved_pixels(write(tmp_path, name, image_mean=0.5, image_std=0.5)) == (HALF, HALF)
    assert saved_pixels(write(tmp_path, name, image_mean=HALF, image_std=HALF, do_normalize=False)) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"image_mean": [1], "image_std": [1, 1, 1]}',
        "[" * 99_999,
        '{"image_mean": 0, "image_std": 0}',
    ],
)
def test_a_config_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILES[0]).write_text(text)
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json does not say how pixels are"):
        saved_pixels(tmp_path / "model.safetensors")


def test_weights_of_another_model_by_their_pixels_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = write(tmp_path, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    tell_of_other_pixels(same, IMAGENET_MEAN, IMAGENET_STD)
    tell_of_other_pixels(write(tmp_path, image_mean=[0, 0, 0], image_std=[1, 1, 1]), None, None)
    assert caplog.messages == []
    # DINOv3 on satellite images has the keys and shapes of the one on the web's.
    other = write(tmp_path, image_mean=[0.43, 0.411, 0.296], image_std=[0.213, 0.156, 0.143])
    for _ in range(2):
        tell_of_other_pixels(other, IMAGENET_MEAN, IMAGENET_STD)
    (said,) = caplog.messages
    assert "(0.43, 0.411, 0.296)" in said and "is it another model?" in said


def test_the_pixels_of_ones_own_saved_model_are_those_of_its_config(tiny_folder: Path) -> None:
    before = load_backbone(str(tiny_folder))
    assert (before.info.mean, before.info.std) == (IMAGENET_MEAN, IMAGENET_STD)
    write(tiny_folder, image_mean=HALF, image_std=HALF)
    after = load_backbone(str(tiny_folder))
    assert (after.info.mean, after.info.std) == (HALF, HALF)
    assert after.preprocessing() != before.preprocessing(), "which makes another store"
