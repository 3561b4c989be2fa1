"""Schedules by their verbs: decisions and their runs, overlap, buffers, pauses, triggers, backfills, quotas, faults."""

from datetime import timedelta
from typing import Any, TypeVar

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import (
    CoordinatorError,
    NotFound,
    PromptRequired,
    ScheduleExists,
    TooManySchedules,
    VersionConflict,
)
from models.core.retries import Backoff, RetryPolicy, read_policy
from models.core.statuses import RunType
from models.schedules import put as put_module
from models.schedules.cleanup import retire_fires
from models.schedules.control import (
    Backfill,
    Backfilled,
    DeleteSchedule,
    backfill_schedules,
    delete_schedules,
)
from models.schedules.decide import Rules
from models.schedules.faults import decide_one, due_numbers, recompute_times, set_aside
from models.schedules.listing import FirePage, SchedulePage, get_schedule, list_fires, list_schedules, preview_backfill
from models.schedules.put import Changed
from models.schedules.rows import Fire
from models.schedules.spec import Spec
from tests.support.db_verbs import DbVerbs
from tests.support.schedules import (
    RULES,
    ago,
    decide,
    end,
    fires,
    ledger,
    made,
    new_run,
    now_of,
    outcomes,
    pause,
    put,
    respec,
    rewind,
    run_ids,
    state,
    trigger,
)

ann, bob = (Caller(Role.USER, name, f"key:crd_{name}") for name in ("ann", "bob"))
root = Caller(Role.ADMIN, None, "key:crd_root")
HOURLY = Spec(every=3600)
Page = TypeVar("Page", SchedulePage, FirePage)


def test_due_time_is_decided_with_its_run(db: DbVerbs) -> None:
    """The run belongs to the owner and has the labels of its time; the schedule goes on to the next one."""
    policy = RetryPolicy(3, Backoff(5.0), on=(1, "ValueError"))
    run = new_run(labels={"team": "sky"}, session_id="r-{fire_at}", priority=3, retry=policy)
    now = now_of(db)
    spec = Spec(at=(now - timedelta(seconds=5), now + timedelta(days=1)), timezone="Europe/Berlin")
    made(db, "a", spec, back=60, caller=ann, run=run)
    made(db, "later", Spec(at=(now + timedelta(days=1),)))
    decided = decide(db)
    assert (dict(decided.outcomes), decided.submitted, decided.full) == ({"submitted": 1}, 1, False)
    (fire,) = fires(db)
    assert (fire.fire_at, fire.kind, fire.outcome, fire.run_status) == (spec.at[0], "due", "submitted", "pending")
    text = f"{spec.at[0]:%Y-%m-%dT%H:%M:%SZ}"
    found = db.run(str(fire.run_id))
    labels = {"team": "sky", "schedule": "a", "fire_at": text}
    assert (found.owner, found.labels, found.session_id, found.priority) == ("ann", labels, f"r-{text}", 3)
    assert read_policy(db.one("SELECT CAST(retry AS text) FROM runs")) == policy
    assert (
        db.one("SELECT key FROM idempotency_keys WHERE key LIKE 'schedule:%'")
        == f"schedule:a:{state(db, 'a').schedule_no}:{text}"
    )
    after = state(db, "a")
    assert (after.next_fire_at, after.decided_until, after.fired) == (spec.at[1], spec.at[0], 1)
    assert decide(db).outcomes == {}


def test_what_an_outage_left_is_caught_up_or_counted_as_missed(db: DbVerbs) -> None:
    made(db, "a", ago(db, 7200, 5000, 3000, 2000, 5), back=8000, overlap="allow", catch_up_most=2)
    made(db, "b", ago(db, 5000, 4000), back=8000)
    decide(db)
    shown = [(fire.outcome, fire.times, fire.reason) for fire in fires(db)]
    assert shown == [
        ("missed", 3, "Not decided in time: 3 times"),
        ("submitted", 1, None),
        ("submitted", 1, None),
        ("missed", 2, "Not decided in time: 2 times"),
    ]
    assert sum(ledger(db).values()) == 2


def test_buffered_fires_start_one_after_the_other(db: DbVerbs) -> None:
    made(db, "a", ago(db, 9, 6, 3), back=60, overlap="buffer_all")
    decide(db)
    assert outcomes(db) == ["submitted", "buffered", "buffered"]
    for number in (2, 3):
        assert decide(db).outcomes == {}
        end(db, run_ids(fires(db))[-1])
        decide(db)
        assert len(run_ids(fires(db))) == number
    assert [fire.run_status for fire in fires(db)] == ["completed", "completed", "pending"]
    assert not state(db, "a").has_buffered
    assert set(ledger(db).values()) == {1}


