"""Agents of runners by the verbs: who has a name and for how long, and what runs demand that name one."""

import json
from dataclasses import replace
from typing import Any

import pytest

from models.claims.matching import Demands
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import (
    AgentNameTaken,
    AgentNotResumable,
    DuplicateRunner,
    PromptRequired,
    SchemaUnchecked,
    SessionExists,
    TooManyAgents,
)
from models.core.statuses import BulkAction
from models.expiry.cleanup import upkeep
from models.runners.agents import MOST_AGENTS_OF_OWNER, MOST_LISTED, list_agents
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered
from models.runs.submission import Submitted
from models.sessions.bind import Patch, patch_sessions
from models.state.agents import RunnerAgent
from tests.support.bulks import replay, replayed, started, state, work_all
from tests.support.clocks import fall_silent, pass_time, tick
from tests.support.db_verbs import DbVerbs, Runner, poll_request, resume_submission, start_submission
from tests.support.parents import child_of, deliver, last_run
from tests.support.plain_submissions import submit_plain_first
from tests.support.reports import accepted, finished, stop_run
from tests.support.runner_agents import CITY, SCHEMA, add_agents, offer, provide, provided, register, runner_at

REPORTER = RunnerAgent("reporter", "report", "Reports", SCHEMA)


def leave(db: DbVerbs, runner: Runner, *, itself: bool = True) -> None:
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, itself)])


def demands(db: DbVerbs, run_id: str) -> Any:
    return db.run(run_id).demands


# Names


def test_registration_replaces_the_agents_of_its_runner(db: DbVerbs) -> None:
    runner = provide(db, "a", "b", instance_id="one")
    provide(db, "other", name="elsewhere")
    provide(db, "b", "c", instance_id="one")
    assert {name for name, holder in provided(db).items() if holder == runner.runner_id} == {"b", "c"}
    provide(db, instance_id="one")
    assert list(provided(db)) == ["other"]


def test_name_of_another_runner_refuses_the_registration_as_a_whole(db: DbVerbs) -> None:
    first = provide(db, "a", "b", instance_id="one")
    provide(db, "c", name="second", instance_id="two")
    changed = offer("second", "d", "b", instance_id="two", tags=("new",), capacity=7)
    before = db.rows("SELECT * FROM runners ORDER BY runner_id"), provided(db)

    assert register(db, changed) == [AgentNameTaken("b", first.runner_id)]
    assert register(db, offer("third", "b")) == [AgentNameTaken("b", first.runner_id)]
    assert (db.rows("SELECT * FROM runners ORDER BY runner_id"), provided(db)) == before


def test_refused_registration_hinders_no_other_of_its_batch(db: DbVerbs) -> None:
    """Give a name to the first in item order. One that the batch frees is free after it."""
    first = provide(db, "a", instance_id="one")
    results = register(
        db,
        offer("x", "new"),
        offer("y", "new", "y"),
        offer("host", "b", instance_id="one"),
        offer("z", "a"),
        offer("z", "never"),
    )
    kinds = [type(result) for result in results]
    assert kinds == [Registered, AgentNameTaken, Registered, AgentNameTaken, Registered]
    assert list(provided(db)) == ["b", "never", "new"]
    assert provided(db)["b"] == first.runner_id


def test_refused_duplicate_takes_no_name(db: DbVerbs) -> None:
    provide(db, "a")
    assert [type(result) for result in register(db, offer("host", "b"), offer("x", "b"))] == [
        DuplicateRunner,
        Registered,
    ]
    assert list(provided(db)) == ["a", "b"]


def test_repeated_registration_keeps_its_agents(db: DbVerbs) -> None:
    item = offer("host", "a", "b")
    assert register(db, item) == register(db, item)
    assert list(provided(db)) == ["a", "b"]


def test_another_process_of_the_identity_takes_the_names_over(db: DbVerbs) -> None:
    runner = provide(db, "a", "b")
    fall_silent(db, runner, 999)
    successor = provide(db, "b", "c")
    assert successor.runner_id == runner.runner_id
    assert provided(db) == {"b": runner.runner_id, "c": runner.runner_id}


def test_stale_or_lost_runner_keeps_its_agents(db: DbVerbs) -> None:
    runner = provide(db, "a")
    fall_silent(db, runner, 130)
    assert [type(result) for result in register(db, offer("x", "a"))] == [AgentNameTaken]
    fall_silent(db, runner, 9_999)
    tick(db)
    assert db.one("SELECT lost_at IS NOT NULL FROM runners WHERE runner_id = :r", r=runner.runner_id)
    assert [type(result) for result in register(db, offer("x", "a"))] == [AgentNameTaken]
    assert [agent.name for agent in db.do(list_agents, None, most=10)] == ["a"]


