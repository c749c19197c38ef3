"""Encoded frames to pixels, bit for bit as the reference's `tf.io.decode_image` gives them.

TensorFlow decodes JPEG with libjpeg's fast integer DCT and smooth chroma; Pillow, OpenCV and others use
the slow DCT and end up to 12 grey levels apart. Other formats are lossless, so any decoder will do.
"""

from io import BytesIO

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from featcache.data.readers.base import UnreadableError

_JPEG = b"\xff\xd8\xff"
_COLOUR_SPACES = {1: "GRAY", 3: "RGB"}
_JPEG_CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "YCCK": 4, "CMYK": 4}
_PILLOW_FORMATS = {b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_PILLOW_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4}


def decode_image(data: bytes | memoryview, channels: int) -> UInt8[np.ndarray, "Y X C"]:
    """Decode a JPEG, PNG, GIF (its first frame) or BMP that was stored with `channels` channels (1 or 3).

    Raises:
        UnreadableError: says why not. Other channels are refused as in the reference, not converted.
    """
    if bytes(data[:3]) == _JPEG:
        return _decode_jpeg(data, channels)
    for magic, name in _PILLOW_FORMATS.items():
        if bytes(data[: len(magic)]) == magic:
            return _decode_with_pillow(data, name, channels)
    raise UnreadableError(
        f"{len(data)} bytes starting {bytes(data[:8]).hex(' ')} are no JPEG, PNG, GIF or BMP"
    )


def _decode_jpeg(data: bytes | memoryview, channels: int) -> UInt8[np.ndarray, "Y X C"]:
    try:
        _, _, space, _ = simplejpeg.decode_jpeg_header(data)
        _require(channels, _JPEG_CHANNELS.get(space, 0), f"a JPEG in {space}")
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, _COLOUR_SPACES[channels], fastdct=True, fastupsample=False
        )
    except UnreadableError:
        raise
    except ValueError as problem:
        raise UnreadableError(f"a broken JPEG of {len(data)} bytes: {problem}") from None
    return pixels


def _decode_with_pillow(data: bytes | memoryview, name: str, channels: int) -> UInt8[np.ndarray, "Y X C"]:
    try:
        image = Image.open(BytesIO(data), formats=[name])
        image.load()
    # Each of Pillow's decoders has its own idea of what to raise for a broken file, SyntaxError included.
    except Exception as problem:
        raise UnreadableError(f"a broken {name} of {len(data)} bytes: {problem}") from None
    stored = 3 if name == "GIF" else _PILLOW_CHANNELS.get(image.mode, 0) + ("transparency" in image.info)
    _require(channels, stored, f"a {name} in mode {image.mode}")
    if image.mode == "I;16":
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def _require(channels: int, stored: int, what: str) -> None:
    if stored != channels:
        raise UnreadableError(f"{what} has {stored} channels where the manifest says `channels: {channels}`")
