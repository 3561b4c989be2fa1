"""Submissions: state of a run and its session after acceptance, and refusals (PROTOCOL, Runs)."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from models.claims.matching import Demands
from models.core.callers import Caller, Role
from models.core.errors import CoordinatorError, NotFound, ParentIsDescendant, SessionExists, TooDeep
from models.core.statuses import ExecutionMode
from models.runs.submission import NewRun, Submitted
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.db_verbs import PARAMETERS, DbVerbs, resume_submission, start_submission

ANNA = Caller(Role.USER, "anna")
BERT = Caller(Role.USER, "bert")


def affine(db: DbVerbs, session_id: str) -> None:
    """Bind the session to a place."""
    db.rows(
        "UPDATE sessions SET hostname = 'home', executor_profile = 'special' WHERE session_id = :s",
        s=session_id,
    )


def ends(db: DbVerbs, run_id: str) -> None:
    """End the run and finish its session, however that is reported."""
    db.rows(
        "UPDATE runs SET status = 'completed', ready = false, completed_at = now() WHERE run_id = :r",
        r=run_id,
    )
    db.rows(
        """UPDATE sessions SET status = 'finished', last_outcome = 'finished'
           WHERE session_id = (SELECT session_id FROM runs WHERE run_id = :r)""",
        r=run_id,
    )


def test_start_creates_session_and_ready_run(db: DbVerbs) -> None:
    """Return both ids; the run may be claimed at once."""
    item = start_submission()
    (answer,) = db.submit(item)

    assert answer == Submitted(item.run_id, item.new_session_id, "pending", replayed=False)
    run, session = db.run(item.run_id), db.session(item.new_session_id)
    assert (run.status, run.ready, run.type, run.session_seq) == ("pending", True, "start_session", 1)
    assert run.match_deadline_at - run.created_at == timedelta(seconds=300)
    assert (session.status, session.next_run, session.depth) == ("pending", 2, 0)


def test_start_writes_session_and_run_into_history(db: DbVerbs) -> None:
    """Write them in the transaction of the change, the session first."""
    run = db.start(caller=ANNA)
    rows = db.rows(f"SELECT kind, run_id, owner, frame::text AS frame FROM {RECORDED_EVENTS} ORDER BY id")

    assert [(row.kind, row.run_id, row.owner) for row in rows] == [
        ("session_created", None, "anna"),
        ("run_updated", run.run_id, "anna"),
    ]
    shown = [json.loads(row.frame) for row in rows]
    assert (shown[0]["session"]["session_id"], shown[0]["session"]["status"]) == (run.session_id, "pending")
    assert shown[1]["run"] == {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "status": "pending",
        "runner_id": None,
        "attempt": 0,
        "error": None,
    }


def test_start_stores_every_field(db: DbVerbs) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    run_id = db.start(
        session_id="mine",
        caller=ANNA,
        parameters='{"prompt": "a\\u0000b\\ud800"}',
        agent_name="agent",
        project_dir="/somewhere",
        scope='{"a": 1}',
        execution_mode=ExecutionMode.ASYNC_POLL,
        priority=-7,
        not_before=moment,
        max_attempts=3,
        run_timeout_seconds=60,
        no_match_timeout_seconds=12,
        labels={"k": "v"},
    ).run_id
    run = db.rows("SELECT *, parameters::text AS given, scope::text AS shown FROM runs WHERE run_id = :r", r=run_id)[0]

    assert run.given == '{"prompt": "a\\u0000b\\ud800"}'
    assert (run.session_id, run.owner, run.agent_name, run.project_dir) == ("mine", "anna", "agent", "/somewhere")
    assert (json.loads(run.shown), run.execution_mode, run.priority) == ({"a": 1}, "async_poll", -7)
    assert (run.not_before, run.max_attempts, run.run_timeout_seconds) == (moment, 3, 60)
    assert (run.no_match_timeout_seconds, run.labels, run.attempt) == (12, {"k": "v"}, 0)


def test_start_of_existing_session_is_refused_and_changes_nothing(db: DbVerbs) -> None:
    """Answer 409 `Session 'X' already exists`."""
    db.start(session_id="mine", agent_name="first")
    before = (db.count("runs"), db.count(RECORDED_EVENTS), db.session("mine"))

    assert db.submit(start_submission("mine", agent_name="second")) == [SessionExists("mine")]
    assert (db.count("runs"), db.count(RECORDED_EVENTS), db.session("mine")) == before


def test_resume_of_unknown_session_is_refused_and_leaves_nothing(db: DbVerbs) -> None:
    """Answer 404 `Session 'X' not found`."""
    assert db.submit(resume_submission("nobody")) == [NotFound("session", "nobody")]
    assert (db.count("runs"), db.count("sessions"), db.count(RECORDED_EVENTS)) == (0, 0, 0)


def test_session_of_another_owner_is_not_found_for_resume_and_parent(db: DbVerbs) -> None:
    """Allow an admin both."""
    db.start(session_id="hers", caller=ANNA)

    assert db.submit(resume_submission("hers", caller=BERT)) == [NotFound("session", "hers")]
    assert db.submit(start_submission(caller=BERT, parent_session_id="hers")) == [NotFound("parent session", "hers")]
    assert db.session(db.start(parent_session_id="hers").session_id).owner == "anna"
    assert db.run(db.resume("hers").run_id).owner == "anna"


def test_resume_has_the_agent_of_its_session_and_its_project_by_default(db: DbVerbs) -> None:
    """Apply another project to the resume's run alone."""
    db.start(session_id="mine", agent_name="agent", project_dir="/project")
    plain = db.run(db.resume("mine").run_id)
    other = db.run(db.resume("mine", agent_name="other", project_dir="/else").run_id)

    assert (plain.agent_name, plain.project_dir) == ("agent", "/project")
    assert (other.agent_name, other.project_dir) == ("agent", "/else")
    assert (db.session("mine").agent_name, db.session("mine").project_dir) == ("agent", "/project")