def test_cancelled_run_gives_way_once_it_has_ended(db: DbVerbs) -> None:
    made(db, "a", ago(db, 9), back=60, overlap="cancel_running")
    decide(db)
    (first,) = run_ids(fires(db))
    runner = db.runner()
    db.claim(runner)
    respec(db, "a", ago(db, 3), back=5)
    decided = decide(db)
    assert [stop.runner_to_notify for stop in decided.stopped] == [runner.runner_id]
    assert (outcomes(db), db.run(first).status) == (["submitted", "buffered"], "stopping")
    end(db, first, "stopped")
    decide(db)
    assert outcomes(db) == ["submitted", "submitted"]


def test_pause_after_failures_and_resume(db: DbVerbs) -> None:
    """Times of the pause have no decision; the failures count anew."""
    made(db, "a", ago(db, 9), back=60, pause_after_failures=1)
    decide(db)
    end(db, run_ids(fires(db))[0], "failed")
    respec(db, "a", ago(db, 6, 1), back=8)
    decide(db)
    assert (state(db, "a").paused, state(db, "a").pause_reason) == (True, "1 runs failed in a row")
    assert outcomes(db) == ["submitted", "skipped", "skipped"]
    rewind(db, "a", 8)
    assert decide(db).outcomes == {}
    version = state(db, "a").version
    assert isinstance(pause(db, "a", paused=False, expect_version=version - 1), VersionConflict)
    resumed = pause(db, "a", paused=False, expect_version=version)
    assert isinstance(resumed, Changed)
    assert (resumed.schedule.paused, resumed.schedule.failures, resumed.schedule.version) == (False, 0, version + 1)
    assert pause(db, "a", paused=False).schedule == resumed.schedule
    assert decide(db).outcomes == {}


def test_what_was_due_before_a_change_is_decided_by_what_was(db: DbVerbs) -> None:
    made(db, "a", ago(db, 5), back=60)
    changed = put(db, "a", HOURLY)
    assert isinstance(changed, Changed)
    assert changed.decided.outcomes == {"submitted": 1}
    put(db, "b", ago(db, 5))
    rewind(db, "b", 60)
    assert pause(db, "b", note="why").decided.outcomes == {"submitted": 1}
    assert (state(db, "b").pause_reason, outcomes(db)) == ("why", ["submitted", "submitted"])


def test_put_is_repeated_and_versions_conflict(db: DbVerbs) -> None:
    first = put(db, "a", HOURLY, caller=ann, key="k", expect_version=0)
    assert isinstance(first, Changed)
    assert first.created
    assert put(db, "a", HOURLY, caller=ann, key="k", expect_version=0) == first
    assert put(db, "a", HOURLY, caller=ann, expect_version=0) == VersionConflict("a", 1)
    assert put(db, "a", HOURLY, caller=bob) == ScheduleExists("a")
    assert put(db, "b", HOURLY, caller=bob, expect_version=3) == NotFound("schedule", "b")
    by_admin = put(db, "a", HOURLY, caller=root, expect_version=1)
    assert isinstance(by_admin, Changed)
    assert (by_admin.schedule.version, by_admin.schedule.owner) == (2, "ann")
    (act,) = db.rows("SELECT act, actor, target, owner FROM audit_log")
    assert tuple(act) == ("schedule_put", root.by, "a", "ann")


