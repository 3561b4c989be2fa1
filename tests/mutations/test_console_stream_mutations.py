"""Break how the console resumes its stream, in a copy of it: pages then differ from the feed, and the tests notice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app.routes import console
from runtime.settings import Settings
from testkit.cluster import Cluster
from tests.console.test_console_stream import SHORT, other_page_takes_the_stream, page_applies_each_event_once
from tests.support.browser import open_browser
from tests.support.changed_console import built, changed_console
from tests.support.db_verbs import DbVerbs
from tests.support.web import served, until_ready

# A page that lacks the last events waits for them in vain.
DIFFERS = "the page differs from the feed|on the page did not come true"
Scenario = Callable[[Browser, str, DbVerbs], None]
MUTATIONS: dict[str, tuple[str, str, str, Scenario]] = {
    "stream that begins anew": (
        "live/stream.ts",
        'headers["Last-Event-ID"] = this.cursor;',
        "",
        lambda browser, url, db: page_applies_each_event_once(browser, url, db, "shared worker"),
    ),
    "events that are dropped with their connection": (
        "live/stream.ts",
        "this.batch.push({ id, type, data: JSON.parse(data) });",
        "this.batch = [{ id, type, data: JSON.parse(data) }];",
        lambda browser, url, db: page_applies_each_event_once(browser, url, db, "elected page"),
    ),
    "owner that begins anew": (
        "live/transport.ts",
        "      position(),\n",
        "      null,\n",
        lambda browser, url, db: other_page_takes_the_stream(browser, url, db, "elected page"),
    ),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("name", MUTATIONS)
def test_stream_of_console_that_is_not_resumed_exactly_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    cluster: Cluster,
    db: DbVerbs,
    browser: Browser,
    name: str,
) -> None:
    file, old, new, scenario = MUTATIONS[name]
    made = built(changed_console(tmp_path, file, {old: new}))
    monkeypatch.setattr(console.routes, "__defaults__", (made,))
    cluster.start_worker()
    with served(settings.model_copy(update=SHORT)) as web:
        until_ready(web)
        with pytest.raises(AssertionError, match=DIFFERS):
            scenario(browser, web.client.url, db)
