"""Messages that webhooks are to be sent: made of the ends on the feed, once, for those that ask; leased, recorded."""

import json
from typing import Any

import pytest

from models.auth.audit import newest_acts
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import NotFound, TooManySecrets, TooManyWebhooks, WebhookDisabled, WebhookExists
from models.runs.delete import DeleteSession, delete_sessions
from models.sessions.bind import Patch, ReportSessionStatus, patch_sessions, report_session_statuses
from models.webhooks import hooks
from models.webhooks.deliveries import (
    MOST_ATTEMPTS,
    MOST_OF_WEBHOOK,
    PAUSES,
    Attempt,
    Outcome,
    pause_after,
    retire_deliveries,
)
from models.webhooks.history import NewTest, ReplayDelivery, list_deliveries, replay_deliveries, send_tests
from models.webhooks.hooks import DeleteWebhook, PutWebhook, RotateSecret, delete_webhooks, put_webhooks, rotate_secrets
from models.webhooks.match import match_webhooks
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, finished, idle, running, stop
from tests.support.retention import grow_old, retire
from tests.support.webhooks import (
    ALL,
    SESSION_ENDS,
    good,
    make_due,
    matched,
    messages,
    put,
    recorded,
    runs_of,
    states,
    taken,
    types,
)

ann, bob = Caller(Role.USER, "ann", by="subject:ann"), Caller(Role.USER, "bob")
URL = "https://example.com/hook"


def test_each_webhook_gets_the_ends_it_asks_for(db: DbVerbs) -> None:
    """Tell owners, agents, labels and kinds of ends apart; nothing that ended before, or while it was disabled."""
    finished(db, caller=ann)
    number_all(db)
    put(db, "all", URL, *ALL)
    put(db, "anns", URL, caller=ann)
    put(db, "writers", URL, agent_name="writer")
    put(db, "sky", URL, *ALL, labels={"team": "sky", "env": "test"})
    put(db, "failures", URL, "run.failed")
    put(db, "off", URL, *ALL, disabled=True)
    matched(db)
    assert db.count("webhook_deliveries") == 0
    finished(db, caller=ann, agent_name="writer")
    finished(db, caller=bob, labels={"team": "sky", "env": "test", "x": "y"})
    accepted(db, running(db, caller=bob, labels={"team": "sky"}), "failed", error="boom")
    stop(db, db.start(caller=ann).session_id)
    matched(db, most=3)
    assert types(db, "all") == [
        "run.completed",
        "session.finished",
        "run.completed",
        "session.finished",
        "run.failed",
        "session.failed",
        "run.stopped",
        "session.stopped",
    ]
    assert types(db, "anns") == ["run.completed", "run.stopped"]
    assert types(db, "writers") == ["run.completed"]
    assert types(db, "sky") == ["run.completed", "session.finished"]
    assert types(db, "failures") == ["run.failed"]
    assert types(db, "off") == []
    put(db, "off", URL, *ALL)
    matched(db)
    assert types(db, "off") == []
    finished(db, caller=bob)
    matched(db)
    assert types(db, "off") == ["run.completed", "session.finished"]
    assert db.do(match_webhooks) == 0


def test_message_says_what_ended(db: DbVerbs) -> None:
    """Hold what a receiver needs, cut a long error, and share one id among all webhooks."""
    put(db, "one", URL, *ALL)
    put(db, "two", URL, "run.failed")
    run = running(db, caller=ann, agent_name="writer", labels={"k": 'v"\u2028'})
    accepted(db, run, "failed", error="x" * 5_000)
    matched(db)
    first, second = (
        json.loads(row.payload)
        for row in db.rows(
            "SELECT payload FROM webhook_deliveries JOIN webhooks USING (webhook_no) WHERE webhook_id = 'one'"
            " ORDER BY delivery_id"
        )
    )
    assert first["type"] == "run.failed"
    assert first["data"] | {"created_at": "", "started_at": "", "completed_at": ""} == {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "status": "failed",
        "owner": "ann",
        "agent_name": "writer",
        "labels": {"k": 'v"\u2028'},
        "attempt": 1,
        "runner_id": run.runner_id,
        "error": "x" * 2_000,
        "created_at": "",
        "started_at": "",
        "completed_at": "",
    }
    assert first["timestamp"].endswith("+00:00")
    assert (second["type"], second["data"]["session_id"]) == ("session.failed", run.session_id)
    ids = [row.event_id for row in db.rows("SELECT event_id FROM webhook_deliveries WHERE event_type = 'run.failed'")]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_session_is_told_once_for_each_end(db: DbVerbs) -> None:
    """Tell nothing of a change of its metadata; tell of the next end after it was resumed."""
    put(db, "hook", URL, *SESSION_ENDS)
    session = finished(db)
    db.do(patch_sessions, [Patch(ADMIN, session, {"project_dir": "/other"})])
    idle(db)
    matched(db)
    assert messages(db, "hook") == [("session.finished", None, session)]
    db.resume(session)
    runner = db.runner()
    (run,) = db.claim(runner)
    accepted(db, run, "started")
    accepted(db, run, "failed", error="x")
    matched(db)
    assert types(db, "hook") == ["session.finished", "session.failed"]