@pytest.mark.parametrize(
    ("parents", "own", "expected"),
    [
        (None, None, None),
        ('{"a": 1, "b": 1}', None, {"a": 1, "b": 1}),
        (None, '{"b": 2}', {"b": 2}),
        ('{"a": 1, "b": 1}', '{"b": 2, "c": 2}', {"a": 1, "b": 2, "c": 2}),
        ('{"a": 1}', "{}", {"a": 1}),
    ],
)
def test_child_inherits_parents_scope_and_its_own_keys_win(
    db: DbVerbs,
    parents: str | None,
    own: str | None,
    expected: object,
) -> None:
    """Merge one level of keys: a value is replaced."""
    parent = db.start(scope=parents).session_id
    child = db.start(parent_session_id=parent, scope=own)

    assert db.run(child.run_id).scope == expected
    assert db.session(child.session_id).scope == expected


def test_child_inherits_latest_scope_of_its_parent(db: DbVerbs) -> None:
    """Include changes by a resume since the start."""
    db.start(session_id="parent", scope='{"a": 1, "b": 1}')
    db.resume("parent", scope='{"b": 2}')

    assert db.run(db.start(parent_session_id="parent").run_id).scope == {"a": 1, "b": 2}


def test_resume_keeps_scope_of_its_session(db: DbVerbs) -> None:
    """Keep it also when the resume comes from a parent without one."""
    db.start(session_id="caller")
    db.start(session_id="mine", scope='{"a": 1}')

    assert db.run(db.resume("mine").run_id).scope == {"a": 1}
    assert db.run(db.resume("mine", parent_session_id="caller").run_id).scope == {"a": 1}


def test_demands_merge_affinity_then_request_then_autonomous(db: DbVerbs) -> None:
    """Take the first value per property, and all tags."""
    db.start(session_id="mine")
    affine(db, "mine")
    wanted = Demands("elsewhere", "/project", "other", "procedural", ("b", "a"))
    started = db.run(db.start(additional_demands=wanted).run_id)
    resumed = db.run(db.resume("mine", additional_demands=wanted).run_id)

    assert started.demands == {
        "hostname": "elsewhere",
        "project_dir": "/project",
        "executor_profile": "other",
        "executor_type": "procedural",
        "tags": ["a", "b"],
    }
    assert resumed.demands == {**started.demands, "executor_profile": "special"}
    assert db.run(db.start().run_id).demands == {"executor_type": "autonomous", "tags": []}


