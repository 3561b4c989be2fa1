"""Polls: the order of answers, parking, re-checks and ends (ARCHITECTURE, Claiming)."""

from sqlalchemy import text

from models.claims.dispatch import dispatch_preview, preview_waiting
from models.claims.parking import leave_instance
from models.claims.polls import PollAnswer, answer_polls
from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS
from models.state.runs import Run
from tests.support.db_verbs import DbVerbs, Runner, poll_request, start_submission
from tests.support.dispatch_pass import dispatch_waiting


def told_to_stop(db: DbVerbs, runner: Runner, *sessions: str) -> None:
    """Insert stop commands that were not told yet."""
    for session_id in sessions:
        db.rows(
            """INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
               VALUES (:runner_id, :registration, :session_id, now() + interval '1 minute')""",
            runner_id=runner.runner_id,
            registration=runner.registration,
            session_id=session_id,
        )


def told_to_leave(db: DbVerbs, runner: Runner) -> None:
    db.rows("UPDATE runners SET leave_requested_at = now() WHERE runner_id = :r", r=runner.runner_id)


def ids(runs: list[Run]) -> list[str]:
    return [run.run_id for run in runs]


def test_poll_of_unknown_runner_is_refused_and_not_parked(db: DbVerbs) -> None:
    """Answer 401."""
    unknown = poll_request(Runner("lnch_unknown", 1))

    assert db.do(answer_polls, [unknown]) == [RunnerNotRegistered("lnch_unknown")]
    assert db.waiting() == set()


def test_poll_of_left_or_forgotten_runner_is_refused(db: DbVerbs) -> None:
    """Answer 401 once it left or was silent for `forget_runner_seconds`."""
    left, silent = db.runner(), db.runner()
    db.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=left.runner_id)
    db.rows("UPDATE runners SET last_seen = now() - interval '25 hours' WHERE runner_id = :r", r=silent.runner_id)
    answers = db.do(answer_polls, [poll_request(left), poll_request(silent)])

    assert answers == [RunnerNotRegistered(left.runner_id), RunnerNotRegistered(silent.runner_id)]


