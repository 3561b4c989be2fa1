import asyncio
import functools
from collections.abc import Iterable
from typing import Final

from app.http.problems import accepted
from app.lifecycle.drain import Drain
from app.polls.poll import Poll, result_of
from app.writes.attempts import Unavailable
from app.writes.poll_queues import PollVerbs
from app.writes.retries import retry_until
from models.claims.delivery import Claim
from models.claims.poll_stops import Undelivered
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError
from models.state.runs import Run
from runtime import logs

CLEAN_UP_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 2.0

log = logs.log(__name__)


class CleanUps:
    def __init__(self, verbs: PollVerbs, drain: Drain) -> None:
        self._verbs = verbs
        self._drain = drain
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, poll: Poll) -> None:
        task = asyncio.create_task(self._clean_up(poll))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _clean_up(self, poll: Poll) -> None:
        call = poll.call
        if call is not None:
            await asyncio.wait({call})
            poll.note(result_of(call))
        try:
            if poll.answer is not None:
                await self._release(poll.answer.runs)
                await self._take_back(poll.ask.runner_id, poll.answer)
            late: list[Run] | CoordinatorError = await retry_until(
                lambda: self._verbs.give_up.submit(poll.ask.poll_id), CLEAN_UP_SECONDS, self._drain.over
            )
            await self._release(accepted(late))
        except Unavailable:
            log.warning(
                "clean-up of a poll failed, its rows expire", poll_id=poll.ask.poll_id, runner_id=poll.ask.runner_id
            )

    async def _release(self, runs: Iterable[Run]) -> None:
        for run in runs:
            claim = Claim(run.run_id, run.claim_token or "")
            await retry_until(
                functools.partial(self._verbs.release_claims.submit, claim), CLEAN_UP_SECONDS, self._drain.over
            )

    async def _take_back(self, runner_id: str, answer: PollAnswer) -> None:
        item = Undelivered(runner_id, tuple(answer.stop_sessions), answer.deregistered, answer.scripts)
        if item.sessions or item.leave or item.scripts:
            await retry_until(lambda: self._verbs.mark_undelivered.submit(item), CLEAN_UP_SECONDS, self._drain.over)
