"""The one-query attention readout's forward and backward pass, beside the textbook's and beside the bytes.

The textbook is `nn.MultiheadAttention` over up-sampled, normalised tokens in float32, with the same
parameters. The floor is one pass over the same float16 bytes: a clip after another copied into one buffer,
on a GPU all of them at once. There the tokens lie in its memory.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.resampling import temporal_matrix
from featcache.system.device import choose_device
from readouts.heads import AttentionReadout
from readouts.tokens.implicit import LAYER_NORM_EPS
from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.side_by_side import Claim, claim, in_turn

STEPS, CHANNELS = 8, 768


class PlainAttention(nn.Module):
    """The textbook form of a readout: every up-sampled token meets its key and value matrices."""

    def __init__(self, head: AttentionReadout) -> None:
        """Share the parameters of `head`, which are cast to nobody's layout: gradients meet in them."""
        super().__init__()
        self.head = head
        self.register_buffer("matrix", temporal_matrix(STEPS, 2 * STEPS, "linear"))

    def forward(self, tokens: Tensor) -> Tensor:
        """What `head` makes of the tokens."""
        trunk = self.head.trunk
        upsampled = torch.einsum("ut,btnc->bunc", self.matrix, tokens.float())
        normal = nn.functional.layer_norm(
            upsampled, upsampled.shape[-1:], trunk.norm.weight, trunk.norm.bias, LAYER_NORM_EPS
        )
        flat = rearrange(normal + trunk.temporal[:, None], "b u n c -> b (u n) c")
        query = rearrange(self.head.query, "q h d -> q (h d)").expand(len(flat), -1, -1)
        found = _multihead(query, flat, trunk.attention)
        token = query + trunk.projection(found)
        refined = token + trunk.mlp(trunk.mlp_norm(token))
        return self.head.classifier(refined)[:, 0]


def _multihead(query: Tensor, tokens: Tensor, attention: nn.Module) -> Tensor:
    """`nn.MultiheadAttention`'s own function with identities where the readout has no projection."""
    width = query.shape[-1]
    identity = torch.eye(width, device=tokens.device)
    nothing = identity.new_zeros(width)
    found, _ = nn.functional.multi_head_attention_forward(
        *(rearrange(part, "b s c -> s b c") for part in (query, tokens, tokens)),
        embed_dim_to_check=width,
        num_heads=attention.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([nothing, attention.key.bias, attention.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=identity,
        out_proj_bias=nothing,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=identity,
        k_proj_weight=attention.key.weight,
        v_proj_weight=attention.value.weight,
    )
    return rearrange(found, "q b w -> b q w")


def draw_tokens(small: bool) -> Tensor:
    """A batch of float16 tokens: 32 clips of ViT-B's, or a few small ones; on the GPU where there is one."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, STEPS, 9, CHANNELS) if small else (32, STEPS, 196, CHANNELS)
    return torch.randn(shape, generator=generator).half().to(choose_device("auto"))


def draw_head(small: bool, *, seed: int = 0) -> AttentionReadout:
    """The benchmark's readout."""
    width = 64 if small else 1024
    generator = torch.Generator().manual_seed(seed)
    return AttentionReadout(
        channels=CHANNELS, steps=2 * STEPS, n_outputs=4, width=width, heads=16, generator=generator
    )


def read_once(tokens: Tensor) -> None:
    """One pass over the bytes: every clip into the same buffer."""
    parts = _in_cache(tokens)
    buffer = torch.empty_like(parts[0])
    for part in parts:
        buffer.copy_(part)


def cast_once(tokens: Tensor) -> None:
    """One pass with the cast to float32, in a buffer that stays in cache."""
    parts = _in_cache(tokens)
    buffer = torch.empty_like(parts[0], dtype=torch.float32)
    for part in parts:
        buffer.copy_(part)


def _in_cache(tokens: Tensor) -> Sequence[Tensor]:
    return [tokens] if tokens.is_cuda else list(tokens)


def measure(small: bool) -> list[Claim]:
    """Ours over the textbook, and over two passes over the bytes."""
    tokens = draw_tokens(small)
    head = draw_head(small).to(tokens.device)
    plain = PlainAttention(head).to(tokens.device)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(tokens.device)
    group = "attention step, forward and backward"
    step = lambda: head(prepare(tokens)).square().sum().backward()  # noqa: E731
    rivals = {"ours": step, "bytes twice": lambda: [read_once(tokens) for _ in range(2)]}
    rivals["cast twice"] = lambda: [cast_once(tokens) for _ in range(2)]
    times = in_turn(rivals, rounds=3 if small else 15)
    slow = in_turn(
        {"ours": step, "textbook": lambda: plain(tokens).square().sum().backward()}, rounds=2 if small else 3
    )
    return [
        claim(slow, group=group, what="textbook over ours", over="textbook", under="ours", target=20.0),
        claim(
            times, group=group, what="ours over two passes over the bytes", over="ours", under="bytes twice"
        ),
        claim(times, group=group, what="ours over two casts in cache", over="ours", under="cast twice"),
    ]
