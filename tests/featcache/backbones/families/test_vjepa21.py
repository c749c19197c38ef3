"""V-JEPA 2.1 from `.pt` files in the released layout, against the authors' model at every layer and size.

Its mistakes are silent: wrong tokens of the right shape. Each is made here, and moves them by far more than
the tolerance; several are exactly right at some size, so the sizes are told apart.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange, repeat
from safetensors.torch import save_file
from torch import Tensor, nn

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import resolve_layers
from featcache.backbones.families import vjepa21
from featcache.backbones.families.vjepa21 import PREFIX, Vjepa21, Vjepa21Model
from featcache.backbones.inputs import model_input
from featcache.backbones.model import vit_info
from featcache.backbones.parts import Block, PatchEmbedding
from featcache.backbones.sizes import BlockSize, Vjepa21Size
from featcache.backbones.trainable import trainable
from featcache.errors import CallError, WeightsError
from featcache.spec import Layer, TokenGrid

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of max |difference| / std, as the golden files ask."""
State = dict[str, Tensor]
Golden = Callable[[str], list[SimpleNamespace]]
Distance = Callable[[Tensor, np.ndarray], float]

# Suffix of the golden arrays -> of how many tokens one is kept.
SIZES = {"": 1, "2": 1, "256": 7, "384": 31}


@pytest.fixture(scope="session")
def models(golden_models: Golden) -> list[SimpleNamespace]:
    return golden_models("jepa21*.npz")


def section(golden: SimpleNamespace) -> str:
    """Which of the file's encoders is the one, by the golden file's own account."""
    return next(name for name in ("ema_encoder", "target_encoder") if name in golden.released)


def size_of(golden: SimpleNamespace, clip: Tensor, **change: Any) -> Vjepa21Size:
    config, (n_frames, _, rows, columns) = golden.config, clip.shape[1:]
    block = BlockSize(width=config["embed_dim"], heads=config["num_heads"], mlp=config["mlp_hidden"])
    patch = (min(n_frames, config["tubelet_size"]), config["patch_size"], config["patch_size"])
    made: dict[str, Any] = {
        "block": block, "depth": config["depth"], "patch": patch, "input_size": (rows, columns),
        "n_frames": n_frames, "levels": tuple(config["level_after_blocks"]),
        "distilled": section(golden) == "ema_encoder",
    }  # fmt: skip
    return Vjepa21Size(**made | change)


def clip_of(golden: SimpleNamespace, name: str) -> Tensor:
    frames = golden.arrays[f"{name}_uint8"]
    return torch.from_numpy(np.moveaxis(frames, -1, 2).astype(np.float32) / 255)


def model_of(size: Vjepa21Size, path: Path) -> Vjepa21:
    return Vjepa21(info=vit_info("tiny", "vjepa21", size), size=size, file=lambda: path)