def test_schedules_of_an_owner_are_bounded(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(put_module, "MOST_PER_OWNER", 2)
    for name in ("a", "b"):
        made(db, name, HOURLY, caller=ann)
    assert put(db, "c", HOURLY, caller=ann) == TooManySchedules(2)
    assert isinstance(put(db, "c", HOURLY, caller=bob), Changed)


def test_parameters_are_checked_by_the_agent(db: DbVerbs) -> None:
    run = new_run(parameters='{"n":1}', agent_name="nobody-provides-it", prompt_only=False)
    assert put(db, "a", HOURLY, run=run) == PromptRequired('{"n":1}')


def page_of(found: Page | CoordinatorError) -> Page:
    assert not isinstance(found, CoordinatorError), found
    return found


def test_lists_show_own_schedules_page_by_page(db: DbVerbs) -> None:
    for name in ("a", "b", "c"):
        made(db, name, ago(db, 5), back=60, caller=ann)
    made(db, "d", HOURLY, caller=bob)
    decide(db)
    first = page_of(db.do(list_schedules, ann, limit=2))
    second = page_of(db.do(list_schedules, ann, limit=2, after=first.next_cursor))
    shown = [*first.schedules, *second.schedules]
    assert ([each.schedule.schedule_id for each in shown], second.next_cursor) == (["c", "b", "a"], None)
    assert all(each.newest is not None and each.newest.outcome == "submitted" for each in shown)
    assert len(page_of(db.do(list_schedules, root, limit=9)).schedules) == 4
    assert db.do(get_schedule, bob, "a") == NotFound("schedule", "a")
    assert db.do(list_fires, bob, "a", limit=1) == NotFound("schedule", "a")
    trigger(db, "a")
    page = page_of(db.do(list_fires, ann, "a", limit=1))
    rest = page_of(db.do(list_fires, ann, "a", limit=1, after=page.next_cursor))
    assert ([fire.kind for fire in [*page.fires, *rest.fires]], rest.next_cursor) == (["manual", "due"], None)


def test_trigger_obeys_the_policy_unless_told_otherwise(db: DbVerbs) -> None:
    """Also of a paused schedule; a repeat of the request makes no other fire."""
    made(db, "a", HOURLY, paused=True)
    first = trigger(db, "a", "one")
    assert isinstance(first, Fire)
    assert (first.outcome, first.kind, trigger(db, "a", "one")) == ("submitted", "manual", first)
    assert trigger(db, "a").outcome == "skipped"
    assert trigger(db, "a", overlap="allow").outcome == "submitted"
    assert trigger(db, "a", overlap="buffer_one").outcome == "buffered"
    assert state(db, "a").fired == 0
    assert set(ledger(db).values()) == {1}
    assert trigger(db, "unknown") == NotFound("schedule", "unknown")


def backfill(db: DbVerbs, schedule_id: str, seconds: float, **values: Any) -> Backfilled:
    now = now_of(db) + timedelta(seconds=1)
    item = Backfill(ADMIN, schedule_id, now - timedelta(seconds=seconds), now + timedelta(days=1), **values)
    planned = db.do(preview_backfill, item)
    (result,) = db.do(backfill_schedules, [item], rules=RULES)
    assert isinstance(result, Backfilled)
    assert isinstance(planned, Backfilled)
    assert (planned.times, planned.already, planned.more) == (result.times, result.already, result.more)
    return result


def test_backfill_submits_times_without_a_run_once(db: DbVerbs) -> None:
    made(db, "a", ago(db, 9000, 8000, 7000, 5), back=60)
    decide(db)
    assert outcomes(db) == ["submitted"]
    limited = backfill(db, "a", 8500, most=1, overlap="allow")
    assert (len(limited.times), limited.already, limited.more) == (1, 0, True)
    asked = backfill(db, "a", 10_000, overlap="allow")
    assert (len(asked.times), asked.already, asked.more) == (2, 2, False)
    assert len(backfill(db, "a", 10_000).times) == 0
    decide(db)
    assert [(fire.kind, fire.outcome) for fire in fires(db)] == [("backfill", "submitted")] * 3 + [("due", "submitted")]
    assert len(ledger(db)) == 4
    assert state(db, "a").fired == 1


@pytest.mark.parametrize("change", ["put", "pause", "backfill"])
def test_time_whose_jitter_is_not_over_is_decided_once_by_a_change(db: DbVerbs, change: str) -> None:
    """Otherwise it would be decided never, or a second time as one of a backfill."""
    spec = ago(db, 1)
    made(db, "a", spec, back=60, jitter_seconds=86_400)
    decide(db)
    assert outcomes(db) == []
    match change:
        case "put":
            put(db, "a", spec, note="new", jitter_seconds=86_400)
        case "pause":
            pause(db, "a")
            pause(db, "a", paused=False)
        case "backfill":
            asked = Backfill(ADMIN, "a", spec.at[0] - timedelta(minutes=1), now_of(db) + timedelta(minutes=1))
            db.do(backfill_schedules, [asked], rules=RULES)
    decide(db)
    assert [(fire.kind, fire.outcome) for fire in fires(db)] == [("due", "submitted")]


def test_schedules_of_an_owner_share_its_quota(db: DbVerbs) -> None:
    rules = Rules(a_minute=2)
    for name in ("a", "b", "c"):
        made(db, name, ago(db, 9), back=60, caller=ann, rules=rules)
    decide(db, rules)
    assert sorted(outcomes(db)) == ["buffered", "submitted", "submitted"]


def test_quota_of_the_owner_delays_its_fires(db: DbVerbs) -> None:
    rules = Rules(a_minute=2)
    made(db, "a", ago(db, 9, 8, 7), back=60, caller=ann, overlap="allow", rules=rules)
    made(db, "b", ago(db, 5), back=60, caller=bob, rules=rules)
    decide(db, rules)
    assert outcomes(db) == ["submitted", "submitted", "buffered", "submitted"]
    assert decide(db, rules).outcomes == {}
    db.rows("UPDATE schedule_fires SET submitted_at = submitted_at - interval '61 seconds' WHERE run_id IS NOT NULL")
    decide(db, rules)
    assert outcomes(db) == ["submitted"] * 4


def test_refused_submission_is_a_failed_fire_and_keeps_no_other_back(db: DbVerbs) -> None:
    made(db, "a", ago(db, 5), back=60, run=new_run(session_id="gone", type=RunType.RESUME))
    made(db, "b", ago(db, 5), back=60, run=new_run(parent_session_id="none"))
    made(db, "c", ago(db, 5), back=60)
    decide(db)
    assert [(fire.outcome, fire.reason) for fire in fires(db)] == [
        ("failed", "Session 'gone' not found"),
        ("failed", "Parent session 'none' not found"),
        ("submitted", None),
    ]


def test_schedule_with_a_fault_is_set_aside(db: DbVerbs) -> None:
    """Postponed while the fault may pass; then failed, and its next time is computed. One without times is paused."""
    bad = made(db, "bad", ago(db, 5), back=60)
    lost = made(db, "lost", HOURLY, back=7200)
    db.rows("UPDATE schedules SET template = '{}' WHERE schedule_id = 'bad'")
    db.rows("UPDATE schedules SET timezone = 'Mars/Base' WHERE schedule_id = 'lost'")
    assert set(db.do(due_numbers)) == {bad.schedule_no, lost.schedule_no}
    with pytest.raises(KeyError):
        db.do(decide_one, bad.schedule_no, RULES)
    assert db.do(set_aside, bad.schedule_no, "busy", is_passing=True).outcomes == {}
    assert db.do(due_numbers) == [lost.schedule_no]
    assert db.do(set_aside, bad.schedule_no, "broken", is_passing=False).outcomes == {"failed": 1}
    db.do(set_aside, lost.schedule_no, "broken", is_passing=False)
    assert [(fire.outcome, fire.reason) for fire in fires(db)] == [("failed", "broken")]
    assert (state(db, "lost").paused, state(db, "lost").pause_reason) == (True, "broken")
    assert db.do(due_numbers) == []


def test_times_are_computed_anew_with_other_zones(db: DbVerbs) -> None:
    made(db, "a", HOURLY)
    right = state(db, "a").next_at
    db.rows("UPDATE schedules SET tz_version = '1970.1', next_at = next_at + interval '1 year'")
    assert (db.do(recompute_times), db.do(recompute_times)) == (1, 0)
    assert state(db, "a").next_at == right


def test_deleted_schedule_leaves_its_runs_and_nothing_waits(db: DbVerbs) -> None:
    """Begin anew with one of the same id: it has no decisions of the former one, and keys of its own."""
    spec = ago(db, 9, 5)
    made(db, "a", spec, back=60, overlap="buffer_all")
    decide(db)
    assert db.do(delete_schedules, [DeleteSchedule(ann, "a")]) == [NotFound("schedule", "a")]
    db.do(delete_schedules, [DeleteSchedule(root, "a")])
    assert decide(db).outcomes == {}
    made(db, "a", spec, back=60, overlap="allow")
    assert page_of(db.do(list_fires, ADMIN, "a", limit=9)).fires == []
    decide(db)
    outcome = {fire.fire_at: fire.outcome for fire in page_of(db.do(list_fires, ADMIN, "a", limit=9)).fires}
    assert sorted(outcome.values()) == ["submitted", "submitted"]
    assert sorted(ledger(db).values()) == [1, 2]


def test_old_decisions_are_dropped_but_not_those_in_use(db: DbVerbs) -> None:
    made(db, "a", ago(db, 9, 8, 7), back=60, overlap="buffer_one")
    made(db, "b", ago(db, 5), back=60)
    decide(db)
    assert outcomes(db) == ["submitted", "buffered", "skipped", "submitted"]
    db.rows("UPDATE schedule_fires SET decided_at = decided_at - interval '31 days'")
    db.do(delete_schedules, [DeleteSchedule(ADMIN, "b")])
    assert db.do(retire_fires, older_than_days=30) == 2
    assert outcomes(db) == ["submitted", "buffered"]


def test_ten_thousand_due_schedules_are_decided_in_batches(db: DbVerbs) -> None:
    """A smaller number stands for them: each pass takes as many as it may, longest due first."""
    spec = ago(db, 5)
    for number in range(7):
        made(db, f"s{number}", spec, back=60)
    passes = [decide(db, most=3) for _ in range(4)]
    assert [(each.submitted, each.full) for each in passes] == [(3, True), (3, True), (1, False), (0, False)]
    assert len(ledger(db)) == 7
