"""Which files a backbone wants, which are not to be had, and that they land where the loaders look."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from featcache.backbones import BACKBONES, backbone_table, download, load_backbone
from featcache.backbones.catalogue import HUB
from featcache.backbones.download import Download, download_weights, weights_of
from featcache.backbones.releases import ReleasedFile
from featcache.backbones.video_catalogue import VIDEO_FILES
from featcache.backbones.weights.locate import HubWeights, file_digest, find_weights
from featcache.errors import CallError, WeightsError

HUB_WEIGHTS = HubWeights(
    hub_id="Somebody/model", revision="0" * 40, owner="Somebody", licence="L", commercial=True, n_bytes=30
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served on this machine; the hub is the same address."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(download, "hf_hub_url", lambda _, file, *, revision: f"{url}/{file}")
        yield folder, url
        server.shutdown()
        thread.join()


def run(name: str, folder: Path | None) -> tuple[tuple[Path, ...], list[str], list[tuple[str, int, int]]]:
    said: list[str] = []
    told: list[tuple[str, int, int]] = []
    paths = download_weights(name, folder, progress=lambda *what: told.append(what), say=said.append)
    return paths, said, told


def listed(name: str) -> list[tuple[str, str]]:
    return [(file.file, file.url) for file in weights_of(name)]


def test_a_hub_model_is_two_files_of_its_pinned_revision() -> None:
    revision = "dc740ceda42fce44faed2ea03c6d447db72f6af9"
    page = f"https://huggingface.co/MCG-NJU/videomae-base/resolve/{revision}"
    assert listed("videomae_b") == [
        ("config.json", f"{page}/config.json"),
        ("model.safetensors", f"{page}/model.safetensors"),
    ]
    weights = weights_of("videomae_b")[1]
    assert weights.about == 376_924_301 and weights.otherwise is not None
    assert weights.otherwise.url == f"{page}/pytorch_model.bin"


def test_a_released_file_comes_from_its_own_place() -> None:
    assert listed("4ds_e") == [
        (
            "scaling4d_e.npz",
            "https://storage.googleapis.com/representations4d/checkpoints/scaling4d_e.npz",
        )
    ]
    assert listed("vjepa_h384")[0][0] == "vith16-384.pth.tar"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dinov3_b",
            r"(?s)accept their licence \(DINOv3 License, Meta.*hf auth login && hf download facebook/",
        ),
        ("4ds_l", r"never released by Google DeepMind.*<weights folder>/4ds_l/scaling4d_l\.npz"),
        ("videoprism_g", r"never released by Google"),
    ],
)
def test_what_is_not_to_be_had_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        weights_of(name)


def test_every_backbone_has_files_or_a_reason() -> None:
    reasons, none = [], []
    for name in BACKBONES:
        try:
            files = weights_of(name)
        except WeightsError:
            reasons.append(name.partition("_")[0])
            continue
        assert all(file.url.startswith("https://") and "/" not in file.file for file in files)
        none += [name] * (not files)
    assert sorted(set(reasons)) == ["4ds", "dinov3", "videoprism"]
    assert none == ["resize", "videomae_random", "videomae_random_s", "videomae_random_b"]


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no backbone is called 'videomae_x'"):
        run("videomae_x", tmp_path)
    with pytest.raises(CallError, match="--weights-dir <folder>, or set SCIVID_WEIGHTS_DIR"):
        run("videomae_b", None)
    assert run("resize", None) == ((), ["resize needs no weights."], [])


def test_files_land_where_the_loader_looks(
    tmp_path: Path, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    released = ReleasedFile(
        file="small.npz", url=f"{url}/small.npz", n_bytes=4_000_000, owner="S", licence="CC-BY-4.0"
    )
    monkeypatch.setitem(VIDEO_FILES, "4ds_b_dist_e", released)
    (folder / "small.npz").write_bytes(bytes(3_500_000))
    paths, said, told = run("4ds_b_dist_e", tmp_path / "weights")
    assert paths == (tmp_path / "weights/4ds_b_dist_e/small.npz",)
    assert "about 4 MB, licence CC-BY-4.0, https://storage.googleapis.com/" in said[0]
    assert told[0] == ("4ds_b_dist_e/small.npz, MB", 0, 3) and told[-1] == (
        "4ds_b_dist_e/small.npz, MB",
        3,
        3,
    )
    assert load_backbone("4ds_b_dist_e", tmp_path / "weights").weights_digest() == file_digest(paths[0])
    status = {row.info.name: row.weights for row in backbone_table(tmp_path / "weights")}
    assert status["4ds_b_dist_e"] == "here"


def test_the_older_file_where_the_hub_has_no_other(
    tmp_path: Path, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = site
    monkeypatch.setitem(HUB, "videomae_l", HUB_WEIGHTS)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    _, said, _ = run("videomae_l", tmp_path)
    assert "licence CC-BY-NC-4.0, NOT FOR COMMERCIAL USE" in said[0]
    found = find_weights("videomae_l", HUB_WEIGHTS, tmp_path)
    assert found is not None and found.weights.read_bytes() == b"weights"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors.* 404|pytorch_model\.bin.* 404"):
        run("videomae_l", tmp_path / "other")


def test_a_digest_that_is_known_is_checked(
    tmp_path: Path, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    (folder / "m.npz").write_bytes(b"weights")
    file = Download(url=f"{url}/m.npz", file="m.npz", about=7, n_bytes=7, sha256="0" * 64)
    monkeypatch.setattr(download, "weights_of", lambda _: (file,))
    with pytest.raises(WeightsError, match="is wrong, and removed"):
        run("4ds_e", tmp_path)
    assert not (tmp_path / "4ds_e").exists()
