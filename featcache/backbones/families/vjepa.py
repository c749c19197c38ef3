"""V-JEPA from its released `.pth.tar`: the target encoder, as the authors' own evaluations take it.

The file also holds the encoder that was trained against it, the predictor and Adam's state; memory-mapping
leaves those on disk. Positions are stored, and stretched where clips have another size than in training
(`size.table` is the grid of the training then).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from featcache.backbones.parts import stretched
from featcache.backbones.vit import TIMM_NAMES, VideoViTBackbone
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import Entry, KeyMap, renamed

PREFIX = "module.backbone."
"""Of every key: the wrappers of distributed training and of masking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VJepa(VideoViTBackbone):
    """A V-JEPA of any size; see `featcache.backbones.base.Backbone` for what the methods promise."""

    family: ClassVar[str] = "vjepa"
    computed: ClassVar[tuple[str, ...]] = ("positions",)
    sections: ClassVar[tuple[str, ...]] = ("target_encoder",)
    skipped_sections: ClassVar[tuple[str, ...]] = ("encoder", "predictor")

    def key_map(self, found: Shapes) -> KeyMap:
        """The table of the target encoder, in which every tensor is used."""
        prefix = PREFIX if not self.own or f"{PREFIX}pos_embed" in found else ""
        entries = renamed(self.whole(), TIMM_NAMES, prefix)
        steps, rows, columns = self.size.stored_grid
        entries["positions"] = Entry(
            (f"{prefix}pos_embed",), (1, steps * rows * columns, self.size.block.width), then=self._positions
        )
        return KeyMap(entries)

    def _positions(self, table: Float[Tensor, "1 S C"]) -> Float[Tensor, "N C"]:
        return stretched(table[0], self.size.stored_grid, self.size.grid.shape[:3])


open_model = VJepa.named
