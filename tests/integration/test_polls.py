"""What a poll is told, in which order, and how it waits, is looked after and ends (ARCHITECTURE, Claiming)."""

from sqlalchemy import text

from models.claims.dispatch import dispatch_promised, promise_waiting
from models.claims.parking import leave_instance
from models.claims.polls import PollAnswer, answer_polls
from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS
from models.state.runs import Run
from tests.support.dispatching import dispatch_waiting
from tests.support.truth import Runner, Truth, asking, starting


def told_to_stop(truth: Truth, runner: Runner, *sessions: str) -> None:
    """Stop commands that nobody has been told of."""
    for session_id in sessions:
        truth.rows(
            """INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at)
               VALUES (:runner_id, :registration, :session_id, now() + interval '1 minute')""",
            runner_id=runner.runner_id,
            registration=runner.registration,
            session_id=session_id,
        )


def told_to_leave(truth: Truth, runner: Runner) -> None:
    truth.rows("UPDATE runners SET leave_requested_at = now() WHERE runner_id = :r", r=runner.runner_id)


def ids(runs: list[Run]) -> list[str]:
    return [run.run_id for run in runs]


def test_a_poll_of_a_runner_nobody_knows_is_refused(truth: Truth) -> None:
    """401; never parked."""
    unknown = asking(Runner("lnch_unknown", 1))

    assert truth.do(answer_polls, [unknown]) == [RunnerNotRegistered("lnch_unknown")]
    assert truth.waiting() == set()


def test_a_runner_that_left_or_was_forgotten_is_refused(truth: Truth) -> None:
    """401 begins when it left or was silent for `forget_runner_seconds`."""
    left, silent = truth.runner(), truth.runner()
    truth.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=left.runner_id)
    truth.rows("UPDATE runners SET last_seen = now() - interval '25 hours' WHERE runner_id = :r", r=silent.runner_id)
    answers = truth.do(answer_polls, [asking(left), asking(silent)])

    assert answers == [RunnerNotRegistered(left.runner_id), RunnerNotRegistered(silent.runner_id)]


def test_stops_are_told_first_then_leave_then_runs(truth: Truth) -> None:
    """A runner that has to leave gets no run any more, and is refused after it was told."""
    runner, one = truth.runner(), truth.start().run_id
    told_to_stop(truth, runner, "s2", "s1")
    told_to_leave(truth, runner)

    assert truth.answer(asking(runner)) == [PollAnswer(stop_sessions=["s2", "s1"])]
    assert truth.answer(asking(runner)) == [PollAnswer(deregistered=True)]
    assert truth.do(answer_polls, [asking(runner)]) == [RunnerNotRegistered(runner.runner_id)]
    assert truth.run(one).status == "pending"
    assert truth.waiting() == set()


def test_a_stop_is_told_again_after_ten_seconds_and_not_before(truth: Truth) -> None:
    """The deployed runner ignores a stop for a process it does not have, and polls again at once."""
    runner, other = truth.runner(), truth.runner()
    told_to_stop(truth, runner, "s1")
    assert truth.answer(asking(runner))[0].stop_sessions == ["s1"]
    assert truth.answer(asking(runner), asking(other)) == [PollAnswer(parked=True)] * 2

    truth.rows("UPDATE stop_commands SET sent_at = now() - interval '11 seconds'")
    assert truth.answer(asking(runner))[0].stop_sessions == ["s1"]


def test_a_stop_is_told_to_one_of_two_polls_of_a_runner(truth: Truth) -> None:
    """The other one gets what else there is."""
    runner, one = truth.runner(), truth.start().run_id
    told_to_stop(truth, runner, "s1")
    first, second = truth.answer(asking(runner), asking(runner))

    assert first.stop_sessions == ["s1"]
    assert (second.stop_sessions, ids(second.runs)) == ([], [one])


def test_a_poll_claims_at_once_what_is_there(truth: Truth) -> None:
    """Delivered by its own answer: from now on the runner has `start_timeout` to say `started`."""
    run_id, runner = truth.start().run_id, truth.runner()
    poll = asking(runner)
    (answer,) = truth.answer(poll)
    row = truth.run(run_id)

    assert (ids(answer.runs), answer.parked, truth.waiting()) == ([run_id], False, set())
    assert (row.status, row.ready, row.runner_id, row.registration) == (
        "claimed",
        False,
        runner.runner_id,
        runner.registration,
    )
    assert (row.claim_poll_id, row.claim_token) == (poll.poll_id, answer.runs[0].claim_token)
    assert round((row.claim_deadline_at - row.delivered_at).total_seconds()) == DEFAULT_LIMITS.start_timeout
    assert row.attempt == 0
    assert truth.told_kinds(row.session_id)[-1] == "run_updated"