def test_only_hostname_of_resume_wins_over_affinity(db: DbVerbs) -> None:
    """Allow for a recreated container, which has another hostname."""
    db.start(session_id="mine")
    affine(db, "mine")
    plain = {"executor_profile": "special", "executor_type": "autonomous", "tags": []}

    named = db.resume("mine", additional_demands=Demands(hostname="new", executor_profile="other"))
    assert db.run(named.run_id).demands == {"hostname": "new", **plain}
    assert db.run(db.resume("mine").run_id).demands == {"hostname": "home", **plain}


def test_resume_without_affinity_goes_to_any_runner(db: DbVerbs) -> None:
    """Drop the session's host and profile; keep the demands of the request."""
    db.start(session_id="mine")
    affine(db, "mine")
    anywhere = db.resume("mine", affinity=False, additional_demands=Demands(tags=("gpu",)))

    assert db.run(anywhere.run_id).demands == {"executor_type": "autonomous", "tags": ["gpu"]}
    assert db.run(db.start(affinity=False).run_id).demands == {"executor_type": "autonomous", "tags": []}


def test_equal_demands_are_one_profile_in_any_notation(db: DbVerbs) -> None:
    """Avoid duplicates, since each claim queries by profile."""
    ways = [("b", "a"), ("a", "b", "a"), ("a", "b")]
    runs = db.accept(*[start_submission(additional_demands=Demands(tags=tags)) for tags in ways])

    assert len({db.run(run.run_id).profile_id for run in runs}) == 1
    assert db.count("demand_profiles") == 1


def test_new_profile_is_found_by_process_that_has_matched_before(db: DbVerbs) -> None:
    """Extend cached match sets by the new profile."""
    runner = db.runner(tags=["gpu", "big"])
    first = db.start().run_id
    assert [run.run_id for run in db.claim(runner)] == [first]

    second = db.start(additional_demands=Demands(tags=("gpu",))).run_id
    assert [run.run_id for run in db.claim(runner)] == [second]


def test_unknown_parent_is_refused(db: DbVerbs) -> None:
    """Answer 404 `Parent session 'X' not found`; nothing of the child is left."""
    db.start(session_id="mine")

    assert db.submit(start_submission("child", parent_session_id="no")) == [NotFound("parent session", "no")]
    assert db.submit(resume_submission("mine", parent_session_id="no")) == [NotFound("parent session", "no")]
    assert db.count("sessions", "session_id = 'child'") == 0
    assert db.count("runs") == 1


def test_parent_that_descends_from_session_is_refused(db: DbVerbs) -> None:
    """Answer 400 `Parent session 'X' is a descendant` for itself, a child and a grandchild."""
    db.start(session_id="a")
    db.start(session_id="b", parent_session_id="a")
    db.start(session_id="c", parent_session_id="b")

    for parent in "abc":
        assert db.submit(resume_submission("a", parent_session_id=parent)) == [ParentIsDescendant(parent)]
    assert isinstance(db.submit(resume_submission("c", parent_session_id="a"))[0], Submitted)


def test_start_that_names_itself_as_parent_is_refused(db: DbVerbs) -> None:
    """Answer like any unknown parent, since the session does not exist yet."""
    assert db.submit(start_submission("new", parent_session_id="new")) == [NotFound("parent session", "new")]
    assert db.count("sessions") == 0


def test_children_are_one_deeper_than_their_parents_up_to_limit(db: DbVerbs) -> None:
    """Apply `max_session_depth`."""
    parent = db.start(session_id="d0").session_id
    for depth in (1, 2, 3):
        parent = db.start(session_id=f"d{depth}", parent_session_id=parent).session_id
        assert db.session(parent).depth == depth

    assert db.submit(start_submission("d4", parent_session_id="d3"), max_depth=3) == [TooDeep(4, 3)]
    assert db.count("sessions", "session_id = 'd4'") == 0
    assert isinstance(db.submit(resume_submission("d3", parent_session_id="d2"), max_depth=3)[0], Submitted)


def test_start_sets_parent_at_once_and_resume_only_when_started(db: DbVerbs) -> None:
    """Set it by a `started` resume, but not by one that never starts."""
    db.start(session_id="parent")
    child = db.start(parent_session_id="parent")
    db.start(session_id="other")
    resumed = db.resume(child.session_id, parent_session_id="other")

    assert db.session(child.session_id).parent_session_id == "parent"
    assert db.run(resumed.run_id).parent_session_id == "other"


