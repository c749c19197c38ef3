"""What a run leaves on disk: its state in safetensors, its curve in JSON lines, predictions in Parquet.

Everything is durable before it has its name, so a killed run finds either the old state or the new one, and
goes on bit for bit as if it had not been killed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int64
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featcache.errors import StoreError
from featcache.system.files import Lock, Staged, make_directory, publish, write_all
from readouts.training.optim import ReferenceAdamW

LEFT_BEHIND = (
    "last.safetensors", "history.jsonl", "best_*.safetensors", "predictions_*.parquet", "evidence_*.npz"
)  # fmt: skip
"""All that a run writes into its folder."""


def save_state(path: Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors and a few JSON values about them: all of it or nothing."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with Staged(path) as staged:
        write_all(staged.fd, [save(whole, {"about": json.dumps(about)})])
        staged.publish()


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint (on the CPU) and what was said about them.

    Raises:
        StoreError: the file is not a checkpoint or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except Exception as problem:  # safetensors raises its own, undocumented kinds
        raise StoreError(f"{path} cannot be read ({problem}): delete it to train anew.") from None


def training_state(heads: nn.Module, optimizer: ReferenceAdamW) -> dict[str, Tensor]:
    """Weights, and both moments of the optimiser, by the weight's name."""
    weights = dict(heads.named_parameters())
    moments = {
        f"{moment}/{name}": value
        for name, weight in weights.items()
        for moment, value in optimizer.state[weight].items()
    }
    return {f"weight/{name}": weight.detach() for name, weight in weights.items()} | moments


def restore_training(
    heads: nn.Module, optimizer: ReferenceAdamW, state: Mapping[str, Tensor], step: int
) -> None:
    """Put back what `training_state` gave after `step` updates.

    Raises:
        StoreError: it is of other weights.
    """
    weights = dict(heads.named_parameters())
    there = {name.removeprefix("weight/"): t.shape for name, t in state.items() if name.startswith("weight/")}
    if there != {name: weight.shape for name, weight in weights.items()}:
        raise StoreError(
            "the checkpoint is of heads of other weights, of another version of scivid perhaps: train with "
            "--again."
        )
    with torch.no_grad():
        for place, tensor in state.items():
            kind, _, name = place.partition("/")
            if kind == "weight":
                weights[name].copy_(tensor)
            else:
                optimizer.state[weights[name]][kind] = tensor.to(weights[name].device)
    for group in optimizer.param_groups:
        group["n_updates"] = step


def write_predictions(
    path: Path,
    clips: Int64[np.ndarray, " n"],
    ids: pa.ChunkedArray,
    outputs: Mapping[str, Float[np.ndarray, "n *O"]],
) -> None:
    """Clip numbers and ids with every head's outputs, for pictures and statistics that need single clips."""
    columns = {kind: _tensor_column(values.astype(np.float32)) for kind, values in outputs.items()}
    with Staged(path) as staged:
        pq.write_table(pa.table({"clip": pa.array(clips), "id": ids, **columns}), staged.temporary)
        staged.publish()


def read_predictions(path: Path) -> tuple[pa.Table, dict[str, Float[np.ndarray, "n *O"]]]:
    """What `write_predictions` wrote: the table of clips, and every head's outputs.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as problem:
        raise StoreError(f"{path} cannot be read as predictions ({problem}): train with --again.") from None
    kinds = [name for name in table.column_names if name not in ("clip", "id")]
    columns = {kind: table.column(kind).combine_chunks().to_numpy_ndarray() for kind in kinds}
    return table, {kind: np.array(values) for kind, values in columns.items()}


def _tensor_column(values: Float[np.ndarray, "n *O"]) -> pa.ExtensionArray:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def hold(folder: Path) -> Lock:
    """Make the folder of a run this process's own until the lock is released.

    Raises:
        StoreError: another process has it.
    """
    make_directory(folder)
    busy = f"{folder} is being trained by another process: wait for it, or stop it and run this again."
    return Lock(folder / ".lock", wait=False, busy=busy)


def forget(folder: Path) -> None:
    """Remove all that a run left in its folder, so that it starts anew."""
    for pattern in LEFT_BEHIND:
        for file in folder.glob(pattern):
            file.unlink()


class History:
    """The curve of a run: one JSON object a line, cut back to the checkpoint when a run is resumed."""

    def __init__(self, path: Path, upto_step: int) -> None:
        self.path = path
        self.rows = [row for row in read_history(path) if row["step"] <= upto_step]
        self._rewrite()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, each with its `step`."""
        self.rows.extend(rows)
        self._rewrite()

    def _rewrite(self) -> None:
        publish(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())


def read_history(path: Path) -> list[dict[str, Any]]:
    """All rows of a run's curve; empty where there is none.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as problem:
        raise StoreError(f"{path} cannot be read as a curve ({problem}): train with --again.") from problem
