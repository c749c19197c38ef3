"""Tiny models of the libraries, saved as the libraries save them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

SMALL = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

SaveLibrary = Callable[..., tuple[Path, nn.Module]]


@pytest.fixture(scope="session")
def save_library(tmp_path_factory: pytest.TempPathFactory) -> SaveLibrary:
    """Draws and saves a model, given the name of transformers' class and what its config is made of."""
    root = tmp_path_factory.mktemp("libraries")

    def save(kind: str, processor: dict[str, Any] | None = None, **config: Any) -> tuple[Path, nn.Module]:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(0)
        made = getattr(transformers, kind)
        model = made(made.config_class(**config)).eval()
        folder = root / f"{kind.lower()}-{len(list(root.iterdir()))}"
        model.save_pretrained(folder)
        entries = {"image_mean": MEAN, "image_std": STD} if processor is None else processor
        if entries:
            (folder / "preprocessor_config.json").write_text(json.dumps(entries))
        return folder, model

    return save


@pytest.fixture(scope="session")
def timm() -> Iterator[Any]:
    """The library, which is an extra of its own, where it can be imported."""
    try:
        import timm
    except (ImportError, RuntimeError) as problem:  # a torchvision that was built for another torch
        pytest.skip(f"timm cannot be imported: {problem}")
    yield timm
