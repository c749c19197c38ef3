"""Every command on small real data: what it exits with, what it says, what it leaves."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli import app
from featcache import synthetic
from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, Vjepa21Size
from featcache.store.feature_store import find_stores
from readouts.certify.certificate import read_certificate
from readouts.results.formatting import format_score
from readouts.results.table import load_results, short_name_of

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "flyvsfly": {"train": 8, "val": 6, "test": 6},
    "digital_typhoon": {"train": 3, "val": 3, "test": 3},
}

MODEL = """
from dataclasses import dataclass, replace
from featcache.backbones import backbone_info
from featcache.backbones.families.resize import ResizeTokens
from featcache.spec import TokenGrid

GRID = TokenGrid(steps=4, rows=4, columns=4, channels=3)
BACKBONE = ResizeTokens(info=replace(backbone_info("resize"), name="coarse", grid=GRID), patch=(4, 4, 4))


class Backwards:
    info = BACKBONE.info
    weights_digest = lambda self: BACKBONE.weights_digest()
    architecture = lambda self: BACKBONE.architecture()
    preprocessing = lambda self: BACKBONE.preprocessing()

    def load(self, layers, device, dtype):
        encode = BACKBONE.load(layers, device, dtype)
        return lambda pixels: encode(pixels.flip(1))