def test_agents_leave_with_their_runner(db: DbVerbs) -> None:
    leave(db, provide(db, "a"))
    assert provided(db) == {}
    assert isinstance(register(db, offer("x", "a"))[0], Registered)


def test_runner_that_is_told_to_leave_gives_its_names_up(db: DbVerbs) -> None:
    runner = provide(db, "a")
    leave(db, runner, itself=False)
    assert [type(result) for result in register(db, offer("x", "a"))] == [AgentNameTaken]
    assert db.answer(poll_request(runner))[0].deregistered
    assert db.do(list_agents, None, most=10) == []
    assert isinstance(register(db, offer("x", "a"))[0], Registered)
    assert [holder == runner.runner_id for holder in provided(db).values()] == [False]


def test_expiry_drops_the_agents_of_a_runner_that_had_its_time_after_it_was_told(db: DbVerbs) -> None:
    runner = provide(db, "a")
    leave(db, runner, itself=False)
    fall_silent(db, runner, 9_999)
    tick(db)
    tick(db)
    assert db.one("SELECT left_at IS NOT NULL FROM runners WHERE runner_id = :r", r=runner.runner_id)
    assert provided(db) == {}


def test_upkeep_drops_agents_of_runners_that_are_forgotten_or_gone(db: DbVerbs) -> None:
    """The last release deletes and ends runners without their agents."""
    kept, left, forgotten, gone = (provide(db, name, name=name) for name in ("kept", "left", "forgotten", "gone"))
    db.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=left.runner_id)
    db.rows("DELETE FROM runners WHERE runner_id = :r", r=gone.runner_id)
    pass_time(db, "runners", "last_seen", 100 * 86_400, "runner_id = :r", r=forgotten.runner_id)
    assert [agent.name for agent in db.do(list_agents, None, most=10)] == ["forgotten", "kept"]
    db.do(upkeep)
    assert provided(db) == {"kept": kept.runner_id}


def test_command_and_runner_are_told_to_those_who_may_act_for_it(db: DbVerbs) -> None:
    runner = provide(db, REPORTER, owner="build", subject="build")
    for subject in (None, "build"):
        (agent,) = db.do(list_agents, subject, most=10)
        assert (agent.command, agent.runner_id) == ("report", runner.runner_id)
    (agent,) = db.do(list_agents, "ann", most=10)
    assert (agent.name, agent.description, agent.parameters_schema) == ("reporter", "Reports", SCHEMA)
    assert (agent.command, agent.runner_id) == (None, None)


# Runs


def test_list_of_agents_ends_before_it_takes_too_many_bytes(db: DbVerbs) -> None:
    add_agents(db, provide(db).runner_id, 1_000, 20_000)
    names = [agent.name for agent in db.do(list_agents, None, most=10_000)]
    assert names == [f"n{place:04}" for place in range(1, len(names) + 1)]
    assert 15 * 1024 * 1024 < len(names) * 20_000 <= MOST_LISTED
    assert [agent.name for agent in db.do(list_agents, None, most=1, name="n1000")] == ["n1000"]


def test_runners_of_an_owner_provide_a_bounded_number_of_agents(db: DbVerbs) -> None:
    """Count what the registration replaces no more; another owner has a number of its own."""
    ann = {"owner": "ann", "subject": "ann"}
    add_agents(db, provide(db, **ann).runner_id, MOST_AGENTS_OF_OWNER - 2)
    refused = register(db, offer("second", "a", "b", "c", **ann))
    assert refused == [TooManyAgents(MOST_AGENTS_OF_OWNER)]
    assert len(provided(db)) == MOST_AGENTS_OF_OWNER - 2
    batch = register(db, offer("second", "a", "b", instance_id="i", **ann), offer("third", "c", **ann))
    assert [type(result) for result in batch] == [Registered, TooManyAgents]
    provide(db, "d", name="other", owner="bob", subject="bob")
    provide(db, "a", "c", name="second", instance_id="i", **ann)


def start(db: DbVerbs, **values: Any) -> str:
    (result,) = submit_plain_first(db, start_submission(**{"agent_name": "a"} | values))
    assert isinstance(result, Submitted), result
    return result.run_id


