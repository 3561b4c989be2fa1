"""PROTOCOL, Submission: what a run and its session are after they were accepted, and who is refused."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from models.claims.matching import Demands
from models.core.callers import Caller, Role
from models.core.errors import CoordinatorError, NotFound, ParentIsDescendant, SessionExists, TooDeep
from models.core.statuses import ExecutionMode
from models.runs.submit import NewRun, Submitted
from tests.support.truth import PARAMETERS, Truth, resuming, starting

ANNA = Caller(Role.USER, "anna")
BERT = Caller(Role.USER, "bert")


def affine(truth: Truth, session_id: str) -> None:
    """The session is at home somewhere, as after a bind."""
    truth.rows(
        "UPDATE sessions SET hostname = 'home', executor_profile = 'special' WHERE session_id = :s",
        s=session_id,
    )


def ends(truth: Truth, run_id: str) -> None:
    """The run is over and its session finished, whoever reported it."""
    truth.rows(
        "UPDATE runs SET status = 'completed', ready = false, completed_at = now() WHERE run_id = :r",
        r=run_id,
    )
    truth.rows(
        """UPDATE sessions SET status = 'finished', last_outcome = 'finished'
           WHERE session_id = (SELECT session_id FROM runs WHERE run_id = :r)""",
        r=run_id,
    )


def test_a_start_creates_a_session_and_a_run_that_is_ready(truth: Truth) -> None:
    """The answer names both; the run may be claimed at once."""
    item = starting()
    (answer,) = truth.submit(item)

    assert answer == Submitted(item.run_id, item.new_session_id, "pending", replayed=False)
    run, session = truth.run(item.run_id), truth.session(item.new_session_id)
    assert (run.status, run.ready, run.type, run.session_seq) == ("pending", True, "start_session", 1)
    assert run.match_deadline_at - run.created_at == timedelta(seconds=300)
    assert (session.status, session.next_run, session.depth) == ("pending", 2, 0)


def test_a_start_writes_the_session_and_the_run_into_history(truth: Truth) -> None:
    """In the transaction of the change, the session first."""
    run = truth.start(caller=ANNA)
    rows = truth.rows("SELECT kind, run_id, owner, frame::text AS frame FROM events ORDER BY id")

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


def test_a_start_keeps_what_it_was_given(truth: Truth) -> None:
    """Every field of the submission is a field of the run."""
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    run_id = truth.start(
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
    run = truth.rows("SELECT *, parameters::text AS given, scope::text AS shown FROM runs WHERE run_id = :r", r=run_id)[
        0
    ]

    assert run.given == '{"prompt": "a\\u0000b\\ud800"}'
    assert (run.session_id, run.owner, run.agent_name, run.project_dir) == ("mine", "anna", "agent", "/somewhere")
    assert (json.loads(run.shown), run.execution_mode, run.priority) == ({"a": 1}, "async_poll", -7)
    assert (run.not_before, run.max_attempts, run.run_timeout_seconds) == (moment, 3, 60)
    assert (run.no_match_timeout_seconds, run.labels, run.attempt) == (12, {"k": "v"}, 0)


def test_a_start_of_a_session_that_is_there_is_refused_and_changes_nothing(truth: Truth) -> None:
    """409 `Session 'X' already exists`."""
    truth.start(session_id="mine", agent_name="first")
    before = (truth.count("runs"), truth.count("events"), truth.session("mine"))

    assert truth.submit(starting("mine", agent_name="second")) == [SessionExists("mine")]
    assert (truth.count("runs"), truth.count("events"), truth.session("mine")) == before


def test_a_resume_of_an_unknown_session_is_refused_and_leaves_nothing(truth: Truth) -> None:
    """404 `Session 'X' not found`."""
    assert truth.submit(resuming("nobody")) == [NotFound("session", "nobody")]
    assert (truth.count("runs"), truth.count("sessions"), truth.count("events")) == (0, 0, 0)


def test_a_session_of_another_owner_is_not_found(truth: Truth) -> None:
    """Neither to resume it nor to be its child; an admin may both."""
    truth.start(session_id="hers", caller=ANNA)

    assert truth.submit(resuming("hers", caller=BERT)) == [NotFound("session", "hers")]
    assert truth.submit(starting(caller=BERT, parent_session_id="hers")) == [NotFound("parent session", "hers")]
    assert truth.session(truth.start(parent_session_id="hers").session_id).owner == "anna"
    assert truth.run(truth.resume("hers").run_id).owner == "anna"


def test_agent_and_project_of_a_resume_default_to_the_sessions(truth: Truth) -> None:
    """What the resume says itself counts for its run alone."""
    truth.start(session_id="mine", agent_name="agent", project_dir="/project")
    plain = truth.run(truth.resume("mine").run_id)
    other = truth.run(truth.resume("mine", agent_name="other", project_dir="/else").run_id)

    assert (plain.agent_name, plain.project_dir) == ("agent", "/project")
    assert (other.agent_name, other.project_dir) == ("other", "/else")
    assert (truth.session("mine").agent_name, truth.session("mine").project_dir) == ("agent", "/project")


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
def test_a_child_inherits_its_parents_scope_and_its_own_keys_win(
    truth: Truth,
    parents: str | None,
    own: str | None,
    expected: object,
) -> None:
    """One level of keys: a value is replaced, not merged."""
    parent = truth.start(scope=parents).session_id
    child = truth.start(parent_session_id=parent, scope=own)

    assert truth.run(child.run_id).scope == expected
    assert truth.session(child.session_id).scope == expected


def test_a_child_inherits_the_latest_scope_of_its_parent(truth: Truth) -> None:
    """A resume may have changed it since the start."""
    truth.start(session_id="parent", scope='{"a": 1, "b": 1}')
    truth.resume("parent", scope='{"b": 2}')

    assert truth.run(truth.start(parent_session_id="parent").run_id).scope == {"a": 1, "b": 2}


def test_a_resume_goes_on_with_the_scope_of_its_session(truth: Truth) -> None:
    """Also when it comes from a parent that has none."""
    truth.start(session_id="caller")
    truth.start(session_id="mine", scope='{"a": 1}')

    assert truth.run(truth.resume("mine").run_id).scope == {"a": 1}
    assert truth.run(truth.resume("mine", parent_session_id="caller").run_id).scope == {"a": 1}


def test_demands_are_merged_affinity_first_then_autonomous_then_the_requests(truth: Truth) -> None:
    """First wins per property, tags are united."""
    truth.start(session_id="mine")
    affine(truth, "mine")
    wanted = Demands("elsewhere", "/project", "other", "procedural", ("b", "a"))
    started = truth.run(truth.start(additional_demands=wanted).run_id)
    resumed = truth.run(truth.resume("mine", additional_demands=wanted).run_id)

    assert started.demands == {
        "hostname": "elsewhere",
        "project_dir": "/project",
        "executor_profile": "other",
        "executor_type": "autonomous",
        "tags": ["a", "b"],
    }
    assert resumed.demands == {**started.demands, "executor_profile": "special"}
    assert truth.run(truth.start().run_id).demands == {"executor_type": "autonomous", "tags": []}


def test_hostname_of_a_resume_wins_over_affinity_and_nothing_else_does(truth: Truth) -> None:
    """A container that was recreated has another hostname."""
    truth.start(session_id="mine")
    affine(truth, "mine")
    plain = {"executor_profile": "special", "executor_type": "autonomous", "tags": []}

    named = truth.resume("mine", additional_demands=Demands(hostname="new", executor_profile="other"))
    assert truth.run(named.run_id).demands == {"hostname": "new", **plain}
    assert truth.run(truth.resume("mine").run_id).demands == {"hostname": "home", **plain}


def test_resume_without_affinity_goes_to_any_runner(truth: Truth) -> None:
    """The session's host and profile are dropped; what the request names holds."""
    truth.start(session_id="mine")
    affine(truth, "mine")
    anywhere = truth.resume("mine", affinity=False, additional_demands=Demands(tags=("gpu",)))

    assert truth.run(anywhere.run_id).demands == {"executor_type": "autonomous", "tags": ["gpu"]}
    assert truth.run(truth.start(affinity=False).run_id).demands == {"executor_type": "autonomous", "tags": []}


