"""An object store on this machine, and a network between us and it that can be cut and slowed down."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SERVE = """
import sys
from pathlib import Path
from localbucket import S3Handler, ThreadingHTTPServer

S3Handler.data_root = Path(sys.argv[1])
S3Handler.log_message = lambda *_: None
server = ThreadingHTTPServer(("127.0.0.1", 0), S3Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDNOTTOBESHOWN",
    "AWS_SECRET_ACCESS_KEY": "this-secret-is-never-to-be-seen",
    "AWS_SESSION_TOKEN": "nor-is-the-token-of-this-session",
    "AWS_REGION": "eu-central-1",
}
"""What an object store's client finds in the environment; the server takes any."""

PIECE = 1 << 16


class ObjectStore:
    """A server of S3 in a process of its own; a folder below `root` is a bucket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def environment(self, port: int | None = None) -> dict[str, str]:
        """The variables by which clients find it, through another port where one is given."""
        return KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}"}

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass
class Network:
    """A TCP proxy to a port of this machine."""

    to: int
    rate: float = float("inf")
    """Bytes a second, of each connection and direction."""
    sent: int = 0
    """Bytes that came from clients."""
    port: int = 0
    _is_cut: bool = False
    _open: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Break every connection and make no new ones, for so long."""
        self._is_cut = True
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self._is_cut = False

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.to))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        self._open.add(source)
        with suppress(OSError):
            while came := source.recv(PIECE):
                sink.sendall(came)
                if source.getsockname()[1] == self.port:
                    self.sent += len(came)
                time.sleep(len(came) / self.rate)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()
