from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from app.writes.attempts import Attempts, PlainVerb, Verb
from app.writes.group_commit import GroupCommit, no_linger
from app.writes.poll_queues import PollVerbs
from app.writes.refusals import count_refusal
from app.writes.schedule_queues import schedule_verbs
from models.bulk.jobs import prepare_bulks, start_bulks, stop_bulks
from models.claims.claim import Ask
from models.claims.delivery import confirm_deliveries, release_claims
from models.claims.plain_polls import answer_plain_polls, claim_plain_parked, give_up_plain_polls
from models.claims.poll_stops import answer_stops, mark_undelivered
from models.claims.polls import PollAnswer, answer_polls, claim_parked, give_up_polls, recheck_polls
from models.claims.script_syncs import confirm_scripts
from models.core.errors import CoordinatorError
from models.core.limits import Limits
from models.feed.append import LeftOut, NewEvent, StoredEvent, append_events
from models.registries.imports import ImportedEntries, ImportEntries, import_entries
from models.registries.write import EntryWrite, EntryWritten, write_entries
from models.runners.drain import Drained, set_drains
from models.runners.heartbeat import touch_runners
from models.runners.leave import deregister_runners
from models.runners.register import register_runners
from models.runs.delete import delete_sessions
from models.runs.holds import hold_runs, remove_holds, set_holds, settle_holds
from models.runs.release import release_runs
from models.runs.replay import Replay, replay_runs
from models.runs.report import Reported, ReportResult, report_runs
from models.runs.report_plain import report_plain_runs
from models.runs.reports import Report
from models.runs.stop import Stopped, stop_runs, stop_sessions
from models.runs.stop_plain import stop_plain_runs, stop_plain_sessions
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from models.sessions.bind import bind_sessions, patch_sessions, report_session_statuses
from runtime import metrics
from runtime.names import Actor
from runtime.settings import Settings, blueprint_variables

Item = TypeVar("Item")
Result = TypeVar("Result")