def test_stops_are_told_first_then_leave_then_runs(db: DbVerbs) -> None:
    runner, run_id = db.runner(), db.start().run_id
    told_to_stop(db, runner, "s2", "s1")
    told_to_leave(db, runner)

    assert db.answer(poll_request(runner)) == [PollAnswer(stop_sessions=["s2", "s1"])]
    assert db.answer(poll_request(runner)) == [PollAnswer(deregistered=True)]
    assert db.do(answer_polls, [poll_request(runner)]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.run(run_id).status == "pending"
    assert db.waiting() == set()


def test_stop_is_told_again_after_ten_seconds_and_not_before(db: DbVerbs) -> None:
    """Wait, since a deployed runner ignores a stop for a process it does not have and polls again at once."""
    runner, other = db.runner(), db.runner()
    told_to_stop(db, runner, "s1")
    assert db.answer(poll_request(runner))[0].stop_sessions == ["s1"]
    assert db.answer(poll_request(runner), poll_request(other)) == [PollAnswer(parked=True)] * 2

    db.rows("UPDATE stop_commands SET sent_at = now() - interval '11 seconds'")
    assert db.answer(poll_request(runner))[0].stop_sessions == ["s1"]


def test_stop_is_told_to_one_of_two_polls_of_runner(db: DbVerbs) -> None:
    """Give the other one what else there is."""
    runner, run_id = db.runner(), db.start().run_id
    told_to_stop(db, runner, "s1")
    first, second = db.answer(poll_request(runner), poll_request(runner))

    assert first.stop_sessions == ["s1"]
    assert (second.stop_sessions, ids(second.runs)) == ([], [run_id])


def test_poll_claims_available_runs_at_once(db: DbVerbs) -> None:
    """Deliver by its own answer: from now on the runner has `start_timeout` to report `started`."""
    run_id, runner = db.start().run_id, db.runner()
    poll = poll_request(runner)
    (answer,) = db.answer(poll)
    row = db.run(run_id)

    assert (ids(answer.runs), answer.parked, db.waiting()) == ([run_id], False, set())
    assert (row.status, row.ready, row.runner_id, row.registration) == (
        "claimed",
        False,
        runner.runner_id,
        runner.registration,
    )
    assert (row.claim_poll_id, row.claim_token) == (poll.poll_id, answer.runs[0].claim_token)
    assert round((row.claim_deadline_at - row.delivered_at).total_seconds()) == DEFAULT_LIMITS.start_timeout
    assert row.attempt == 0
    assert db.told_kinds(row.session_id)[-1] == "run_updated"


def test_repeated_poll_gets_same_answer(db: DbVerbs) -> None:
    """Repeat it after a COMMIT whose answer was lost: the runs are found by their poll, and no more are claimed."""
    db.accept(*[start_submission() for _ in range(3)])
    first_runner, second_runner = db.runner(), db.runner()
    asks = [poll_request(first_runner), poll_request(second_runner)]
    first = db.answer(*asks)
    again = db.answer(*asks)

    assert [ids(answer.runs) for answer in again] == [ids(answer.runs) for answer in first]
    assert [answer.runs[0].claim_token for answer in again] == [answer.runs[0].claim_token for answer in first]
    assert db.count("runs", "status = 'claimed'") == 2


def test_repeated_answer_removes_row_of_parked_poll(db: DbVerbs) -> None:
    """Delete the row, or dispatch would give the poll a second run."""
    ask = poll_request(db.runner())
    db.answer(ask)
    db.start()

    assert len(db.answer(ask)[0].runs) == 1
    assert db.waiting() == set()
    db.start()
    assert db.dispatch() == {}


def test_same_poll_twice_in_batch_is_one_poll(db: DbVerbs) -> None:
    db.accept(*[start_submission() for _ in range(3)])
    busy, waiting = poll_request(db.runner()), poll_request(db.runner(executor_type="other"))
    first, second, third, fourth = db.answer(busy, waiting, busy, waiting)

    assert (ids(first.runs), third.parked) == (ids(second_runs := third.runs), False)
    assert len(second_runs) == 1
    assert (second.parked, fourth.parked) == (True, True)
    assert db.count("runs", "status = 'claimed'") == 1


def test_poll_without_runs_parks(db: DbVerbs) -> None:
    """Write a row with what dispatch needs to know."""
    runner = db.runner()
    ask = poll_request(runner, wanted=3, instance="web-7")

    assert db.answer(ask) == [PollAnswer(parked=True)]
    (row,) = db.rows("SELECT * FROM waiting_polls")
    assert (row.poll_id, row.runner_id, row.registration) == (ask.poll_id, runner.runner_id, runner.registration)
    assert (row.instance, row.wanted) == ("web-7", 3)


def test_second_claim_finds_run_submitted_while_parking(db: DbVerbs) -> None:
    """Remove the poll's own row."""
    ask = poll_request(db.runner())
    db.answer(ask)
    first_id, second_id = db.start().run_id, db.start().run_id

    assert ids(db.second(ask)[0].runs) == [first_id]
    assert db.waiting() == set()
    assert db.run(second_id).status == "pending"
    assert ids(db.second(ask)[0].runs) == [first_id], "repeated it is the same"


def test_second_claim_claims_nothing_without_its_row(db: DbVerbs) -> None:
    """Return only what dispatch assigned meanwhile, or one poll would get two runs."""
    ask = poll_request(db.runner())
    db.answer(ask)
    first_id, second_id = db.start().run_id, db.start().run_id
    assert db.dispatch() == {ask.poll_id: [first_id]}

    assert ids(db.second(ask)[0].runs) == [first_id]
    assert db.run(second_id).status == "pending"
    assert db.run(first_id).delivered_at is not None


def test_poll_that_wants_several_gets_several(db: DbVerbs) -> None:
    """Set `max=N`, also for dispatch."""
    first = [run.run_id for run in db.accept(*[start_submission() for _ in range(5)])]
    runner = db.runner()
    assert ids(db.claim(runner, wanted=3)) == first[:3]
    assert ids(db.claim(runner, wanted=3)) == first[3:]

    parked = db.park(runner, wanted=2)
    more = [run.run_id for run in db.accept(*[start_submission() for _ in range(3)])]
    assert db.dispatch() == {parked.poll_id: more[:2]}


def test_poll_that_wants_none_is_told_stops_only(db: DbVerbs) -> None:
    """Poll as a full or draining runner does; dispatch skips it."""
    runner = db.runner()
    db.start()
    ask = poll_request(runner, wanted=0)

    assert db.answer(ask) == db.second(ask) == db.recheck(ask) == [PollAnswer(parked=True)]
    assert db.dispatch() == {}
    told_to_stop(db, runner, "s1")
    assert db.recheck(ask) == [PollAnswer(stop_sessions=["s1"])]
    assert db.waiting() == set()


def test_dispatch_assigns_runs_to_parked_polls_and_names_their_instance(db: DbVerbs) -> None:
    """Leave them undelivered: they are released after `claim_timeout` unless the instance confirms."""
    polls = [db.park(db.runner(), instance=instance) for instance in ("web-1", "web-2", "web-1")]
    runs = [run.run_id for run in db.accept(*[start_submission() for _ in range(3)])]
    done = db.do(dispatch_waiting)

    assert {instance: len(assignments) for instance, assignments in done.by_instance.items()} == {
        "web-1": 2,
        "web-2": 1,
    }
    assignments = [assignment for some in done.by_instance.values() for assignment in some]
    assert sorted(assignment.run_id for assignment in assignments) == runs
    assert {assignment.poll_id for assignment in assignments} == {poll.poll_id for poll in polls}
    assert all(assignment.claim_token == db.run(assignment.run_id).claim_token for assignment in assignments)
    rows = [db.run(run_id) for run_id in runs]
    assert {row.delivered_at for row in rows} == {None}
    assert {round((row.claim_deadline_at - row.claimed_at).total_seconds()) for row in rows} == {
        DEFAULT_LIMITS.claim_timeout
    }
    assert (db.waiting(), done.again) == (set(), False)


def test_dispatch_skips_polls_not_renewed_for_five_seconds(db: DbVerbs) -> None:
    """Skip them, since their process may be frozen or gone."""
    ask = db.park(db.runner())
    db.rows("UPDATE waiting_polls SET seen_at = now() - interval '6 seconds'")
    run_id = db.start().run_id
    assert db.dispatch() == {}

    assert ids(db.recheck(ask)[0].runs) == [run_id], "it is found again by itself when its process lives"


def test_dispatch_skips_polls_of_reregistered_or_leaving_runner(db: DbVerbs) -> None:
    """Skip them: the process behind such a poll is another one, or gets no more runs."""
    former, leaving = db.runner(), db.runner()
    db.park(former)
    db.park(leaving)
    db.rows("UPDATE runners SET registration = registration + 1000 WHERE runner_id = :r", r=former.runner_id)
    told_to_leave(db, leaving)
    db.start()

    assert db.dispatch() == {}


def test_dispatch_requests_another_pass_only_if_it_could_do_something(db: DbVerbs) -> None:
    """Stop after a full pass without assignment, which would repeat forever."""
    runner, idle = db.runner(), db.runner()
    db.park(idle, wanted=0)
    db.accept(*[start_submission() for _ in range(6)])
    done = db.do(dispatch_waiting, 3)
    assert (done.by_instance, done.again) == ({}, False)

    db.rows("UPDATE runs SET not_for = ARRAY[CAST(:r AS bigint)]", r=runner.registration)
    db.answer(poll_request(runner))
    done = db.do(dispatch_waiting, 3)
    assert (done.by_instance, done.again) == ({}, False)

    for _ in range(5):
        db.answer(poll_request(db.runner(), wanted=0))
    asks = [poll_request(db.runner()) for _ in range(5)]
    db.rows("UPDATE runs SET ready = false")
    db.answer(*asks)
    db.rows("UPDATE runs SET ready = true")
    done = db.do(dispatch_waiting, 3)
    assert (sum(map(len, done.by_instance.values())), done.again) == (3, True)


def test_dispatch_reads_parked_polls_page_by_page_to_the_last(db: DbVerbs) -> None:
    """Reach every poll, however many older ones wait for something else."""
    for _ in range(4):
        db.park(db.runner(executor_type="other"))
    newest = db.park(db.runner())
    run_id = db.start().run_id

    first = db.do(preview_waiting, page=2)
    second = db.do(preview_waiting, page=2, after=first.next_after)
    third = db.do(preview_waiting, page=2, after=second.next_after)

    assert [page.poll_candidates for page in (first, second)] == [[], []]
    assert [page.more for page in (first, second)] == [False, False], "another pass would find the same"
    assert third.next_after == ""
    assert [candidate.ask.poll_id for candidate in third.poll_candidates] == [newest.poll_id]
    (assignments,) = db.do(dispatch_preview, third).by_instance.values()
    assert [(assignment.poll_id, assignment.run_id) for assignment in assignments] == [(newest.poll_id, run_id)]


def test_dispatch_requests_another_pass_while_younger_pages_may_match(db: DbVerbs) -> None:
    """Assign something in this pass, so that the next one differs."""
    for _ in range(3):
        db.park(db.runner())
    db.accept(*[start_submission() for _ in range(2)])

    assert db.do(preview_waiting, page=2).more
    assert not db.do(preview_waiting, page=4).more


def test_recheck_renews_row_and_finds_submitted_run(db: DbVerbs) -> None:
    """Bound the effect of a lost wake-up."""
    ask = db.park(db.runner())
    db.rows("UPDATE waiting_polls SET seen_at = now() - interval '1 minute'")
    assert db.recheck(ask) == [PollAnswer(parked=True)]
    assert db.count("waiting_polls", "seen_at > now() - interval '5 seconds'") == 1

    run_id = db.start().run_id
    assert ids(db.recheck(ask)[0].runs) == [run_id]
    assert db.waiting() == set()


def test_recheck_finds_assignment_with_lost_message(db: DbVerbs) -> None:
    """Find it by poll id; this answer delivers it."""
    ask = db.park(db.runner())
    run_id = db.start().run_id
    db.dispatch()

    assert ids(db.recheck(ask)[0].runs) == [run_id]
    assert db.run(run_id).delivered_at is not None


def test_recheck_restores_vanished_rows(db: DbVerbs) -> None:
    """Empty the UNLOGGED table, as a crash restart of Postgres does."""
    asks = [db.park(db.runner()) for _ in range(3)]
    db.rows("TRUNCATE waiting_polls")

    assert db.recheck(*asks) == [PollAnswer(parked=True)] * 3
    assert db.waiting() == {ask.poll_id for ask in asks}
    db.start()
    assert len(db.dispatch()) == 1


def test_recheck_reports_runner_gone_or_leaving(db: DbVerbs) -> None:
    """Change the runner while its polls are parked."""
    staying, leaving, left = db.runner(), db.runner(), db.runner()
    asks = [db.park(runner) for runner in (staying, leaving, left)]
    told_to_leave(db, leaving)
    db.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=left.runner_id)

    with db.engine.begin() as connection:
        answers = answer_polls(connection, asks)
    assert answers == [PollAnswer(parked=True), PollAnswer(deregistered=True), RunnerNotRegistered(left.runner_id)]


