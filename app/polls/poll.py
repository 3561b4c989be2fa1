"""State machine of a poll: one table of transitions, which needs neither an event loop nor a database.

A poll ends once, with at most one answer, and makes one call to the database at a time: its own, or the re-check's.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from app.lifecycle.hangup import Client
from app.writes.attempts import Unavailable
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError


class PollState(Enum):
    """State of a poll. While it is WAITING its handler is idle, and the re-check may look at it."""

    ANSWERING = auto()  # first call: stops, a leave or runs; else it parks
    CLAIMING = auto()  # second claim, after it is parked
    WAITING = auto()
    WOKEN = auto()  # claims because of a run that was just submitted
    RECHECKED = auto()  # the re-check looks at it
    OVERDUE = auto()  # its time is up, but the re-check still looks at it
    CONFIRMING = auto()  # confirms assignments, whose message may be old
    GIVING_UP = auto()  # deletes its row; an assignment may have done so already
    ANSWERED = auto()
    EMPTY = auto()
    REFUSED = auto()
    ABANDONED = auto()  # what is found for it is released


BEFORE_OR_AFTER_WAITING: Final = frozenset(
    {PollState.ANSWERING, PollState.ANSWERED, PollState.EMPTY, PollState.REFUSED, PollState.ABANDONED}
)


class PollEvent(Enum):
    FOUND = auto()  # results of its call or of the re-check: an answer,
    PARKED = auto()  # a waiting row,
    NOTHING = auto()  # neither,
    REFUSED = auto()  # an error of the verb,
    FAILED = auto()  # or no result: Postgres is away, or the call raised
    ASSIGNED = auto()  # message of a worker about a claim
    RECHECK = auto()  # the re-check begins to look at it
    WAKE = auto()  # a run was submitted that it may take
    TIME_UP = auto()
    LATE = auto()  # CALL_GRACE_SECONDS after its time was up a call is still in progress
    GONE = auto()  # client disconnected, or handler cancelled


class PollAction(Enum):
    ANSWER = auto()
    CLAIM = auto()
    CONFIRM = auto()
    GIVE_UP = auto()
    WAIT = auto()
    REPARK = auto()  # the assignment deleted its row: have the re-check insert it again
    CONTINUE = auto()  # as before; assignments are kept until the poll waits
    SEND = auto()
    SEND_EMPTY = auto()
    REFUSE = auto()
    DISCONNECT = auto()


Step: TypeAlias = tuple[PollState, PollAction]
# Call that looks for a poll; that of the re-check has no result, since it is noted for each poll.
Call: TypeAlias = asyncio.Future[PollAnswer | CoordinatorError | Unavailable] | asyncio.Future[None]

_ANSWERED: Final[Step] = PollState.ANSWERED, PollAction.SEND
_REFUSED: Final[Step] = PollState.REFUSED, PollAction.REFUSE
_WAIT: Final[Step] = PollState.WAITING, PollAction.WAIT
_GIVE_UP: Final[Step] = PollState.GIVING_UP, PollAction.GIVE_UP
_REPARK: Final[Step] = PollState.WAITING, PollAction.REPARK
_ABANDONED: Final[Step] = PollState.ABANDONED, PollAction.CONTINUE
_TOO_LATE: Final[Step] = PollState.ABANDONED, PollAction.SEND_EMPTY
_GONE: Final[Step] = PollState.ABANDONED, PollAction.DISCONNECT

_TRANSITIONS: Final[Mapping[PollState, Mapping[PollEvent, Step]]] = {
    PollState.ANSWERING: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.PARKED: (PollState.CLAIMING, PollAction.CLAIM),
        PollEvent.NOTHING: _WAIT,
        PollEvent.REFUSED: _REFUSED,
        PollEvent.FAILED: _WAIT,
        PollEvent.ASSIGNED: (PollState.ANSWERING, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.CLAIMING: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.PARKED: _WAIT,
        PollEvent.NOTHING: _WAIT,
        PollEvent.REFUSED: _REFUSED,
        PollEvent.FAILED: _WAIT,
        PollEvent.ASSIGNED: (PollState.CLAIMING, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.WAITING: {
        PollEvent.ASSIGNED: (PollState.CONFIRMING, PollAction.CONFIRM),
        PollEvent.RECHECK: (PollState.RECHECKED, PollAction.WAIT),
        PollEvent.WAKE: (PollState.WOKEN, PollAction.CLAIM),
        PollEvent.TIME_UP: _GIVE_UP,
        PollEvent.GONE: _GONE,
    },
    PollState.WOKEN: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.PARKED: _WAIT,
        PollEvent.NOTHING: _WAIT,
        PollEvent.REFUSED: _REFUSED,
        PollEvent.FAILED: _WAIT,
        PollEvent.ASSIGNED: (PollState.WOKEN, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.RECHECKED: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.PARKED: _WAIT,
        PollEvent.NOTHING: _WAIT,
        PollEvent.REFUSED: _REFUSED,
        PollEvent.FAILED: _WAIT,
        PollEvent.ASSIGNED: (PollState.RECHECKED, PollAction.CONTINUE),
        PollEvent.TIME_UP: (PollState.OVERDUE, PollAction.WAIT),
        PollEvent.GONE: _GONE,
    },
    PollState.OVERDUE: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.PARKED: _GIVE_UP,
        PollEvent.NOTHING: _GIVE_UP,
        PollEvent.REFUSED: _REFUSED,
        PollEvent.FAILED: _GIVE_UP,
        PollEvent.ASSIGNED: (PollState.OVERDUE, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.CONFIRMING: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.NOTHING: _REPARK,
        PollEvent.FAILED: _REPARK,
        PollEvent.ASSIGNED: (PollState.CONFIRMING, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.GIVING_UP: {
        PollEvent.FOUND: _ANSWERED,
        PollEvent.NOTHING: (PollState.EMPTY, PollAction.SEND_EMPTY),
        PollEvent.REFUSED: _REFUSED,
        # Postgres is away: runs claimed for this poll must not wait for a runner that polls no more.
        PollEvent.FAILED: _TOO_LATE,
        PollEvent.ASSIGNED: (PollState.GIVING_UP, PollAction.CONTINUE),
        PollEvent.LATE: _TOO_LATE,
        PollEvent.GONE: _GONE,
    },
    PollState.ANSWERED: {PollEvent.ASSIGNED: (PollState.ANSWERED, PollAction.CONTINUE), PollEvent.GONE: _GONE},
    PollState.EMPTY: {PollEvent.ASSIGNED: (PollState.EMPTY, PollAction.CONTINUE), PollEvent.GONE: _GONE},
    PollState.REFUSED: {
        PollEvent.ASSIGNED: (PollState.REFUSED, PollAction.CONTINUE),
        PollEvent.GONE: (PollState.REFUSED, PollAction.CONTINUE),
    },
    # The call that was in progress may still find something; the clean-up releases it.
    PollState.ABANDONED: {
        PollEvent.FOUND: _ABANDONED,
        PollEvent.PARKED: _ABANDONED,
        PollEvent.NOTHING: _ABANDONED,
        PollEvent.REFUSED: _ABANDONED,
        PollEvent.FAILED: _ABANDONED,
        PollEvent.ASSIGNED: _ABANDONED,
        PollEvent.GONE: _ABANDONED,
    },
}


class IllegalTransition(Exception):
    def __init__(self, state: PollState, event: PollEvent) -> None:
        super().__init__(f"{event.name} in {state.name}")


def transition(state: PollState, event: PollEvent) -> Step:
    """Return the next state, and the action that its handler takes now. Raises IllegalTransition."""
    try:
        return _TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


@dataclass(slots=True, eq=False)
class Poll:
    """Poll of a runner. ``ends_at`` is the event loop's time.

    ``call``: the database call in progress for it, its own or the re-check's. ``woken`` wakes a handler that waits.
    ``claims_for``: the submitted run that it answers for until its claim has ended (app/polls/woken.py).
    ``passed_until``: the moment until which it is woken for no further run.
    """

    ask: Ask
    ends_at: float
    client: Client
    state: PollState = PollState.ANSWERING
    action: PollAction = PollAction.ANSWER
    answer: PollAnswer | None = None
    error: CoordinatorError | None = None
    assigned: list[Claim] = field(default_factory=list)
    call: Call | None = None
    claims_for: str | None = None
    passed_until: float = 0.0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, event: PollEvent) -> None:
        self._enter(*transition(self.state, event))
        if self.state is PollState.WAITING and self.assigned:
            self._enter(*transition(self.state, PollEvent.ASSIGNED))

    def end_by(self, moment: float) -> None:
        self.ends_at = min(self.ends_at, moment)
        self.woken.set()

    def take_action(self) -> PollAction:
        """Return the action that is due; each is due once, and then waiting."""
        action, self.action = self.action, PollAction.WAIT
        return action

    def take_assigned(self) -> list[Claim]:
        assigned, self.assigned = self.assigned, []
        return assigned

    def assign(self, claim: Claim) -> None:
        self.assigned.append(claim)
        self.handle(PollEvent.ASSIGNED)

    def note(self, result: PollAnswer | CoordinatorError | None) -> None:
        match result:
            case PollAnswer() if not result.empty:
                self.answer = result
                self.handle(PollEvent.FOUND)
            case PollAnswer():
                self.ask = result.update(self.ask)
                self.handle(PollEvent.PARKED if result.parked else PollEvent.NOTHING)
            case CoordinatorError():
                self.error = result
                self.handle(PollEvent.REFUSED)
            case None:
                self.handle(PollEvent.FAILED)

    def _enter(self, state: PollState, action: PollAction) -> None:
        self.state = state
        if action is not PollAction.CONTINUE:
            self.action = action
            if action is not PollAction.WAIT:
                self.woken.set()


def result_of(call: Call) -> PollAnswer | CoordinatorError | None:
    """Return the result of a call that has ended; None when Postgres was away, or the verb failed and is in the log."""
    if call.cancelled() or call.exception() is not None:
        return None
    result = call.result()
    return None if isinstance(result, Unavailable) else result
