"""Random weights that are the same on every machine and under every version of numpy, torch and transformers.

Each tensor is drawn by itself from a Philox counter keyed by (seed, its name), so a model cut short has the
very weights of the whole one. The draws are uniform: raw bits, shifted and scaled, each step exact or
correctly rounded, where a normal draw would depend on the platform's logarithm.
"""

import hashlib
from collections.abc import Mapping
from math import prod, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.weights.checkpoint import Shapes


def random_tensors(shapes: Shapes, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """Weights for every name: norms 1, biases 0, all others uniform with variance 1 / fan-in.

    That is the scale of LeCun et al., Efficient BackProp (1998): unit variance in, unit variance out, so that
    the tokens stay as varied as the pixels through every block. A tubelet filter so drawn responds to the
    mean of its two frames and to their difference alike.
    """
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def tensors_digest(tensors: Mapping[str, Float[Tensor, "..."]]) -> str:
    """Sha256 in hex over names, shapes and little-endian float32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Float[Tensor, "..."]:
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    key = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
    bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(prod(shape))
    # 24 bits fill float32's mantissa: odd multiples of 2^-24 in (-1, 1), symmetric about 0.
    uniform = ((bits >> np.uint64(40)).astype(np.float32) * np.float32(2)) - np.float32(2**24 - 1)
    scale = np.float32(sqrt(3 / prod(shape[1:])) * 2.0**-24)
    return torch.from_numpy((uniform * scale).reshape(shape))
