"""A file comes whole and right or not at all, from a server on this machine that misbehaves on request."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib import request

import pytest

from featcache.errors import DownloadError
from featcache.system.fetch import fetch, fetch_small, sha256_of
from featcache.system.locks import Lock
from tests.featcache.system.site import Page, Site
from tests.featcache.system.site import site as site

CONTENT = hashlib.shake_256(b"weights").digest(3_000_000)
OTHER = hashlib.shake_256(b"other weights").digest(3_000_000)
HALF = 1_500_000


@dataclass
class Told:
    """What was told on the way."""

    done: list[tuple[int, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def get(site: Site, path: Path, told: Told | None = None, **options: Any) -> Path:
    told = told or Told()
    return fetch(
        site.url(),
        path,
        about=options.pop("about", len(CONTENT)),
        sha256=options.pop("sha256", None),
        progress=lambda done, total: told.done.append((done, total)),
        say=told.said.append,
        **options,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def half_done(site: Site, path: Path, **page: Any) -> None:
    """Leaves the first half of CONTENT as a part, and the page without the fault."""
    site.pages["/model.npz"] = Page(content=CONTENT, stop=HALF, **page)
    with pytest.raises(
        DownloadError, match=r"connection ended after 1,500,000 of 3,000,000 bytes\. (What has|The same)"
    ):
        get(site, path)
    assert names(path.parent) == [f"{path.name}.part", f"{path.name}.part.json"]
    site.pages["/model.npz"] = Page(content=CONTENT, **page)
    site.asked.clear()


def test_all_of_it(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    path, told = tmp_path / "weights/4ds/model.npz", Told()
    assert get(site, path, told, sha256=sha(CONTENT)) == path
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["model.npz"]
    assert told.done[0] == (0, len(CONTENT)) and told.done[-1] == (len(CONTENT), len(CONTENT))
    assert told.said == [] and site.asked[0][1]["User-Agent"].startswith("scivid")


@pytest.mark.parametrize("validator", [{}, {"etag": None, "modified": "Mon, 02 Sep 2024 10:00:00 GMT"}])
def test_only_the_rest_is_asked_for(site: Site, tmp_path: Path, validator: dict[str, Any]) -> None:
    path, told = tmp_path / "model.npz", Told()
    half_done(site, path, **validator)
    get(site, path, told)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["model.npz"]
    assert site.ranges == [f"bytes={HALF}-"]
    assert site.asked[0][1]["If-Range"] == (validator.get("modified") or '"one"')
    assert told.done[0] == (HALF, len(CONTENT))


def test_a_digest_known_beforehand_does_not_hinder_going_on(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT, stop=HALF)
    with pytest.raises(DownloadError, match="connection ended"):
        get(site, tmp_path / "model.npz", sha256=sha(CONTENT))
    # The hub's servers give one file different ETags.
    site.pages["/model.npz"] = Page(content=CONTENT, etag='"another server"')
    get(site, tmp_path / "model.npz", sha256=sha(CONTENT))
    assert site.ranges == [None, f"bytes={HALF}-"]
    assert (tmp_path / "model.npz").read_bytes() == CONTENT


def test_a_part_of_another_digest_is_not_built_upon(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    site.pages["/model.npz"] = Page(content=OTHER, stop=HALF)
    with pytest.raises(DownloadError, match="connection ended"):
        get(site, path, sha256=sha(OTHER))
    site.pages["/model.npz"] = Page(content=CONTENT)
    get(site, path, sha256=sha(CONTENT))
    assert path.read_bytes() == CONTENT


KILLED = """
import sys
from pathlib import Path
from featcache.system.fetch import fetch
told = {"progress": lambda *n: print(*n, flush=True), "say": print}
fetch(sys.argv[1], Path(sys.argv[2]), about=3_000_000, sha256=None, **told)
"""


def test_a_kill_leaves_what_had_come(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    site.pages["/model.npz"] = Page(content=CONTENT, stop=2_500_000, hang=True)
    command = [sys.executable, "-c", KILLED, site.url(), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if int(line.split()[0]) >= 2_000_000)
        process.send_signal(signal.SIGKILL)
    came = (tmp_path / "model.npz.part").stat().st_size
    assert 1_000_000 < came < 3_000_000 and not path.exists()
    site.pages["/model.npz"] = Page(content=CONTENT)
    get(site, path)
    assert path.read_bytes() == CONTENT and site.ranges == [None, f"bytes={came}-"]
    assert names(tmp_path) == ["model.npz"]


def test_an_interrupt_says_how_to_go_on(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    said: list[str] = []

    def interrupt(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(
            site.url(), tmp_path / "model.npz", about=len(CONTENT), sha256=None,
            progress=interrupt, say=said.append,
        )  # fmt: skip
    assert len(said) == 1 and said[0].startswith(
        "interrupted with 1,048,576 bytes of model.npz. What has come"
    )
    get(site, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == CONTENT and site.ranges[1] == "bytes=1048576-"


def test_a_server_without_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    path, told = tmp_path / "model.npz", Told()
    half_done(site, path, ranges=False)
    get(site, path, told)
    assert path.read_bytes() == CONTENT and told.done[0] == (0, len(CONTENT))
    assert "the server sends all of it again" in told.said[0]


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_begins_anew(site: Site, tmp_path: Path, honours_if_range: bool) -> None:
    path, told = tmp_path / "model.npz", Told()
    half_done(site, path)
    site.pages["/model.npz"] = Page(content=OTHER, etag='"two"', deaf=not honours_if_range)
    get(site, path, told)
    assert path.read_bytes() == OTHER and names(tmp_path) == ["model.npz"]
    assert site.ranges == [f"bytes={HALF}-", *([None] * (not honours_if_range))]
    assert len(told.said) == 1


def test_a_part_larger_than_the_file_begins_anew(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    site.pages["/model.npz"] = Page(content=b"", status=416)
    with pytest.raises(DownloadError, match="the server says 416"):
        get(site, path)
    assert site.ranges == [f"bytes={HALF}-", None]


def test_another_piece_than_was_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    monkeypatch.setattr(site, "_start", lambda to, _: 7 if to.headers["Range"] else 0)
    get(site, path)
    assert path.read_bytes() == CONTENT and site.ranges == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_server_that_cannot_tell_one_file_from_the_next(
    site: Site, tmp_path: Path, etag: str | None
) -> None:
    path, told = tmp_path / "model.npz", Told()
    half_done(site, path, etag=etag)
    get(site, path, told)
    assert path.read_bytes() == CONTENT and site.ranges == [None] and told.said == []


def test_bytes_of_unknown_origin_are_not_built_upon(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    (tmp_path / "model.npz.part.json").write_text("torn")
    get(site, path)
    assert path.read_bytes() == CONTENT and site.ranges == [None]


def test_a_wrong_size_is_refused_before_a_byte(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    with pytest.raises(DownloadError, match="perhaps a page that wants you to log in"):
        get(site, tmp_path / "model.npz", about=15_000_000_000)
    assert names(tmp_path) == []


def test_a_wrong_digest_is_removed(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=OTHER)
    with pytest.raises(DownloadError, match=rf"is wrong, and removed: its sha256 is not {sha(CONTENT)}"):
        get(site, tmp_path / "model.npz", sha256=sha(CONTENT))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"the server says 404 Not Found\. The file has moved"),
        (403, r"403 Forbidden\. It wants an account"),
        (503, r"503 Service Unavailable\. Try again later"),
    ],
)
def test_what_a_server_refuses(site: Site, tmp_path: Path, status: int, message: str) -> None:
    site.pages["/model.npz"] = Page(status=status)
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path / "model.npz")
    assert names(tmp_path) == []
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path / "folder/model.npz")
    assert names(tmp_path) == []  # a folder that is there, and empty, is one that loaders complain of


def test_nobody_answers(site: Site, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/model.npz"
        with pytest.raises(DownloadError, match=r"gave no answer: .*refused\. The same call begins"):
            fetch(url, tmp_path / "m", about=1, sha256=None, progress=lambda *_: None, say=print)


def test_a_server_falls_silent(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featcache.system.fetch.TIMEOUT_SECONDS", 0.2)
    site.pages["/model.npz"] = Page(content=CONTENT, stop=HALF, hang=True)
    with pytest.raises(DownloadError, match=r"the connection broke: timed out\. What has come is kept"):
        get(site, tmp_path / "model.npz")
    assert (tmp_path / "model.npz.part").stat().st_size >= 1 << 20


def test_a_length_that_nobody_tells(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT, length=False)
    with pytest.raises(DownloadError, match="does not say how much is to come"):
        get(site, tmp_path / "model.npz")
    assert names(tmp_path) == []


def test_a_disk_too_small_for_the_rest(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    free = HALF - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(DownloadError, match=r"model\.npz needs 1,500,000 bytes more .* has 1,499,999"):
        get(site, path)
    free = HALF
    get(site, path)
    assert path.read_bytes() == CONTENT


def test_a_disk_that_fills_meanwhile(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda fd: full(fd) if _is_part(fd) else None)
        with pytest.raises(
            DownloadError, match=r"writing .*\.part failed: No space left .*: make room, .*kept"
        ):
            get(site, tmp_path / "model.npz")
    site.asked.clear()
    get(site, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == CONTENT and site.asked == []


def _is_part(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").endswith(".part")  # noqa: PTH115


def test_there_already(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(CONTENT)
    before, told = path.stat(), Told()
    get(site, path, told, sha256=sha(CONTENT))
    assert site.asked == []
    site.pages["/model.npz"] = Page(content=CONTENT)
    get(site, path, told)  # nobody knows a digest: the server tells the size
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(site.asked) == 1 and told == Told() and names(tmp_path) == ["model.npz"]


def test_a_file_of_the_user_s_is_not_written_over(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"mine")
    site.pages["/model.npz"] = Page(content=CONTENT)
    with pytest.raises(DownloadError, match=r"model\.npz has 4 bytes instead of 3,000,000, .*: move it away"):
        get(site, path)
    with pytest.raises(DownloadError, match=rf"a sha256 other than {sha(CONTENT)}"):
        get(site, path, sha256=sha(CONTENT))
    assert path.read_bytes() == b"mine" and names(tmp_path) == ["model.npz"]


def test_one_at_a_time(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    lock = Lock(tmp_path / "model.npz.part.lock", wait=False, busy="")
    with pytest.raises(DownloadError, match=r"another process is downloading .*model\.npz: wait for it"):
        get(site, tmp_path / "model.npz")
    assert site.asked == []
    lock.release()
    get(site, tmp_path / "model.npz")
    assert names(tmp_path) == ["model.npz"]


def test_redirects_stay_with_their_protocol(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.system.fetch.TIMEOUT_SECONDS", 0.2)
    site.pages["/model.npz"] = Page(status=302, headers={"Location": "/there"})
    site.pages["/there"] = Page(content=CONTENT)
    get(site, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == CONTENT
    for address in ("file:///etc/hostname", f"ftp://127.0.0.1:{site.server.server_address[1]}/x"):
        site.pages["/model.npz"] = replace(site.pages["/model.npz"], headers={"Location": address})
        with pytest.raises(DownloadError):
            get(site, tmp_path / "other")
    assert names(tmp_path) == ["model.npz"]


def test_an_answer_by_another_protocol_is_not_taken(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    here = request.urlopen
    monkeypatch.setattr(request, "urlopen", lambda *_, **__: here(site.url()))
    with pytest.raises(DownloadError, match=r"leads to http://.* which is another protocol: not followed"):
        fetch("https://x.org/m", tmp_path / "m", about=1, sha256=None, progress=print, say=print)


@pytest.mark.parametrize("length", ["9" * 5000, "١٢٣", "-1", "3e6", ""])
def test_a_length_that_is_no_number_or_has_thousands_of_digits(
    site: Site, tmp_path: Path, length: str
) -> None:
    headers = {"Content-Length": length.encode().decode("latin-1")}
    site.pages["/model.npz"] = Page(content=CONTENT, length=False, headers=headers)
    with pytest.raises(DownloadError, match="does not say how much is to come"):
        get(site, tmp_path / "model.npz")
    assert names(tmp_path) == []


def test_a_range_of_thousands_of_digits(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    headers = {"Content-Range": f"bytes {HALF}-2/{'9' * 5000}"}
    site.pages["/model.npz"] = Page(content=CONTENT, status=206, headers=headers)
    with pytest.raises(DownloadError, match="does not say how much is to come"):
        get(site, path)


def test_a_body_longer_than_promised_is_not_written_to_its_end(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    half_done(site, path)
    endless = {
        "Content-Range": f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}",
        "Content-Length": "1000000000",
    }
    site.pages["/model.npz"] = Page(content=bytes(9_000_000), status=206, length=False, headers=endless)
    with pytest.raises(DownloadError, match=r"sends more than the 3,000,000 bytes .*removed"):
        get(site, path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("tells", [True, False])
def test_kept_is_said_only_where_something_is_kept(site: Site, tmp_path: Path, tells: bool) -> None:
    came = {"stop": 0} if tells else {"stop": HALF, "etag": None}
    site.pages["/model.npz"] = Page(content=CONTENT, **came)  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match=r"connection ended after .*\. The same call begins"):
        get(site, tmp_path / "model.npz")
    half_done(site, tmp_path / "other/model.npz")
    site.pages["/model.npz"] = Page(status=503)
    with pytest.raises(DownloadError, match=r"Try again later\. What has come is kept"):
        get(site, tmp_path / "other/model.npz")


@pytest.mark.parametrize("call", ["mkdir", "publish", "replace"])
def test_a_disk_that_refuses_at_any_call_is_named_with_the_way_out(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    path = tmp_path / "folder/model.npz"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with monkeypatch.context() as patched:
        if call == "publish":
            patched.setattr("featcache.system.fetch.publish", full)
        else:
            patched.setattr(Path, call, full)
        with pytest.raises(
            DownloadError, match=r"writing .*model\.npz\.part failed: No space left.*make room"
        ):
            get(site, path)
    get(site, path)
    assert path.read_bytes() == CONTENT


def test_a_pipe_or_a_folder_in_the_place_is_not_replaced(site: Site, tmp_path: Path) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    for name in ("pipe.npz", "folder.npz"):
        with pytest.raises(DownloadError, match=f"{name} is not a regular file: move it away"):
            get(site, tmp_path / name)
    assert site.asked == []


def test_a_small_file_comes_into_memory(site: Site) -> None:
    site.pages["/model.npz"] = Page(content=CONTENT)
    assert fetch_small(site.url(), most=len(CONTENT)) == CONTENT
    with pytest.raises(DownloadError, match=r"sends more than 2,999,999 bytes: it is some other thing"):
        fetch_small(site.url(), most=len(CONTENT) - 1)
    site.pages["/model.npz"] = Page(content=CONTENT, stop=HALF)
    with pytest.raises(
        DownloadError, match=r"ended after 1,500,000 of 3,000,000 bytes\. The same call begins"
    ):
        fetch_small(site.url(), most=len(CONTENT))
    with pytest.raises(DownloadError, match=r"the server says 404"):
        fetch_small(site.url("/other"), most=len(CONTENT))


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert sha256_of(tmp_path / "file") == sha(CONTENT)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        sha256_of(tmp_path / "pipe")
