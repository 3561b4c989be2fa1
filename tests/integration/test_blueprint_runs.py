"""Blueprints and scripts of runners by the verbs: what is kept with a run, for how long, and what is sent again."""

import json
from typing import Any, Final

import pytest

from models.bulk.actions import error_text
from models.claims.claim import Ask
from models.claims.matching import Demands
from models.claims.poll_stops import Undelivered, mark_undelivered
from models.claims.script_syncs import MOST_IN_ANSWER, SentScripts, confirm_scripts
from models.core.callers import ADMIN
from models.core.errors import CoordinatorError
from models.core.statuses import BulkAction
from models.expiry.cleanup import upkeep
from models.registries.agents_of_runs import read_registry_agents
from models.registries.records import Kind
from models.runners.leave import LeaveRunner, deregister_runners
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.stop import StopSession, stop_sessions
from models.state.runs import Run
from tests.support.bulks import replay, replayed, started, work_all
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs, Runner, poll_request, start_submission
from tests.support.parents import deliver, ended_child, last_run
from tests.support.registry import CITY, CITY_SCHEMA, add, add_agent, add_script, change, delete
from tests.support.reports import accepted, running
from tests.support.runner_agents import offer, provide, register, runner_at

PROCEDURAL: Final = Demands(executor_type="procedural")


def ended(db: DbVerbs, runner: Runner, **values: Any) -> Run:
    """Complete the only run of a new session."""
    run = running(db, runner, **values)
    accepted(db, run, "completed")
    return run


def blueprints(db: DbVerbs) -> dict[str, Any]:
    return {row.run_id: row.blueprint for row in db.rows("SELECT run_id, blueprint FROM run_blueprints")}


def prompt_of(db: DbVerbs, run_id: str) -> Any:
    return blueprints(db)[run_id]["system_prompt"]


def test_run_keeps_its_blueprint_until_its_session_is_deleted(db: DbVerbs) -> None:
    add_agent(db, "helper", system_prompt="first")
    one, other = db.start(agent_name="helper"), db.start(agent_name="helper")
    change(db, Kind.AGENT, "helper", system_prompt="second")
    (run,) = db.claim(db.runner())
    assert json.loads(run.blueprint or "null")["system_prompt"] == "first"
    assert run.run_id == one.run_id
    delete(db, Kind.AGENT, "helper")
    db.do(delete_sessions, [DeleteSession(ADMIN, other.session_id)])
    assert list(blueprints(db)) == [one.run_id]


def test_upkeep_drops_blueprints_and_scripts_that_the_last_release_left(db: DbVerbs) -> None:
    add_agent(db, "helper")
    kept, gone = db.start(agent_name="helper"), db.start(agent_name="helper")
    add_script(db, "s")
    staying, leaving = provide(db, name="stays"), provide(db, name="leaves")
    db.do(deregister_runners, [LeaveRunner(leaving.runner_id, self_initiated=True)])
    pass_time(db, "runner_script_syncs", "queued_at", 7200)
    db.rows("DELETE FROM runs WHERE run_id = :gone", gone=gone.run_id)
    db.do(upkeep)
    assert list(blueprints(db)) == [kept.run_id]
    assert [row.runner_id for row in db.rows("SELECT runner_id FROM runner_script_syncs")] == [staying.runner_id]


def test_replay_resolves_the_agent_for_its_own_run_and_keeps_demands_and_parameters(db: DbVerbs) -> None:
    """Check no parameters that are not changed; a bulk of replays does the same."""
    add_agent(
        db,
        "helper",
        system_prompt="first ${runtime.run_id}",
        parameters_schema=CITY_SCHEMA,
        demands={"tags": ["a"]},
        type="procedural",
    )
    runner = db.runner(executor_type="procedural", tags=["a"])
    known = db.do(read_registry_agents, ["helper"])["helper"].schema_hash
    run = ended(db, runner, agent_name="helper", parameters=CITY, satisfied_schema=known)
    change(
        db,
        Kind.AGENT,
        "helper",
        system_prompt="second ${runtime.run_id}",
        parameters_schema={"required": ["country"]},
        demands={"tags": ["b"]},
    )
    again = replayed(db, run.run_id)
    assert prompt_of(db, again.run_id) == f"second {again.run_id}"
    assert db.run(again.run_id).demands == db.run(run.run_id).demands
    started(db, BulkAction.REPLAY, [run.run_id])
    work_all(db)
    assert len(blueprints(db)) == 3
    change(db, Kind.AGENT, "helper", script="gone")
    refused = replay(db, run.run_id)
    assert isinstance(refused, CoordinatorError)
    assert error_text(refused) == "Script 'gone' referenced by agent 'helper' not found"
    delete(db, Kind.AGENT, "helper")
    assert replayed(db, run.run_id).run_id not in blueprints(db)