def test_run_that_names_an_agent_goes_to_its_runner_alone(db: DbVerbs) -> None:
    run_id = start(db, agent_name=None)
    runner = provide(db, "a")
    provide(db, "b", name="second")
    mine = start(db)
    assert [run.run_id for run in db.claim(db.runner(), wanted=9)] == [run_id]
    assert db.claim(runner_at(db, "second"), wanted=9) == []
    assert [run.run_id for run in db.claim(runner, wanted=9)] == [mine]


def test_demands_of_the_agents_runner_win_and_tags_are_united(db: DbVerbs) -> None:
    provide(db, "a")
    more = Demands("elsewhere", "/other", "another", "autonomous", ("gpu",))
    assert demands(db, start(db, additional_demands=more)) == {
        "hostname": "host",
        "project_dir": "/project",
        "executor_profile": "profile",
        "executor_type": "procedural",
        "tags": ["gpu"],
    }


def test_unknown_agent_is_none(db: DbVerbs) -> None:
    """Also one whose runner has left, if its row is still there."""
    runner = provide(db, "left")
    db.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=runner.runner_id)
    for name in ("unknown", "left"):
        assert demands(db, start(db, agent_name=name)) == {"executor_type": "autonomous", "tags": []}


def test_explicit_executor_type_wins_where_no_agent_has_one(db: DbVerbs) -> None:
    run_id = start(db, agent_name=None, additional_demands=Demands(executor_type="special"))
    assert demands(db, run_id)["executor_type"] == "special"
    session_id = finished(db)
    resumed = db.resume(session_id, additional_demands=Demands(executor_type="special"))
    assert demands(db, resumed.run_id)["executor_type"] == "special"


def test_answer_of_the_verb_has_the_demands_by_which_a_poll_is_woken(db: DbVerbs) -> None:
    provide(db, "a")
    (result,) = db.submit(start_submission(agent_name="a"))
    assert isinstance(result, Submitted)
    assert result.demands == Demands("host", "/project", "profile", "procedural")


def test_parameters_must_have_been_checked_against_the_schema_that_is_stored(db: DbVerbs) -> None:
    provide(db, REPORTER, instance_id="one")
    item = start_submission("mine", agent_name="reporter", parameters=CITY, prompt_only=False, idempotency_key="k")
    (asked,) = submit_plain_first(db, item)
    assert asked == SchemaUnchecked("reporter", REPORTER.schema_hash or "", SCHEMA, CITY)
    assert [db.count(table) for table in ("runs", "sessions", "idempotency_keys")] == [0, 0, 0]

    checked = replace(item, satisfied_schema=asked.schema_hash)
    provide(db, replace(REPORTER, parameters_schema='{"required":["country"]}'), instance_id="one")
    (again,) = submit_plain_first(db, checked)
    assert isinstance(again, SchemaUnchecked)
    assert again.schema == '{"required":["country"]}'

    (accepted_,) = submit_plain_first(db, replace(item, satisfied_schema=again.schema_hash))
    assert isinstance(accepted_, Submitted)
    assert submit_plain_first(db, item) == [replace(accepted_, replayed=False)]


def test_agent_without_a_schema_takes_any_parameters(db: DbVerbs) -> None:
    provide(db, "a")
    assert db.run(start(db, parameters=CITY, prompt_only=False)).parameters == {"city": "Bonn"}


def test_other_parameters_than_a_prompt_need_an_agent(db: DbVerbs) -> None:
    item = start_submission(agent_name="unknown", parameters=CITY, prompt_only=False)
    assert submit_plain_first(db, item) == [PromptRequired(CITY)]
    assert db.count("sessions") == 0


def test_agent_is_looked_at_before_an_existing_session(db: DbVerbs) -> None:
    provide(db, REPORTER)
    db.start(session_id="mine")
    (unchecked,) = db.submit(start_submission("mine", agent_name="reporter"))
    assert isinstance(unchecked, SchemaUnchecked)
    checked = start_submission("mine", agent_name="reporter", satisfied_schema=REPORTER.schema_hash)
    assert db.submit(checked) == [SessionExists("mine")]


def ended(db: DbVerbs, runner: Runner, **values: Any) -> Any:
    """Complete a run of the agent; return it."""
    run_id = start(db, **values)
    (run,) = db.claim(runner)
    assert run.run_id == run_id
    accepted(db, run, "started")
    accepted(db, run, "completed")
    return run


