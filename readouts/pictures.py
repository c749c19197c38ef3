"""Pictures for the report: curves, tokens as colours. The one file that imports matplotlib.

Every function returns a `data:` address, so that the page needs no other file.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from featcache.store import FeatureStore

COLOURS = {"attention": "#0b6e8f", "linear": "#c4661f"}
OTHER_COLOUR = "#5b5f66"
PCA_TOKENS = 20_000
"""Tokens that the components are fitted on."""


def curves(history: Sequence[Mapping[str, Any]], score: str, controls: Mapping[str, float]) -> str:
    """Training loss and `score` against the step, a line a readout; control rows as dotted lines.

    The line is the score over the first clips of val, always the same; dots are over the whole of it.
    """
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    loss, quality = figure.subplots(1, 2)
    for readout in dict.fromkeys(row["readout"] for row in history):
        rows = [row for row in history if row["readout"] == readout]
        style = {"color": COLOURS.get(readout, OTHER_COLOUR), "label": readout, "linewidth": 1.6}
        trained = [row for row in rows if row["train_loss"] is not None]
        loss.plot([row["step"] for row in trained], [row["train_loss"] for row in trained], **style)
        quality.plot([row["step"] for row in rows], [row[score] for row in rows], **style)
        whole = [row for row in rows if f"val/{score}" in row]
        over_all = [row[f"val/{score}"] for row in whole]
        quality.plot([row["step"] for row in whole], over_all, "o", color=style["color"], markersize=3.5)
    for name, value in controls.items():
        quality.axhline(value, color=OTHER_COLOUR, linestyle=":", linewidth=1.2, label=name)
    loss.set(xlabel="step", ylabel="training loss")
    quality.set(xlabel="step", ylabel=f"{score} on val")
    quality.legend(frameon=False, fontsize=8)
    for axes in (loss, quality):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data(buffer.getvalue(), "image/svg+xml")


def token_strips(store: FeatureStore, clips: Sequence[int], layer_index: int = 0) -> dict[int, str]:
    """Clip number -> a strip of its tokens, a tile a step: three principal components as red, green, blue.

    The components are those of the given clips together, so a colour means the same in all strips.
    """
    tokens = store.read(clips, layer=store.spec.layers[layer_index]).astype(np.float32)
    colours = _as_colours(principal_components(tokens))
    chosen = np.linspace(0, tokens.shape[1] - 1, min(8, tokens.shape[1])).round().astype(int)
    strips = (rearrange(clip[chosen], "t h w c -> h (t w) c") for clip in colours)
    return {
        number: _png(strip, zoom=112 // tokens.shape[2]) for number, strip in zip(clips, strips, strict=True)
    }


def principal_components(
    tokens: Float[np.ndarray, "B T H W C"], n: int = 3
) -> Float[np.ndarray, "B T H W n"]:
    """Tokens on the first `n` principal components of all of them (fewer channels: padded with 0)."""
    flat = rearrange(tokens, "b t h w c -> (b t h w) c")
    sample = flat[:: max(1, len(flat) // PCA_TOKENS)]
    mean = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    leading = vectors[:, ::-1][:, :n].astype(np.float32)
    projected = np.zeros((*tokens.shape[:-1], n), np.float32)
    projected[..., : leading.shape[1]] = (tokens - mean) @ leading
    return projected


def jpeg(data: bytes) -> str:
    """The `data:` address of a JPEG."""
    return _data(data, "image/jpeg")


def _as_colours(components: Float[np.ndarray, "B T H W 3"]) -> UInt8[np.ndarray, "B T H W 3"]:
    """Each component stretched from its 1st to its 99th percentile."""
    low, high = np.percentile(components, [1, 99], axis=(0, 1, 2, 3))
    scaled = (components - low) / np.maximum(high - low, 1e-6)
    colours: np.ndarray = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return colours


def _png(image: UInt8[np.ndarray, "H W 3"], zoom: int) -> str:
    enlarged = Image.fromarray(image).resize(
        (image.shape[1] * zoom, image.shape[0] * zoom), Image.Resampling.NEAREST
    )
    buffer = BytesIO()
    enlarged.save(buffer, format="PNG", optimize=True)
    return _data(buffer.getvalue(), "image/png")


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