def test_equal_demands_are_one_profile_however_they_are_written(truth: Truth) -> None:
    """A claim asks per profile: two for the same would only cost."""
    ways = [("b", "a"), ("a", "b", "a"), ("a", "b")]
    runs = truth.accept(*[starting(additional_demands=Demands(tags=tags)) for tags in ways])

    assert len({truth.run(run.run_id).profile_id for run in runs}) == 1
    assert truth.count("demand_profiles") == 1


def test_a_new_profile_is_found_by_a_process_that_has_matched_before(truth: Truth) -> None:
    """What is remembered of a registration grows with the profiles."""
    runner = truth.runner(tags=["gpu", "big"])
    first = truth.start().run_id
    assert [run.run_id for run in truth.claim(runner)] == [first]

    second = truth.start(additional_demands=Demands(tags=("gpu",))).run_id
    assert [run.run_id for run in truth.claim(runner)] == [second]


def test_an_unknown_parent_is_refused(truth: Truth) -> None:
    """404 `Parent session 'X' not found`; nothing of the child is left."""
    truth.start(session_id="mine")

    assert truth.submit(starting("child", parent_session_id="no")) == [NotFound("parent session", "no")]
    assert truth.submit(resuming("mine", parent_session_id="no")) == [NotFound("parent session", "no")]
    assert truth.count("sessions", "session_id = 'child'") == 0
    assert truth.count("runs") == 1


