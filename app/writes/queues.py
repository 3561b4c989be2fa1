"""Define the web's writes: one queue per verb, a second one for bulk requests, and the wake-ups after each commit."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from app.writes.attempts import Attempts, Verb
from app.writes.group_commit import GroupCommit, no_linger
from app.writes.poll_queues import PollVerbs
from models.claims.claim import Ask
from models.claims.delivery import confirm_deliveries, release_claims
from models.claims.poll_stops import answer_stops, mark_undelivered
from models.claims.polls import PollAnswer, answer_polls, claim_parked, give_up_polls, recheck_polls
from models.core.errors import CoordinatorError
from models.core.limits import Limits
from models.feed.append import LeftOut, NewEvent, StoredEvent, append_events
from models.runners.heartbeat import touch_runners
from models.runners.leave import deregister_runners
from models.runners.register import register_runners
from models.runs.delete import delete_sessions
from models.runs.release import release_runs
from models.runs.report import Report, Reported, ReportResult, report_runs
from models.runs.stop import Stopped, stop_runs, stop_sessions
from models.runs.submit import submit_runs
from models.sessions.bind import bind_sessions, patch_sessions, report_session_statuses
from runtime import metrics
from runtime.names import Actor
from runtime.settings import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")

# Re-check all parked polls in one round trip, however many there are.
ALL_POLLS = 1_000_000
MOST_TOUCHES = 2_000
# Linger before a flush: heartbeats and empty polls 25 ms, poll cancellations 100 ms.
BRIEF_LINGER_SECONDS = 0.025
LONG_LINGER_SECONDS = 0.1


class Verbs:
    """Queues of all changes that requests make. ``notify`` gets the actors that have work after a commit.

    ``wake_polls`` gets the results of commits after which parked polls may have something to receive.
    """

    def __init__(
        self,
        attempts: Attempts,
        settings: Settings,
        limits: Limits,
        notify: Callable[..., None],
        wake_polls: Callable[[Sequence[Any]], None],
    ) -> None:
        self._wake_polls = wake_polls
        self._attempts = attempts
        self._settings = settings
        self._notify = notify
        self._queues: list[GroupCommit[Any, Any]] = []
        work = (Actor.DISPATCH, Actor.BROADCAST)
        news = (Actor.BROADCAST,)
        ends = (*work, Actor.CALLBACKS)
        submit = partial(submit_runs, max_depth=limits.max_depth, most_demands=settings.demands_per_owner)
        report = partial(report_runs, limits=limits)
        self.submit = self._queue(submit, work)
        self.submit_bulk = self._queue(submit, work, linger=None)
        self.report = self._report_queue(report)
        self.report_bulk = self._report_queue(report, linger=None)
        self.release_runs = self._queue(partial(release_runs, limits=limits), ends)
        append: Verb[NewEvent, StoredEvent | LeftOut] = partial(append_events, run_events_max=settings.run_events_max)
        self.append: GroupCommit[NewEvent, StoredEvent | LeftOut] = self._queue(append, news, single_statement=True)
        self.append_bulk: GroupCommit[NewEvent, StoredEvent | LeftOut] = self._queue(
            append, news, linger=None, single_statement=True
        )
        self.stop_sessions = self._queue(
            partial(stop_sessions, limits=limits), news, should_notify=self._wake_after_stops
        )
        self.stop_runs = self._queue(partial(stop_runs, limits=limits), news, should_notify=self._wake_after_stops)
        self.bind = self._queue(bind_sessions, news)
        self.patch = self._queue(patch_sessions, news)
        self.delete = self._queue(delete_sessions, (*news, Actor.CALLBACKS))
        self.session_status = self._queue(report_session_statuses, ends)
        self.register = self._queue(
            partial(register_runners, limits=limits), ends, should_notify=self._wake_polls_and_actors
        )
        self.deregister = self._queue(
            partial(deregister_runners, limits=limits), ends, should_notify=self._wake_polls_and_actors
        )
        self.touch = self._queue(
            partial(touch_runners, limits=limits), (), linger=_linger_briefly, max_items=MOST_TOUCHES
        )
        self.polls = PollVerbs(
            answer=self._claim_queue("poll", partial(answer_polls, limits=limits), lingers=True),
            answer_stops=self._queue(answer_stops, (), single_statement=True),
            claim_parked=self._claim_queue("parked", partial(claim_parked, limits=limits)),
            recheck=self._claim_queue("recheck", partial(recheck_polls, limits=limits), max_items=ALL_POLLS),
            give_up=self._queue(partial(give_up_polls, limits=limits), (), linger=_linger_longer),
            confirm=self._queue(partial(confirm_deliveries, limits=limits), (), single_statement=True),
            release_claims=self._queue(release_claims, work),
            mark_undelivered=self._queue(mark_undelivered, (), should_notify=self._wake_polls_and_actors),
        )

    async def close(self) -> None:
        for queue in self._queues:
            await queue.close()

    def _wake_polls_and_actors(self, results: Sequence[Any]) -> bool:
        self._wake_polls(results)
        return True

    def _wake_after_stops(self, results: Sequence[Any]) -> bool:
        """Wake the runners' polls; wake dispatch and callbacks only if the stop itself ended a run."""
        self._wake_polls(results)
        if any(isinstance(result, Stopped) and result.ended for result in results):
            self._notify(Actor.DISPATCH)
            self._notify(Actor.CALLBACKS)
        return True

    def _claim_queue(
        self, source: str, verb: Verb[Ask, PollAnswer], *, max_items: int | None = None, lingers: bool = False
    ) -> GroupCommit[Ask, PollAnswer]:
        """Return a queue of polls that wakes the feed only after a claim, and dispatch only if a matching run was
        locked or released.

        With ``lingers`` flushes are delayed by 25 ms after one that claimed nothing: most of the next polls will park
        then.
        """
        found = True

        def should_notify(results: Sequence[Any]) -> bool:
            nonlocal found
            answers = [result for result in results if isinstance(result, PollAnswer)]
            if any(answer.passed_over for answer in answers):
                self._notify(Actor.DISPATCH)
            claimed = sum(len(answer.runs) for answer in answers)
            found = claimed > 0
            if claimed:
                metrics.CLAIMS.labels(source).inc(claimed)
            # A claim that was released wrote events, too.
            return claimed > 0 or any(answer.passed_over for answer in answers)

        def linger() -> float:
            return BRIEF_LINGER_SECONDS if lingers and not found else 0.0

        return self._queue(verb, (Actor.BROADCAST,), should_notify=should_notify, linger=linger, max_items=max_items)

    def _report_queue(
        self, verb: Verb[Report, ReportResult], *, linger: Callable[[], float] | None = no_linger
    ) -> GroupCommit[Report, ReportResult]:
        """Return a queue of reports that wakes callbacks only if a parent may have a result to receive, and dispatch
        only if a run may have become claimable.
        """

        def should_notify(results: Sequence[Any]) -> bool:
            self._wake_polls(results)
            if any(isinstance(result, Reported) and result.calls_back for result in results):
                self._notify(Actor.CALLBACKS)
            # A rejected report may have been the last one of a process that was to be stopped.
            if any(not isinstance(result, Reported) or result.frees for result in results):
                self._notify(Actor.DISPATCH)
            return True

        return self._queue(verb, (Actor.BROADCAST,), should_notify=should_notify, linger=linger)

    def _queue(
        self,
        verb: Verb[Item, Result],
        actors: Sequence[Actor],
        *,
        should_notify: Callable[[Sequence[Any]], bool] = lambda _: True,
        linger: Callable[[], float] | None = no_linger,
        max_items: int | None = None,
        single_statement: bool = False,
    ) -> GroupCommit[Item, Result]:
        def after(results: Sequence[Result | CoordinatorError]) -> None:
            if should_notify(results):
                for actor in actors:
                    self._notify(actor)

        queue = GroupCommit(
            self._attempts,
            verb,
            after=after,
            linger=linger,
            single_statement=single_statement,
            max_items=max_items or self._settings.group_commit_items,
            max_bytes=self._settings.group_commit_bytes,
        )
        self._queues.append(queue)
        return queue


def _linger_briefly() -> float:
    return BRIEF_LINGER_SECONDS


def _linger_longer() -> float:
    return LONG_LINGER_SECONDS
