"""Break a mechanism of schedules on purpose: the scenario that guards it must notice."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from cronsim import CronSim
from sqlalchemy import Connection

from models.schedules import control, plan, put, times
from models.schedules import decide as decide_module
from models.schedules import fires as fires_module
from models.schedules.spec import Spec
from models.schedules.templates import run_of_fire
from tests.integration import test_schedule_repeats as repeats
from tests.races.test_schedule_races import (
    batch_locks_all_schedules_before_it_submits,
    passes_decide_each_time_once,
    second_pass_leaves_what_the_first_decides,
)
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.schedules import ago, decide, end, fires, ledger, made, outcomes, respec, rewind, run_ids


def test_pass_that_waits_for_another_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, decide_module, "_DUE", {" SKIP LOCKED": ""})
    notices(second_pass_leaves_what_the_first_decides, db, by="waited for the first")


def test_pass_without_a_lock_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes would compute the same times, and the second wait for the decisions of the first."""
    break_statement(monkeypatch, decide_module, "_DUE", {"\n    FOR UPDATE OF s SKIP LOCKED": ""})
    notices(second_pass_leaves_what_the_first_decides, db, by="waited for the first")


def test_batch_that_locks_its_schedules_one_by_one_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs would add the demands for which a pass waits that has the next schedule."""
    monkeypatch.setattr(control, "in_rounds", lambda keys: [[place] for place, _ in enumerate(keys)])
    notices(batch_locks_all_schedules_before_it_submits, db, by="waits for the batch")


def test_late_repeat_that_is_not_recognised_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the key of the newest change only, as the schedule itself does."""
    monkeypatch.setattr(put, "is_repeat", lambda *_: False)
    notices(repeats.test_late_repeat_of_a_put_or_trigger_changes_nothing, db)


def repeated_pass_submits_nothing_twice(db: DbVerbs) -> None:
    """Decide a stretch again whose decisions are there."""
    made(db, "a", ago(db, 9, 5), back=60, overlap="allow")
    for _ in range(2):
        decide(db)
        rewind(db, "a", 60)
    assert outcomes(db) == ["submitted"] * 2, "a decision was changed"
    assert set(ledger(db).values()) == {1}, "a time has two runs"


def test_repeated_pass_submits_nothing_twice(db: DbVerbs) -> None:
    repeated_pass_submits_nothing_twice(db)


def test_submission_of_decided_times_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit also what has its decision, under keys that do not tell."""
    added = fires_module.add_fires

    def add_all(conn: Connection, new: Sequence[Any], now: datetime) -> Any:
        added(conn, new, now)
        return {fire.key for fire in new}

    def run_without_key(*args: Any) -> Any:
        return replace(run_of_fire(*args), idempotency_key=None)

    monkeypatch.setattr(decide_module, "add_fires", add_all)
    monkeypatch.setattr(decide_module, "run_of_fire", run_without_key)
    notices(repeated_pass_submits_nothing_twice, db, by="two runs")


def unfinished_run_keeps_the_next_time_back(db: DbVerbs) -> None:
    made(db, "a", ago(db, 9), back=60)
    decide(db)
    respec(db, "a", ago(db, 4), back=6)
    decide(db)
    assert outcomes(db) == ["submitted", "skipped"], "two runs overlap"
    end(db, run_ids(fires(db))[0])
    respec(db, "a", ago(db, 1), back=3)
    decide(db)
    assert outcomes(db) == ["submitted", "skipped", "submitted"], "an ended run keeps the next one back"


def test_unfinished_run_keeps_the_next_time_back(db: DbVerbs) -> None:
    unfinished_run_keeps_the_next_time_back(db)


@pytest.mark.parametrize(
    ("name", "parts", "by"),
    [
        ("_OPEN", {"run_status IS NULL": "false"}, "overlap"),
        ("_SETTLE", {"r.status IN ('completed', 'failed', 'stopped')": "false"}, "keeps the next one back"),
    ],
)
def test_overlap_that_is_not_seen_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, name: str, parts: dict[str, str], by: str
) -> None:
    break_statement(monkeypatch, fires_module, name, parts)
    notices(unfinished_run_keeps_the_next_time_back, db, by=by)


def test_times_that_are_passed_over_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what comes before the newest time, as a schedule that only looks at its next one would."""
    due = plan.due_now
    monkeypatch.setattr(plan, "due_now", lambda *args, **how: plan.Due(due(*args, **how).times[-1:]))
    notices(passes_decide_each_time_once, db, by="left out")


def test_computation_without_memory_of_the_switch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hourly expression steps over a quarter of an hour that comes twice; one that begins there would not."""

    def scenario() -> list[datetime]:
        spec = Spec(cron=("45 * * * *",), timezone="Australia/Lord_Howe")
        begin, middle, until = (
            datetime.fromisoformat(f"2026-04-04T{clock}+00:00") for clock in ("13:00", "15:05", "18:00")
        )
        parts = times.due_times(spec, begin, middle, 99) + times.due_times(spec, middle, until, 99)
        return [moment for moment in parts if moment not in times.due_times(spec, begin, until, 99)]

    assert scenario() == []
    monkeypatch.setattr(times, "_remembering", lambda spec, after: after)
    assert scenario() != []


def test_second_hour_that_runs_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation that begins in the hour that comes twice would find the time of its first pass again."""

    def scenario() -> list[datetime]:
        spec = Spec(cron=("30 2 * * *",), timezone="Europe/Berlin")
        begin, middle, until = (
            datetime.fromisoformat(f"2026-10-25T{clock}+00:00") for clock in ("00:00", "01:10", "12:00")
        )
        return times.due_times(spec, begin, middle, 9) + times.due_times(spec, middle, until, 9)

    def raw(spec: Spec, after: datetime, until: datetime) -> Iterator[datetime]:
        for local in CronSim(spec.cron[0], after.astimezone(spec.zone)):
            if local > until:
                return
            yield local.astimezone(after.tzinfo)

    assert len(scenario()) == 1
    monkeypatch.setattr(times, "_times", raw)
    assert len(scenario()) == 2
