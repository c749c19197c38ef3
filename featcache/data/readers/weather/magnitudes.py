"""Whether fields are in the unit that the manifest's mean and standard deviation are of.

A field in Celsius, hectopascals or grams looks like any other to a model. What the manifest says of each
variable is enough to tell: another unit is off by more than any weather.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from featcache.data.readers.base import UnreadableError
from featcache.manifest import Dataset

FARTHEST = 16.0
"""Standard deviations from the mean that no value of a field is beyond: 0 K at 850 hPa is 17 below."""
_MEAN = {True: 1.0, False: 4.0}
"""How far the mean of one field may be off, in standard deviations, on the whole globe and in a region."""
_SPREAD = {True: (0.2, 5.0), False: (0.0, 5.0)}
"""Of one field, in standard deviations; a region may be without weather."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnitude:
    """What is known of one variable's values."""

    mean: float
    std: float
    whole_globe: bool

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that can be one of a field."""
        return self.mean - FARTHEST * self.std, self.mean + FARTHEST * self.std

    def require(self, which: str, field: Float32[np.ndarray, "Y X"], unit: str) -> None:
        """Refuse a whole field that is not of this magnitude.

        Raises:
            UnreadableError: its mean or spread is that of another unit or variable.
        """
        wide = field.astype(np.float64)
        mean, spread = float(wide.mean()), float(wide.std())
        least, most = _SPREAD[self.whole_globe]
        if abs(mean - self.mean) > _MEAN[self.whole_globe] * self.std or not (
            least * self.std <= spread <= most * self.std
        ):
            raise UnreadableError(
                f"{which} has a mean of {mean:.5g} and a standard deviation of {spread:.3g}, expected about "
                f"{self.mean:.5g} and {self.std:.3g}: another unit{unit} or another variable. Convert the "
                "store, or correct mean and std of `pixels` in the manifest"
            )


def magnitudes_of(dataset: Dataset) -> tuple[Magnitude | None, ...]:
    """What the manifest says of each variable; None where it has no mean and standard deviation."""
    whole = dataset.latitude is None and dataset.longitude is None
    known = [
        Magnitude(mean=mean, std=std, whole_globe=whole)
        for mean, std in zip(dataset.pixels.mean, dataset.pixels.std, strict=True)
    ]
    return tuple(known) or (None,) * len(dataset.variables)