def test_change_of_a_session_without_kept_events_is_no_end(db: DbVerbs) -> None:
    """Neither a change of metadata nor the deletion of its parent; an end that comes then is one."""
    put(db, "hook", URL, *SESSION_ENDS)
    parent = finished(db)
    child = db.start(parent_session_id=parent)
    stop(db, child.session_id)
    alive = idle(db)
    assert alive.runner_id
    matched(db)
    before = messages(db, "hook")
    assert len(before) == 2
    grow_old(db)
    retire(db)
    assert db.count("events") == 0
    db.do(patch_sessions, [Patch(ADMIN, child.session_id, {"project_dir": "/other"})])
    db.do(delete_sessions, [DeleteSession(ADMIN, parent)])
    matched(db)
    assert messages(db, "hook") == before
    db.do(report_session_statuses, [ReportSessionStatus(alive.runner_id, alive.session_id, "finished")])
    matched(db)
    assert messages(db, "hook")[2:] == [("session.finished", None, alive.session_id)]


def test_messages_of_a_deleted_session_are_sent(db: DbVerbs) -> None:
    """Tell of an end that was there; retention drops them as others."""
    put(db, "hook", URL)
    session = finished(db)
    matched(db)
    db.do(delete_sessions, [DeleteSession(ADMIN, session)])
    (delivery,) = taken(db)
    assert recorded(db, delivery) is Outcome.DELIVERED


def test_run_deleted_at_once_is_told_without_filter_only(db: DbVerbs) -> None:
    put(db, "all", URL)
    put(db, "writers", URL, agent_name="writer")
    session = finished(db, agent_name="writer")
    db.do(delete_sessions, [DeleteSession(ADMIN, session)])
    matched(db)
    assert (types(db, "all"), types(db, "writers")) == (["run.completed"], [])


def test_messages_of_a_session_keep_their_order(db: DbVerbs) -> None:
    """Hold back later ones while one is sent, waits for its next attempt, or has to be sent again; others go on."""
    put(db, "hook", URL)
    session = finished(db)
    runner = db.runner()
    for _ in range(2):
        db.resume(session)
        (run,) = db.claim(runner)
        accepted(db, run, "started")
        accepted(db, run, "completed")
    finished(db)
    matched(db)
    first, other = taken(db)
    assert taken(db) == []
    assert recorded(db, other) is Outcome.DELIVERED
    assert recorded(db, first, 500) is Outcome.RETRIED
    assert taken(db) == []
    make_due(db)
    (again,) = taken(db)
    assert (again.event_id, again.attempts) == (first.event_id, 1)
    assert recorded(db, again) is Outcome.DELIVERED
    (second,) = taken(db)
    recorded(db, second, None, error="cut")
    assert taken(db) == []
    outcomes = []
    for _ in range(MOST_ATTEMPTS - 1):
        make_due(db)
        (second,) = taken(db)
        outcomes.append(recorded(db, second, 503))
    assert outcomes == [Outcome.RETRIED] * 7 + [Outcome.FAILED]
    (third,) = taken(db)
    assert recorded(db, third) is Outcome.DELIVERED
    assert states(db) == ["delivered", "failed", "delivered", "delivered"]


