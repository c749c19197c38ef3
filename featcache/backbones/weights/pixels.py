"""The mean and std that a processor's config beside weights says its model was trained with.

No key and no shape tells them: DINOv3 on satellite images differs from DINOv3 in nothing else, and the
default of transformers for a VideoMAE (0.5) is not what the published ones have.
"""

import logging
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from featcache.errors import WeightsError
from featcache.system.json_files import read_json

Triple = tuple[float, float, float]

FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
_CLOSE = 5e-3
"""ImageNet's numbers are written with two or three digits."""


def saved_pixels(weights: Path) -> tuple[Triple | None, Triple | None] | None:
    """Mean and std for pixels in [0, 1] by the config beside a weight file, both None where there are none.

    None where no file tells.

    Raises:
        WeightsError: the file cannot be read, or holds no such numbers.
    """
    path = next((path for name in FILES if (path := weights.with_name(name)).is_file()), None)
    if path is None:
        return None
    try:
        entries = read_json(path)
        if entries.get("do_normalize", True) is False:
            return None, None
        if entries.get("image_mean") is None or entries.get("image_std") is None:
            return None
        mean, std = _triple(entries["image_mean"]), _triple(entries["image_std"])
        if not all(map(isfinite, mean)) or not all(isfinite(number) and number > 0 for number in std):
            raise ValueError(f"mean and std {mean}, {std} are not finite, or not positive")
        return mean, std
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise WeightsError(
            f"{path} does not say how pixels are normalised ({problem}): fetch it again, or remove it."
        ) from problem


def tell_of_other_pixels(weights: Path, mean: Triple | None, std: Triple | None) -> None:
    """Warn where the config beside a weight file says others than `mean` and `std`, which are applied."""
    saved = saved_pixels(weights)
    if saved is not None and (_unlike(saved[0], mean, 0.0) or _unlike(saved[1], std, 1.0)):
        _warn(weights, saved, (mean, std))


@lru_cache(maxsize=64)
def _warn(weights: Path, saved: tuple[Any, Any], ours: tuple[Any, Any]) -> None:
    logging.getLogger(__name__).warning(
        f"{weights.parent}: the processor's config beside the weights has mean and std {saved[0]}, "
        f"{saved[1]}. This model's are {ours[0]}, {ours[1]}, and are applied: is it another model?"
    )


def _triple(numbers: Any) -> Triple:
    if isinstance(numbers, int | float):
        numbers = (numbers,) * 3
    one, two, three = (float(number) for number in numbers)
    return one, two, three


def _unlike(found: Triple | None, expected: Triple | None, neutral: float) -> bool:
    pairs = zip(found or (neutral,) * 3, expected or (neutral,) * 3, strict=True)
    return any(not abs(one - other) < _CLOSE for one, other in pairs)