def test_a_repeated_answer_is_the_same_answer(truth: Truth) -> None:
    """The COMMIT had happened and its answer was lost: the runs are found by their poll, and no more are claimed."""
    truth.accept(*[starting() for _ in range(3)])
    first_runner, second_runner = truth.runner(), truth.runner()
    asks = [asking(first_runner), asking(second_runner)]
    first = truth.answer(*asks)
    again = truth.answer(*asks)

    assert [ids(answer.runs) for answer in again] == [ids(answer.runs) for answer in first]
    assert [answer.runs[0].claim_token for answer in again] == [answer.runs[0].claim_token for answer in first]
    assert truth.count("runs", "status = 'claimed'") == 2


def test_a_repeated_answer_of_a_poll_that_was_parked_takes_its_row_away(truth: Truth) -> None:
    """Else dispatch would give it a second run."""
    ask = asking(truth.runner())
    truth.answer(ask)
    truth.start()

    assert len(truth.answer(ask)[0].runs) == 1
    assert truth.waiting() == set()
    truth.start()
    assert truth.dispatch() == {}


def test_the_same_poll_twice_in_a_batch_is_one_poll(truth: Truth) -> None:
    """Each item gets the one answer."""
    truth.accept(*[starting() for _ in range(3)])
    busy, waiting = asking(truth.runner()), asking(truth.runner(executor_type="other"))
    first, second, third, fourth = truth.answer(busy, waiting, busy, waiting)

    assert (ids(first.runs), third.parked) == (ids(second_runs := third.runs), False)
    assert len(second_runs) == 1
    assert (second.parked, fourth.parked) == (True, True)
    assert truth.count("runs", "status = 'claimed'") == 1


def test_a_poll_parks_when_there_is_nothing_for_it(truth: Truth) -> None:
    """A row that dispatch finds, with what it needs to know."""
    runner = truth.runner()
    ask = asking(runner, wanted=3, instance="web-7")

    assert truth.answer(ask) == [PollAnswer(parked=True)]
    (row,) = truth.rows("SELECT * FROM waiting_polls")
    assert (row.poll_id, row.runner_id, row.registration) == (ask.poll_id, runner.runner_id, runner.registration)
    assert (row.instance, row.wanted) == ("web-7", 3)


def test_the_second_claim_finds_what_was_submitted_while_the_poll_was_parked(truth: Truth) -> None:
    """And takes its own row away with it."""
    ask = asking(truth.runner())
    truth.answer(ask)
    one, two = truth.start().run_id, truth.start().run_id

    assert ids(truth.second(ask)[0].runs) == [one]
    assert truth.waiting() == set()
    assert truth.run(two).status == "pending"
    assert ids(truth.second(ask)[0].runs) == [one], "repeated it is the same"


def test_the_second_claim_claims_nothing_when_its_row_is_gone(truth: Truth) -> None:
    """It gets what dispatch assigned meanwhile, and only that: else one poll would get two runs."""
    ask = asking(truth.runner())
    truth.answer(ask)
    one, two = truth.start().run_id, truth.start().run_id
    assert truth.dispatch() == {ask.poll_id: [one]}

    assert ids(truth.second(ask)[0].runs) == [one]
    assert truth.run(two).status == "pending"
    assert truth.run(one).delivered_at is not None


def test_a_poll_that_wants_several_is_given_several(truth: Truth) -> None:
    """`max=N`, also by dispatch."""
    first = [run.run_id for run in truth.accept(*[starting() for _ in range(5)])]
    runner = truth.runner()
    assert ids(truth.claim(runner, wanted=3)) == first[:3]
    assert ids(truth.claim(runner, wanted=3)) == first[3:]

    parked = truth.park(runner, wanted=2)
    more = [run.run_id for run in truth.accept(*[starting() for _ in range(3)])]
    assert truth.dispatch() == {parked.poll_id: more[:2]}


def test_a_poll_that_wants_none_is_told_stops_only(truth: Truth) -> None:
    """A full or draining runner polls so; dispatch passes it by."""
    runner = truth.runner()
    truth.start()
    ask = asking(runner, wanted=0)

    assert truth.answer(ask) == truth.second(ask) == truth.recheck(ask) == [PollAnswer(parked=True)]
    assert truth.dispatch() == {}
    told_to_stop(truth, runner, "s1")
    assert truth.recheck(ask) == [PollAnswer(stop_sessions=["s1"])]
    assert truth.waiting() == set()