def test_session_of_a_procedural_agent_is_not_resumed(db: DbVerbs) -> None:
    """The session's agent counts, whatever the request names."""
    session_id = ended(db, provide(db, "a")).session_id
    for name in (None, "a", "other"):
        assert db.submit(resume_submission(session_id, agent_name=name)) == [AgentNotResumable("a")]
    leave(db, runner_at(db, "host"))
    assert db.run(db.resume(session_id).run_id).agent_name == "a"


def test_agent_of_the_session_wins_on_a_resume(db: DbVerbs) -> None:
    provide(db, "procedural")
    session_id, nameless = finished(db, agent_name="mine"), finished(db)
    assert db.run(db.resume(session_id, agent_name="procedural").run_id).agent_name == "mine"
    assert db.submit(resume_submission(nameless, agent_name="procedural")) == [AgentNotResumable("procedural")]
    db.do(patch_sessions, [Patch(ADMIN, session_id, {"agent_name": "procedural"})])
    assert db.submit(resume_submission(session_id)) == [AgentNotResumable("procedural")]


def test_callback_resumes_the_session_of_a_procedural_agent_at_its_runner(db: DbVerbs) -> None:
    runner = provide(db, "a")
    parent = ended(db, runner).session_id
    accepted(db, child_of(db, parent), "completed")
    run_id = deliver(db).runs[parent]
    assert [run.run_id for run in db.claim(runner)] == [run_id]
    assert last_run(db, parent).demands["executor_type"] == "procedural"


def test_replay_of_a_callback_to_a_procedural_agent_demands_its_runner(db: DbVerbs) -> None:
    """Of other resumes a replay copies no hostname."""
    runner = provide(db, "a")
    parent = ended(db, runner).session_id
    accepted(db, child_of(db, parent), "completed")
    run_id = deliver(db).runs[parent]
    (run,) = db.claim(runner)
    accepted(db, run, "started")
    accepted(db, run, "completed")
    assert replayed(db, run_id).demands == demands(db, run_id)


# Replays


def test_replay_demands_what_its_original_demanded(db: DbVerbs) -> None:
    """Keep them when the agent has another runner and schema since."""
    runner = provide(db, REPORTER)
    agent = {"agent_name": "reporter", "parameters": CITY, "prompt_only": False}
    run = ended(db, runner, **agent, satisfied_schema=REPORTER.schema_hash)
    leave(db, runner)
    provide(db, replace(REPORTER, parameters_schema='{"required":["country"]}'), name="second")
    new = replayed(db, run.run_id, {"priority": 3})
    assert (new.demands, new.agent_name, new.priority) == (demands(db, run.run_id), "reporter", 3)
    assert new.parameters == {"city": "Bonn"}


def test_replay_of_an_autonomous_run_is_no_run_of_an_agent_that_came_later(db: DbVerbs) -> None:
    run_id = start(db)
    stop_run(db, run_id)
    provide(db, REPORTER, "a")
    assert replayed(db, run_id).demands == {"executor_type": "autonomous", "tags": []}


def test_replay_with_other_parameters_or_agent_is_decided_like_a_submission(db: DbVerbs) -> None:
    run_id = start(db)
    stop_run(db, run_id)
    provide(db, REPORTER, replace(REPORTER, name="a", parameters_schema=None))
    changed = replayed(db, run_id, {"parameters": CITY})
    assert changed.demands["hostname"] == "host"
    refused = replay(db, run_id, {"agent_name": "reporter"})
    assert isinstance(refused, SchemaUnchecked)
    assert json.loads(refused.parameters) == {"prompt": "hello"}
    moved = replay(db, run_id, {"agent_name": "reporter"}, satisfied_schema=REPORTER.schema_hash)
    assert isinstance(moved, Submitted)


def test_bulk_of_replays_with_another_agent_tells_which_runs_have_no_prompt(db: DbVerbs) -> None:
    agent = {"agent_name": "reporter", "parameters": CITY, "prompt_only": False}
    run_id = ended(db, provide(db, REPORTER), **agent, satisfied_schema=REPORTER.schema_hash).run_id
    bulk_id = started(db, BulkAction.REPLAY, [run_id], changes='{"agent_name": null}')
    work_all(db)
    assert state(db, bulk_id).errors == [
        {"run_id": run_id, "error": "Without an agent the parameters must be a prompt"}
    ]


@pytest.mark.parametrize("role", [Role.USER, Role.RUNNER])
def test_agents_serve_the_runs_of_every_owner(db: DbVerbs, role: Role) -> None:
    provide(db, "a", owner="build", subject="build")
    assert demands(db, start(db, caller=Caller(role, "ann")))["hostname"] == "host"
