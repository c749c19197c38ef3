"""A backbone of a few numbers a clip: what the stores beside it were written with."""

from einops import reduce

from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.backbones.inputs import model_input
from featcache.spec import Layer, TokenGrid


class SmallModel:
    """Mean colours of 2 x 2 patches."""

    def __init__(self, name: str, frame_level: bool) -> None:
        self.info = BackboneInfo(
            name=name,
            title="Mean colours of four patches",
            source="here",
            licence="none",
            commercial=True,
            public=False,
            params_m=0.0,
            n_blocks=1,
            input_size=(28, 28),
            default_layers=(Layer(1),),
            final_norm=False,
            grid=TokenGrid(steps=16, rows=2, columns=2, channels=3),
            frame_level=frame_level,
        )

    def weights_digest(self):
        return "none"

    def architecture(self):
        return {"family": "mean colours"}

    def preprocessing(self):
        return preprocessing(self.info)

    def load(self, layers, device, dtype):
        def encode(pixels):
            frames = model_input(pixels, self.info, device)
            tokens = reduce(frames, "b f c (h y) (w x) -> b f h w c", "mean", h=2, w=2)
            return dict.fromkeys(layers, tokens)

        return encode


CLIPS = SmallModel("small_clips", frame_level=False)
FRAMES = SmallModel("small_frames", frame_level=True)
