"""Race changes of an agent against submissions that name it, and changes of a script against registrations."""

from typing import Any

import pytest

from models.claims.polls import PollAnswer, answer_polls
from models.claims.script_syncs import confirm_scripts, queue_script_sync
from models.core.ids import uuid7
from models.registries.records import Kind
from models.registries.write import ChangeEntry, CreateEntry, write_entries
from models.runners.register import register_runners
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, poll_request, start_submission
from tests.support.plain_submissions import add_profile, apply_plain_first
from tests.support.registry import add, add_agent, add_script, entry
from tests.support.runner_agents import offer, provide, runner_at

CHANGES = 8


@pytest.mark.parametrize("contenders", [2, 8, 32])
def test_each_run_has_one_whole_version_of_its_agent(db: DbVerbs, contenders: int) -> None:
    """Change prompt, demands and capability together: no blueprint and no demands are of two versions."""
    add_profile(db)
    for number in range(CHANGES + 1):
        add(db, Kind.CAPABILITY, f"c{number}", text=f"text {number}")
    add_agent(db, "a", **_version(0))

    def contend(place: int) -> None:
        for number in range(1, CHANGES + 1):
            if place:
                db.do(apply_plain_first, [start_submission(agent_name="a")])
            else:
                db.do(write_entries, [ChangeEntry(Kind.AGENT, "a", _version(number))])

    run_in_threads(contenders, contend)
    rows = db.rows("SELECT r.demands, b.blueprint FROM runs r LEFT JOIN run_blueprints b USING (run_id)")
    assert len(rows) == CHANGES * (contenders - 1)
    for row in rows:
        assert row.blueprint is not None
        number = int(row.blueprint["description"])
        assert row.blueprint["system_prompt"] == f"prompt {number}\n\n---\n\ntext {number}"
        assert row.demands["tags"] == [f"tag{number}"]


def _version(number: int) -> dict[str, Any]:
    return {
        "description": str(number),
        "system_prompt": f"prompt {number}",
        "capabilities": [f"c{number}"],
        "demands": {"tags": [f"tag{number}"]},
    }


@pytest.mark.parametrize("first", ["registration", "script"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_script_that_is_created_beside_a_registration_reaches_the_runner(db: DbVerbs, first: str, end: str) -> None:
    """The second waits for the first, and sees what it stored."""
    create = CreateEntry(Kind.SCRIPT, "s", entry(Kind.SCRIPT, "s", "print()", script_file="f"), uuid7())
    calls: list[tuple[Any, Any]] = [(register_runners, [offer("host")]), (write_entries, [create])]
    with steppers(db.engine, 2) as (one, other):
        ordered = calls if first == "registration" else calls[::-1]
        one.do(*ordered[0])
        waiting = other.do(*ordered[1])
        assert other.waits
        getattr(one, end)()
        other.commit()
        waiting.result()
    queued = [row.script_name for row in db.rows("SELECT script_name FROM runner_script_syncs")]
    assert queued == (["s"] if end == "commit" else [])


def test_registrations_do_not_wait_for_each_other_for_scripts(db: DbVerbs) -> None:
    with steppers(db.engine, 2) as (one, other):
        one.do(register_runners, [offer("first")])
        other.do(register_runners, [offer("second")])
        assert other.done
        other.commit()
        one.commit()
    assert runner_at(db, "first") != runner_at(db, "second")


def test_polls_registrations_and_changes_of_scripts_show_no_deadlock(db: DbVerbs) -> None:
    """No transaction is aborted, and each runner is sent the last change of each script."""
    runners = [provide(db, name=f"h{place}", instance_id="i") for place in range(2)]
    for number in range(3):
        add_script(db, f"s{number}")

    def contend(place: int) -> None:
        for number in range(4):
            runner = place // 3 % 2
            match place % 3:
                case 0:
                    db.do(queue_script_sync, f"s{number % 3}")
                case 1:
                    db.do(register_runners, [offer("h0", instance_id="i"), offer("h1", instance_id="i")])
                case _:
                    (answer,) = db.do(answer_polls, [poll_request(runners[runner])])
                    if isinstance(answer, PollAnswer) and answer.scripts:
                        db.do(confirm_scripts, [answer.scripts])

    run_in_threads(9, contend)
    db.do(queue_script_sync, "s0")
    for runner in runners:
        (answer,) = db.do(answer_polls, [poll_request(runner)])
        assert isinstance(answer, PollAnswer)
        assert answer.scripts is not None
        assert "s0" in answer.scripts.fetch
