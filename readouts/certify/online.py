"""The tokens of a store's clips as an online pipeline makes them, and how far stored ones are from those.

Stage two needs a backbone only to be held against it: of its files this one alone runs one. The extraction
that a store says it came from is planned anew, and another one refused; then clip views are read, drawn,
preprocessed and encoded one by one, by the shortest road from file to model.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.backbones.base import Backbone, Encoder
from featcache.clips import ClipIndex
from featcache.data import readers
from featcache.data.bucket_files import local_data
from featcache.data.index_cache import scan_once
from featcache.data.readers.base import Reader
from featcache.data.sampling import frame_indices
from featcache.data.views import clip_pixels, draw_view
from featcache.errors import StoreError, listed
from featcache.extract.job import Extraction, fingerprint_parts, plan_extraction
from featcache.extract.pixels.clip_views import shuffled_order
from featcache.fingerprint import differences
from featcache.manifest import Manifest
from featcache.spec import Layer
from featcache.store.dtypes import LEVELS, dequantize_into, quantize
from featcache.store.feature_store import FeatureStore
from featcache.system.console import Progress
from featcache.system.device import PRECISIONS, attention_kernel, choose_attention_kernel
from readouts.certify.certificate import TokenAgreement
from readouts.features.splits import FeatureSplit
from readouts.results.significance.bootstrap import Clusters, clusters_of
from readouts.tasks.base import Numbers, Rng, Task

FRESH_VIEWS = 2**62
"""How many views a plan has that never runs out of new ones."""

DECODE_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a store came from: the extraction, the files and their clips."""

    job: Extraction
    reader: Reader
    index: ClipIndex


def replanned(
    store: FeatureStore, backbone: Backbone, manifest: Manifest, data_dir: Path, progress: Progress
) -> Origin:
    """Plan the extraction that `store` says it is of, with this backbone, manifest and data.

    Raises:
        StoreError: it would not give this store: weights, preprocessing, clips, views or labels differ.
        DataError: files are missing or broken.
    """
    parts, attrs = store.parts, store.attrs
    job = plan_extraction(
        manifest,
        task=attrs["task"],
        role=attrs["role"],
        backbone=backbone,
        layers=store.spec.layers,
        n_views=store.spec.n_views,
        seed=parts["views"]["seed"] or 0,
        dtype=PRECISIONS[parts["backbone"]["precision"]],
        shuffle_frames=parts["frames"]["order"] == "shuffled",
        store_dtype=parts["tokens"]["dtype"],
    )
    data_dir = local_data(job.dataset, job.split, data_dir)
    reader = readers.open_reader(job.dataset, job.split, data_dir)
    index = scan_once(
        reader,
        job.dataset,
        job.split,
        data_dir=data_dir,
        cache_dir=store.path.parents[2],
        skip_bad=bool(store.provenance.get("skipped_records")),
        progress=lambda done, total: progress(f"reading the clip index of {job.role}", done, total),
    ).index
    if unlike := differences(store.parts, fingerprint_parts(job, index)):
        raise StoreError(
            f"{store.path} is not what backbone {job.name} makes of the data in {data_dir}:\n"
            f"{listed(unlike)}\n"
            "(here: the store; asked for: an extraction now.) Certify it with what it came from, or run "
            "`scivid extract` with what there is now."
        )
    if index.digest != store.header.clips_digest:
        raise StoreError(
            f"{store.path} has other labels than the data in {data_dir}: run the same `scivid extract` "
            "again, it takes them over and keeps the features."
        )
    return Origin(job=job, reader=reader, index=index)


class OnlinePixels:
    """The pixels of one split's clip views, each read and drawn by itself: nothing is shared with others."""

    def __init__(self, origin: Origin, device: torch.device) -> None:
        self.job, self.reader, self.index, self.device = origin.job, origin.reader, origin.index, device
        plan = self.job.views
        self.plan = plan if plan.starts is not None else replace(plan, n_views=FRESH_VIEWS)

    def of(self, number: int, view: int) -> Float[Tensor, "F rgb height width"]:
        """One clip view in [0, 1]; view numbers beyond those stored are views that no store has.

        Raises:
            DataError: as the reader's `read`.
        """
        job, spec = self.job, self.job.clip_spec
        clip = self.index.clip(number)
        drawn = draw_view(self.plan, clip.id, view, spec.height, spec.width)
        frames = frame_indices(spec, clip.n_source, drawn.start)
        if job.shuffle_frames:
            frames = frames[shuffled_order(clip, spec.n_frames)]
        read = torch.from_numpy(self.reader.read(clip, frames.tolist())).to(self.device)
        return clip_pixels(read, spec, drawn, job.dataset.pixels)