BACKWARDS = Backwards()
"""


def scivid(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@dataclass(frozen=True)
class Place:
    """Generated data, stores of both tasks by one small model, and runs of two seeds."""

    root: Path

    @property
    def data(self) -> tuple[object, ...]:
        return ("--data-dir", self.root / "data")

    @property
    def cache(self) -> tuple[object, ...]:
        return ("--cache-dir", self.root / "features")

    @property
    def results(self) -> tuple[object, ...]:
        return (*self.cache, "--results-dir", self.root / "results")

    def model(self, name: str = "BACKBONE") -> tuple[object, ...]:
        return ("--backbone", f"{self.root / 'model.py'}:{name}")

    def train(self, task: str, seed: int, *more: object) -> tuple[int, str]:
        settings = ("--set", "steps=6", "--set", "minival_every=3", "--set", "lr=1e-2")
        wanted = ("--backbone", "coarse", "--task", task, "--readout", "linear", "--seed", seed)
        return scivid("train-readout", *wanted, *settings, *self.results, *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place"))
    (made.root / "model.py").write_text(MODEL)
    for name, sizes in SIZES.items():
        synthetic.generate(name, made.root / "data", profile=sizes, seed=0)
    for task in ("flyvsfly", "typhoon"):
        code, shown = scivid("extract", *made.model(), "--task", task, *made.data, *made.cache)
        assert code == 0, shown
        for seed in (0, 1):
            code, shown = made.train(task, seed, "--test")
            assert code == 0, shown
    return made


def stores_of(cache: Path, task: str) -> dict[str, Path]:
    return {store.attrs["role"]: store.path for store in find_stores(cache) if store.attrs["task"] == task}


CERTIFY = ("--task", "typhoon", "--readout", "linear", "--steps", 2, "--val-clips", 2, "--set", "batch=2")


def test_certify_exits_with_0_for_a_store_of_its_backbone(place: Place) -> None:
    code, shown = scivid("certify", *place.model(), *CERTIFY, "--seed", 4, *place.data, *place.cache)
    assert code == 0, shown
    assert "typhoon coarse, layer 0: exact" in shown
    train = stores_of(place.root / "features", "typhoon")["train"]
    found = read_certificate(train)
    assert found is not None
    assert (found.findings.steps, found.findings.seeds, found.findings.val_tokens.n_clip_views) == (2, 1, 2)
    assert [head.readout for head in found.findings.readouts] == ["linear"]
    assert "--steps 2" in found.command and "--seed 4" in found.command


def test_certify_exits_with_1_for_a_store_of_something_else(place: Place, tmp_path: Path) -> None:
    """Its frames were shown backwards; its header says that it is what is asked for."""
    wrong = ("--split", "train,val", *place.data, "--cache-dir", tmp_path)
    assert scivid("extract", *place.model("BACKWARDS"), "--task", "typhoon", *wrong)[0] == 0
    code, shown = scivid("certify", *place.model(), *CERTIFY, *place.data, "--cache-dir", tmp_path)
    assert code == 1
    path = stores_of(tmp_path, "typhoon")["train"]
    assert f"scivid: {path} does not stand for its backbone, see above." in shown


@pytest.mark.parametrize(
    ("task", "better"), [("flyvsfly", "higher is better"), ("typhoon", "lower is better")]
)
def test_compare_takes_the_second_from_the_first(place: Place, task: str, better: str) -> None:
    first, second = (row for row in load_results(place.root / "results") if row["task"] == task)
    for role, asked in (("test", ()), ("val", ("--role", "val"))):
        code, shown = scivid(
            "compare", first["run"], second["run"], *asked, "--resamples", 100, *place.results
        )
        assert code == 0, shown
        for letter, row in (("A", first), ("B", second)):
            assert f"{letter}: coarse, layer 0, {row['readout']}, seed {row['seed']} (" in shown
            assert f"   {role} {row['metric']} {format_score(row[role])} (1 seed)" in shown
        assert f"A - B: {first[role] - second[role]:+.4g}, " in shown
        assert shown.count(f"({better})") == 1
        assert ("\nval selected: " in shown) == (role == "val")
    code, shown = scivid("compare", "coarse", "coarse", "--task", task, "--resamples", 100, *place.results)
    assert code == 0, shown
    code, runs = scivid("list", "runs", "--task", task, *place.results)
    assert code == 0, runs
    assert short_name_of(first["run"]) in runs


def test_weights_of_the_user_s_own_are_in_store_results_and_page(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = BlockSize(width=12, heads=2, mlp=20)
    size = Vjepa21Size(block=block, depth=1, patch=(2, 16, 16), input_size=(32, 32), levels=(1,))
    made = replace(BACKBONES["vjepa21_g"], size=size, info=vit_info("vjepa21_g", "vjepa21", size))
    monkeypatch.setitem(BACKBONES, "vjepa21_g", made)
    state = load_backbone("vjepa21_g").whole().state_dict()  # type: ignore[attr-defined]
    names = {"embedding": "patch_embed.proj", "modality": "video_mod_embed", "qkv": "attn.qkv",
             "out": "attn.proj", "up": "mlp.fc1", "down": "mlp.fc2", "norms": "norms_block"}  # fmt: skip
    file = tmp_path / "mice.pth"
    draw, saved = torch.Generator().manual_seed(0), {}
    for key, tensor in state.items():
        theirs = ".".join(names.get(part, part) for part in key.split("."))
        saved[f"backbone.{theirs}"] = torch.randn(tensor.shape, generator=draw)
    torch.save({"teacher": saved, "epoch": 3}, file)
    where = ("--backbone", "vjepa21_g", "--task", "flyvsfly", "--cache-dir", tmp_path / "features")
    code, shown = scivid("extract", *where, "--weights", file, *place.data)
    assert code == 0, shown
    (train, *_) = find_stores(tmp_path / "features", "flyvsfly", "train")
    digest = sha256(file.read_bytes()).hexdigest()
    told = f"{tmp_path.name}/mice.pth, sha256 {digest[:16]}"
    assert (train.attrs["backbone"], train.attrs["weights"]) == ("vjepa21_g.mice", told)
    assert train.parts["backbone"]["weights"] == digest
    results = ("--cache-dir", tmp_path / "features", "--results-dir", tmp_path / "results")
    named = ("--backbone", f"vjepa21_g@{file}", "--task", "flyvsfly", "--readout", "linear")
    code, shown = scivid("train-readout", *named, "--set", "steps=2", "--set", "minival_every=1", *results)
    assert code == 0, shown
    (row,) = load_results(tmp_path / "results")
    assert (row["backbone"], row["weights"]) == ("vjepa21_g.mice", told)
    assert scivid("report", "--out", tmp_path / "report.html", *results)[0] == 0
    assert told in (tmp_path / "report.html").read_text()


def test_compare_refuses_what_cannot_be_compared(place: Place) -> None:
    runs = {row["task"]: row["run"] for row in load_results(place.root / "results")}
    code, shown = scivid("compare", runs["flyvsfly"], runs["typhoon"], *place.results)
    assert (code, shown.count("scivid: ")) == (2, 1)
    code, shown = scivid("compare", runs["flyvsfly"], "nobody", *place.results)
    assert (code, shown.count("scivid: ")) == (2, 1)
    assert "nobody" in shown


def test_plan_counts_the_clips_that_are_there(place: Place) -> None:
    code, shown = scivid("plan", *place.model(), "--task", "typhoon", *place.data, "--clips", "test=700")
    assert code == 0, shown
    rows = {
        line.split()[0]: line.split()
        for line in shown.splitlines()
        if line.startswith(("train", "val", "test"))
    }
    assert {role: row[1].replace(",", "") for role, row in rows.items()} == {
        "train": "3", "val": "3", "test": "700",
    }  # fmt: skip
    code, shown = scivid("plan", *place.model(), "--task", "typhoon", "--data-dir", place.root / "none")
    assert code == 0, "the manifest knows how many clips there are"
    assert re.search(r"^train +696 ", shown, re.MULTILINE)
    far = ("--workers", "50", "--bucket", "--read-mb-s", "100")
    code, shown = scivid("plan", *place.model(), "--task", "typhoon", "--data-dir", place.root / "none", *far)
    assert code == 0
    assert all(words in shown for words in ("50 workers: ", "in a bucket: ", "at 100 MB/s a step's clips"))


def test_data_status_says_what_is_there_and_what_is_not(place: Place) -> None:
    code, shown = scivid("data", "status", *place.data)
    assert code == 0
    assert re.search(r"^flyvsfly/val .* complete *$", shown, re.MULTILINE)
    assert re.search(r"^calms21/val .* missing *$", shown, re.MULTILINE)


def test_data_download_of_what_there_is_none_of(tmp_path: Path) -> None:
    code, shown = scivid("data", "download", "--weights", "videomea_b", "--weights-dir", tmp_path)
    assert (code, shown.count("scivid: ")) == (2, 1)
    assert "videomae_b" in shown
    where = ("--weights-dir", tmp_path)
    assert scivid("data", "download", "--weights", "resize", *where) == (0, "resize needs no weights.\n")
    assert list(tmp_path.iterdir()) == []


def test_data_demo_writes_a_miniature_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "DATASETS", {"digital_typhoon": synthetic.DATASETS["digital_typhoon"]})
    where = ("--data-dir", tmp_path, "--profile", "tiny")
    code, first = scivid("data", "demo", *where)
    assert code == 0
    assert re.search(r"^digital_typhoon: [1-9]\d* files written, ", first)
    code, again = scivid("data", "demo", *where)
    assert code == 0
    assert again.startswith("digital_typhoon: there already, ")
    code, shown = scivid("data", "demo", "--data-dir", tmp_path, "--profile", "huge")
    assert (code, shown.count("scivid: ")) == (2, 1)


@pytest.mark.parametrize(("task", "best"), [("flyvsfly", max), ("typhoon", min)])
def test_sweep_trains_a_grid_once_and_tests_what_is_best_on_val(
    place: Place, tmp_path: Path, task: str, best: Callable[..., float]
) -> None:
    grid = f"task={task} backbone=coarse readout=linear lr=1e-3,1e-1,5e-1 steps=6 minival_every=3"
    words = ("sweep", "--grid", grid, *place.cache, "--results-dir", tmp_path)
    code, shown = scivid(*words, "--dry-run")
    assert (code, load_results(tmp_path)) == (0, [])
    code, shown = scivid(*words, "--name", "rates", "--test")
    assert code == 0, shown
    rows = load_results(tmp_path)
    assert len({row["run"] for row in rows}) == len(rows) == 3
    assert {row["sweep"] for row in rows} == {"rates"}
    (tested,) = [row for row in rows if row["test"] is not None]
    values = [row["val"] for row in rows]
    assert len(set(values)) > 1
    assert tested["val"] == best(values)
    assert shown.count("best on val of 3 runs") == 1
    code, again = scivid(*words, "--name", "rates", "--test")
    assert code == 0
    assert "nothing is left to train" in again
    assert load_results(tmp_path) == rows


def test_a_sweep_one_of_whose_runs_fails_exits_with_1(place: Place, tmp_path: Path) -> None:
    grid = "task=typhoon backbone=coarse readout=linear lr=1e-2,1e38 steps=6 minival_every=3 warmup=0"
    code, shown = scivid("sweep", "--grid", grid, *place.cache, "--results-dir", tmp_path)
    assert code == 1
    assert "scivid: 1 of 2 runs failed, see above." in shown
    assert len(load_results(tmp_path)) == 1
