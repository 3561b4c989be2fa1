"""Claims answered into a dead connection: released when heartbeats and a later poll show that they never arrived."""

from models.claims.delivery import Claim, confirm_deliveries
from models.core.limits import Limits
from models.expiry.outages import EXPIRY_CLOCK
from models.runners.heartbeat import Touch, touch_runners
from models.state.runs import Run
from testkit.waiting import eventually
from tests.support.clocks import counts, due, pass_time, tick
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, claimed, heartbeat, report, say
from tests.support.web import WebClient, WebInThread


def status(db: DbVerbs, run: Run) -> str:
    """Return the run's status after a pass of expiry."""
    tick(db)
    return str(db.run(run.run_id).status)


def test_claim_that_never_arrived_is_released(db: DbVerbs) -> None:
    """Poll again and send two heartbeats in a row that do not name the run: the waiting poll gets it."""
    runner = db.runner()
    run = claimed(db, runner)
    poll = db.park(runner)
    heartbeat(db, runner)
    assert status(db, run) == "claimed"
    heartbeat(db, runner)
    assert status(db, run) == "pending", "it waits for the start timeout"
    assert db.dispatch() == {poll.poll_id: [run.run_id]}
    (late,) = say(db, report(run, "started"))
    assert type(late).__name__ == "StaleClaim"


def test_claim_named_by_the_second_heartbeat_is_kept(db: DbVerbs) -> None:
    """Send the first heartbeat while the answer is on its way."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for held in ([], [run.run_id], [], [run.run_id]):
        heartbeat(db, runner, *held)
        assert status(db, run) == "claimed", "a single heartbeat took it"
    accepted(db, run, "started")


def test_answer_on_its_way_is_waited_for(db: DbVerbs) -> None:
    """Do not poll again: the runner may still read the answer, however many heartbeats do not name the run."""
    runner = db.runner()
    db.park(runner)
    run = claimed(db, runner)
    for _ in range(4):
        heartbeat(db, runner)
    assert status(db, run) == "claimed", "it was taken from a runner that is about to read of it"
    accepted(db, run, "started")


def test_runner_without_holding_keeps_claim_until_start_timeout(db: DbVerbs) -> None:
    """Infer nothing from polls and plain heartbeats: the process starts before the report, which may be lost."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id)])
    assert status(db, run) == "claimed"
    due(db, run.run_id, "claim_deadline_at")
    assert status(db, run) == "pending"


def test_immediate_repeats_of_heartbeat_count_as_one(db: DbVerbs) -> None:
    """Send it again because its answer was lost: that proves nothing new."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for _ in range(3):
        db.do(touch_runners, [Touch(runner.runner_id, ())])
    assert status(db, run) == "claimed"


def test_undelivered_claim_is_not_judged_by_heartbeats(db: DbVerbs) -> None:
    """Leave it to the claim deadline, since its instance is about to deliver it."""
    runner = db.runner()
    db.park(runner)
    run_id = db.start().run_id
    assert db.dispatch()
    db.park(runner)
    for _ in range(3):
        heartbeat(db, runner)
    tick(db)
    row = db.run(run_id)
    assert (row.status, row.unheld_beats) == ("claimed", 0)
    db.do(confirm_deliveries, [Claim(run_id, row.claim_token)])


def test_claim_that_never_arrived_excludes_no_registration_and_ignores_outages(db: DbVerbs) -> None:
    """Allow the runner to claim it again, though it never sent a token.

    Our own outage does not restart the claim's time.
    """
    runner = db.runner()
    run = claimed(db, runner)
    poll = db.park(runner)
    for _ in range(2):
        heartbeat(db, runner)
    tick_after_gap = {"claims released": 1}
    pass_time(db, "duties", "last_run", 60, "duty = :d", d=EXPIRY_CLOCK)
    assert counts(db) == tick_after_gap
    row = db.run(run.run_id)
    assert (row.status, row.not_for, row.fruitless_claims) == ("pending", None, 1)
    assert db.dispatch() == {poll.poll_id: [run.run_id]}


def test_claim_that_arrives_late_keeps_its_whole_start_time(db: DbVerbs) -> None:
    """Miss it in two heartbeats, and name it in the third before expiry looks."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for held in ([], [], [run.run_id]):
        heartbeat(db, runner, *held)
    assert status(db, run) == "claimed"
    assert db.one("SELECT extract(epoch FROM claim_deadline_at - now()) FROM runs") > Limits().start_timeout - 30
    accepted(db, run, "started")


def test_claim_answered_into_dead_connection_goes_to_next_poll(
    web: WebInThread, client: WebClient, db: DbVerbs
) -> None:
    """Leave the first poll's connection open and unread, as behind a cut cable."""
    runner_id = client.register(instance_id="one", capacity=1)
    with client.held(f"/runner/runs?runner_id={runner_id}&wait=30&max=1"):
        web.until_parked()
        run_id = client.submit()["run_id"]
        eventually(lambda: client.status(run_id) == "claimed", what="the claim")
        eventually(lambda: db.run(run_id).delivered_at is not None, what="the answer")
        lost_token = db.run(run_id).claim_token
        again = client.meanwhile(client.poll, runner_id, 30, max=1)
        web.until_parked()
        for _ in range(2):
            pass_time(db, "runners", "counted_beat_at", 10)
            beaten = client.post("/runner/heartbeat", {"runner_id": runner_id, "holding": []})
            assert beaten.status_code == 200
        tick(db)
        web.recheck()
        (run,) = again.result(30).json()["runs"]
    assert (run["run_id"], run["claim_token"] == lost_token) == (run_id, False)
    late = {"runner_id": runner_id, "claim_token": lost_token}
    assert client.post(f"/runner/runs/{run_id}/started", late).status_code == 409
    assert client.report(run, runner_id, "started").status_code == 200
    held = client.post("/runner/heartbeat", {"runner_id": runner_id, "holding": [run_id]})
    assert held.json()["not_yours"] == []
