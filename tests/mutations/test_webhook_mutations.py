"""Break a mechanism of webhooks on purpose: the scenario that guards it must notice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models.webhooks import deliveries, match
from models.webhooks.hooks import mint_secret
from runtime.webhooks import addresses
from runtime.webhooks.sending import Answer, Sender
from tests.integration import test_webhook_messages as cases
from tests.races.test_webhook_races import (
    late_worker_changes_nothing,
    session_is_told_in_order,
    workers_make_one_message_of_each_end,
    workers_together_keep_to_the_bound,
)
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import Scenario, break_statement, notices
from tests.support.reports import finished
from tests.support.webhooks import matched, put, receiving, taken

DIFFER = "the messages differ from the ends"
Broken = dict[str, str]


@pytest.mark.parametrize(
    ("module", "statement", "parts", "scenario", "noticed_by"),
    [
        (match, "_LOCK", {" FOR UPDATE SKIP LOCKED": ""}, workers_make_one_message_of_each_end, DIFFER),
        (
            deliveries,
            "_LOCK_WEBHOOKS",
            {"FOR NO KEY UPDATE OF w SKIP LOCKED": ""},
            workers_together_keep_to_the_bound,
            "more are being sent than allowed",
        ),
        (
            deliveries,
            "_RECORD",
            {"AND d.lease = a.lease ": ""},
            late_worker_changes_nothing,
            "a late record counts",
        ),
        (
            deliveries,
            "_TAKE",
            {"AND e.delivery_id < d.delivery_id": "AND false"},
            session_is_told_in_order,
            "a later message was taken",
        ),
    ],
    ids=["lock of the position", "lock of webhooks", "fence", "order"],
)
def test_broken_statement_is_noticed(
    db: DbVerbs,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    statement: str,
    parts: Broken,
    scenario: Scenario,
    noticed_by: str,
) -> None:
    break_statement(monkeypatch, module, statement, parts)
    notices(scenario, db, by=noticed_by)


def reader_that_dies_leaves_its_ends_to_the_next(db: DbVerbs) -> None:
    """Roll a pass back after all its statements."""
    put(db, "hook", "https://example.com/hook")
    finished(db)
    matched(db)
    finished(db)
    with db.engine.connect() as connection, connection.begin() as transaction:
        match.match_webhooks(connection)
        transaction.rollback()
    matched(db)
    assert db.count("webhook_deliveries") == 2, "an end was lost"


def test_position_that_commits_before_its_messages_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that dies in between would lose what it had read."""
    reader_that_dies_leaves_its_ends_to_the_next(db)
    read = match.match_webhooks

    def read_early(conn: Connection, **values: int) -> int:
        # In another transaction: the position is moved without the messages.
        with db.engine.begin() as other:
            other.execute(text("UPDATE webhook_head SET position = (SELECT last_pos FROM feed_head)"))
        return read(conn, **values)

    def scenario(db: DbVerbs) -> None:
        db.rows("DELETE FROM webhook_deliveries")
        db.rows("DELETE FROM webhooks")
        reader_that_dies_leaves_its_ends_to_the_next(db)

    monkeypatch.setattr(match, "match_webhooks", read_early)
    monkeypatch.setattr("tests.support.webhooks.match_webhooks", read_early)
    notices(scenario, db, by="an end was lost")


def lease_that_ended_is_taken_again(db: DbVerbs) -> None:
    """Forget a message that was taken, as a process does that is killed."""
    put(db, "hook", "https://example.com/hook")
    finished(db)
    matched(db)
    assert len(taken(db)) == 1
    db.rows("UPDATE webhook_deliveries SET next_at = now()")
    assert len(taken(db)) == 1, "the message is lost"


def test_lease_without_end_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between sending and recording would keep the message for ever."""
    part = {"d.next_at <= now()\n": "d.next_at <= now() AND d.lease IS NULL\n"}
    break_statement(monkeypatch, deliveries, "_TAKE", part)
    notices(lease_that_ended_is_taken_again, db, by="the message is lost")


def _refuses_what_is_inside() -> None:
    """Send to this machine, which is not allowed; and to a name of it."""
    with receiving() as receiver:
        port = receiver.address.rpartition(":")[2]

        async def send(url: str) -> Answer:
            sender = Sender(addresses.Targets())
            try:
                return await sender.send(url, "evt_1", "{}", [mint_secret()])
            finally:
                await sender.close()

        answers = [asyncio.run(send(f"https://{host}:{port}/")) for host in ("127.0.0.1", "localhost")]
    refused = "Should lead to public addresses only (COORDINATOR_WEBHOOK_ALLOW names others)"
    assert answers == [Answer(error=refused)] * 2, "a message left for this machine"


def test_addresses_that_are_not_checked_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuses_what_is_inside()
    everything: Callable[[object], bool] = lambda _: True  # noqa: E731 -- a stand-in
    monkeypatch.setattr(addresses, "is_public", everything)
    with pytest.raises(AssertionError, match="left for this machine"):
        _refuses_what_is_inside()


def test_change_of_metadata_that_counts_as_an_end_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    part = "AND (before.status IS NOT NULL OR e.event_uid IS NULL)"
    break_statement(monkeypatch, match, "_TELL", {part: ""})
    notices(cases.test_change_of_a_session_without_kept_events_is_no_end, db)
