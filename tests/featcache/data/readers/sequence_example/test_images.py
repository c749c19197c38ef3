"""Frame decoding: formats, channels, broken bytes. test_sequence_example holds it against TensorFlow."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.sequence_example.images import decode_image

RGB = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
GREY = np.ascontiguousarray(RGB[..., :1])


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def png(mode: str, pixels: np.ndarray = RGB) -> bytes:
    return encoded(Image.fromarray(pixels).convert(mode), "PNG")


@pytest.mark.parametrize("name", ["PNG", "BMP"])
def test_lossless_formats_give_their_pixels(name: str) -> None:
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(RGB), name), 3), RGB)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(GREY[..., 0]), name), 1), GREY)


def test_jpeg_gives_nearly_its_pixels() -> None:
    # Each channel another ramp, so that none can stand for another.
    ramp = np.arange(0, 240, 10).astype(np.uint8)
    smooth = np.broadcast_to(np.stack([ramp, 80 + ramp // 4, 230 - ramp // 2], axis=-1), (16, 24, 3))
    for space, channels in (("RGB", 3), ("GRAY", 1)):
        pixels = np.ascontiguousarray(smooth[..., :channels])
        found = decode_image(simplejpeg.encode_jpeg(pixels, 95, space), channels)
        assert found.shape == pixels.shape
        assert np.abs(found.astype(int) - pixels).max() < 8


def test_decodes_from_a_view_of_a_record() -> None:
    data = b"before" + png("RGB") + b"after"
    np.testing.assert_array_equal(decode_image(memoryview(data)[6:-5], 3), RGB)


def test_palette_and_two_level_and_16_bit_png() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(
        decode_image(encoded(palette, "PNG"), 3), np.asarray(palette.convert("RGB"))
    )
    bits = GREY[..., 0] > 127
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(bits), "PNG"), 1)[..., 0], 255 * bits)
    deep = encoded(Image.fromarray(GREY[..., 0].astype(np.uint16) * 256 + 255), "PNG")
    np.testing.assert_array_equal(decode_image(deep, 1), GREY)


def test_gif_gives_its_first_frame_in_colour() -> None:
    frames = [Image.fromarray(np.full((4, 5), level, np.uint8)) for level in (40, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data, 3), np.full((4, 5, 3), 40))
    with pytest.raises(UnreadableError, match="3 channels"):
        decode_image(data, 1)


@pytest.mark.parametrize(
    ("data", "channels", "stored"),
    [
        (png("L"), 3, 1),
        (png("RGB"), 1, 3),
        (png("RGBA"), 3, 4),
        (png("LA"), 1, 2),
        (simplejpeg.encode_jpeg(GREY, 95, "GRAY"), 3, 1),
        (simplejpeg.encode_jpeg(RGB, 95, "RGB"), 1, 3),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), 3, 4),
    ],
)
def test_other_channels_are_refused_not_converted(data: bytes, channels: int, stored: int) -> None:
    with pytest.raises(UnreadableError, match=rf"has {stored} channels .* `channels: {channels}`"):
        decode_image(data, channels)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", b"BM", b"RIFF1234WEBP", bytes(50)]
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_image(data, 3)


@pytest.mark.parametrize("data", [simplejpeg.encode_jpeg(RGB, 95), png("RGB")])
def test_cut_images_are_refused(data: bytes) -> None:
    # The last 20 bytes of the PNG are checksums and its end mark: without them every pixel is still there.
    for size in range(0, len(data) - 20, 7):
        with pytest.raises(UnreadableError):
            decode_image(data[:size], 3)


@settings(deadline=None)
@given(at=st.integers(0, 200), byte=st.integers(0, 255))
def test_damaged_images_are_decoded_or_refused(at: int, byte: int) -> None:
    for data in (simplejpeg.encode_jpeg(RGB, 95), png("RGB")):
        damaged = bytearray(data)
        damaged[at % len(data)] = byte
        with suppress(UnreadableError):
            assert decode_image(bytes(damaged), 3).dtype == np.uint8
