"""Stores on the page: splits of one backbone together, the verdict of a certificate or how to get one."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featcache.store.feature_store import FeatureStore
from readouts.report import stores as page_stores
from readouts.report.stores import store_sections

MakeSplit = Callable[..., FeatureStore]
LABELS = np.eye(7, dtype=int)[np.arange(6) % 7]


@pytest.fixture
def stores(make_split: MakeSplit) -> list[FeatureStore]:
    tokens = np.random.default_rng(0).normal(size=(6, 1, 2, 2, 2, 8))
    return [make_split(role, tokens, LABELS, skipped={1: "torn"}) for role in ("val", "train")]


def test_splits_of_a_backbone_are_one_section(stores: list[FeatureStore], tmp_path: Path) -> None:
    (section,), problems = store_sections(stores, tmp_path)
    assert (section.name, problems) == ("flyvsfly / toy", [])
    assert [(split["role"], split["clips"]) for split in section.splits] == [
        ("train", "6 x 1"),
        ("val", "6 x 1"),
    ]
    assert section.splits[0]["size"] == "0.8 kB, float16"  # 6 clips of 2 x 2 x 2 x 8 halves
    assert section.facts["token grid"] == "2 x 2 x 2 x 8"
    assert [layer.layer for layer in section.layers] == ["1"]
    assert section.depth == ""
    assert len(section.skipped) == 2
    assert section.certificates == [
        {
            "verdict": "not certified",
            "text": "",
            "about": "with the --data-dir, --weights-dir and --manifest that its scivid extract was given",
            "command": f"scivid certify --backbone toy --task flyvsfly --layer 1 --fingerprint "
            f"{stores[1].fingerprint[:12]} --cache-dir {tmp_path / 'features'}",
        }
    ]


def test_the_verdict_of_a_certificate(
    stores: list[FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = SimpleNamespace(
        verdict="exact", text="exact: 8 clip views agree", layer="1",
        findings=SimpleNamespace(steps=20, seeds=1),
        train_fingerprint="other", command="scivid certify ...",
    )  # fmt: skip
    monkeypatch.setattr(
        page_stores, "read_certificate", lambda path: certificate if path == stores[1].path else None
    )
    (section,), _ = store_sections(stores, tmp_path)
    assert section.certificates == [
        {
            "verdict": "exact",
            "text": "exact: 8 clip views agree",
            "about": "layer 1, 20 steps, 1 seed (of another state of this store)",
            "command": "scivid certify ...",
        }
    ]


def test_frames_and_tokens_of_clips_that_are_there(
    stores: list[FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = BytesIO()
    Image.new("RGB", (8, 8)).save(held, "JPEG")
    monkeypatch.setattr(FeatureStore, "previews", lambda store: dict.fromkeys(range(4), held.getvalue()))
    (section,), _ = store_sections(stores, tmp_path)
    # Of clips 0, 2 and 3 (1 was torn) every other, of val only.
    assert len(section.previews) == 2
    assert [list(preview.tokens) for preview in section.previews] == [["1"], ["1"]]


def test_damage_is_said(stores: list[FeatureStore], tmp_path: Path) -> None:
    val = stores[0]
    shard = val.shard_path(val.spec.layers[0], 0)
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    (section,), problems = store_sections(stores, tmp_path)
    assert (problems, section.layers) == ([], [])
    assert len(section.splits) == 2
    assert str(shard) in section.missing[0]
