"""What is planned is what extraction then writes; published sizes by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.errors import CallError
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.plan import Plan, Speed, Training, clip_numbers, count_clips, make_plan
from featcache.extract.run import Machine, extract_all
from featcache.manifest import load_manifest
from featcache.store.spec import TokenDtype

NOWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest generated set of every task."""
    folder = tmp_path_factory.mktemp("all_data")
    for name in synthetic.DATASETS:
        synthetic.generate(name, folder, profile="tiny", seed=0)
    return folder


def jobs(
    task: str,
    backbone: str = "4ds_e",
    *,
    layers: str = "default",
    views: int = 1,
    roles: Sequence[str] = (),
    dtype: TokenDtype = "float16",
) -> list[Extraction]:
    manifest, model = load_manifest(), load_backbone(backbone)
    return [
        plan_extraction(
            manifest, task=task, role=role, backbone=model, layers=resolve_layers(layers, model.info),
            n_views=views if role == "train" else 1, seed=0, dtype=torch.float32, store_dtype=dtype,
        )
        for role in roles or manifest.task(task).splits
    ]  # fmt: skip


def planned(some: list[Extraction], data_dir: Path = NOWHERE, **options: object) -> Plan:
    clips = {job.role: count_clips(job, data_dir) for job in some}
    speed, training = options.get("speed", Speed()), options.get("training", Training())
    return make_plan(some, clips, speed=speed, training=training)  # type: ignore[arg-type]


def arrays_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("c.*"))


def all_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("task", "backbone", "options"),
    [
        ("flyvsfly", "resize", {}),
        ("flyvsfly", "videomae_random", {"views": 3, "layers": "1,2"}),
        ("calms21", "resize", {"views": 4, "roles": ("train",)}),
        ("calms21", "resize", {"dtype": "int8"}),
        ("stir", "resize", {}),
        ("typhoon", "resize", {}),
        ("weatherbench2", "resize", {}),
    ],
)
def test_extraction_writes_what_was_planned(
    data_dir: Path, tmp_path: Path, task: str, backbone: str, options: dict[str, object]
) -> None:
    some = jobs(task, backbone, **options)  # type: ignore[arg-type]
    plan = planned(some, data_dir)
    machine = Machine(device=torch.device("cpu"), batch=4)
    for split, _ in zip(
        plan.splits, extract_all(some, machine, data_dir=data_dir, cache_dir=tmp_path), strict=True
    ):
        folder = tmp_path / task / split.role
        assert split.feature_bytes is not None
        assert split.target_bytes is not None
        assert arrays_on_disk(folder) == split.feature_bytes + split.target_bytes
        assert len(list(folder.glob(f"{backbone}*/*/c.*"))) == split.n_files
    # Contact strips are an estimate: they are a few hundred KB a split, whatever its size.
    strips = sum(file.stat().st_size for file in tmp_path.rglob("previews.parquet"))
    assert abs(all_on_disk(tmp_path) - plan.n_bytes) < 0.03 * plan.n_bytes + 0.5 * strips


def test_a_store_of_some_size_is_planned_within_3_percent_of_all_its_files(
    data_dir: Path, tmp_path: Path
) -> None:
    some = jobs("stir", "resize", roles=("train",))
    (store,) = extract_all(
        some, Machine(device=torch.device("cpu"), batch=4), data_dir=data_dir, cache_dir=tmp_path
    )
    plan = planned(some, data_dir)
    assert store.spec.n_views == 9
    assert plan.n_bytes == pytest.approx(all_on_disk(tmp_path), rel=0.03)


@pytest.mark.parametrize(
    ("task", "published"),
    # 1,568 tokens of 1,792 float16 numbers a clip and view, 5.62 MB, and a checksum: 1,373 times 4,096 bytes.
    [("flyvsfly", 1_067_008 * 5_623_808), ("calms21", 26_970 * 5_623_808), ("typhoon", 696 * 8 * 5_623_808),
     # The last of 8 steps: 172 times 4,096 bytes.
     ("weatherbench2", 56_914 * 704_512)],
)  # fmt: skip
def test_published_sizes_by_hand(task: str, published: int) -> None:
    (split,) = planned(jobs(task, roles=("train",))).splits
    assert split.feature_bytes == pytest.approx(published, rel=1e-4)


def test_weather_fields_are_counted_once_a_time_step() -> None:
    (split,) = planned(jobs("weatherbench2", roles=("test",))).splits
    # 732 windows 12 hours apart, of steps 12 hours apart: input 15 and targets 16 to 31 are 732 + 16 times.
    fields = (732 + 16) * 181 * 360 * 3 * 4
    assert split.target_bytes == pytest.approx(fields, rel=0.01)


