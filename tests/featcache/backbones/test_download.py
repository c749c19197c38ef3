"""Which files a backbone wants, which are not to be had, and that they land whole where the loaders look."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from featcache.backbones import BACKBONES, backbone_table, download, load_backbone
from featcache.backbones.download import download_weights
from featcache.backbones.weights.locate import find_weights
from featcache.errors import CallError, DownloadError, WeightsError

REVISION = "0" * 40


class _Hub(SimpleHTTPRequestHandler):
    """A folder as the Hugging Face hub serves a repository, and what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, str | None]]
    cut: int | None = None
    """Bytes of a file after which the connection ends."""
    lie: bool = False
    """Whether another digest than the file's is told."""

    def __init__(self, *arguments: Any, site: "type[_Hub]", **options: Any) -> None:
        self.site = site
        super().__init__(*arguments, **options)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.site.asked.append((self.command, self.path, self.headers["Range"]))
        path = Path(self.directory) / Path(self.path).name
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        digest = hashlib.sha256(b"other" if self.site.lie else content).hexdigest()
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{digest}"')
        if self.headers["Range"]:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start : self.site.cut])
            self.close_connection = self.site.cut is not None

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, type[_Hub], str]]:
    """A folder, the server on this machine that is the hub, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    site = type("Site", (_Hub,), {"asked": []})
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, site=site, directory=str(folder))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield folder, site, url
        server.shutdown()
        thread.join()


def run(name: str, folder: Path | None) -> tuple[tuple[Path, ...], list[str], list[tuple[str, int, int]]]:
    said: list[str] = []
    told: list[tuple[str, int, int]] = []
    paths = download_weights(name, folder, progress=lambda *what: told.append(what), say=said.append)
    return paths, said, told


def elsewhere(name: str, monkeypatch: pytest.MonkeyPatch, **change: Any) -> None:
    """Registers a model with another release."""
    model = BACKBONES[name]
    assert model.release is not None
    monkeypatch.setitem(BACKBONES, name, replace(model, release=replace(model.release, **change)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dinov3_b",
            (
                r"(?s)cannot be fetched for you\. Accept the licence \(.*, Meta AI\) at https://huggingface\.co/facebook/.*"
                "hf auth login && hf download facebook/dinov3-vitb16-pretrain-lvd1689m config.json model"
            ),
        ),
        ("4ds_l", r"never released by Google DeepMind.*<folder>/4ds_l/scaling4d_l\.npz"),
        ("videoprism_g", r"never released by Google"),
    ],
)
def test_what_is_not_to_be_had_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        run(name, None)


def test_every_backbone_has_a_way_or_a_reason() -> None:
    on_the_hub, elsewhere, private, none = set(), set(), set(), set()
    for name, model in BACKBONES.items():
        family, release = name.partition("_")[0], model.release
        if release is None:
            none.add(family)
        elif not release.public:
            private.add(name)
        elif release.hub_id:
            assert release.source.startswith(f"https://huggingface.co/{release.hub_id}")
            on_the_hub.add(family)
        else:
            assert release.url is not None and release.url.endswith(f"/{release.files[0]}")
            elsewhere.add(name)
    assert on_the_hub == {"videomae", "dinov2", "vjepa2", "videoprism", "videomaev2"}
    assert elsewhere == {
        "4ds_b_dist_e", "4ds_e", "vjepa_l", "vjepa_h", "vjepa_h384",
        "vjepa21_b", "vjepa21_l", "vjepa21_g", "vjepa21_gigantic",
    }  # fmt: skip
    assert none == {"resize", "videomae"} and len(private) == 7
    release = BACKBONES["videomae_b"].release
    assert release is not None and release.revision == "dc740ceda42fce44faed2ea03c6d447db72f6af9"


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no backbone is called 'videomae_x'"):
        run("videomae_x", tmp_path)
    with pytest.raises(CallError, match="--weights-dir <folder>, or set SCIVID_WEIGHTS_DIR"):
        run("videomae_b", None)
    assert run("resize", None) == ((), ["resize needs no weights."], [])


def test_a_single_file_lands_where_the_loader_looks(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, url = hub
    elsewhere("4ds_b_dist_e", monkeypatch, files=("small.npz",), url=f"{url}/small.npz", n_bytes=4_000_000)
    (folder / "small.npz").write_bytes(bytes(3_500_000))
    paths, said, told = run("4ds_b_dist_e", tmp_path / "weights")
    assert paths == (tmp_path / "weights/4ds_b_dist_e/small.npz",)
    assert said == [
        "4DS-B distilled from 4DS-e, self-supervised: about 4 MB, licence CC-BY-4.0, " + f"{url}/small.npz"
    ]
    what = "4ds_b_dist_e/small.npz, MB"
    assert told[0] == (what, 0, 3) and told[-1] == (what, 3, 3)
    backbone: Any = load_backbone("4ds_b_dist_e", tmp_path / "weights")
    assert backbone.file() == paths[0]
    status = {row.info.name: row.weights for row in backbone_table(tmp_path / "weights")}
    assert status["4ds_b_dist_e"] == "here"


def test_a_digest_that_is_known_is_checked(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, url = hub
    elsewhere(
        "4ds_e", monkeypatch, files=("m.npz",), url=f"{url}/m.npz", n_bytes=7, digests={"m.npz": "0" * 64}
    )
    (folder / "m.npz").write_bytes(b"weights")
    with pytest.raises(DownloadError, match="is wrong, and removed"):
        run("4ds_e", tmp_path)
    assert not (tmp_path / "4ds_e").exists()


def test_from_the_hub_the_licence_comes_first_and_what_is_right_is_left_alone(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, site, _ = hub
    elsewhere("videomae_l", monkeypatch, revision=REVISION)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    heard: list[int] = []
    paths = download_weights(
        "videomae_l", tmp_path, progress=lambda *_: None, say=lambda _: heard.append(len(site.asked))
    )
    assert heard == [0] and len(site.asked) > 0
    assert [path.name for path in paths] == ["config.json", "model.safetensors"]
    assert f"/MCG-NJU/videomae-large/resolve/{REVISION}/model.safetensors" in {
        path for _, path, _ in site.asked
    }
    release = BACKBONES["videomae_l"].release
    assert release is not None and find_weights("videomae_l", release, tmp_path) == paths[1]
    site.asked.clear()
    _, said, _ = run("videomae_l", tmp_path)
    assert "licence CC-BY-NC-4.0, NOT FOR COMMERCIAL USE" in said[0]
    assert {command for command, _, _ in site.asked} == {"HEAD"}
    paths[1].write_bytes(b"my own")
    with pytest.raises(DownloadError, match=r"model\.safetensors has a sha256 other than .*: move it away"):
        run("videomae_l", tmp_path)
    assert paths[1].read_bytes() == b"my own"


def test_the_hub_s_older_file_where_it_has_no_other(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = hub
    elsewhere("videomae_l", monkeypatch, revision=REVISION)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    paths, _, _ = run("videomae_l", tmp_path)
    assert paths[1].name == "pytorch_model.bin" and paths[1].read_bytes() == b"weights"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"MCG-NJU/videomae-large: the hub gave no answer .*404"):
        run("videomae_l", tmp_path / "other")


def test_the_hub_s_file_goes_on_where_it_stopped(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, site, _ = hub
    elsewhere("videomaev2_b", monkeypatch, revision=REVISION)
    content = hashlib.shake_256(b"weights").digest(1_000_000)
    (folder / "model.safetensors").write_bytes(content)
    site.cut = 400_000
    with pytest.raises(
        DownloadError, match=r"ended after 400,000 of 1,000,000 bytes\. What has come is kept"
    ):
        run("videomaev2_b", tmp_path)
    site.cut = None
    site.asked.clear()
    (path,), _, _ = run("videomaev2_b", tmp_path)
    assert path.read_bytes() == content
    assert ("GET", "bytes=400000-") in {(command, asked) for command, _, asked in site.asked}


def test_a_file_of_the_hub_that_is_not_what_it_says_is_removed(
    tmp_path: Path, hub: tuple[Path, type[_Hub], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, site, _ = hub
    elsewhere("videomaev2_b", monkeypatch, revision=REVISION)
    (folder / "model.safetensors").write_bytes(b"weights")
    site.lie = True
    with pytest.raises(DownloadError, match="is wrong, and removed"):
        run("videomaev2_b", tmp_path)
    assert not (tmp_path / "videomaev2_b").exists()


def test_no_network_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known\nand a page more")

    monkeypatch.setattr(download, "get_hf_file_metadata", nobody)
    with pytest.raises(WeightsError, match=r"the hub gave no answer \(Name or service not known\)"):
        run("videomae_b", tmp_path)
    assert list(tmp_path.iterdir()) == []
