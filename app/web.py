import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.auth.authenticate import Authenticator
from app.auth.caller_limits import CallerLimits
from app.auth.callers import Callers
from app.auth.console_sessions import ConsoleSessions
from app.auth.oidc_sign_in import sign_in_of
from app.cluster_metrics import ClusterMetrics
from app.feed.numbering import Numbering
from app.feed.reader import Feed
from app.http.body_limits import BodyParser, Uploads
from app.inputs.parameter_checks import ParameterChecks
from app.instance_heartbeat import InstanceHeartbeat
from app.lifecycle.drain import Drain
from app.lifecycle.health import Health
from app.lists.limits import ListLimits
from app.polls.heartbeats import Heartbeats
from app.polls.held import Polls
from app.polls.run_waiters import RunWaiters
from app.polls.submissions import SubmissionWakeups
from app.polls.wakeups import PollWakeups, runners_to_notify
from app.process_metrics import ProcessMetrics
from app.writes.attempts import Attempts, Unavailable
from app.writes.dispatch_wakeups import DispatchWakeups
from app.writes.queues import SubmissionHooks, Verbs
from app.writes.retries import retry_until
from models.core.errors import CoordinatorError
from models.core.limits import Limits
from models.runs.submission import NewRun, Submitted
from runtime import logs
from runtime.metrics import DEPENDENCY_FAILURES
from runtime.names import Actor
from runtime.postgres import async_engine, longest_silence
from runtime.pubsub import MessageHandlers, Subscription
from runtime.redis_client import FAILED, async_client
from runtime.redis_probe import RedisProbe
from runtime.settings import Settings
from runtime.wakeups import ActorWakeups

# Together with the rest of the process's end (cli/web.py) less than a supervisor waits for.
LEAVE_SECONDS: Final = 2.0

Result = TypeVar("Result")

log = logs.log(__name__)


