"""Requests are tried again while there is hope; refusals are one message with the URL and the way out."""

import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from featcache.buckets import client
from featcache.buckets.client import BucketError, NoCredentialsError, without_secrets
from featcache.buckets.path import place
from featcache.errors import CallError
from tests.loopback import KEYS, Network, ObjectStore


class _Answers(BaseHTTPRequestHandler):
    """Refuses with the statuses of `plan`, the last of them for ever; 200 is an object of four bytes."""

    plan: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, body = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Answers]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}).items():
        monkeypatch.setenv(name, value)
    _Answers.asked = []
    yield _Answers
    server.shutdown()
    server.server_close()


def fresh() -> Path:
    """A bucket that no other test has a client of."""
    return place(f"s3://b{uuid.uuid4().hex}/x")


DENIED = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, DENIED, "the server refuses access (403 Forbidden, AccessDenied): the credentials"),
        (404, "<Error><Code>NoSuchBucket</Code></Error>", "there is no such bucket"),
        (
            400,
            "<Error><Code>InvalidRequest</Code></Error>",
            "refuses (400 Bad Request, InvalidRequest)",
        ),
        (501, "<Error><Code>NotImplemented</Code></Error>", "the server does not know such a request (501"),
    ],
)
def test_what_is_refused_is_not_asked_for_again(
    answers: type[_Answers], status: int, body: str, said: str
) -> None:
    answers.plan = [(status, body)]
    there = fresh()
    with pytest.raises(BucketError) as found:
        there.read_bytes()
    assert said in found.value.strerror
    assert found.value.filename == str(there)
    assert len(answers.asked) == 1
    assert found.value.__cause__ is None
    assert not any(secret in str(found.value) for name, secret in KEYS.items() if name != "AWS_REGION")


def test_a_busy_server_is_asked_again(answers: type[_Answers]) -> None:
    answers.plan = [(503, "<Error><Code>SlowDown</Code></Error>")] * 2 + [(429, ""), (200, "four")]
    assert fresh().read_bytes() == b"four"
    assert len(answers.asked) == 4


def test_patience_ends(answers: type[_Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PATIENCE", 0.5)
    answers.plan = [(500, "")]
    with pytest.raises(BucketError, match=r"not answer for [01] s \(500 Internal Server Error\)"):
        fresh().read_bytes()
    assert len(answers.asked) > 2


def test_a_network_that_is_cut_costs_only_the_time(
    object_store: ObjectStore, bucket: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(object_store.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{network.port}")
    monkeypatch.setattr(client, "SECONDS_IN_SILENCE", 0.3)
    there = place(f"s3://{bucket.name}/x")
    there.write_whole(b"before")
    cutting = threading.Thread(target=network.cut, args=(1.0,))
    with caplog.at_level(logging.WARNING):
        cutting.start()
        there.write_whole(b"after")
        assert there.read_bytes() == b"after"
    cutting.join()
    network.close()
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        f"s3://{bucket.name} does not answer", f"s3://{bucket.name} answers again"
    ]  # fmt: skip


def test_without_credentials_the_way_to_give_them_is_said(
    answers: type[_Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    # Where a machine's role is asked for, which there is none here.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1/169.254.169.254")
    monkeypatch.setattr(client, "FIRST_PATIENCE", 0.5)
    answers.plan = [(200, "four")]
    with pytest.raises(BucketError, match=r"no credentials were found .* AWS_SECRET_ACCESS_KEY"):
        fresh().read_bytes()


def test_without_obstore_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["obstore"] = sys.modules["obstore.store"] = None
from featcache.buckets.path import place
try:
    place("s3://bucket/x").exists()
except Exception as problem:
    print(type(problem).__name__, problem)
"""
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.startswith(
        "CallError s3://bucket: object stores need obstore, which is not installed: pip install"
    )


def test_a_url_that_the_provider_cannot_take_is_refused() -> None:
    with pytest.raises(CallError, match=r"az://container cannot be used as a bucket: .*Account"):
        place("az://container/x").exists()


def test_secrets_of_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "0123456789")
    monkeypatch.setenv("SCIVID_CACHE_DIR", "s3://bucket/features")
    assert without_secrets("a 0123456789 b s3://bucket/features") == "a *** b s3://bucket/features"


def test_a_role_that_is_away_for_a_moment_is_waited_for_once_it_was_there(answers: type[_Answers]) -> None:
    answers.plan = [(200, "four")]
    there = fresh()
    assert there.read_bytes() == b"four"
    failures = [RuntimeError("Error performing PUT http://169.254.169.254/latest/api/token: HTTP error")] * 2

    def request() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert there.bucket._ask("x", request) == "answer"
    failures = [RuntimeError("Error performing GET http://host/bucket/credentials.json: HTTP error")]
    assert fresh().bucket._ask("credentials.json", request) == "answer"
    with pytest.raises(NoCredentialsError):
        failures = [RuntimeError("no credentials")]
        fresh().bucket._ask("x", request)
