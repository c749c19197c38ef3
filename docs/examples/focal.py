"""Another loss on a task of the benchmark: the focal loss (Lin et al., 2017) for Fly-vs-Fly.

`load_task` gives the benchmark's own task, with its recipe, head and score; only the loss is another.
"""

from dataclasses import dataclass, fields

from torch.nn.functional import binary_cross_entropy_with_logits

from featcache.manifest import load_manifest
from readouts.tasks import load_task
from readouts.tasks.classification import Classification


@dataclass(frozen=True, kw_only=True)
class Focal(Classification):
    """Easy clips count less: each loss times (1 - p)^gamma, p the probability of what is true."""

    gamma: float = 2.0

    def loss(self, outputs, targets):
        labels = targets["labels"].to(outputs.dtype)
        losses = binary_cross_entropy_with_logits(outputs, labels, reduction="none")
        return ((1 - (-losses).exp()) ** self.gamma * losses).mean()


OFFICIAL = load_task("flyvsfly", load_manifest())
TASK = Focal(**{field.name: getattr(OFFICIAL, field.name) for field in fields(OFFICIAL)})