@pytest.mark.parametrize("capabilities", [[], ["gone"]])
def test_callback_has_the_demands_of_its_agent_and_no_blueprint(db: DbVerbs, capabilities: list[str]) -> None:
    """Also when the agent cannot be resolved any more: the child's result must come."""
    add_agent(db, "helper", demands={"tags": ["gpu"]})
    runner = db.runner(tags=["gpu"])
    parent = ended(db, runner, agent_name="helper")
    change(db, Kind.AGENT, "helper", capabilities=capabilities)
    ended_child(db, parent.session_id)
    deliver(db)
    run = last_run(db, parent.session_id)
    assert db.run(run.run_id).demands["tags"] == ["gpu"]
    assert list(blueprints(db)) == [parent.run_id]


# Scripts of runners


def poll(db: DbVerbs, runner: Runner) -> tuple[Ask, SentScripts | None]:
    ask = poll_request(runner)
    return ask, db.answer(ask)[0].scripts


def names(sent: SentScripts | None) -> tuple[list[str], list[str]] | None:
    return None if sent is None else (list(sent.fetch), list(sent.remove))


def test_registration_of_a_procedural_runner_fetches_all_scripts(db: DbVerbs) -> None:
    add_script(db, "b")
    add_script(db, "a")
    runner = provide(db, instance_id="i")
    assert names(poll(db, runner)[1]) == (["a", "b"], [])
    assert poll(db, runner)[1] is None
    register(db, offer(instance_id="i"))
    assert names(poll(db, runner_at(db, "host"))[1]) == (["a", "b"], [])
    assert poll(db, db.runner())[1] is None


def test_last_change_of_a_script_decides(db: DbVerbs) -> None:
    runner = provide(db)
    gone = provide(db, name="gone")
    db.do(deregister_runners, [LeaveRunner(gone.runner_id, self_initiated=True)])
    written = add_script(db, "s")
    assert written.runners_to_sync == frozenset({runner.runner_id})
    change(db, Kind.SCRIPT, "s", description="d")
    delete(db, Kind.SCRIPT, "s")
    assert names(poll(db, runner)[1]) == ([], ["s"])
    add_script(db, "s")
    ask, sent = poll(db, runner)
    assert names(sent) == (["s"], [])
    # Changed while the answer was on its way: the confirmation is of the former one.
    change(db, Kind.SCRIPT, "s", description="e")
    assert sent is not None
    db.do(confirm_scripts, [sent])
    assert names(poll(db, runner)[1]) == (["s"], [])
    assert sent.poll_id == ask.poll_id


def test_script_is_sent_until_its_answer_was_written(db: DbVerbs) -> None:
    """Again after 10 s, and at once when the client is known to have gone."""
    add_script(db, "s")
    runner = provide(db)
    _, sent = poll(db, runner)
    assert sent is not None
    assert poll(db, runner)[1] is None
    db.do(mark_undelivered, [Undelivered(runner.runner_id, scripts=sent)])
    _, again = poll(db, runner)
    assert names(again) == (["s"], [])
    pass_time(db, "runner_script_syncs", "sent_at", 11)
    _, third = poll(db, runner)
    assert names(third) == (["s"], [])
    assert third is not None
    db.do(confirm_scripts, [third])
    assert db.count("runner_script_syncs") == 0


def test_scripts_come_after_stops_and_before_the_order_to_leave(db: DbVerbs) -> None:
    runner = provide(db)
    run = running(db, runner, additional_demands=PROCEDURAL)
    add_script(db, "s")
    db.do(stop_sessions, [StopSession(ADMIN, run.session_id)])
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=False)])
    answers = [db.answer(poll_request(runner))[0] for _ in range(3)]
    assert [bool(answer.stop_sessions) for answer in answers] == [True, False, False]
    assert [names(answer.scripts) for answer in answers] == [None, (["s"], []), None]
    assert [answer.deregistered for answer in answers] == [False, False, True]


def test_dispatch_gives_no_run_to_a_poll_that_has_scripts_to_fetch(db: DbVerbs) -> None:
    runner = provide(db)
    ask = poll_request(runner)
    db.answer(ask)
    db.second(ask)
    add_script(db, "s")
    db.start(additional_demands=PROCEDURAL)
    assert db.dispatch() == {}
    (answer,) = db.recheck(ask)
    assert names(answer.scripts) == (["s"], [])
    assert db.claim(runner)


def test_many_scripts_are_sent_in_parts(db: DbVerbs) -> None:
    runner = provide(db)
    db.rows(
        "INSERT INTO runner_script_syncs (runner_id, script_name) SELECT :id, 's' || i FROM generate_series(1, :most + 1) i",
        id=runner.runner_id,
        most=MOST_IN_ANSWER,
    )
    sizes = [len((names(poll(db, runner)[1]) or ([], []))[0]) for _ in range(3)]
    assert sizes == [MOST_IN_ANSWER, 1, 0]


def test_script_that_no_capability_mends_is_named(db: DbVerbs) -> None:
    add_script(db, "s")
    add(db, Kind.CAPABILITY, "c", script="s", type="script")
    delete(db, Kind.SCRIPT, "s")
    add_agent(db, "a", capabilities=["c"])
    (refused,) = db.submit(start_submission(agent_name="a"))
    assert isinstance(refused, CoordinatorError)
    assert "Script resolution failed" in error_text(refused)
