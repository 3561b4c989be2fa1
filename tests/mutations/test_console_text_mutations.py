"""Let the console take texts of jobs and users for HTML, in a copy of it: a look at its pages must notice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.routes import console
from runtime.settings import Settings
from testkit.cluster import Cluster
from tests.console.test_console_browser import hostile_text_stays_text
from tests.support.browser import open_browser, watched_context
from tests.support.changed_console import built, changed_console
from tests.support.web import served, until_ready

INNER = "dangerouslySetInnerHTML={{ __html: %s }} />"
MUTATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "prompt of a row": (
        "pages/runs/run-row.tsx",
        {
            " title={about}>\n        {about}\n      </span>": f" title={{about}} {INNER % 'about'}",
        },
    ),
    "line of a log": (
        "pages/run/log-lines.tsx",
        {
            "<span className={styles.text}>\n        <Coloured text={line.text} />\n      </span>": (
                f"<span className={{styles.text}} {INNER % 'line.text'}"
            ),
        },
    ),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("name", MUTATIONS)
def test_text_that_console_shows_as_html_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    cluster: Cluster,
    browser: Browser,
    name: str,
) -> None:
    """Trusted Types refuse it as well, so that the text is missing from the page, or the page is."""
    file, parts = MUTATIONS[name]
    monkeypatch.setattr(console.routes, "__defaults__", (built(changed_console(tmp_path, file, parts)),))
    cluster.start_worker()
    with served(settings) as web:
        until_ready(web)
        with pytest.raises(AssertionError, match="onerror="), watched_context(browser) as context:
            hostile_text_stays_text(context.new_page(), web.client.url, within=5_000)