def test_delayed_run_is_not_ready_and_has_no_match_deadline(db: DbVerbs) -> None:
    """Show `timeout_at` as null while it is delayed; seconds count from the database's now."""
    moment = datetime.now(UTC) + timedelta(hours=1)
    dated, delayed = db.run(db.start(not_before=moment).run_id), db.run(db.start(delay_seconds=60.0).run_id)

    assert (dated.ready, dated.match_deadline_at) == (delayed.ready, delayed.match_deadline_at) == (False, None)
    assert dated.not_before == moment
    assert delayed.not_before - delayed.created_at == timedelta(minutes=1)


@pytest.mark.parametrize("values", [{"delay_seconds": 0.0}, {"not_before": datetime(2020, 1, 1, tzinfo=UTC)}])
def test_delay_in_the_past_is_ignored(db: DbVerbs, values: dict[str, object]) -> None:
    """Make the run ready without waiting for expiry."""
    assert db.run(db.start(**values).run_id).ready


def test_resume_sets_session_without_active_run_to_pending(db: DbVerbs) -> None:
    first = db.start(session_id="mine")
    ends(db, first.run_id)
    resumed = db.run(db.resume("mine").run_id)

    assert db.session("mine").status == "pending"
    assert (resumed.ready, resumed.session_seq, resumed.type) == (True, 2, "resume_session")
    assert db.told_kinds("mine") == ["session_created", "run_updated", "session_updated", "run_updated"]


@pytest.mark.parametrize("status", ["idle", "finished", "failed", "stopped"])
def test_resume_is_accepted_in_every_status(db: DbVerbs, status: str) -> None:
    """Try failed and stopped sessions too."""
    first = db.start(session_id="mine")
    ends(db, first.run_id)
    db.rows("UPDATE sessions SET status = :status WHERE session_id = 'mine'", status=status)

    assert db.run(db.resume("mine").run_id).ready
    assert db.session("mine").status == "pending"


@pytest.mark.parametrize("delay", [None, 60.0])
def test_resume_behind_unfinished_run_is_not_ready(db: DbVerbs, delay: float | None) -> None:
    """Run a session's runs one at a time, in submission order, a delayed one included."""
    db.start(session_id="mine", delay_seconds=delay)
    second, third = db.accept(resume_submission("mine"), resume_submission("mine"))

    assert [db.run(run.run_id).session_seq for run in (second, third)] == [2, 3]
    assert not db.run(second.run_id).ready
    assert not db.run(third.run_id).ready


def test_resume_of_running_session_leaves_it_running(db: DbVerbs) -> None:
    """Set only a session without an active run to pending."""
    first = db.start(session_id="mine")
    db.claim(db.runner())
    db.rows(
        "UPDATE runs SET status = 'running', started_at = now() WHERE run_id = :r",
        r=first.run_id,
    )
    db.rows("UPDATE sessions SET status = 'running'")
    assert not db.run(db.resume("mine").run_id).ready
    assert db.session("mine").status == "running"


def test_resume_waits_while_stop_of_its_session_is_open(db: DbVerbs) -> None:
    """Hold it back: deployed runners know sessions only, and the stop would end the new run."""
    first = db.start(session_id="mine")
    ends(db, first.run_id)
    db.rows(
        """INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
           VALUES ('lnch_x', 1, 'mine', now() + interval '1 minute')""",
    )
    assert not db.run(db.resume("mine").run_id).ready
    assert db.session("mine").status == "stopping"


def test_bad_item_never_fails_the_others(db: DbVerbs) -> None:
    """Return results in order, one per item."""
    good = [start_submission(), start_submission("mine"), resume_submission("mine")]
    bad: list[tuple[NewRun, CoordinatorError]] = [
        (resume_submission("no"), NotFound("session", "no")),
        (start_submission(parent_session_id="no"), NotFound("parent session", "no")),
        (start_submission("mine"), SessionExists("mine")),
    ]
    items = [good[0], bad[0][0], good[1], bad[1][0], good[2], bad[2][0]]
    results = db.submit(*items)

    assert [result.run_id for result in results[::2] if isinstance(result, Submitted)] == [
        submitted.run_id for submitted in good
    ]
    assert results[1::2] == [error for _, error in bad]
    assert db.count("runs") == 3
    assert db.run(good[0].run_id).parameters == json.loads(PARAMETERS)
