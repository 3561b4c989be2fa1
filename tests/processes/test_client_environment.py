"""Proxies and certificates that the environment of a client or a runner names."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.command import coordinator
from tests.support.tls import Certificate, self_signed

COMMANDS = [("runs",), ("watch",), ("runner", "--name", "x", "--", sys.executable, "-c", "")]
ODD = [
    ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "ALL_PROXY"),
    ({"NO_PROXY": "[::1]"}, "NO_PROXY"),
    ({"HTTPS_PROXY": "nonsense://127.0.0.1:1"}, "HTTPS_PROXY"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE"),
    ({"COORDINATOR_CA_FILE": "/nowhere/ca.pem"}, "/nowhere/ca.pem (--ca or COORDINATOR_CA_FILE)"),
]


@pytest.mark.parametrize(("environment", "named"), ODD, ids=[named for _, named in ODD])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_unusable_environment_is_named_in_one_sentence(
    command: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    """Exit with 2, without a traceback."""
    url = ("--url", "http://127.0.0.1:1")
    done = coordinator(command[0], *url, *command[1:], **environment)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert named in line


def test_file_without_certificates_is_named(tmp_path: Path) -> None:
    """Try an empty file, a text and a directory."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "text").write_text("no certificate")
    for path in (tmp_path / "empty", tmp_path / "text", tmp_path):
        done = coordinator("runs", "--url", "https://127.0.0.1:1", "--ca", str(path))
        assert done.returncode == 2, (path, done.stderr)
        assert f"certificates cannot be read: {path}" in done.stderr


class _Runs(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"runs": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Coordinator-Instance", "x")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def trusted(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "ours")


@pytest.fixture
def url(trusted: Certificate) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Runs)
    server.socket = trusted.context().wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_coordinator_of_private_authority_is_trusted_by_its_file(
    url: str, trusted: Certificate, tmp_path: Path
) -> None:
    """Name it by option, setting or SSL_CERT_FILE; without it, or with another authority's file, nothing is sent."""
    for arguments, environment in (
        (["--ca", str(trusted.certificate)], {}),
        ([], {"COORDINATOR_CA_FILE": str(trusted.certificate)}),
        ([], {"SSL_CERT_FILE": str(trusted.certificate)}),
    ):
        done = coordinator("runs", "--url", url, *arguments, **environment)
        assert done.returncode == 0, done.stderr
    foreign = self_signed(tmp_path, "foreign")
    for arguments in ([], ["--ca", str(foreign.certificate)]):
        done = coordinator("runs", "--url", url, *arguments)
        assert done.returncode == 3
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
