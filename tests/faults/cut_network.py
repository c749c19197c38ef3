"""The network to a bucket is cut while a command works: `python -m tests.faults.cut_network [--seconds 10]`.

An extraction into a bucket of this machine and a training from it, each undisturbed and then with the network
cut in the middle: both go on, to the same bytes and the same scores, and it costs about as long as the cut.
It ends with 1 where they do not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.loopback import Network, ObjectStore

ROOT = Path(__file__).parents[2]
RUN = "from cli import app; app()"


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a command ended."""

    seconds: float
    code: int
    said: str


def main() -> int:
    """Both commands, with and without a cut; 1 where anything came out different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the cut")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="cut-network-") as folder:
        top = Path(folder)
        _make_data(top / "data")
        server = ObjectStore(top / "served")
        try:
            fine = [_pair(server, top, name, cut) for name, cut in (("whole", 0.0), ("cut", seconds))]
        finally:
            server.close()
    return 0 if fine[0] == fine[1] and fine[0] is not None else 1


def _make_data(folder: Path) -> None:
    from featcache import synthetic

    synthetic.generate("flyvsfly", folder, profile="tiny", seed=0)


def _pair(server: ObjectStore, top: Path, name: str, cut: float) -> tuple[dict[str, bytes], str] | None:
    """Extraction and training; the bytes of all shards and tables, and the score, if both ended well."""
    (server.root / name).mkdir()
    network = Network(server.port, rate=2e6)
    where = ("--backbone", "resize", "--task", "flyvsfly", "--cache-dir", f"s3://{name}/features")
    extract = ("extract", *where, "--split", "train,val", "--data-dir", top / "data", "--shard-mb", "1")
    train = ("train-readout", *where, "--readout", "linear", "--set", "steps=300")
    train = (*train, "--results-dir", top / name)
    said = ""
    for words in (extract, train):
        found = _cut_in_the_middle(network, server, top, words, cut)
        sys.stdout.write(f"{words[0]}, network cut for {cut:g} s: {found.seconds:.1f} s, code {found.code}\n")
        said = found.said
        if found.code:
            sys.stdout.write(found.said)
            return None
    files = {
        str(path.relative_to(server.root / name)): path.read_bytes()
        for path in (server.root / name).rglob("*")
        if path.is_file() and path.name != "runs.jsonl" and path.parent.name != "index"
    }
    return files, said.splitlines()[-1]


def _cut_in_the_middle(
    network: Network, server: ObjectStore, top: Path, words: tuple[object, ...], cut: float
) -> Run:
    began, sent = time.monotonic(), network.sent
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)],
        cwd=ROOT,
        env=os.environ | server.environment(network.port) | {"SCIVID_READ_CACHE": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if cut:
        while process.poll() is None and network.sent < sent + 60_000:
            time.sleep(0.01)
        network.cut(cut)
    said = process.communicate(timeout=600)[0]
    return Run(seconds=time.monotonic() - began, code=process.returncode, said=said)


if __name__ == "__main__":
    sys.exit(main())
