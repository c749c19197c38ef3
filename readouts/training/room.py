"""How many equal heads go as one where each holds much for its backward pass: counted before any has moved.

A head that reads the tokens itself (tracking, maps) holds hundreds of MB, sixteen at once sixteen times that.
Steps of so many are taken on torch's meta device, where tensors have sizes and no numbers.
"""

from bisect import bisect
from copy import deepcopy
from functools import partial
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from readouts.heads.base import Readout, tokens_of
from readouts.heads.layers import Dropout
from readouts.tasks.base import Rows, Task
from readouts.tasks.from_file import FileTask
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import Native, Prepared, PreparedTokens, QuantizedTokens
from readouts.training.stack import Stack

MOST_BYTES, LARGEST_SHARE = 2**32, 1 / 16
"""What heads that go as one may hold, and of a small device its share.

A step that goes through more keeps a GPU busy longer than its calls take to make, so that other heads beside
it gain nothing. A share of all memory, not of what is free: how many go together decides last bits, and a run
that is resumed has to have those of one that was not killed. It is less than a preloaded split leaves."""

META = torch.device("meta")


def room_of(device: torch.device) -> int:
    """Bytes that heads which go as one may hold on it."""
    if device.type != "cuda":
        return MOST_BYTES
    return min(MOST_BYTES, int(LARGEST_SHARE * torch.cuda.get_device_properties(device).total_memory))


def heads_at_once(head: Readout, n_heads: int, task: Task, tokens: Prepared, targets: Rows) -> int:
    """How many of so many heads like this one, of one layer, may go as one on such a batch: at least one."""
    # A user's own loss may look at numbers, and those that are counted with are none.
    if isinstance(task, FileTask):
        return 1
    of_head = tokens_of(head, tokens)
    assert isinstance(of_head, PreparedTokens)
    held = partial(bytes_held, head, task=task, tokens=of_head, targets=targets)
    return 1 + bisect(range(2, n_heads + 1), room_of(of_head.native.device), key=held)


def bytes_held(head: Readout, n_heads: int, *, task: Task, tokens: PreparedTokens, targets: Rows) -> int:
    """The most that a step of so many heads like `head`, as one, holds beyond tokens and weights."""
    wanted = {name: of.to(META) for name, of in targets.items()}
    counted = _tokens_without_numbers(tokens)
    stack = Stack([_without_numbers(head) for _ in range(n_heads)])
    with LiveBytes() as held:
        outputs = stack(counted, **task.inputs(wanted))
        vmap(lambda of_one: task.loss(of_one, wanted))(outputs).sum().backward()  # type: ignore[no-untyped-call]
    most: int = held.peak
    return most


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors held at a time, of those that were made while it was on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            # What it was given and has not made was there before.
            if isinstance(tensor, Tensor) and _storage(tensor) not in given | self._sizes.keys():
                storage = tensor.untyped_storage()
                self._sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                finalize(storage, self._gone, storage._cdata)
        return made

    def _gone(self, storage: int) -> None:
        self.live -= self._sizes.pop(storage)


def _storage(tensor: Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


def _tokens_without_numbers(tokens: PreparedTokens) -> PreparedTokens:
    """The same on the meta device."""
    resize = tokens.resize
    if resize is not None:
        lags = tuple(lag.to(META) for lag in resize.lags)
        resize = TemporalResize(matrix=resize.matrix.to(META), lags=lags)
    return PreparedTokens(_native_without_numbers(tokens.native), resize)


def _native_without_numbers(native: Native) -> Native:
    if isinstance(native, Tensor):
        return native.to(META)
    if isinstance(native, QuantizedTokens):
        values = torch.empty(native.shape, dtype=torch.int8, device=META)
        return QuantizedTokens(values=values, scales=native.scales.to(META))
    return torch.empty(native.shape, dtype=native.pieces[0].dtype, device=META)


def _without_numbers(head: Readout) -> Readout:
    """A copy on the meta device, which is never anywhere else: a large head has 700 MB of weights."""
    copies: dict[int, Any] = {id(buffer): buffer.to(META) for buffer in head.buffers()}
    for weight in head.parameters():
        copies[id(weight)] = nn.Parameter(weight.detach().to(META), weight.requires_grad)
    for layer in head.modules():
        if isinstance(layer, Dropout):
            # It would draw for a device that has no numbers.
            copies[id(layer.generator)] = None
    return deepcopy(head, copies)
