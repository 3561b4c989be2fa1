"""For each actor something to do, and what is to be seen once it is done, however often the actor ran."""

from collections.abc import Callable

from runtime.names import Actor
from tests.support import family, retiring
from tests.support.clocks import add_gap, fall_silent
from tests.support.reports import running
from tests.support.truth import Truth

Check = Callable[[], None]
MONTH = 31 * 86_400.0


def polls_and_runs(truth: Truth) -> Check:
    """Three parked polls and two runs: each run goes to one of them, the third one waits on."""
    polls = {truth.park(truth.runner()).poll_id for _ in range(3)}
    run_ids = [truth.start().run_id for _ in range(2)]

    def check() -> None:
        runs = [truth.run(run_id) for run_id in run_ids]
        taken = {run.claim_poll_id for run in runs}
        assert [run.status for run in runs] == ["claimed"] * 2
        assert (len(taken), polls - taken) == (2, truth.waiting())

    return check


def unnumbered_events(truth: Truth) -> Check:
    """Their positions are dense: no hole, and none twice."""
    running(truth)

    def check() -> None:
        positions = [row.feed_pos for row in truth.rows("SELECT feed_pos FROM events ORDER BY id")]
        assert positions == list(range(1, len(positions) + 1))

    return check


def result_of_a_child(truth: Truth) -> Check:
    """Its parent hears of it in one run."""
    parent = family.finished(truth)
    child = family.ended_child(truth, parent)

    def check() -> None:
        assert family.heard_of(truth, parent) == [child.session_id]

    return check


def silent_runner(truth: Truth) -> Check:
    """Its run fails once."""
    runner = truth.runner()
    run = running(truth, runner)
    fall_silent(truth, runner, 181)

    def check() -> None:
        assert truth.run(run.run_id).status == "failed"
        assert truth.told_kinds(run.session_id).count("run_failed") == 1

    return check


def gap_of_last_month(truth: Truth) -> Check:
    """It goes; one of today stays."""
    add_gap(truth, "expiry", MONTH + 60, MONTH)
    add_gap(truth, "web", 7200, 7100)

    def check() -> None:
        assert [row.kind for row in truth.rows("SELECT kind FROM gaps")] == ["web"]

    return check


def history_past_its_time(truth: Truth) -> Check:
    """It goes; what is younger stays."""
    retiring.old_history(truth, 3)
    run = running(truth)
    young = truth.count("events", "session_id = :s", s=run.session_id)

    def check() -> None:
        assert truth.count("events") == young > 0

    return check


WORK: dict[Actor, Callable[[Truth], Check]] = {
    Actor.DISPATCH: polls_and_runs,
    Actor.BROADCAST: unnumbered_events,
    Actor.CALLBACKS: result_of_a_child,
    Actor.EXPIRE: silent_runner,
    Actor.UPKEEP: gap_of_last_month,
    Actor.RETENTION: history_past_its_time,
}