def test_late_record_changes_nothing(db: DbVerbs) -> None:
    """Give the message to another once the lease is over; the first one's record is fenced off."""
    put(db, "hook", URL)
    finished(db)
    matched(db)
    (first,) = taken(db)
    make_due(db)
    (second,) = taken(db)
    assert first.event_id == second.event_id
    assert recorded(db, first, 410) is Outcome.SUPERSEDED
    assert not db.one("SELECT disabled FROM webhooks")
    assert recorded(db, second) is Outcome.DELIVERED
    assert recorded(db, second) is Outcome.SUPERSEDED
    assert db.one("SELECT attempts FROM webhook_deliveries") == 1


def test_messages_of_one_webhook_at_once_are_bounded(db: DbVerbs) -> None:
    put(db, "busy", URL)
    put(db, "quiet", URL, agent_name="writer")
    for _ in range(MOST_OF_WEBHOOK + 2):
        finished(db)
    finished(db, agent_name="writer")
    matched(db)
    batch = taken(db)
    assert sum(delivery.webhook_id == "busy" for delivery in batch) == MOST_OF_WEBHOOK
    assert sum(delivery.webhook_id == "quiet" for delivery in batch) == 1
    assert taken(db) == []
    recorded(db, batch[0])
    assert len(taken(db)) == 1
    assert taken(db, most=0) == []


def test_pauses_grow_to_a_day() -> None:
    """Vary them, keep to what the receiver asks for, and end after nine attempts."""

    def pause(attempts: int, retry_after: float = 0.0) -> float:
        delivery: Any = type("Tried", (), {"attempts": attempts})()
        return pause_after(Attempt(delivery, 503, retry_after=retry_after))

    assert len(PAUSES) == MOST_ATTEMPTS - 1 == 8
    assert (PAUSES[0], PAUSES[-1]) == (5.0, 86_400.0)
    for place, base in enumerate(PAUSES):
        assert all(0.8 * base <= pause(place) <= 1.2 * base for _ in range(20))
    assert len({pause(3) for _ in range(20)}) > 1
    assert pause(0, 300.0) == 300.0


def test_gone_receiver_disables_its_webhook(db: DbVerbs) -> None:
    """Fail the message, audit it, and keep the others until it is enabled; not if it has a new address meanwhile."""
    put(db, "hook", URL)
    for _ in range(3):
        finished(db)
    matched(db)
    first, second, _ = taken(db)
    put(db, "hook", URL + "/new")
    assert recorded(db, first, 410) is Outcome.FAILED
    assert not db.one("SELECT disabled FROM webhooks")
    put(db, "hook", URL)
    assert recorded(db, second, 410) is Outcome.FAILED
    row = db.rows("SELECT disabled, disabled_reason FROM webhooks")[0]
    assert tuple(row) == (True, "It answered 410 Gone")
    (act,) = db.do(newest_acts, 1)
    assert (act.act, act.by, act.target) == ("webhook_disabled", "coordinator", "hook")
    make_due(db)
    assert taken(db) == []
    (refused,) = db.do(send_tests, [NewTest(ADMIN, "hook", "evt_1")])
    assert isinstance(refused, WebhookDisabled)
    put(db, "hook", URL)
    assert db.one("SELECT disabled_reason FROM webhooks") is None
    assert len(taken(db)) == 1


def test_replay_sends_the_same_message_with_new_attempts(db: DbVerbs) -> None:
    """Send an ended one again, one that waits now; leave one that is being sent to its process."""
    put(db, "hook", URL, caller=ann)
    finished(db, caller=ann)
    matched(db)
    (sent,) = taken(db)
    item = ReplayDelivery(ann, "hook", sent.event_id)
    db.do(replay_deliveries, [item])
    assert taken(db) == []
    recorded(db, sent, 500)
    assert taken(db) == []
    db.do(replay_deliveries, [item])
    (now,) = taken(db)
    recorded(db, now)
    shown = good(db.do(replay_deliveries, [item])[0])
    assert (shown.state, shown.attempts, shown.ended_at) == ("pending", 0, None)
    (again,) = taken(db)
    assert (again.event_id, again.payload) == (sent.event_id, sent.payload)
    for other in (ReplayDelivery(bob, "hook", sent.event_id), ReplayDelivery(ann, "hook", "evt_x")):
        (refused,) = db.do(replay_deliveries, [other])
        assert isinstance(refused, NotFound)