class Web:
    """State of one web process, used by the routes. Writes and reads have connections of their own, so that a flood of
    reads stops no report.
    """

    def __init__(self, settings: Settings, drain: Drain, health: Health, instance: str, address: str = "") -> None:
        self.settings = settings
        self.drain = drain
        self.health = health
        self.instance = instance
        self.limits = Limits(**settings.deadlines())
        self._writing = async_engine(settings, name="coordinator-web")
        reads = max(2, settings.web_pool_size // 2)
        self._reading = async_engine(settings, pool_size=reads, name="coordinator-web-reads")
        # A pool for the feed's reader and the check for revoked keys, so that neither waits behind lists and clients
        # that catch up. The second connection is for numbering, which the reader must not wait for.
        self._following = async_engine(settings, pool_size=2 if settings.fast_paths else 1, name="coordinator-web-feed")
        self.writes = self._attempts(self._writing, "writes")
        self.reads = self._attempts(self._reading, "reads")
        self.following = self._attempts(self._following, "feed")
        self.pools = {"writes": self.writes, "reads": self.reads, "feed": self.following}
        self.wakeups = ActorWakeups(settings)
        self._dispatch_wakeups = DispatchWakeups(self.writes, self._wake, self._any_parked)
        wake = partial(self._dispatch_wakeups.notify, Actor.DISPATCH)
        self._redis = async_client(settings.redis_url)
        self._poll_wakeups = PollWakeups(self.writes, self._redis, instance)
        self.verbs = self._new_verbs()
        self.polls = Polls(
            self.verbs.polls,
            drain,
            self.instance,
            settings.recheck_seconds,
            wake,
            max_per_runner=settings.polls_per_runner,
        )
        self._submission_wakeups = SubmissionWakeups(self.writes, self._redis, instance, self.polls.woken, wake)
        self.heartbeats = Heartbeats(self.verbs.touch)
        self.run_waiters = RunWaiters(self.reads)
        self.feed = Feed(self.following, self.reads, settings, drain)
        wake_broadcast = partial(self.wakeups.notify, Actor.BROADCAST)
        self.numbering = Numbering(self.following, self._redis, self.feed.notify, wake_broadcast)
        self.caller_limits = CallerLimits(settings, drain)
        self.uploads = Uploads(settings.bodies_bytes, settings.report_hold_seconds)
        self.parser = BodyParser()
        self.parameter_checks = ParameterChecks(self.parser)
        self.lists = ListLimits(drain, settings.lists_per_caller)
        self.callers = Callers(settings, self.following, self.reads, self.writes)
        self.console_sessions = ConsoleSessions(self.callers, self.reads, self.writes)
        self.sign_in = sign_in_of(settings, self.callers, self.console_sessions)
        self.authenticator = Authenticator(settings, drain, self.callers, self.caller_limits, self.console_sessions)
        handlers = MessageHandlers(
            assignments=self.polls.deliver,
            head=self.feed.notify,
            rechecks=self.polls.look_again,
            submissions=self._submission_wakeups.received,
            listening=self._on_subscribed,
        )
        self.subscription = Subscription(settings, self.instance, handlers)
        self.redis_probe = RedisProbe(settings, self.instance, lambda: self.subscription.fault)
        checked = (self.pools, self.polls, self.heartbeats, self.redis_probe)
        self._instance_heartbeat = InstanceHeartbeat(instance, health, *checked, address)
        self.cluster_metrics = ClusterMetrics(settings, self.limits)
        self._metrics = ProcessMetrics(self._engines(), self.verbs, self.polls, self.feed, health)
        self._loops: list[asyncio.Task[None]] = []
        drain.on_start(self.run_waiters.give_up)

    async def start(self) -> None:
        await self.wakeups.start()
        await self.subscription.start()
        self._loops = [asyncio.create_task(loop, name=name) for name, loop in self._forever().items()]

    async def stop(self) -> None:
        """Stop in order: decide what was accepted, delete parked rows, close connections; bounded in time."""
        await self.polls.clean_ups.close()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for last in (self._finish_writes, self._instance_heartbeat.leave):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await last()
        await self.subscription.stop()
        await self.wakeups.stop()
        with contextlib.suppress(*FAILED):
            await self._redis.aclose()
        await self.redis_probe.close()
        await self.caller_limits.close()
        if self.sign_in is not None:
            await self.sign_in.close()
        self.parser.close()
        self._metrics.close()
        await self.cluster_metrics.close()
        for engine in self._engines().values():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await engine.dispose()

    async def retry_until(self, call: Callable[[], Awaitable[Result | Unavailable]]) -> Result:
        """Repeat a call while Postgres is away: a runner sends each report, bind and event once (promise 5). Raises
        Unavailable.
        """
        return await retry_until(call, self.settings.report_hold_seconds, self.drain.over)

    def _engines(self) -> dict[str, AsyncEngine]:
        return {"writes": self._writing, "reads": self._reading, "feed": self._following}

    def _forever(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "instance heartbeat": self._instance_heartbeat.heartbeat_forever(),
            "redis probe": self._instance_heartbeat.probe_forever(),
            "re-check": self.polls.recheck.look_forever(),
            "dispatch wake-ups": self._dispatch_wakeups.look_forever(),
            "poll wake-ups": self._poll_wakeups.send_forever(),
            "submission wake-ups": self._submission_wakeups.send_forever(),
            "run waiters": self.run_waiters.look_forever(),
            "feed": self.feed.read_forever(),
            "numbering": self.numbering.number_forever(),
            "feed head": self.numbering.publish_forever(),
            "metrics": self._metrics.measure_forever(),
            **self.callers.forever(),
        }

    async def _finish_writes(self) -> None:
        await self.verbs.close()
        await self.numbering.finish()

    def _wake(self, actor: Actor) -> None:
        """Wake an actor after a commit; events are numbered here, which wakes the actor only if that fails."""
        if actor is Actor.BROADCAST and self.settings.fast_paths:
            self.numbering.notify()
        else:
            self.wakeups.notify(actor)

    def _any_parked(self) -> bool:
        return self.polls.any_parked()

    def _wake_polls(self, results: Sequence[Any]) -> None:
        runners = runners_to_notify(results)
        if runners:
            self.polls.look_again(runners)
            self._poll_wakeups.send(runners)

    def _new_verbs(self) -> Verbs:
        hooks = SubmissionHooks(self._committing, self._committed) if self.settings.fast_paths else None
        notify = self._dispatch_wakeups.notify
        return Verbs(self.writes, self.settings, self.limits, notify, self._wake_polls, hooks)

    def _committing(self, items: Sequence[NewRun]) -> None:
        self._submission_wakeups.committing(items)

    def _committed(self, items: Sequence[NewRun], results: Sequence[Submitted | CoordinatorError]) -> None:
        self._submission_wakeups.committed(items, results)

    def _on_subscribed(self) -> None:
        """Look for what was published before this subscription stood: those messages are lost."""
        self.polls.recheck.nudge()
        self.feed.notify()

    def _attempts(self, engine: AsyncEngine, pool: str) -> Attempts:
        silence = longest_silence(self.settings)
        return Attempts(engine, partial(self._note_contact, pool), silence=silence)

    def _note_contact(self, pool: str, there: bool) -> None:  # noqa: FBT001 -- a callback takes its arguments by position
        if not there:
            DEPENDENCY_FAILURES.labels("postgres").inc()
        if self.health.postgres_contact(pool, there):
            log.info("postgres is back", pool=pool)
            # Polls depend on the pool for writes; the feed's reader on its own.
            if pool == "writes":
                self.polls.recheck.nudge()
            elif pool == "feed":
                self.feed.notify()