def test_dispatch_gives_runs_to_parked_polls_and_names_their_instance(truth: Truth) -> None:
    """Undelivered: released after `claim_timeout` unless the instance confirms."""
    polls = [truth.park(truth.runner(), instance=instance) for instance in ("web-1", "web-2", "web-1")]
    runs = [run.run_id for run in truth.accept(*[starting() for _ in range(3)])]
    done = truth.do(dispatch_waiting)

    assert {instance: len(letters) for instance, letters in done.by_instance.items()} == {"web-1": 2, "web-2": 1}
    letters = [letter for some in done.by_instance.values() for letter in some]
    assert sorted(letter.run_id for letter in letters) == runs
    assert {letter.poll_id for letter in letters} == {poll.poll_id for poll in polls}
    assert all(letter.claim_token == truth.run(letter.run_id).claim_token for letter in letters)
    rows = [truth.run(run_id) for run_id in runs]
    assert {row.delivered_at for row in rows} == {None}
    assert {round((row.claim_deadline_at - row.claimed_at).total_seconds()) for row in rows} == {
        DEFAULT_LIMITS.claim_timeout
    }
    assert (truth.waiting(), done.again) == (set(), False)


def test_dispatch_leaves_polls_that_were_not_seen_for_five_seconds(truth: Truth) -> None:
    """Their process may be frozen or gone."""
    ask = truth.park(truth.runner())
    truth.rows("UPDATE waiting_polls SET seen_at = now() - interval '6 seconds'")
    run_id = truth.start().run_id
    assert truth.dispatch() == {}

    assert ids(truth.recheck(ask)[0].runs) == [run_id], "it is found again by itself when its process lives"


def test_dispatch_leaves_polls_of_a_runner_that_registered_anew_or_has_to_leave(truth: Truth) -> None:
    """The process behind such a poll is another one, or gets no runs any more."""
    former, leaving = truth.runner(), truth.runner()
    truth.park(former)
    truth.park(leaving)
    truth.rows("UPDATE runners SET registration = registration + 1000 WHERE runner_id = :r", r=former.runner_id)
    told_to_leave(truth, leaving)
    truth.start()

    assert truth.dispatch() == {}


def test_dispatch_rings_again_only_if_another_pass_would_do_something(truth: Truth) -> None:
    """A full pass that gave nothing out would be followed by the same, for ever."""
    runner, idle = truth.runner(), truth.runner()
    truth.park(idle, wanted=0)
    truth.accept(*[starting() for _ in range(6)])
    done = truth.do(dispatch_waiting, 3)
    assert (done.by_instance, done.again) == ({}, False)

    truth.rows("UPDATE runs SET not_for = ARRAY[CAST(:r AS bigint)]", r=runner.registration)
    truth.answer(asking(runner))
    done = truth.do(dispatch_waiting, 3)
    assert (done.by_instance, done.again) == ({}, False)

    for _ in range(5):
        truth.answer(asking(truth.runner(), wanted=0))
    asks = [asking(truth.runner()) for _ in range(5)]
    truth.rows("UPDATE runs SET ready = false")
    truth.answer(*asks)
    truth.rows("UPDATE runs SET ready = true")
    done = truth.do(dispatch_waiting, 3)
    assert (sum(map(len, done.by_instance.values())), done.again) == (3, True)


def test_dispatch_reads_parked_polls_page_by_page_until_the_last(truth: Truth) -> None:
    """No poll is beyond its reach, however many older ones wait for something else."""
    for _ in range(4):
        truth.park(truth.runner(executor_type="other"))
    newest = truth.park(truth.runner())
    run_id = truth.start().run_id

    first = truth.do(promise_waiting, page=2)
    second = truth.do(promise_waiting, page=2, after=first.next_after)
    third = truth.do(promise_waiting, page=2, after=second.next_after)

    assert [page.seekers for page in (first, second)] == [[], []]
    assert [page.more for page in (first, second)] == [False, False], "another pass would find the same"
    assert third.next_after == ""
    assert [one.ask.poll_id for one in third.seekers] == [newest.poll_id]
    (letters,) = truth.do(dispatch_promised, third).by_instance.values()
    assert [(one.poll_id, one.run_id) for one in letters] == [(newest.poll_id, run_id)]


def test_dispatch_asks_for_another_pass_while_younger_pages_may_take_what_is_left(truth: Truth) -> None:
    """This one assigned something, so the next one differs from it."""
    for _ in range(3):
        truth.park(truth.runner())
    truth.accept(*[starting() for _ in range(2)])

    assert truth.do(promise_waiting, page=2).more
    assert not truth.do(promise_waiting, page=4).more


