"""The dense prediction readout: the cheap order is the reference's function, and what it refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from featcache.errors import CallError
from featcache.resampling import temporal_matrix
from readouts.heads.dpt import DPTReadout, add_residual
from readouts.heads.resize import resize_maps
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import PreparedTokens, prepared


def tiny(**config: Any) -> DPTReadout:
    sizes = {"rows": 2, "columns": 4, "n_frames": 2, "out_rows": 19, "out_columns": 36, "features": 4}
    generator = torch.Generator().manual_seed(0)
    return DPTReadout(channels=6, head_channels=5, generator=generator, **sizes | config)


def trained(**config: Any) -> DPTReadout:
    """As if trained: no parameter is zero, no bias either."""
    head = tiny(**config)
    generator = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return head


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def as_published(head: DPTReadout, tokens: Tensor) -> Tensor:
    """The same parameters in the paper's order: enlarge, then convolve with 1x1."""
    decoder, fused = head.decoder, None
    for level, fusion in decoder.fusion.items():
        own = decoder.reassemble[level](tokens)
        if fused is not None:
            own = fused + fusion.lateral(own)
        fused = fusion.project(F.interpolate(fusion.refine(own), scale_factor=2, mode="bilinear"))
    size = (decoder.out_rows, decoder.out_columns)
    shrinks = size < tuple(fused.shape[2:])
    resized = F.interpolate(decoder.head(fused), size=size, mode="bilinear", antialias=shrinks)
    return rearrange(decoder.output(resized), "b (f c) y x -> b f y x c", f=decoder.n_frames)


@pytest.mark.parametrize(("out_rows", "out_columns"), [(19, 36), (9, 18)])
def test_the_cheap_order_is_the_same_function(out_rows: int, out_columns: int) -> None:
    head = trained(out_rows=out_rows, out_columns=out_columns).double()
    features = draw(2, 1, 8, 6).double()
    found = head(features)
    assert found.shape == (2, 2, out_rows, out_columns, 3)
    tokens = rearrange(features[:, 0], "b (h w) d -> b d h w", h=2)
    torch.testing.assert_close(found, as_published(head, tokens), rtol=1e-10, atol=1e-12)


def test_the_widest_map_is_never_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []

    def spy(maps: Tensor, rows: int, columns: int) -> Tensor:
        widths.append(maps.shape[1])
        return resize_maps(maps, rows, columns)

    monkeypatch.setattr("readouts.heads.dpt.resize_maps", spy)
    trained(n_frames=1)(draw(1, 1, 8, 6))
    assert widths == [4, 4, 4, 4, 3], "four levels of `features`, then 1 frame of 3 variables: never the 5"


def test_outputs_lie_in_memory_as_losses_walk_over_them() -> None:
    assert trained()(draw(2, 1, 8, 6)).is_contiguous()


def test_a_new_head_predicts_no_change() -> None:
    assert not tiny()(draw(2, 1, 8, 6)).any()


def test_only_the_last_step_is_read() -> None:
    head, features = trained(), draw(2, 3, 8, 6)
    expected = head(features[:, -1:])
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(prepared(features)), expected)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_the_last_step_of_resized_tokens(method: Any) -> None:
    head, matrix, features = trained(), temporal_matrix(3, 6, method), draw(2, 3, 8, 6)
    resized = torch.einsum("ut,btnd->bund", matrix, features)
    torch.testing.assert_close(
        head(PreparedTokens(features, TemporalResize.by(matrix))), head(resized), rtol=1e-4, atol=1e-5
    )


def test_a_forecast_is_the_last_frame_plus_the_change_in_raw_units() -> None:
    last = torch.tensor([100.0, 10.0]).reshape(1, 1, 1, 2)
    residual = torch.tensor([[1.0, 2.0], [-1.0, 0.0]]).reshape(1, 2, 1, 1, 2)
    std = torch.tensor([10.0, 0.5])
    assert add_residual(last, residual, std=std).flatten().tolist() == [110.0, 11.0, 90.0, 10.0]
    shifted = add_residual(last, residual, std=std, mean=torch.tensor([1.0, 0.0]))
    assert shifted.flatten().tolist() == [111.0, 11.0, 91.0, 10.0]


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 7)])
def test_odd_grids_are_refused_at_birth(rows: int, columns: int) -> None:
    with pytest.raises(CallError, match=f"{rows} x {columns} has an odd side"):
        tiny(rows=rows, columns=columns)


def test_tokens_of_another_grid_are_refused() -> None:
    with pytest.raises(CallError, match="for tokens of 2 x 4 and was given 6 a step"):
        tiny()(draw(1, 1, 6, 6))
    with pytest.raises(CallError, match="3 x 2 has an odd side"):
        tiny().decoder(draw(1, 6, 3, 2))
