import asyncio
from collections.abc import Iterable, Mapping, Sequence

from app.polls.poll import Poll, PollEvent, PollState
from app.writes.attempts import Unavailable
from app.writes.poll_queues import PollVerbs
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError
from runtime.loops import jittered, run_forever


class Recheck:
    """Looks at all waiting polls every ``seconds`` in one query, and in between at those that a wake-up named."""

    def __init__(self, verbs: PollVerbs, polls: Mapping[str, Poll], seconds: float) -> None:
        self._verbs = verbs
        self._polls = polls
        self._seconds = seconds
        # Polls named by a wake-up since the last look at them.
        self._named: dict[str, Poll] = {}
        self._all_due = False
        self._next_look = 0.0
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look at all polls soon: messages may have been lost, or Postgres is back."""
        self._all_due = True
        self._nudged.set()

    def name(self, polls: Mapping[str, Poll]) -> None:
        """Look at these polls soon; at one that does not wait, as soon as it does.

        A call in progress for it may have read before the commit that the wake-up announces.
        """
        self._named.update(polls)
        if self._named:
            self._nudged.set()

    def waits(self, poll: Poll) -> None:
        """Look soon at a poll that begins to wait, if a wake-up named it meanwhile."""
        if poll.ask.poll_id in self._named:
            self._nudged.set()

    def forget(self, poll: Poll) -> None:
        self._named.pop(poll.ask.poll_id, None)

    async def look_forever(self) -> None:
        now = asyncio.get_running_loop().time
        self._next_look = now() + jittered(self._seconds)
        await run_forever(
            self._look_at_due, failure="re-check failed", every=lambda: self._next_look - now(), woken=self._nudged
        )

    async def _look_at_due(self) -> None:
        now = asyncio.get_running_loop().time
        self._nudged.clear()
        everything = self._all_due or now() >= self._next_look
        self._all_due = False
        try:
            await self.look(everything=everything)
        finally:
            if everything:
                self._next_look = now() + jittered(self._seconds)

    async def look(self, *, everything: bool) -> None:
        concerned = self._polls if everything else self._named
        polls = [poll for poll in concerned.values() if poll.state is PollState.WAITING]
        if not polls:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for poll in polls:
            poll.call = done
            poll.handle(PollEvent.RECHECK)
            # A wake-up from here on may belong to a commit after this look.
            self.forget(poll)
        results: Sequence[PollAnswer | CoordinatorError | Unavailable] = [Unavailable()] * len(polls)
        try:
            results = await (self._look_at_all(polls) if everything else self._look_at_named(polls))
        finally:
            for poll, result in zip(polls, results, strict=True):
                poll.call = None
                poll.note(None if isinstance(result, Unavailable) else result)
            done.set_result(None)

    async def _look_at_all(self, polls: Iterable[Poll]) -> Sequence[PollAnswer | CoordinatorError | Unavailable]:
        return await self._verbs.recheck.many((poll.ask, 0) for poll in polls)

    async def _look_at_named(self, polls: Iterable[Poll]) -> Sequence[PollAnswer | CoordinatorError | Unavailable]:
        """Look first for stops, the usual reason, in one round trip; for the rest at everything."""
        asks = {poll.ask.poll_id: poll.ask for poll in polls}
        answers = dict(zip(asks, await self._verbs.answer_stops.many((ask, 0) for ask in asks.values()), strict=True))
        rest = [poll_id for poll_id, answer in answers.items() if not isinstance(answer, PollAnswer) or answer.empty]
        if rest:
            answers.update(
                zip(rest, await self._verbs.claim_parked.many((asks[poll_id], 0) for poll_id in rest), strict=True)
            )
        return list(answers.values())
