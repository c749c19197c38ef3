"""What `scivid demo` trains: the backbones of each task, and settings that fit minutes on two cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Settings = Sequence[str]
"""As `--set` takes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpperBlocks:
    """A run that trains the upper blocks of a task's backbone with its readout."""

    stored: str
    """Layers: the one that it begins at, and that readouts see."""
    layer: str
    """The latter."""
    tune: str
    settings: Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """All that is trained on the generated data."""

    trained: Mapping[str, tuple[Sequence[str], Settings]]
    """Task -> backbones, settings: a hundredth of the steps on few clips, hence larger learning rates."""
    tuned: Mapping[str, UpperBlocks]
    """Tasks of which a run shows the way, in seconds: too few steps for a score."""
    grids: Sequence[str]
    """Of one sweep: which readout, with how much data; which rate and width."""
    certified: Mapping[str, tuple[str, Settings]]
    """Task -> backbone and settings of a store that is trained from with the backbone in the loop, too."""

    @property
    def backbones(self) -> set[str]:
        """All that are run."""
        return {name for names, _ in self.trained.values() for name in names}


_BEHAVIOUR = ["steps=400", "lr=1e-2", "minival_every=100", "width=128", "dropout=0.3"]
_TRACKER = ["warmup=60", "lr=1e-2", "minival_every=100", "width=128", "n_bases=5", "temporal_tiles=1"]
_TRACKING = ["steps=400", "batch=16", *_TRACKER]
_PRESSURE = ["steps=800", "lr=2e-2", "minival_every=200", "width=128"]
_WEATHER = ["steps=100", "warmup=20", "lr=1e-2", "batch=4", "minival_every=50", "features=32"]
_WEATHER += ["head_channels=32"]
_WHICH_READOUT = (
    "task=calms21 backbone=resize,videomae_random readout=linear,attention,pooled_mlp,knn,logistic "
    "train_fraction=0.25,1 seed=0,1,2 steps=150 minival_every=75 lr=1e-2 width=64 heads=4 dropout=0.3"
)
_WHICH_RATE = (
    "task=typhoon backbone=videomae_random readout=attention,ridge seed=0,1,2 steps=150 minival_every=75 "
    "lr=1e-2,3e-3,1e-3 width=32,64,128"
)
FULL = Demo(
    trained={
        "flyvsfly": (("resize", "videomae_random"), _BEHAVIOUR),
        "calms21": (("resize", "videomae_random"), _BEHAVIOUR),
        "stir": (("videomae_random_s",), _TRACKING),  # 4,096 tokens of resize would take minutes
        "typhoon": (("resize", "videomae_random"), _PRESSURE),
        "weatherbench2": (("resize", "videomae_random_s"), _WEATHER),
    },
    tuned={
        "stir": UpperBlocks(
            stored="1,2_normed", layer="2_normed", tune="1", settings=["steps=80", "batch=4", *_TRACKER]
        )
    },
    grids=(_WHICH_READOUT, _WHICH_RATE),
    certified={
        "typhoon": ("videomae_random", ["width=64", "heads=4", "batch=8"]),
        "weatherbench2": ("resize", ["batch=4", "features=32", "head_channels=32"]),
    },
)
SHORT = replace(
    FULL,
    trained={
        "flyvsfly": (("videomae_random",), [*_BEHAVIOUR, "steps=200", "minival_every=50"]),
        "calms21": (("resize", "videomae_random"), [*_BEHAVIOUR, "steps=200", "minival_every=50"]),
        "stir": (("videomae_random_s",), [*_TRACKING, "steps=200", "warmup=30", "minival_every=50"]),
        "typhoon": (("resize", "videomae_random"), [*_PRESSURE, "steps=400", "minival_every=100"]),
        "weatherbench2": (("resize",), [*_WEATHER, "steps=60", "minival_every=20"]),
    },
    grids=(
        _WHICH_READOUT.replace("train_fraction=0.25,1 ", "").replace("steps=150", "steps=100"),
        _WHICH_RATE.replace("3e-3,1e-3", "1e-3").replace("32,64,128", "64"),
    ),
    certified={"typhoon": FULL.certified["typhoon"]},
)
"""What a first look needs; the rest is `scivid demo --full`."""
