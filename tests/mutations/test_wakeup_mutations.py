"""Break a part of the way of wake-ups to parked polls: the scenario that waits for one must notice."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import app.polls.wakeups
import workers.poll_wakeups
from app.polls.poll import Poll, PollState
from app.polls.recheck import Recheck
from app.polls.woken import WokenPolls
from app.writes import queues
from models.claims.polls import answer_polls, claim_parked
from runtime.settings import Settings
from tests.integration import test_poll_wakeups, test_submission_wakeups
from tests.integration.test_poll_orders import STOP, is_told
from tests.integration.test_poll_wakeups import Pair, pair
from tests.support.db_verbs import DbVerbs
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, Step


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def test_unpublished_stop_is_noticed(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the re-check would tell it."""

    async def publish_nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr(app.polls.wakeups, "publish_rechecks_async", publish_nothing)
    with pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.test_stop_of_run_reaches_its_runners_poll_on_another_instance(both)


def test_stop_without_a_second_look_for_polls_is_noticed(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll parked between the verb's look and its commit has looked before the stop."""
    test_poll_wakeups.let_stops_see_no_polls(monkeypatch)
    monkeypatch.setattr(app.polls.wakeups, "poll_holders", lambda *_: {})
    with pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.test_stop_of_run_reaches_its_runners_poll_on_another_instance(both)


def test_start_elsewhere_that_wakes_no_poll_is_noticed(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former runner would learn of it by the re-check."""
    monkeypatch.setattr("models.runs.report.end_former_processes", test_poll_wakeups.tells_no_runner)
    with pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.test_start_elsewhere_reaches_former_runners_poll_on_another_instance(both)


def test_unpublished_timeout_is_noticed(
    both: Pair, db: DbVerbs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers publish stops on a way of their own."""
    monkeypatch.setattr(workers.poll_wakeups, "publish_rechecks", lambda *_: None)
    with pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.test_stop_of_timed_out_run_reaches_its_runners_poll_from_worker(both, db, settings)


def test_poll_of_a_replaced_process_counted_as_its_successors_is_noticed(
    both: Pair, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll would continue under the new registration and take its runs."""
    monkeypatch.setattr("models.claims.polls._replaced", lambda *_: set())
    with pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.replaced_process_is_told(both, db)


def test_wakeup_forgotten_by_a_busy_poll_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query under way may have read before the stop was committed."""
    name = Recheck.name

    def name_waiting_ones(self: Recheck, polls: Mapping[str, Poll]) -> None:
        name(self, {poll_id: poll for poll_id, poll in polls.items() if poll.state is PollState.WAITING})

    monkeypatch.setattr(queues, "claim_plain_parked", test_poll_wakeups.left_to_the_verb)
    monkeypatch.setattr(queues, "claim_parked", test_poll_wakeups.held_up(claim_parked))
    monkeypatch.setattr(Recheck, "name", name_waiting_ones)
    with pair(settings) as both, pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.stop_reaches_poll_that_is_about_to_park(both, db)


@pytest.mark.parametrize("leave", [False, True])
def test_undelivered_answer_counted_as_delivered_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, *, leave: bool
) -> None:
    """Its client had gone before the first byte."""
    monkeypatch.setattr(queues, "answer_plain_polls", test_poll_wakeups.left_to_the_verb)
    monkeypatch.setattr(queues, "answer_polls", test_poll_wakeups.held_up(answer_polls))
    monkeypatch.setattr(queues, "mark_undelivered", lambda _, items: list(items))
    with pair(settings) as both, pytest.raises(AssertionError, match="not told"):
        test_poll_wakeups.undelivered_answer_is_told_again(both, db, leave=leave)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((LOOK, FIND_NOTHING, PARK, CLAIM, STOP), id="a look before the commit"),
        pytest.param((FIND_NOTHING, STOP, LOOK, PARK), id="no second claim"),
    ],
)
def test_stop_that_finds_no_instance_of_the_poll_is_noticed(db: DbVerbs, order: tuple[Step, ...]) -> None:
    """A poll would wait beside a stop that no instance was told of."""
    assert not is_told(db, order)


def test_run_kept_from_dispatch_after_its_poll_was_woken_in_vain_is_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep would find it two seconds later."""
    monkeypatch.setattr(WokenPolls, "_leave", lambda *_: None)
    with test_submission_wakeups.pair(settings) as both, pytest.raises(AssertionError, match="left without a run"):
        test_submission_wakeups.full_runner_leaves_run_to_another(both, settings, wait=2)


def test_message_about_a_busy_poll_that_is_dropped_is_noticed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WokenPolls, "wake", lambda *_: [])
    monkeypatch.setattr(test_submission_wakeups, "WAIT_SECONDS", 2)
    with test_submission_wakeups.pair(settings) as both, pytest.raises(AssertionError, match="left without a run"):
        test_submission_wakeups.test_message_about_busy_poll_wakes_another_one(both, db)
