"""The page in a real browser, by its own protocol: sort, filter, compare, unfold, link; 400 px; no script.

    python -m tests.readouts.report.test_page_in_browser PAGE FOLDER

takes pictures of a page, wide and narrow, into a folder.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, to open the page")


class Tab:
    """One tab; messages are JSON that ends with a zero byte, on file descriptors 3 and 4."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive, self.rest, self.number, self.session = send, receive, b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.receive, 2**16)
            assert more, "the browser is gone"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(message))

    def open(self, url: str, *, width: int = 1300, scripts: bool = True) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.call("Page.enable")
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        while self.read().get("method") != "Page.loadEventFired":
            pass

    def ask(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        height = self.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
        clip = {"x": 0, "y": 0, "width": self.ask("innerWidth"), "height": min(height, 12_000), "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Tab]:
    assert BROWSER is not None
    (there, send), (receive, back) = os.pipe(), os.pipe()

    def as_three_and_four() -> None:
        # Both away from 3 and 4 first, which either may be.
        low, high = os.dup2(there, 98), os.dup2(back, 99)
        os.dup2(low, 3)
        os.dup2(high, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [BROWSER, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=as_three_and_four, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        try:
            yield Tab(send, receive)
        finally:
            process.kill()
            process.wait()
            os.close(send)
            os.close(receive)


@pytest.fixture(scope="module")
def page(make_split_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three runs of two heads: twelve configurations' worth of rows is not needed, four are."""
    import numpy as np

    from featcache.manifest import load_manifest
    from readouts.features.find import open_task_splits
    from readouts.report.page import write_report
    from readouts.tasks import load_task
    from readouts.training.loop import train
    from readouts.training.settings import configure

    folder, rng = tmp_path_factory.mktemp("browser"), np.random.default_rng(1)
    for role in ("train", "val"):
        labels = np.eye(7, dtype=int)[rng.integers(7, size=14)]
        make_split_in(folder / "features", role, rng.normal(size=(14, 1, 2, 2, 2, 8)), labels)
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(folder / "features", "flyvsfly", "toy", roles=("train", "val"))
    for rate in ("1e-2", "1e-3", "1e-4", "1e-5", "1e-6"):
        run = configure(task, splits, settings=["steps=2", "width=16", "heads=4", f"lr={rate}"])
        train(run, results_dir=folder / "results", device="cpu", command=f"scivid ... lr={rate}")
    out = folder / "report.html"
    write_report(out, results_dir=folder / "results", cache_dir=folder / "features", manifest=load_manifest())
    return out


SHOWN = "[...document.querySelectorAll('.rows tr.ours')].filter(row => row.offsetParent !== null)"


def test_rows_sort_filter_fold_compare_and_the_link_keeps_it(page: Path) -> None:
    with browser() as tab:
        tab.open(page.as_uri())
        n_shown = tab.ask(f"{SHOWN}.length")
        assert n_shown < tab.ask("document.querySelectorAll('.rows tr.ours').length")  # folded
        scores = f"{SHOWN}.map(row => Number(row.dataset.val))"
        best_first = tab.ask(scores)
        tab.ask("document.querySelector('[data-sort=val]').click()")
        assert tab.ask(scores) == sorted(best_first, reverse=True)
        tab.ask("document.querySelector('[data-sort=val]').click()")
        assert tab.ask(scores) == sorted(best_first)
        tab.ask("document.querySelector('[data-all]').click()")
        assert tab.ask(f"{SHOWN}.length") == 10
        # Is A better than B: one click on each.
        tab.ask("document.querySelector('[data-choose=\"0\"]').click()")
        against = tab.ask("document.querySelector('[data-place=\"3\"] td.against').textContent")
        assert "[" in against and "val selected" in against
        tab.ask("document.querySelector('[data-choose=\"3\"]').click()")
        said = tab.ask("document.getElementById('versus').textContent")
        assert "toy" in said and "val selected" in said and "95 %" in said
        assert tab.ask("document.getElementById('versus').open")
        link = tab.ask("location.href")
        tab.ask("document.querySelector('#versus button').click()")
        tab.ask("new Promise(done => setTimeout(done, 50))")
        assert "versus" not in tab.ask("location.href")
        tab.open(link)
        assert tab.ask("document.getElementById('versus').open")
        assert tab.ask("document.querySelector('[data-sort=val]').getAttribute('aria-sort')") == "ascending"


def test_of_many_differences_it_is_told_how_many_would_be_clear_by_chance(page: Path) -> None:
    with browser() as tab:
        tab.open(page.as_uri())
        tab.ask("document.querySelector('[data-choose=\"0\"]').click()")
        head = "document.querySelector('th.against').textContent"
        assert "by chance" not in tab.ask(head)  # val judges nothing
        tab.ask(
            "for (const one of tasks.values()) { one.data.role = 'test'; one.data.rows.forEach("
            "(row, i) => Object.assign(row, { n: 3, squares: 0, mean: i < 2 ? 0 : 9 })); one.show(); }"
        )
        assert "8 of 9 clear: by chance 1 in 20 equal ones" in tab.ask(head)


def test_words_filter_and_a_row_unfolds_into_its_runs(page: Path) -> None:
    with browser() as tab:
        tab.open(page.as_uri())
        tab.ask(
            "{ const box = document.querySelector('[data-filter]'); box.value = 'linear lr';"
            " box.dispatchEvent(new Event('input')); }"
        )
        assert tab.ask(f"{SHOWN}.map(row => row.dataset.name)") == ["toy linear"] * 5
        below = f"{SHOWN}[0].nextElementSibling"
        tab.ask(f"{below}.querySelector('summary').click()")
        assert tab.ask(f"{below}.querySelector('code').checkVisibility()")
        assert "scivid ... lr=" in tab.ask(f"{below}.textContent")
        assert tab.ask("document.querySelectorAll('tr.runs:not([hidden])').length") == 5


@pytest.mark.parametrize("width", [1300, 400])
def test_nothing_is_wider_than_the_screen_and_without_scripts_nothing_is_missing(
    page: Path, width: int
) -> None:
    with browser() as tab:
        tab.open(page.as_uri(), width=width)
        assert tab.ask("document.documentElement.scrollWidth") <= width
        # The first score of the overview and of the task's table is on the screen.
        for table in ("table.matrix", "table.rows"):
            cell = f"document.querySelector('{table} tr.ours td.n').getBoundingClientRect()"
            assert tab.ask(f"{cell}.right") <= width
        tab.open(page.as_uri(), width=width, scripts=False)
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
        assert tab.ask(f"{SHOWN}.length") >= 10
        assert not tab.ask("document.querySelector('[data-choose]').checkVisibility()")
        assert tab.ask("document.querySelector('table.rows th').innerText").startswith("backbone")


if __name__ == "__main__":
    shown, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as one:
        for pixels in (1300, 400):
            one.open(shown.as_uri(), width=pixels)
            one.picture(folder / f"{shown.stem}-{pixels}.png")