class OnlineTokens:
    """The tokens of one split as an online pipeline makes them: read, view, preprocess, encode."""

    def __init__(
        self, origin: Origin, split: FeatureSplit, encoder: Encoder, device: torch.device, batch: int
    ) -> None:
        self.job, self.pixels = origin.job, OnlinePixels(origin, device)
        self.split, self.encoder, self.device, self.batch = split, encoder, device, batch
        weights = self.job.step_weights
        self.step_weights = None if weights is None else weights.to(device)
        self.dtype: str = split.store.parts["tokens"]["dtype"]
        """The stored tokens': float16 or int8."""
        begun = split.store.provenance.get("batch", {})
        self.kernel = choose_attention_kernel(begun.get("attention_kernel", "torch"))

    def tokens(self, clips: Numbers, views: Numbers) -> Float[Tensor, "B T N C"]:
        """Tokens in float32; view numbers beyond those stored are views that no store has."""
        with ThreadPoolExecutor(DECODE_THREADS, "decode") as pool:
            pixels = list(pool.map(self.pixels.of, clips.tolist(), views.tolist()))
        parts = [
            self._encoded(pixels[at : at + self.batch], self.split.layer)
            for at in range(0, len(pixels), self.batch)
        ]
        return rearrange(torch.cat(parts), "b t h w c -> b t (h w) c")

    def stored(self, clips: Numbers, views: Numbers) -> Float[Tensor, "B T N C"]:
        """The tokens of the same clips from the cache, as stored."""
        found = self.split.store.read(clips.tolist(), views=views.tolist(), layer=self.split.layer)
        return rearrange(torch.from_numpy(found), "b t h w c -> b t (h w) c").to(self.device)

    def targets(self, task: Task, clips: Numbers, views: Numbers, rng: Rng) -> dict[str, Tensor]:
        """What head, loss and metric are given beside the tokens; the same both ways."""
        chosen = {} if self.split.targets is None else task.select(self.split.targets, clips, views, rng)
        return {name: torch.from_numpy(values).to(self.device) for name, values in chosen.items()}

    def rounded(self, online: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T N C"]:
        """What a faultless store would give back of the tokens."""
        return as_stored(online, precision=self.job.dtype, dtype=self.dtype)

    def agreement(self, online: Float[Tensor, "B T N C"], stored: Float[Tensor, "B T N C"]) -> TokenAgreement:
        """How well stored tokens agree with those computed anew."""
        return TokenAgreement(
            n_clip_views=len(online),
            beyond_rounding=beyond_rounding(online, stored, dtype=self.dtype),
            moved=float(_in_spreads(online, online - stored.float()).mean()),
        )

    def clusters(self, clips: Int64[np.ndarray, " n"]) -> Clusters | None:
        """Which of the clips belong together; None where nothing is known of them."""
        return None if self.split.targets is None else clusters_of(self.split.targets, clips)

    def _encoded(self, pixels: Sequence[Tensor], layer: Layer) -> Float[Tensor, "B T H W C"]:
        with attention_kernel(self.kernel):
            tokens = encoded(self.encoder, torch.stack(list(pixels)), (layer,), self.step_weights)[layer]
        # Outside of inference mode: heads are trained on it.
        return tokens.clone()


def encoded(
    encoder: Encoder,
    pixels: Float[Tensor, "B F rgb height width"],
    layers: Sequence[Layer],
    step_weights: Float[Tensor, " encoded"] | None,
) -> dict[Layer, Float[Tensor, "B T H W C"]]:
    """The tokens of some clips by layer: all steps, or the one that a store keeps of them."""
    with torch.inference_mode():
        found = encoder(pixels)
        if step_weights is None:
            return {layer: found[layer] for layer in layers}
        return {
            layer: einsum(found[layer], step_weights, "b t h w c, t -> b h w c")[:, None] for layer in layers
        }


def as_stored(
    online: Float[Tensor, "B T N C"], *, precision: torch.dtype, dtype: str
) -> Float[Tensor, "B T N C"]:
    """Tokens with no more digits than they have: rounded to the backbone's precision, then as a store does.

    Args:
        online: as the backbone gives them, float32.
        precision: that the backbone computed in.
        dtype: float16, or int8 with one scale per token, read back as float16.
    """
    rounded = online.to(precision).half()
    if dtype == "float16":
        return rounded
    clips = rearrange(rounded, "b t n c -> b t n 1 c").cpu().numpy()
    for clip in clips:
        dequantize_into(clip, *quantize(clip))
    return rearrange(torch.from_numpy(clips), "b t n 1 c -> b t n c").to(online.device)


def beyond_rounding(
    online: Float[Tensor, "B T N C"], stored: Float[Tensor, "B T N C"], *, dtype: str
) -> float:
    """How far stored tokens are from those computed, beyond what rounding to `dtype` explains.

    RMS over a clip view, in standard deviations of each channel; of the worst clip view. NaN spreads.

    Args:
        online: as the backbone gives them, float32.
        stored: as read.
        dtype: float16, or int8 with one scale per token, made of float16 and read as such.
    """
    rounded = stored.float()
    _, exponents = torch.frexp(rounded)
    # 11 significant bits down to 2^-14, and an even spacing of 2^-24 below.
    allowed = torch.ldexp(torch.ones_like(rounded), (exponents - 12).clamp(min=-25))
    if dtype == "int8":
        # Half a step of float16 before, one after, and the float16 rounding of the scale.
        allowed = 2 * allowed + online.abs().amax(dim=-1, keepdim=True) * (1 + 2**-10) / (2 * LEVELS)
    return float(_in_spreads(online, ((online - rounded).abs() - allowed).clamp(min=0)).max())


def _in_spreads(tokens: Float[Tensor, "B T N C"], off: Float[Tensor, "B T N C"]) -> Float[Tensor, "B"]:
    """RMS of something over each clip view, in standard deviations of the tokens' channels."""
    centred = tokens - reduce(tokens, "b t n c -> c", "mean")
    spread = reduce(centred.square(), "b t n c -> c", "mean").sqrt()
    # A channel that hardly varies has no scale of its own.
    scale = spread.clamp(min=max(1e-3 * float(spread.max()), 1e-12))
    return reduce((off / scale).square(), "b t n c -> b", "mean").sqrt()