def test_break_even_and_hours_by_hand() -> None:
    plan = planned(jobs("typhoon", roles=("train",)), speed=Speed(clips_per_second=2.0))
    assert plan.training.draws == 1_280_000
    assert plan.device_hours == 696 * 8 / 2 / 3600
    assert plan.online_hours == 1_280_000 / 2 / 3600
    assert plan.break_even == 696 * 8 / 1_280_000
    assert plan.read_rate == 32 * 10 * 5_619_712


def test_a_pass_that_ends_early_takes_less() -> None:
    info = load_backbone("dinov2_b").info
    half, full = (resolve_layers(text, info) for text in ("6", "6,12"))
    whole = Speed(tflops=100.0).seconds_a_clip(info, full)
    assert info.gflop is not None
    assert whole == pytest.approx(info.gflop / 1e5)
    assert Speed(tflops=100.0).seconds_a_clip(info, half) == pytest.approx(whole / 2)
    assert Speed().seconds_a_clip(replace(info, gflop=None), full) is None
    with pytest.raises(CallError, match="above 0"):
        Speed(tflops=0.0)


def test_int8_is_a_little_more_than_half() -> None:
    halves = [
        planned(jobs("typhoon", roles=("train",), dtype=dtype)).n_bytes for dtype in ("int8", "float16")
    ]
    # 1,568 tokens of 1,792 numbers: 687 times 4,096 bytes of int8; and 2 times of scales, 4 bytes a token.
    assert halves[0] / halves[1] == pytest.approx((687 + 2) / 1373, rel=1e-4)


def test_what_nobody_counted_is_said(data_dir: Path) -> None:
    some = jobs("stir")
    assert [count_clips(job, NOWHERE) for job in some] == [None, None, 60]
    assert [count_clips(job, data_dir) for job in some] == [4, 2, 2]
    plan = planned(some)
    assert any(
        "train, val: nobody counted the clips; say where they are, --data-dir" in line
        for line in plan.sentences()
    )
    assert [row.get("clips") for row in plan.rows()] == ["unknown", "unknown", "60", None]
    assert plan.rows()[-1]["split"] == "only test"
    assert plan.break_even is None


def test_numbers_of_clips_are_those_of_splits_that_are_planned() -> None:
    assert clip_numbers(["train=9700", "val=3"], ["train", "val"]) == {"train": 9700, "val": 3}
    for wrong in ("trian=9700", "train", "train=many"):
        with pytest.raises(CallError, match=f"--clips {wrong}: .* train=5000, of train, val"):
            clip_numbers([wrong], ["train", "val"])


def test_what_hours_and_memory_rest_on_is_said() -> None:
    some = jobs("typhoon", "videomae_b", roles=("train",))
    said = "\n".join(planned(some).sentences())
    assert "hours: of one device at 200 TFLOP/s (a fifth of an H100's data sheet" in said
    assert "weights in float32 (on a GPU extract takes bfloat16, half of it)" in said
    assert "7 clips a second, as given" in "\n".join(
        planned(some, speed=Speed(clips_per_second=7.0)).sentences()
    )
    # Nobody counts the time of a model without operations: it is that of reading.
    resize = planned(jobs("typhoon", "resize", roles=("train",)))
    assert resize.rows()[0]["device hours"] is None
    assert not any("hours" in line or "float32" in line for line in resize.sentences())


def test_frames_that_the_starts_of_a_clip_share_are_counted_once() -> None:
    """An image model on typhoon: 8 starts of 12 frames, of which 19 differ, shown as 16."""
    (whole,) = planned(jobs("typhoon", "videoprism_b", roles=["train"])).splits
    (train, val, _) = planned(jobs("typhoon", "dinov2_b")).splits
    assert whole.n_clips == train.n_clips
    assert train.n_clips is not None
    assert whole.passes == 8 * train.n_clips
    assert train.passes == -(-19 * train.n_clips // 16)
    assert train.feature_bytes is not None
    # 96 times 4,096 bytes of tokens; a checksum begins the 97th.
    a_frame, table = 97 * 4096, 4 * 8 * 16 * train.n_clips
    assert 16 * 16 * 768 * 2 == 96 * 4096
    # Beside them a shard has an index of 16 bytes a chunk, and its sum once more.
    assert train.feature_bytes == pytest.approx(19 * train.n_clips * (a_frame + 16 + 4) + table, rel=1e-4)
    assert (train.may_share, val.may_share, whole.may_share) == (False, True, False)


def test_of_a_weather_window_an_image_model_sees_one_frame() -> None:
    plan = planned(jobs("weatherbench2", "dinov2_b", roles=["train"]))
    (train,) = plan.splits
    assert train.passes == -(-56_914 // 16)
    assert not any("share frames" in line for line in plan.sentences())


def test_what_the_files_may_save_is_said() -> None:
    lines = planned(jobs("calms21", "dinov2_b", views=4)).sentences()
    assert "val, test: less where clips share frames, which are stored once then." in lines