def test_a_recheck_renews_the_row_and_finds_what_was_submitted(truth: Truth) -> None:
    """The bound behind every lost ring."""
    ask = truth.park(truth.runner())
    truth.rows("UPDATE waiting_polls SET seen_at = now() - interval '1 minute'")
    assert truth.recheck(ask) == [PollAnswer(parked=True)]
    assert truth.count("waiting_polls", "seen_at > now() - interval '5 seconds'") == 1

    run_id = truth.start().run_id
    assert ids(truth.recheck(ask)[0].runs) == [run_id]
    assert truth.waiting() == set()


def test_a_recheck_finds_an_assignment_whose_message_was_lost(truth: Truth) -> None:
    """By poll id; it is delivered by this answer."""
    ask = truth.park(truth.runner())
    run_id = truth.start().run_id
    truth.dispatch()

    assert ids(truth.recheck(ask)[0].runs) == [run_id]
    assert truth.run(run_id).delivered_at is not None


def test_a_recheck_puts_back_rows_that_vanished(truth: Truth) -> None:
    """A crash restart of Postgres empties UNLOGGED tables."""
    asks = [truth.park(truth.runner()) for _ in range(3)]
    truth.rows("TRUNCATE waiting_polls")

    assert truth.recheck(*asks) == [PollAnswer(parked=True)] * 3
    assert truth.waiting() == {ask.poll_id for ask in asks}
    truth.start()
    assert len(truth.dispatch()) == 1


def test_a_recheck_says_that_the_runner_is_gone_or_has_to_leave(truth: Truth) -> None:
    """While its polls are parked."""
    staying, leaving, left = truth.runner(), truth.runner(), truth.runner()
    asks = [truth.park(runner) for runner in (staying, leaving, left)]
    told_to_leave(truth, leaving)
    truth.rows("UPDATE runners SET left_at = now() WHERE runner_id = :r", r=left.runner_id)

    with truth.engine.begin() as connection:
        answers = answer_polls(connection, asks)
    assert answers == [PollAnswer(parked=True), PollAnswer(deregistered=True), RunnerNotRegistered(left.runner_id)]


def test_a_recheck_for_many_polls_claims_for_each(truth: Truth) -> None:
    """One batch, one transaction."""
    asks = [truth.park(truth.runner()) for _ in range(4)]
    runs = {run.run_id for run in truth.accept(*[starting() for _ in range(3)])}
    answers = truth.recheck(*asks)

    assert {run.run_id for answer in answers for run in answer.runs} == runs
    assert [answer.parked for answer in answers].count(True) == 1
    assert truth.waiting() == {ask.poll_id for ask, answer in zip(asks, answers, strict=True) if answer.parked}


def test_giving_up_takes_the_row_away(truth: Truth) -> None:
    """Nothing is assigned to the poll any more."""
    ask = truth.park(truth.runner())
    assert truth.give_up(ask) == [[]]

    truth.start()
    assert (truth.waiting(), truth.dispatch()) == (set(), {})


def test_giving_up_returns_what_was_assigned_meanwhile(truth: Truth) -> None:
    """Marked delivered: to be handed out, or released when the client has gone."""
    ask, other = truth.park(truth.runner()), truth.park(truth.runner(executor_type="other"))
    run_id = truth.start().run_id
    truth.dispatch()
    mine, nothing = truth.give_up(ask, other)

    assert (ids(mine), nothing) == ([run_id], [])
    assert truth.run(run_id).delivered_at is not None


def test_leaving_takes_the_rows_of_an_instance_away(truth: Truth) -> None:
    """At shutdown; those of others stay."""
    truth.park(truth.runner(), instance="web-1")
    staying = truth.park(truth.runner(), instance="web-2")
    truth.do(leave_instance, "web-1")

    assert truth.waiting() == {staying.poll_id}


def test_a_poll_left_empty_by_somebody_elses_lock_says_so(truth: Truth) -> None:
    """Whoever holds the run may give it back: dispatch is rung once more rather than waiting for the re-check."""
    submitted = truth.start()
    runner = truth.runner()
    with truth.engine.begin() as other:
        other.execute(text("SELECT 1 FROM runs WHERE run_id = :id FOR UPDATE"), {"id": submitted.run_id})
        (held,) = truth.answer(asking(runner))
    assert (held.runs, held.passed_over) == ([], True)
    (free,) = truth.answer(asking(runner))
    assert ([run.run_id for run in free.runs], free.passed_over) == ([submitted.run_id], False)
