"""Check how the files of the console are served, and its build, without a browser."""

import asyncio
import gzip
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from app.routes.console import routes
from devserver import console_build

PAGE = '<script src="./assets/index-1.js"></script>'
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    assets = tmp_path / "assets"
    assets.mkdir()
    (tmp_path / "index.html").write_text(PAGE)
    (assets / "index-1.js").write_text("let a = 1;")
    (assets / "index-1.js.gz").write_bytes(gzip.compress(b"let a = 1;"))
    (tmp_path / "secret").write_text("not an asset")
    return tmp_path


def ask(files: Path, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=routes(files)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(call())


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/console", "console/assets/"),
        ("/console/", "assets/"),
        ("/console/runs", "assets/"),
        ("/console/runs?status=failed", "assets/"),
        ("/console/runs/run_1", "../assets/"),
        ("/console/sessions/a%2Fb", "../assets/"),
    ],
)
def test_each_path_answers_page_with_relative_addresses(files: Path, path: str, address: str) -> None:
    """Resolve them at any path, behind any prefix that a proxy takes away; an encoded slash is part of an id."""
    answer = ask(files, path)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert answer.text == PAGE.replace("./assets/", address)


def test_assets_are_kept_for_ever_and_nothing_else_is_read(files: Path) -> None:
    for encoding in ("gzip, br", "identity"):
        answer = ask(files, "/console/assets/index-1.js", **{"Accept-Encoding": encoding})
        assert answer.text == "let a = 1;"
        assert answer.headers.get("content-encoding") == ("gzip" if encoding != "identity" else None)
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
    for path in ("missing.js", "..%2Fsecret", "%2e%2e%2fsecret", ".hidden", "a/b", "", "%00", "x" * 5000):
        assert ask(files, f"/console/assets/{path}").status_code == 404, path
    assert ask(files, "/console", "POST").status_code == 405


def test_root_leads_browsers_to_console_and_answers_others_as_before(files: Path) -> None:
    led = ask(files, "/", **HTML)
    assert (led.status_code, led.headers["location"]) == (307, "console")
    assert [ask(files, "/").status_code, ask(files, "/", "POST", **HTML).status_code] == [404, 404]


def test_page_says_how_to_build_console_that_is_not_built(tmp_path: Path) -> None:
    answer = ask(tmp_path, "/console/runs/run_1")
    assert answer.status_code == 503
    assert "scripts/console build" in answer.text
    assert '<a href="../../docs">' in answer.text


def test_build_fails_with_the_reason_and_without_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report what to install where there is no Node, and the output of a command that fails."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(console_build, "NODE_LOCK", tmp_path / "none.lock")
    monkeypatch.setattr(console_build, "OWN_NODE", tmp_path / "node")
    with pytest.raises(console_build.CannotBuild, match=r"Node 20\.19 or newer is not on PATH"):
        console_build.find_node()
    with pytest.raises(console_build.CannotBuild, match="of no use"):
        console_build.run(["/bin/sh", "-c", "echo of no use; exit 3"])


def test_package_lock_names_no_host() -> None:
    """Any registry that npm is configured with serves the packages; their hashes decide."""
    lock = (console_build.SOURCE / "package-lock.json").read_text()
    assert "http" not in lock.replace("http-proxy", "").replace("https-proxy", "")
    assert lock.count('"integrity"') >= lock.count('"node_modules/') > 100