def test_recheck_of_many_polls_claims_for_each(db: DbVerbs) -> None:
    """Use one batch and one transaction."""
    asks = [db.park(db.runner()) for _ in range(4)]
    runs = {run.run_id for run in db.accept(*[start_submission() for _ in range(3)])}
    answers = db.recheck(*asks)

    assert {run.run_id for answer in answers for run in answer.runs} == runs
    assert [answer.parked for answer in answers].count(True) == 1
    assert db.waiting() == {ask.poll_id for ask, answer in zip(asks, answers, strict=True) if answer.parked}


def test_cancelled_poll_loses_its_row(db: DbVerbs) -> None:
    """Assign nothing to it any more."""
    ask = db.park(db.runner())
    assert db.give_up(ask) == [[]]

    db.start()
    assert (db.waiting(), db.dispatch()) == (set(), {})


def test_cancelled_poll_returns_run_assigned_meanwhile(db: DbVerbs) -> None:
    ask, other = db.park(db.runner()), db.park(db.runner(executor_type="other"))
    run_id = db.start().run_id
    db.dispatch()
    returned, nothing = db.give_up(ask, other)

    assert (ids(returned), nothing) == ([run_id], [])
    assert db.run(run_id).delivered_at is not None


def test_shutdown_removes_rows_of_its_instance_only(db: DbVerbs) -> None:
    db.park(db.runner(), instance="web-1")
    staying = db.park(db.runner(), instance="web-2")
    db.do(leave_instance, "web-1")

    assert db.waiting() == {staying.poll_id}


def test_poll_left_empty_by_locked_run_asks_for_retry(db: DbVerbs) -> None:
    """Wake dispatch once more instead of waiting for the re-check: the holder of the lock may release the run."""
    submitted = db.start()
    runner = db.runner()
    with db.engine.begin() as other:
        other.execute(text("SELECT 1 FROM runs WHERE run_id = :id FOR UPDATE"), {"id": submitted.run_id})
        (held,) = db.answer(poll_request(runner))
    assert (held.runs, held.passed_over) == ([], True)
    (free,) = db.answer(poll_request(runner))
    assert ([run.run_id for run in free.runs], free.passed_over) == ([submitted.run_id], False)