def test_a_parent_that_descends_from_the_session_is_refused(truth: Truth) -> None:
    """400 `Parent session 'X' is a descendant`: itself, a child, a grandchild."""
    truth.start(session_id="a")
    truth.start(session_id="b", parent_session_id="a")
    truth.start(session_id="c", parent_session_id="b")

    for parent in "abc":
        assert truth.submit(resuming("a", parent_session_id=parent)) == [ParentIsDescendant(parent)]
    assert isinstance(truth.submit(resuming("c", parent_session_id="a"))[0], Submitted)


def test_a_start_that_names_itself_as_parent_is_refused(truth: Truth) -> None:
    """The session is not there yet, so its parent is not."""
    assert truth.submit(starting("new", parent_session_id="new")) == [NotFound("parent session", "new")]
    assert truth.count("sessions") == 0


def test_children_are_one_deeper_than_their_parents_up_to_a_limit(truth: Truth) -> None:
    """`max_session_depth`."""
    parent = truth.start(session_id="d0").session_id
    for depth in (1, 2, 3):
        parent = truth.start(session_id=f"d{depth}", parent_session_id=parent).session_id
        assert truth.session(parent).depth == depth

    assert truth.submit(starting("d4", parent_session_id="d3"), max_depth=3) == [TooDeep(4, 3)]
    assert truth.count("sessions", "session_id = 'd4'") == 0
    assert isinstance(truth.submit(resuming("d3", parent_session_id="d2"), max_depth=3)[0], Submitted)


def test_a_session_takes_its_parent_from_a_start_at_once_but_not_from_a_resume(truth: Truth) -> None:
    """A `started` resume sets it, and a resume that never starts does not."""
    truth.start(session_id="parent")
    child = truth.start(parent_session_id="parent")
    truth.start(session_id="other")
    resumed = truth.resume(child.session_id, parent_session_id="other")

    assert truth.session(child.session_id).parent_session_id == "parent"
    assert truth.run(resumed.run_id).parent_session_id == "other"


def test_a_delayed_run_is_not_ready_and_has_no_deadline_for_a_match(truth: Truth) -> None:
    """`timeout_at` is null while it is delayed; seconds count from the database's now."""
    moment = datetime.now(UTC) + timedelta(hours=1)
    dated, delayed = truth.run(truth.start(not_before=moment).run_id), truth.run(truth.start(delay_seconds=60.0).run_id)

    assert (dated.ready, dated.match_deadline_at) == (delayed.ready, delayed.match_deadline_at) == (False, None)
    assert dated.not_before == moment
    assert delayed.not_before - delayed.created_at == timedelta(minutes=1)


