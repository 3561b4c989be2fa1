"""Messages to webhooks in large numbers: behind one that fails, and more than a statement makes in its time."""

import pytest
from sqlalchemy import Connection, text

from models.webhooks.deliveries import Outcome
from models.webhooks.match import match_webhooks
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import finished
from tests.support.webhooks import ALL, matched, messages, put, recorded, taken
from workers import webhooks
from workers.context import worker_context

URL = "https://example.com/hook"


def test_messages_behind_one_that_fails_are_not_looked_at(db: DbVerbs) -> None:
    """Their number would make each look longer while a receiver is away; the next one is due with the end of the first."""
    put(db, "hook", URL, *ALL)
    finished(db)
    matched(db)
    (head,) = taken(db)
    assert recorded(db, head, 503) is Outcome.RETRIED
    assert db.count("webhook_deliveries", "state = 'pending' AND next_at <= now()") == 0
    db.rows("UPDATE webhook_deliveries SET next_at = now() WHERE delivery_id = :id", id=head.delivery_id)
    (again,) = taken(db)
    assert again.delivery_id == head.delivery_id
    assert recorded(db, again, 204) is Outcome.DELIVERED
    (follower,) = taken(db)
    assert follower.delivery_id > head.delivery_id


def test_ends_whose_messages_take_too_long_are_told_in_smaller_parts(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(db, "hook", URL, *ALL)
    session_id = finished(db)
    number_all(db)

    def slow(connection: Connection, most: int) -> int:
        if most > 10:
            connection.execute(text("SET LOCAL statement_timeout = '10ms'"))
            connection.execute(text("SELECT pg_sleep(60)"))
        return match_webhooks(connection, most=most)

    monkeypatch.setattr(webhooks, "match_webhooks", slow)
    with worker_context(settings, threads=1) as context:
        assert webhooks.match_due(context, 0)
    assert [session for _, _, session in messages(db, "hook")] == [session_id] * 2