@pytest.fixture(scope="session")
def files(models: list[SimpleNamespace], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every golden model as released, with what a training script saves beside it."""
    folder = tmp_path_factory.mktemp("vjepa21")
    beside = {"opt": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "scaler": None, "epoch": 7, "lr": 1e-6}
    for golden in models:
        torch.save({**golden.released, **beside}, folder / f"{golden.name}.pt")
    return {golden.name: folder / f"{golden.name}.pt" for golden in models}


def other_file(golden: SimpleNamespace, path: Path, change: Callable[[State], State]) -> Path:
    """The file of a golden model with other tensors in the section that is used."""
    torch.save({**golden.released, section(golden): change(dict(golden.released[section(golden)]))}, path)
    return path


def off(
    golden: SimpleNamespace, path: Path, distance: Distance, at: str = "", layer: Layer | None = None
) -> float:
    """How far the last tokens of a file are from the golden ones, of the clip whose arrays end with `at`."""
    clip = clip_of(golden, f"clip{at}")
    backbone = model_of(size_of(golden, clip), path)
    layer = layer or backbone.info.last_layer
    (tokens,) = backbone.load((layer,), CPU, torch.float32)(clip).values()
    return distance(tokens.flatten(1, 3)[:, :: SIZES[at]], golden.arrays[f"features{at}"])


@pytest.fixture(scope="session")
def off_released(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance
) -> Callable[..., list[float]]:
    """As `off` of every released file, each loaded once: positions are made anew in every pass."""

    @cache
    def loaded(number: int, at: str) -> Any:
        golden = models[number]
        backbone = model_of(size_of(golden, clip_of(golden, f"clip{at}")), files[golden.name])
        return backbone.load((backbone.info.last_layer,), CPU, torch.float32)

    def measure(at: str = "") -> list[float]:
        found = []
        for number, golden in enumerate(models):
            (tokens,) = loaded(number, at)(clip_of(golden, f"clip{at}")).values()
            tokens = tokens.flatten(1, 3)[:, :: SIZES[at]]
            found.append(distance(tokens, golden.arrays[f"features{at}"]))
        return found

    return measure


def test_golden_every_layer_in_one_pass(
    models: list[SimpleNamespace], files: dict[str, Path], check_every_layer: Callable[..., None]
) -> None:
    for golden in models:
        backbone = model_of(size_of(golden, golden.clip), files[golden.name])
        check_every_layer(backbone, golden, golden.hidden, TOLERANCE)


@pytest.mark.parametrize("at", SIZES)
def test_golden_at_every_size(off_released: Callable[..., list[float]], at: str) -> None:
    assert max(off_released(at)) < TOLERANCE


def test_golden_of_one_frame_takes_the_way_of_images(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance
) -> None:
    for golden in models:
        clip = clip_of(golden, "image")
        backbone = model_of(size_of(golden, clip), files[golden.name])
        layers = (Layer(0), backbone.info.last_layer)
        first, last = backbone.load(layers, CPU, torch.float32)(clip).values()
        assert distance(first, golden.arrays["image_hidden_00"]) < TOLERANCE
        assert distance(last, golden.arrays["features_image"]) < TOLERANCE
        # It is another way than that of a clip, not an approximation of it.
        doubled = model_of(size_of(golden, golden.clip[:, :2]), files[golden.name])
        (found,) = doubled.load((layers[1],), CPU, torch.float32)(repeat(clip, "b 1 ... -> b 2 ...")).values()
        assert distance(found, golden.arrays["features_image"]) > 1
        frames = rearrange(golden.clip, "b f ... -> (b f) 1 ...")
        (found,) = backbone.load((layers[1],), CPU, torch.float32)(frames).values()
        mean = found.unflatten(0, (len(golden.clip), -1, 2)).mean(2).flatten(1, 4)
        assert distance(mean, golden.arrays["features"]) > 1


def joined_levels(backbone: Vjepa21, clip: Tensor) -> Tensor:
    """The four levels side by side, as the authors' code gives them."""
    every = backbone.load(resolve_layers("levels", backbone.info), CPU, torch.float32)(clip).values()
    return torch.cat([tokens.flatten(1, 3) for tokens in every], dim=-1)


@pytest.mark.parametrize("at", ["", "2"])
def test_golden_levels_are_layers_of_their_own(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance, at: str
) -> None:
    n_told = 0
    for golden in (model for model in models if f"levels{at}" in model.arrays):
        clip, levels = clip_of(golden, f"clip{at}"), golden.arrays[f"levels{at}"]
        backbone = model_of(size_of(golden, clip), files[golden.name])
        layers = resolve_layers("levels", backbone.info)
        assert [layer.block for layer in layers] == golden.config["level_after_blocks"]
        joined = joined_levels(backbone, clip)
        assert distance(joined, levels) < TOLERANCE
        # A level alone is the same, and is not the last level's norm of that block.
        (alone,) = backbone.load(layers[1:2], CPU, torch.float32)(clip).values()
        assert torch.equal(alone.flatten(1, 3), joined.chunk(4, dim=-1)[1])
        n_told += 1
    assert n_told


def test_wrong_levels_are_noticed(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance, tmp_path: Path
) -> None:
    for golden in models:
        size, state = size_of(golden, golden.clip), golden.released[section(golden)]
        right = size.levels

        early = (*(block - 1 for block in right[:3]), right[3])
        wrong = [(early, files[golden.name])]
        if right[2] == 38:
            wrong.append(((12, 24, 36, 48), files[golden.name]))
        last = {name: state[name.replace(".0.", ".3.")] for name in state if "norms_block.0" in name}
        wrong.append((right, other_file(golden, tmp_path / "last.pt", lambda state, last=last: state | last)))
        for levels, path in wrong:
            found = joined_levels(model_of(replace(size, levels=levels), path), golden.clip)
            assert distance(found, golden.arrays["levels"]) > 0.5


def test_golden_fractions_choose_the_reference_layers(models: list[SimpleNamespace]) -> None:
    for golden in models:
        info = vit_info("tiny", "vjepa21", size_of(golden, golden.clip))
        for fraction, entry in golden.readout.items():
            assert resolve_layers(fraction, info) == (Layer(entry["after_blocks"]),)


# What the file's tensors would be if something were left out or taken for another.
WRONG_STATES: dict[str, Callable[[str, State], Tensor]] = {
    "no modality vector": lambda name, all_: all_[name] * (not name.endswith("video_mod_embed")),
    "the image's vector": lambda name, all_: all_[name.replace("video_mod", "img_mod")],
    "the first norm": lambda name, all_: all_[name.replace("norms_block.3", "norms_block.0")],
    "no bias of keys": lambda name, all_: _without_key_bias(name, all_[name]),
    "BGR": lambda name, all_: all_[name].flip(1) if name.endswith("patch_embed.proj.weight") else all_[name],
}


def _without_key_bias(name: str, tensor: Tensor) -> Tensor:
    if not name.endswith("qkv.bias"):
        return tensor
    q, k, v = tensor.chunk(3)
    return torch.cat([q, k * 0, v])


@pytest.mark.parametrize("mistake", WRONG_STATES)
def test_a_tensor_taken_for_another_is_noticed(
    models: list[SimpleNamespace], distance: Distance, tmp_path: Path, mistake: str
) -> None:
    for golden in models:
        wrong = WRONG_STATES[mistake]
        path = other_file(
            golden,
            tmp_path / "wrong.pt",
            lambda state, wrong=wrong: {name: wrong(name, state) for name in state},
        )
        assert off(golden, path, distance) > 0.1, golden.name


# Places of steps, rows and columns [S], as a mistaken reading of the paper gives them.
Places = tuple[Tensor, Tensor, Tensor]


def _scaled(grid: TokenGrid, steps: float, rows: float, columns: float) -> Places:
    counts = (torch.arange(n, dtype=torch.float32) for n in grid.shape[:3])
    every = torch.cartesian_prod(*counts)
    return every[:, 0] * steps, every[:, 1] * rows, every[:, 2] * columns


def _right(grid: TokenGrid) -> Places:
    return _scaled(grid, 1, 15 / (grid.rows - 1), 15 / (grid.columns - 1))


def _swapped(grid: TokenGrid) -> Places:
    steps, rows, columns = _right(grid)
    return steps, columns, rows


WRONG_PLACES: dict[str, Callable[[TokenGrid], Places]] = {
    "none": lambda grid: _scaled(grid, 0, 0, 0),
    "as they are": lambda grid: _scaled(grid, 1, 1, 1),
    "on a grid of 24": lambda grid: _scaled(grid, 1, 23 / (grid.rows - 1), 23 / (grid.columns - 1)),
    "by centres": lambda grid: _scaled(grid, 1, 16 / grid.rows, 16 / grid.columns),
    "swapped": _swapped,
    "one scale": lambda grid: _scaled(grid, 1, 15 / (grid.rows - 1), 15 / (grid.rows - 1)),
    "steps too": lambda grid: _scaled(
        grid, 7 / max(1, grid.steps - 1), *(15 / (n - 1) for n in grid.shape[1:3])
    ),
}
ALIKE = {
    ("as they are", "256"), ("by centres", "256"),
    ("one scale", ""), ("one scale", "256"), ("one scale", "384"),
    ("steps too", "2"), ("steps too", "256"),
}  # fmt: skip
"""Mistakes that cannot be seen at a size: one at 256 pixels sees nothing of the rescaling."""


def angles_at(places: Places, head_width: int, how: str = "s d -> s (d two)") -> tuple[Tensor, Tensor]:
    each = 2 * (head_width // 3 // 2)
    frequency = 10000 ** (-torch.arange(each // 2) / (each / 2))
    angles = [repeat(place[:, None] * frequency, how, two=2) for place in places]
    every = torch.cat([*angles, torch.zeros(len(places[0]), head_width - 3 * each)], dim=1)
    return every.cos(), every.sin()


@pytest.mark.parametrize("at", SIZES)
@pytest.mark.parametrize("mistake", WRONG_PLACES)
def test_wrong_places_are_noticed(
    off_released: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch, mistake: str, at: str
) -> None:
    places = WRONG_PLACES[mistake]
    monkeypatch.setattr(vjepa21, "rotation", lambda grid, width, *_: angles_at(places(grid), width))
    for found in off_released(at):
        assert found < TOLERANCE if (mistake, at) in ALIKE else found > 0.01


def test_wrong_pairs_of_channels_are_noticed(
    off_released: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(how: str) -> None:
        monkeypatch.setattr(vjepa21, "rotation", lambda grid, width, *_: angles_at(_right(grid), width, how))

    put("s d -> s (d two)")
    assert max(off_released("256")) < TOLERANCE
    put("s d -> s (two d)")  # V-JEPA 2's
    assert min(off_released("256")) > 0.5

    def halves(channels: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        # One half of the head against the other, as in language models.
        first, second = channels.chunk(2, dim=-1)
        return channels * angles[0] + torch.cat([-second, first], dim=-1) * angles[1]

    put("s d -> s (d two)")
    monkeypatch.setattr("featcache.backbones.parts.turned", halves)
    assert min(off_released("256")) > 0.5


def test_a_norm_left_out_or_too_early_is_noticed(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for golden in models:
        assert off(golden, files[golden.name], distance, layer=Layer(golden.config["depth"])) > 1
    monkeypatch.setattr(Vjepa21Model, "blocks_for", _without_the_last(Vjepa21Model.blocks_for))
    assert all(off(golden, files[golden.name], distance) > 0.1 for golden in models)


def _without_the_last(blocks_for: Any) -> Any:
    return lambda model, state: [*list(blocks_for(model, state))[:-1], lambda state: state]


def test_the_tanh_gelu_and_wrong_pixels_are_noticed(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance,
    monkeypatch: pytest.MonkeyPatch, wrong_pixels: Callable[[Vjepa21], Vjepa21],
) -> None:  # fmt: skip
    for golden in models:
        backbone = wrong_pixels(model_of(size_of(golden, golden.clip), files[golden.name]))
        (found,) = backbone.load((backbone.info.last_layer,), CPU, torch.float32)(golden.clip).values()
        assert distance(found, golden.arrays["features"]) > 0.5
    monkeypatch.setattr(vjepa21, "Block", lambda size: Block(size, gelu="tanh"))
    assert all(off(golden, files[golden.name], distance) > 2 * TOLERANCE for golden in models)


def test_transformers_runs_the_same_tensors_without_a_word_and_wrong(
    models: list[SimpleNamespace], distance: Distance
) -> None:
    from transformers import VJEPA2Config, VJEPA2Model

    golden = models[0]
    config, state = golden.config, golden.released[section(golden)]
    rows = golden.clip.shape[-1]
    model = VJEPA2Model(
        VJEPA2Config(
            hidden_size=config["embed_dim"], num_attention_heads=config["num_heads"], crop_size=rows,
            num_hidden_layers=config["depth"], mlp_ratio=config["mlp_hidden"] / config["embed_dim"],
            frames_per_clip=golden.clip.shape[1], pred_hidden_size=12, pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        )
    ).eval()  # fmt: skip
    theirs = {
        key.removeprefix(PREFIX).replace("patch_embed.", "embeddings.patch_embeddings.")
        .replace("blocks.", "layer.").replace("attn.", "attention."): value
        for key, value in state.items()
    }  # fmt: skip
    theirs |= {f"layernorm.{name}": state[f"{PREFIX}norms_block.3.{name}"] for name in ("weight", "bias")}
    for key in [key for key in theirs if ".qkv." in key]:
        parts = zip(("query", "key", "value"), theirs.pop(key).chunk(3), strict=True)
        theirs |= {key.replace("qkv", name): part for name, part in parts}
    wanted = model.encoder.state_dict().keys()
    model.encoder.load_state_dict({key: theirs[key] for key in wanted})
    pixels = model_input(golden.clip, vit_info("tiny", "vjepa21", size_of(golden, golden.clip)), CPU)
    with torch.inference_mode():
        found = model(pixels, skip_predictor=True).last_hidden_state
    assert distance(found, golden.arrays["features"]) > 1


def test_the_encoder_of_the_training_is_not_taken(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance, tmp_path: Path
) -> None:
    for golden in models:
        right = section(golden)
        size = size_of(golden, golden.clip)
        # The other encoder of the same file fits and is another model.
        torch.save({right: golden.released["encoder"]}, tmp_path / "wrong.pt")
        assert off(golden, tmp_path / "wrong.pt", distance) > 0.5
        # A file of the other kind has no section that this one takes.
        other = replace(size, distilled=not size.distilled)
        with pytest.raises(WeightsError, match=f"under '{next(iter(model_of(other, Path()).sections))}'"):
            model_of(other, files[golden.name]).load((Layer(0),), CPU, torch.float32)
    b, g = (load_backbone(f"vjepa21_{name}") for name in ("b", "g"))
    assert isinstance(b, Vjepa21) and isinstance(g, Vjepa21)
    assert (b.sections, g.sections) == (("ema_encoder",), ("target_encoder",))


def test_plain_files_are_taken_too(models: list[SimpleNamespace], distance: Distance, tmp_path: Path) -> None:
    golden = models[0]
    state = {name.removeprefix(PREFIX): tensor for name, tensor in golden.released[section(golden)].items()}
    save_file(state, tmp_path / "model.safetensors")
    assert off(golden, tmp_path / "model.safetensors", distance) < TOLERANCE


def test_early_exit_reads_no_later_block_and_nothing_beside(
    models: list[SimpleNamespace], files: dict[str, Path], record_keys: Callable[[], list[str]]
) -> None:
    asked, golden = record_keys(), models[0]
    backbone = model_of(size_of(golden, golden.clip), files[golden.name])
    backbone.load((Layer(2),), CPU, torch.float32)
    names = {key.removeprefix(PREFIX) for key in asked}
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"0", "1"}
    assert not any(name.startswith(("norms", "patch_embed_img", "img_mod")) for name in names)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_a_file_four_times_the_encoder_s_size_stays_on_disk(tmp_path: Path) -> None:
    block = BlockSize(width=384, heads=6, mlp=1536)
    size = Vjepa21Size(
        block=block, depth=8, patch=(2, 16, 16), input_size=(64, 64), levels=(2, 4, 6, 8), distilled=True
    )
    backbone = model_of(size, tmp_path / "large.pt")
    state = {key: torch.full(shape, 0.5) for key, shape in backbone.key_map({}).shapes.items()}
    encoder = sum(tensor.nbytes for tensor in state.values())
    beside = {"opt": {"state": {i: {"exp_avg": torch.ones(encoder // 4)} for i in range(3)}}}
    torch.save({"ema_encoder": state, "encoder": state, **beside}, tmp_path / "large.pt")
    assert (tmp_path / "large.pt").stat().st_size > 4 * encoder > 2e8
    del beside
    before = anonymous_bytes()
    made = backbone.load((backbone.info.last_layer,), CPU, torch.float32)
    assert anonymous_bytes() - before < 1.5 * encoder
    assert made is not None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"input_size": (16, 64)}, "one patch of 16 x 16 high or wide"),
        ({"input_size": (64, 16)}, "one patch of 16 x 16 high or wide"),
        ({"n_frames": 3}, "do not divide"),
        ({"input_size": (64, 60)}, "do not divide"),
        ({"n_frames": 1}, "do not divide"),
        ({"patch": (1, 16, 16)}, "single images, not for 16 frames"),
        ({"levels": (3, 6, 9, 11)}, "must ascend to the last of 12 blocks"),
    ],
)
def test_inputs_that_it_has_no_places_for_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(CallError, match=why):
        replace(BACKBONES["vjepa21_b"].size, **change)


def test_another_number_of_frames_is_refused_and_not_dropped(
    models: list[SimpleNamespace], files: dict[str, Path]
) -> None:
    golden = models[0]
    backbone = model_of(size_of(golden, golden.clip), files[golden.name])
    encoder = backbone.load((Layer(0),), CPU, torch.float32)
    for n_frames in (1, 3):
        with pytest.raises(CallError, match="takes clips of 4 RGB frames"):
            encoder(golden.clip[:, :n_frames])


def test_bfloat16_keeps_angles_and_the_sum_in_float32(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance
) -> None:
    for golden in models:
        for at in ("", "384"):
            clip = clip_of(golden, f"clip{at}")
            backbone = model_of(size_of(golden, clip), files[golden.name])
            layer = backbone.info.last_layer
            encoder: Any = backbone.load((layer,), CPU, torch.bfloat16)
            assert encoder.model.modality.dtype == torch.float32
            found = encoder(clip)[layer].flatten(1, 3)[:, :: SIZES[at]].numpy()
            reference = golden.arrays[f"features{at}"]
            rms = np.sqrt(np.square(found - reference).mean()) / reference.std()
            assert 1e-4 < rms < 0.02
    cosine, _ = vjepa21.rotation(TokenGrid(steps=32, rows=24, columns=24, channels=1), 64, 16, CPU)
    assert cosine.dtype == torch.float32 and cosine.shape == (32 * 24 * 24, 64)


@pytest.mark.parametrize(
    ("name", "listing"),
    [
        ("b", "b384.ema_encoder"), ("l", "l384.ema_encoder"),
        ("g", "g384.target_encoder"), ("gigantic", "gigantic384.target_encoder"),
    ],
)  # fmt: skip
def test_released_keys_of_the_full_sizes_all_have_a_place(
    released_listing: Callable[[str], Any], name: str, listing: str
) -> None:
    released = released_listing(f"vjepa21_{listing}_expected")
    backbone = load_backbone(f"vjepa21_{name}")
    assert isinstance(backbone, Vjepa21)
    key_map = backbone.key_map(released.shapes)
    key_map.check(released.shapes, name)
    state = backbone.whole().state_dict()
    assert key_map.entries.keys() == state.keys()
    assert backbone.size.n_params == sum(tensor.numel() for tensor in state.values())
    images = sum(np.prod(released.shapes[key]) for key in released.shapes if key.startswith(key_map.skipped))
    assert released.n_params == backbone.size.n_params + images


def test_it_can_be_tuned_from_pixels_and_from_stored_tokens(
    models: list[SimpleNamespace], files: dict[str, Path], distance: Distance
) -> None:
    golden = models[0]
    backbone = model_of(size_of(golden, golden.clip), files[golden.name])
    last, depth = backbone.info.last_layer, backbone.info.n_blocks
    whole = trainable(backbone, last, CPU)
    tokens = whole(golden.clip)
    assert distance(tokens.detach(), golden.arrays["features"]) < TOLERANCE
    tokens.square().mean().backward()
    # Every parameter that is there takes part: no norm of a level that is not read.
    lacking = [name for name, parameter in whole.named_parameters() if parameter.grad is None]
    assert lacking == [] and whole.model.modality.grad is not None
    upper = trainable(backbone, last, CPU, begin=depth - 2)
    stored = torch.from_numpy(golden.hidden[depth - 2]).unflatten(1, (backbone.info.grid.steps, -1))
    assert distance(upper(stored).detach(), golden.arrays["features"]) < TOLERANCE
    assert {name.split(".")[1] for name, _ in upper.named_parameters()} == {"blocks", "norms"}
    level = resolve_layers("levels", backbone.info)[1]
    assert trainable(backbone, level, CPU)(golden.clip).shape == tokens.shape


def test_what_is_known_in_advance() -> None:
    infos = [BACKBONES[f"vjepa21_{name}"].info for name in ("b", "l", "g", "gigantic")]
    assert [info.title[:12] for info in infos] == [f"V-JEPA 2.1-{letter}" for letter in "BLgG"]
    assert [info.norms for info in infos] == [
        (3, 6, 9, 12), (6, 12, 18, 24), (10, 20, 30, 40), (12, 24, 38, 48)
    ]  # fmt: skip
    for info in infos:
        assert (info.input_size, info.upsampling, info.frame_level) == ((384, 384), "linear", False)
        assert info.default_layers == (info.last_layer,)
    with pytest.raises(
        CallError, match="each after a norm of its own, 3_normed, 6_normed, 9_normed, 12_norm"
    ):
        resolve_layers("5_normed", infos[0])
    with pytest.raises(CallError, match="'levels' is not a layer"):
        resolve_layers("levels", BACKBONES["vjepa2_l"].info)
    # Not told by any shape: it loads as well with another.
    assert [BACKBONES[info.name].size.block.heads for info in infos] == [12, 16, 22, 26]
    assert {BACKBONES[info.name].size.block.eps for info in infos} == {1e-6}


def test_an_image_s_patches_are_not_a_clip_s() -> None:
    size = replace(BACKBONES["vjepa21_b"].size, patch=(1, 16, 16), n_frames=1, input_size=(32, 32))
    model: nn.Module = model_of(size, Path()).whole()
    assert isinstance(model, Vjepa21Model) and isinstance(model.embedding, PatchEmbedding)
    assert model.embedding.weight.shape == (768, 3, 1, 16, 16)
    names = {key for entry in model_of(size, Path()).key_map({}).entries.values() for key in entry.keys}
    assert {"img_mod_embed", "patch_embed_img.proj.weight"} < names
