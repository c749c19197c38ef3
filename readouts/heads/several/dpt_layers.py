"""The dense prediction readout over several layers: coarse maps from deep ones, fine maps from shallow ones.

DPT as its authors have it (Ranftl et al. 2021) reads four depths, one a level; the benchmark's reads one four
times. This one is theirs in the benchmark's sizes: with fewer layers than levels neighbouring levels share.
"""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

from featcache.errors import CallError
from readouts.heads.base import Readout
from readouts.heads.dpt import LEVELS, DPTReadout, Tokens
from readouts.tokens.prepared import PreparedTokens


class DPTLayersReadout(Readout):
    """The last step's tokens of two to four layers to the change from the last input frame."""

    gives: ClassVar[str] = "fields"

    def __init__(
        self,
        *,
        channels: int,
        rows: int,
        columns: int,
        n_layers: int,
        n_frames: int = 16,
        n_variables: int = 3,
        out_rows: int = 181,
        out_columns: int = 360,
        features: int = 1024,
        head_channels: int = 512,
        generator: Generator | None = None,
    ) -> None:
        """Draw a new head: `DPTReadout`'s arguments, and how many layers it reads.

        Raises:
            CallError: there are more layers than levels, or `rows` or `columns` is odd.
        """
        if n_layers > len(LEVELS):
            raise CallError(
                f"dpt_layers has {len(LEVELS)} levels and reads at most as many layers, not {n_layers}: name "
                "some with --layer."
            )
        super().__init__()
        self.n_layers = n_layers
        self.of_one = DPTReadout(
            channels=channels,
            rows=rows,
            columns=columns,
            n_frames=n_frames,
            n_variables=n_variables,
            out_rows=out_rows,
            out_columns=out_columns,
            features=features,
            head_channels=head_channels,
            generator=generator,
        )

    @property
    def branches(self) -> tuple[Readout, ...]:
        """None: it goes through the tokens itself."""
        return ()

    def forward(self, features: Sequence[Tokens | PreparedTokens]) -> Float[Tensor, "B F Y X C"]:
        """Tokens of each layer, the shallowest first.

        Raises:
            CallError: there are not as many layers as the head has, or tokens of another grid.
        """
        if len(features) != self.n_layers:
            raise CallError(f"this dpt readout reads {self.n_layers} layers and was given {len(features)}.")
        maps = [self.of_one.token_map(tokens) for tokens in features]
        deepest_first = maps[::-1]
        levels = [deepest_first[i * self.n_layers // len(LEVELS)] for i in range(len(LEVELS))]
        found: Tensor = self.of_one.decoder.of_levels(levels)
        return found