def test_secrets_overlap_for_a_day(db: DbVerbs) -> None:
    """Sign with the former ones too, newest first; a repeat rotates nothing; at most five."""
    secret = put(db, "hook", URL)
    finished(db)
    matched(db)

    def signers() -> list[str]:
        make_due(db)
        return list(taken(db)[0].secrets)

    new = hooks.mint_secret()
    for _ in range(2):
        (rotated,) = db.do(rotate_secrets, [RotateSecret(ADMIN, "hook", new)])
        assert good(rotated).secret == new
    assert signers() == [new, secret]
    pass_time(db, "webhook_secrets", "valid_until", 86_401, "valid_until IS NOT NULL")
    assert signers() == [new]
    results = [db.do(rotate_secrets, [RotateSecret(ADMIN, "hook", hooks.mint_secret())])[0] for _ in range(5)]
    assert results[-1] == TooManySecrets(5)
    assert len(signers()) == 5


def test_webhooks_belong_to_owners(db: DbVerbs) -> None:
    """Refuse another's, bound their number, let an admin change one and keep its owner; a repeat shows the secret."""
    item = PutWebhook(ann, "mine", hooks.mint_secret(), URL, ("run.failed",))
    for _ in range(2):
        (made,) = db.do(put_webhooks, [item])
        assert good(made).secret == item.secret
    assert db.do(put_webhooks, [PutWebhook(bob, "mine", "s", URL, ("run.failed",))]) == [WebhookExists("mine")]
    assert db.do(delete_webhooks, [DeleteWebhook(bob, "mine")]) == [NotFound("webhook", "mine")]
    admin = Caller(Role.ADMIN, by="key:crd_x")
    put(db, "mine", URL, caller=admin)
    assert good(db.do(hooks.get_webhook, ann, "mine")).owner == "ann"
    assert db.do(hooks.get_webhook, bob, "mine") == NotFound("webhook", "mine")
    assert [act.act for act in db.do(newest_acts, 9)] == ["webhook_changed"]
    db.rows(
        "INSERT INTO webhooks (webhook_id, owner, url, events, after_position)"
        " SELECT 'w' || g, 'ann', '', '{}', 0 FROM generate_series(1, 99) g"
    )
    new = PutWebhook(ann, "more", hooks.mint_secret(), URL, ("run.failed",))
    assert db.do(put_webhooks, [new]) == [TooManyWebhooks(100)]
    page = db.do(hooks.list_webhooks, ann, limit=60)
    rest = db.do(hooks.list_webhooks, ann, limit=60, after=page.next_cursor)
    assert (len(page.webhooks), len(rest.webhooks), rest.next_cursor) == (60, 40, None)
    assert db.do(hooks.list_webhooks, bob, limit=9).webhooks == []
    assert len(db.do(hooks.list_webhooks, admin, limit=1000).webhooks) == 100


def test_deleted_webhook_leaves_nothing_to_its_successor(db: DbVerbs) -> None:
    """Send none of its messages, and show none under the same id; retention drops them with the old ones."""
    put(db, "hook", URL)
    finished(db)
    matched(db)
    db.do(delete_webhooks, [DeleteWebhook(ADMIN, "hook")])
    assert db.count("webhook_secrets") == 0
    put(db, "hook", URL)
    finished(db)
    matched(db)
    assert len(good(db.do(list_deliveries, ADMIN, "hook", limit=10)).deliveries) == 1
    assert len(taken(db)) == 1
    assert db.do(retire_deliveries, older_than_days=1) == 0
    pass_time(db, "webhook_deliveries", "created_at", 2 * 86_400)
    assert db.do(retire_deliveries, older_than_days=1, most=1) == 1
    assert db.do(retire_deliveries, older_than_days=1) == 1


@pytest.mark.parametrize("state", [None, "pending"])
def test_list_of_messages_has_pages(db: DbVerbs, state: str | None) -> None:
    put(db, "hook", URL)
    for _ in range(5):
        finished(db)
    matched(db)
    ended = [row.run_id for row in db.rows("SELECT run_id FROM webhook_deliveries ORDER BY delivery_id DESC")]
    found, before = [], None
    while True:
        page = good(db.do(list_deliveries, ADMIN, "hook", limit=2, state=state, before=before))
        found += [delivery.run_id for delivery in page.deliveries]
        if page.next_cursor is None:
            break
        before = page.next_cursor
    assert found == ended
    assert good(db.do(list_deliveries, ADMIN, "hook", limit=2, state="failed")).deliveries == []
    assert runs_of(taken(db)) == ended[::-1]
