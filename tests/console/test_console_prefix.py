"""Use the console and the API below a path of a proxy, over http and https, in Chromium."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from models.core.callers import Role
from runtime.processes import write_pid_file
from testkit.cluster import Cluster, Process
from testkit.ports import own_port
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.browser import WIDE, faults_of_access
from tests.support.callers import bearer, make_key
from tests.support.db_verbs import DbVerbs

CADDY = Path(sys.executable).with_name("caddy")
LONG = 30_000
# Another application at the root of the host: the console must not need anything of it.
CONFIGURATION = """\
{{
	admin off
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	storage file_system {storage}
}}

{address} {{
	{tls}
	handle_path /coordinator/* {{
		reverse_proxy {replica}
	}}
	handle {{
		respond "another application" 404
	}}
}}
"""


def start_proxy(directory: Path, scheme: str, replica: Process) -> Process:
    """Start Caddy, which takes `/coordinator` from the path of each request and passes it on."""
    address = f"{scheme}://localhost:{own_port()}"
    tls = "tls internal" if scheme == "https" else ""
    (directory / "Caddyfile").write_text(
        CONFIGURATION.format(
            address=address, tls=tls, replica=replica.url.removeprefix("http://"), storage=directory / "storage"
        )
    )
    log_file = directory / "caddy.log"
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            [str(CADDY), "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
            env={"PATH": os.defpath, "HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,
        )
    write_pid_file(directory / "run" / "caddy.pid", popen.pid)
    return Process("caddy", popen, log_file, f"{address}/coordinator")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Accept the certificate of the proxy's own authority; collect faults of scripts and breaches of the policy."""
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}, ignore_https_errors=True)
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    yield context
    context.close()
    assert faults == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_console_works_below_path_of_proxy(cluster: Cluster, db: DbVerbs, context: BrowserContext, scheme: str) -> None:
    """Sign in, open deep links, follow the feed and sign out; ask for nothing outside the path."""
    web = cluster.start_web(auth=True)
    proxy = start_proxy(new_directory(cluster.directory, "proxy"), scheme, web)
    cluster.processes.append(proxy)
    url, key = proxy.url, make_key(db, Role.ADMIN)
    api = httpx.Client(base_url=url, headers=bearer(key), verify=False, timeout=20)  # noqa: S501 - its own authority
    eventually(lambda: answers(api), what="the proxy serves")
    page, outside = context.new_page(), []
    page.on("request", lambda request: None if request.url.startswith(f"{url}/") else outside.append(request.url))
    # No slash at the end: the addresses on this page are relative to another folder.
    page.goto(f"{url}/console")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_have_text("live", timeout=LONG)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Runs", exact=True).click()
    expect(page).to_have_url(f"{url}/console/runs", timeout=LONG)
    run = submit(api)
    row = page.locator(f'[data-run="{run}"]')
    expect(row).to_be_visible(timeout=LONG)
    row.get_by_role("link").first.click()
    expect(page.get_by_role("region", name="Why")).to_contain_text("No runner is registered", timeout=LONG)
    page.goto(f"{url}/console/runs/{run}")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator('main [data-status="stopped"]').first).to_be_visible(timeout=LONG)
    assert faults_of_access(page) == []
    (cookie,) = context.cookies(url)
    assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/", True, "Strict")
    assert (cookie["name"].startswith("__Host-"), cookie["secure"]) == ((scheme == "https"),) * 2
    page.get_by_role("button", name="admin · sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=LONG)
    assert context.cookies(url) == []
    assert outside == []
    api.close()


def answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def submit(api: httpx.Client) -> str:
    body = {"type": "start_session", "parameters": {"prompt": "x"}, "additional_demands": {"tags": ["gpu"]}}
    answer = api.post("/runs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])