# Re-check all parked polls in one round trip, however many there are.
ALL_POLLS = 1_000_000
MOST_TOUCHES = 2_000
MOST_REPLAYS = 50
# Linger before a flush: heartbeats and empty polls 25 ms, poll cancellations 100 ms.
BRIEF_LINGER_SECONDS = 0.025
LONG_LINGER_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SubmissionHooks:
    """Calls when a flush of submissions begins, and after the commit in place of waking dispatch."""

    committing: Callable[[Sequence[NewRun]], None]
    committed: Callable[[Sequence[NewRun], Sequence[Submitted | CoordinatorError]], None]


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
        submission_hooks: SubmissionHooks | None = None,
    ) -> None:
        self._wake_polls = wake_polls
        self._attempts = attempts
        self._settings = settings
        self._notify = notify
        self._queues: list[GroupCommit[Any, Any]] = []
        work = (Actor.DISPATCH, Actor.BROADCAST)
        news = (Actor.BROADCAST,)
        ends = (*work, Actor.CALLBACKS)
        report = partial(report_runs, limits=limits)
        plain_report = partial(report_plain_runs, limits=limits)
        self.submit = self._submit_queue(limits, submission_hooks)
        self.submit_bulk = self._submit_queue(limits, submission_hooks, linger=None)
        self.replay = self._replay_queue(limits)
        self.prepare_bulk = self._queue(prepare_bulks, (), max_items=1)
        self.start_bulk = self._queue(start_bulks, (Actor.BULK, *news))
        self.stop_bulk = self._queue(stop_bulks, news)
        self.report = self._report_queue(report, plain_report)
        self.report_bulk = self._report_queue(report, plain_report, linger=None)
        self.release_runs = self._queue(partial(release_runs, limits=limits), ends)
        self.release_runs.refused = count_refusal
        self.append = self._append_queue()
        self.append_bulk = self._append_queue(linger=None)
        self.stop_sessions = self._queue(
            partial(stop_sessions, limits=limits),
            news,
            after=self._wake_after_stops,
            plain=partial(stop_plain_sessions, limits=limits),
        )
        self.stop_runs = self._queue(
            partial(stop_runs, limits=limits),
            news,
            after=self._wake_after_stops,
            plain=partial(stop_plain_runs, limits=limits),
        )
        self.bind = self._queue(bind_sessions, news)
        self.patch = self._queue(patch_sessions, news)
        self.delete = self._queue(delete_sessions, (*news, Actor.CALLBACKS))
        self.session_status = self._queue(report_session_statuses, ends)
        self.register = self._queue(partial(register_runners, limits=limits), ends, after=self._wake_polls_of)
        self.deregister = self._queue(partial(deregister_runners, limits=limits), ends, after=self._wake_polls_of)
        self.write_entries, self.import_entries = self._registry_queues(news)
        self.set_drains = self._queue(partial(set_drains, limits=limits), news, after=self._wake_after_drains)
        self.set_holds = self._queue(set_holds, news, max_items=1)
        self.remove_holds = self._queue(remove_holds, news, max_items=1)
        self.settle_holds = self._queue(settle_holds, work, max_items=1)
        self.hold_runs = self._queue(hold_runs, work)
        self.touch = self._queue(
            partial(touch_runners, limits=limits), (), linger=_linger_briefly, max_items=MOST_TOUCHES
        )
        self.schedules = schedule_verbs(self._queue, settings, limits, notify, wake_polls)
        self.polls = self._poll_verbs(limits, work)

    def _registry_queues(
        self, news: Sequence[Actor]
    ) -> tuple[GroupCommit[EntryWrite, EntryWritten], GroupCommit[ImportEntries, ImportedEntries]]:
        return (
            self._queue(write_entries, news, after=self._wake_polls_of),
            self._queue(import_entries, news, max_items=1),
        )

    async def close(self) -> None:
        for queue in self._queues:
            await queue.close()

    def waiting(self) -> Counter[str]:
        """Return how many items of each verb wait for the next transaction."""
        waiting = Counter[str]()
        for queue in self._queues:
            waiting[queue.name] += len(queue)
        return waiting

    def _wake_polls_of(self, _: Sequence[Any], results: Sequence[Any]) -> bool:
        self._wake_polls(results)
        return True

    def _wake_after_stops(self, _: Sequence[Any], results: Sequence[Any]) -> bool:
        """Wake the runners' polls; wake dispatch and callbacks only if the stop itself ended a run."""
        self._wake_polls(results)
        if any(isinstance(result, Stopped) and result.ended for result in results):
            self._notify(Actor.DISPATCH)
            self._notify(Actor.CALLBACKS)
        return True

    def _wake_after_drains(self, _: Sequence[Any], results: Sequence[Any]) -> bool:
        """Have the runners' polls look at their registration; wake dispatch only if one takes runs again."""
        self._wake_polls(results)
        if any(isinstance(result, Drained) and result.undone for result in results):
            self._notify(Actor.DISPATCH)
        return True

    def _poll_verbs(self, limits: Limits, work: Sequence[Actor]) -> PollVerbs:
        claim, plain_claim = partial(claim_parked, limits=limits), partial(claim_plain_parked, limits=limits)
        return PollVerbs(
            answer=self._claim_queue(
                "poll",
                partial(answer_polls, limits=limits),
                plain=partial(answer_plain_polls, limits=limits),
                lingers=True,
            ),
            answer_stops=self._queue(answer_stops, (), single_statement=True),
            claim_parked=self._claim_queue("parked", claim, plain=plain_claim),
            claim_woken=self._claim_queue("woken", claim, plain=plain_claim),
            recheck=self._claim_queue("recheck", partial(recheck_polls, limits=limits), max_items=ALL_POLLS),
            give_up=self._queue(
                partial(give_up_polls, limits=limits), (), linger=_linger_longer, plain=give_up_plain_polls
            ),
            confirm=self._queue(partial(confirm_deliveries, limits=limits), (), single_statement=True),
            release_claims=self._queue(release_claims, work),
            mark_undelivered=self._queue(mark_undelivered, (), after=self._wake_polls_of),
            confirm_scripts=self._queue(confirm_scripts, ()),
        )

    def _claim_queue(
        self,
        source: str,
        verb: Verb[Ask, PollAnswer],
        *,
        plain: PlainVerb[Ask, PollAnswer] | None = None,
        max_items: int | None = None,
        lingers: bool = False,
    ) -> GroupCommit[Ask, PollAnswer]:
        """Return a queue of polls that wakes the feed only after a claim, and dispatch only if a matching run was
        locked or released.

        With ``lingers`` flushes are delayed by 25 ms after one that claimed nothing: most of the next polls will park
        then.
        """
        found = True
        claims, waits = metrics.CLAIMS.labels(source), metrics.RUN_WAIT.labels(source)

        def after(_: Sequence[Ask], results: Sequence[Any]) -> bool:
            nonlocal found
            answers = [result for result in results if isinstance(result, PollAnswer)]
            if any(answer.passed_over for answer in answers):
                self._notify(Actor.DISPATCH)
            claimed = sum(len(answer.runs) for answer in answers)
            found = claimed > 0
            if claimed:
                claims.inc(claimed)
                for answer in answers:
                    for run in answer.runs:
                        waits.observe(run.waited or 0.0)
            # A claim that was released wrote events, too.
            return claimed > 0 or any(answer.passed_over for answer in answers)

        def linger() -> float:
            return BRIEF_LINGER_SECONDS if lingers and not found else 0.0

        return self._queue(
            verb,
            (Actor.BROADCAST,),
            after=after,
            linger=linger,
            max_items=max_items,
            plain=plain,
        )

    def _submit_queue(
        self,
        limits: Limits,
        hooks: SubmissionHooks | None,
        *,
        linger: Callable[[], float] | None = no_linger,
    ) -> GroupCommit[NewRun, Submitted]:
        verb: Verb[NewRun, Submitted] = partial(
            submit_runs,
            max_depth=limits.max_depth,
            most_demands=self._settings.demands_per_owner,
            environment=blueprint_variables(self._settings),
        )
        if hooks is None:
            return self._queue(verb, (Actor.DISPATCH, Actor.BROADCAST), plain=submit_plain, linger=linger)

        def after(items: Sequence[NewRun], results: Sequence[Submitted | CoordinatorError]) -> bool:
            hooks.committed(items, results)
            return True

        return self._queue(
            verb, (Actor.BROADCAST,), plain=submit_plain, linger=linger, before=hooks.committing, after=after
        )

    def _replay_queue(self, limits: Limits) -> GroupCommit[Replay, Submitted]:
        """Return a queue whose batches are small: each item reads parameters of up to a quarter of a MB."""
        verb: Verb[Replay, Submitted] = partial(
            replay_runs,
            max_depth=limits.max_depth,
            most_demands=self._settings.demands_per_owner,
            environment=blueprint_variables(self._settings),
        )
        return self._queue(verb, (Actor.DISPATCH, Actor.BROADCAST), max_items=MOST_REPLAYS)

    def _append_queue(
        self, *, linger: Callable[[], float] | None = no_linger
    ) -> GroupCommit[NewEvent, StoredEvent | LeftOut]:
        append: Verb[NewEvent, StoredEvent | LeftOut] = partial(
            append_events, run_events_max=self._settings.run_events_max
        )
        return self._queue(append, (Actor.BROADCAST,), linger=linger, single_statement=True)

    def _report_queue(
        self,
        verb: Verb[Report, ReportResult],
        plain: PlainVerb[Report, ReportResult],
        *,
        linger: Callable[[], float] | None = no_linger,
    ) -> GroupCommit[Report, ReportResult]:
        """Return a queue of reports that wakes callbacks only if a parent may have a result to receive, and dispatch
        only if a run may have become claimable.
        """

        def after(_: Sequence[Report], results: Sequence[Any]) -> bool:
            self._wake_polls(results)
            if any(isinstance(result, Reported) and result.calls_back for result in results):
                self._notify(Actor.CALLBACKS)
            # A rejected report may have been the last one of a process that was to be stopped.
            if any(not isinstance(result, Reported) or result.frees for result in results):
                self._notify(Actor.DISPATCH)
            return True

        queue = self._queue(verb, (Actor.BROADCAST,), plain=plain, after=after, linger=linger)
        queue.refused = count_refusal
        return queue

    def _queue(
        self,
        verb: Verb[Item, Result],
        actors: Sequence[Actor],
        *,
        before: Callable[[Sequence[Item]], None] = lambda _: None,
        after: Callable[[Sequence[Item], Sequence[Result | CoordinatorError]], bool] = lambda _, __: True,
        linger: Callable[[], float] | None = no_linger,
        max_items: int | None = None,
        single_statement: bool = False,
        plain: PlainVerb[Item, Result] | None = None,
    ) -> GroupCommit[Item, Result]:
        """Return a queue that notifies the actors after each commit if ``after`` says so."""

        def notify_after(items: Sequence[Item], results: Sequence[Result | CoordinatorError]) -> None:
            if after(items, results):
                for actor in actors:
                    self._notify(actor)

        queue: GroupCommit[Item, Result] = GroupCommit(
            self._attempts,
            verb,
            plain=plain if self._settings.fast_paths else None,
            after=notify_after,
            linger=linger,
            single_statement=single_statement,
            max_items=max_items or self._settings.group_commit_items,
            max_bytes=self._settings.group_commit_bytes,
        )
        queue.before = before
        self._queues.append(queue)
        return queue


def _linger_briefly() -> float:
    return BRIEF_LINGER_SECONDS


def _linger_longer() -> float:
    return LONG_LINGER_SECONDS