@pytest.mark.parametrize("values", [{"delay_seconds": 0.0}, {"not_before": datetime(2020, 1, 1, tzinfo=UTC)}])
def test_a_delay_that_is_over_is_none(truth: Truth, values: dict[str, object]) -> None:
    """Nothing has to wait for the tick."""
    assert truth.run(truth.start(**values).run_id).ready


def test_a_resume_sets_a_session_without_an_active_run_to_pending(truth: Truth) -> None:
    """A client that polls must not read the old result; the feed is told."""
    first = truth.start(session_id="mine")
    ends(truth, first.run_id)
    resumed = truth.run(truth.resume("mine").run_id)

    assert truth.session("mine").status == "pending"
    assert (resumed.ready, resumed.session_seq, resumed.type) == (True, 2, "resume_session")
    assert truth.told_kinds("mine") == ["session_created", "run_updated", "session_updated", "run_updated"]


@pytest.mark.parametrize("status", ["idle", "finished", "failed", "stopped"])
def test_a_resume_is_accepted_in_every_status(truth: Truth, status: str) -> None:
    """Also of a session that failed or was stopped."""
    first = truth.start(session_id="mine")
    ends(truth, first.run_id)
    truth.rows("UPDATE sessions SET status = :status WHERE session_id = 'mine'", status=status)

    assert truth.run(truth.resume("mine").run_id).ready
    assert truth.session("mine").status == "pending"


@pytest.mark.parametrize("delay", [None, 60.0])
def test_a_resume_behind_an_unfinished_run_is_not_ready(truth: Truth, delay: float | None) -> None:
    """A session's runs execute one at a time, in submission order: a delayed one included."""
    truth.start(session_id="mine", delay_seconds=delay)
    second, third = truth.accept(resuming("mine"), resuming("mine"))

    assert [truth.run(run.run_id).session_seq for run in (second, third)] == [2, 3]
    assert not truth.run(second.run_id).ready
    assert not truth.run(third.run_id).ready


def test_a_resume_of_a_running_session_leaves_it_running(truth: Truth) -> None:
    """Only a session without an active run becomes pending."""
    first = truth.start(session_id="mine")
    truth.claim(truth.runner())
    truth.rows(
        "UPDATE runs SET status = 'running', started_at = now() WHERE run_id = :r",
        r=first.run_id,
    )
    truth.rows("UPDATE sessions SET status = 'running'")
    assert not truth.run(truth.resume("mine").run_id).ready
    assert truth.session("mine").status == "running"


def test_a_resume_waits_while_a_stop_of_the_session_is_open(truth: Truth) -> None:
    """Deployed runners know sessions only: the stop would end the new run."""
    first = truth.start(session_id="mine")
    ends(truth, first.run_id)
    truth.rows(
        """INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
           VALUES ('lnch_x', 1, 'mine', now() + interval '1 minute')""",
    )
    assert not truth.run(truth.resume("mine").run_id).ready
    assert truth.session("mine").status == "stopping"


def test_one_bad_item_never_fails_the_others(truth: Truth) -> None:
    """Results come in order, one per item."""
    good = [starting(), starting("mine"), resuming("mine")]
    bad: list[tuple[NewRun, CoordinatorError]] = [
        (resuming("no"), NotFound("session", "no")),
        (starting(parent_session_id="no"), NotFound("parent session", "no")),
        (starting("mine"), SessionExists("mine")),
    ]
    items = [good[0], bad[0][0], good[1], bad[1][0], good[2], bad[2][0]]
    results = truth.submit(*items)

    assert [result.run_id for result in results[::2] if isinstance(result, Submitted)] == [one.run_id for one in good]
    assert results[1::2] == [error for _, error in bad]
    assert truth.count("runs") == 3
    assert truth.run(good[0].run_id).parameters == json.loads(PARAMETERS)
