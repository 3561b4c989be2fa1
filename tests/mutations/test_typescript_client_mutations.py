"""Break how the TypeScript client resumes the feed, in a copy of it: the comparison with the database notices."""

from pathlib import Path

import pytest

from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.typescript_client import built_client, changed_client
from tests.support.typescript_reader import DIFFERS, reader_sees_history

MUTATIONS: dict[str, tuple[str, str]] = {
    "stream that begins anew": ('this.cursor ? { "Last-Event-ID": this.cursor } : {}', "{}"),
    "events that are dropped with others of their packet": ("of items.splice(0)", "of items.splice(0).slice(-1)"),
}


@pytest.mark.parametrize("name", MUTATIONS)
async def test_reader_in_typescript_that_is_not_resumed_exactly_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    old, new = MUTATIONS[name]
    monkeypatch.setattr("app.feed.stream.RETRY_MILLISECONDS", (1, 20))
    copy = changed_client(tmp_path, "feed.js", {old: new})
    with pytest.raises(AssertionError, match=DIFFERS):
        await reader_sees_history(built_client(), copy, settings, db)
