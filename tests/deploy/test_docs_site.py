"""Check that scripts/docs builds the site of docs/ strictly, with every page in the navigation and nothing loaded from
elsewhere.
"""

import fcntl
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scripts.docs_hooks import PAGES, place_of
from tests.unit.test_lock import ROOT

DOCS = ROOT / "docs"
# Attributes that a browser loads by itself; links (`a`) are left out.
FOLLOWED = {"a"}

Build = Callable[..., "subprocess.CompletedProcess[str]"]


class References(HTMLParser):
    """Collect the addresses of a page: `links` to follow, `loads` of the browser itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {value for name, value in attrs if name in {"href", "src", "srcset", "data"} and value}
        (self.links if tag in FOLLOWED else self.loads).update(found)


@pytest.fixture
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Run `scripts/docs build` with arguments, one at a time, since the first call installs its environment."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "scripts" / "docs"), "build", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    with (tmp_path_factory.getbasetemp().parent / "docs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield run


def test_site_holds_every_page_and_its_build_names_each_fault(build: Build, tmp_path: Path) -> None:
    """Build a copy with one fault of each kind: the output names each of them and nothing else, and the pages are
    written all the same.

    Each page of docs/ and of the project is in the navigation; scripts, styles, fonts and images are the site's own.
    """
    for path in ROOT.iterdir():
        if path.name not in {"docs", "scripts", "SECURITY.md"} and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "docs_hooks.py", tmp_path / "scripts")
    (tmp_path / "docs" / "unlisted.md").write_text(
        "# Unlisted\n\n[a](nothing.md) [b](../nothing.py) [c](limits.md#nothing)\n"
    )
    (tmp_path / "SECURITY.md").write_text("# Security\n\n[d](docs/nowhere.md)\n")
    site = tmp_path / "out"

    done = build("--config-file", str(tmp_path / "mkdocs.yml"), "--site-dir", str(site))

    assert done.returncode != 0
    for fault in ("unlisted.md", "'nothing.md'", "'../nothing.py'", "'#nothing'", "'nowhere.md'"):
        assert fault in done.stderr, fault
    assert done.stderr.count("WARNING") == 5, done.stderr
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | set(PAGES.values())
    navigation = References(site / "index.html").links
    assert {page.replace(".md", ".html") for page in pages} - navigation == set()
    for page in site.rglob("*.html"):
        assert page.read_text().count("<h1") == 1, page
        assert {load for load in References(page).loads if re.match(r"(https?:)?//", load)} == set(), page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", style.read_text()) == [], style
    assert (site / "search" / "search_index.json").is_file()
    # Generated from the application's OpenAPI document and the client's docstrings.
    assert "/runner/runs/{run_id}/released" in (site / "reference" / "http-api.html").read_text()
    assert (
        'id="coordinator_client.client.CoordinatorClient.submit"'
        in (site / "reference" / "python-client.html").read_text()
    )


@pytest.mark.parametrize(
    ("link", "source", "place"),
    [
        ("docs/limits.md#connections", "README.md", "limits.md#connections"),
        ("docs/decisions/", "README.md", "decisions/index.md"),
        ("LICENSE", "README.md", "source/LICENSE.txt"),
        ("deploy/kubernetes", "README.md", None),
        ("../README.md#settings", "docs/clients.md", "index.md#settings"),
        ("../deploy/caddy/Caddyfile", "docs/deployment.md", "source/deploy/caddy/Caddyfile.txt"),
        ("../limits.md", "docs/decisions/0001-x.md", "limits.md"),
        ("nothing.py", "README.md", "nothing.py"),
        ("https://semver.org", "CHANGELOG.md", "https://semver.org"),
        ("#runs", "docs/protocol.md", "#runs"),
    ],
)
def test_link_of_repository_has_place_in_site(link: str, source: str, place: str | None) -> None:
    """Pages stay pages, source files are copied, directories have no place, and other links are unchanged."""
    assert place_of(link, source) == place
