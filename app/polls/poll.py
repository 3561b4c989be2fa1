"""State machine of a poll: one table of transitions, which needs neither an event loop nor a database.

A poll ends once, with at most one answer, and makes one call to the database at a time: its own, or the re-check's.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from app.lifecycle.hangup import Client
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError


class State(Enum):
    """State of a poll. While it is WAITING its handler is idle, and the re-check may look at it."""

    ANSWERING = auto()  # first call: stops, a leave or runs; else it parks
    CLAIMING = auto()  # second claim, after it is parked
    WAITING = auto()
    RECHECKED = auto()  # the re-check looks at it
    OVERDUE = auto()  # its time is up, but the re-check still looks at it
    CONFIRMING = auto()  # confirms assignments, whose message may be old
    GIVING_UP = auto()  # deletes its row; an assignment may have done so already
    ANSWERED = auto()
    EMPTY = auto()
    REFUSED = auto()
    ABANDONED = auto()  # what is found for it is released


class Event(Enum):
    FOUND = auto()  # results of its call or of the re-check: an answer,
    PARKED = auto()  # a waiting row,
    NOTHING = auto()  # neither,
    REFUSED = auto()  # an error of the verb,
    FAILED = auto()  # or no result: Postgres is away, or the call raised
    ASSIGNED = auto()  # message of a worker about a claim
    RECHECK = auto()  # the re-check begins to look at it
    TIME_UP = auto()
    LATE = auto()  # LATE_SECONDS after its time was up a call is still in progress
    GONE = auto()  # client disconnected, or handler cancelled


class Action(Enum):
    """Next action of the handler."""

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


Step: TypeAlias = tuple[State, Action]
# Call that looks for a poll; that of the re-check has no result, since it is noted for each poll.
Call: TypeAlias = asyncio.Future[PollAnswer | CoordinatorError] | asyncio.Future[None]

_ANSWERED: Final[Step] = State.ANSWERED, Action.SEND
_REFUSED: Final[Step] = State.REFUSED, Action.REFUSE
_WAIT: Final[Step] = State.WAITING, Action.WAIT
_GIVE_UP: Final[Step] = State.GIVING_UP, Action.GIVE_UP
_REPARK: Final[Step] = State.WAITING, Action.REPARK
_ABANDONED: Final[Step] = State.ABANDONED, Action.CONTINUE
_TOO_LATE: Final[Step] = State.ABANDONED, Action.SEND_EMPTY
_GONE: Final[Step] = State.ABANDONED, Action.DISCONNECT

_TRANSITIONS: Final[Mapping[State, Mapping[Event, Step]]] = {
    State.ANSWERING: {
        Event.FOUND: _ANSWERED,
        Event.PARKED: (State.CLAIMING, Action.CLAIM),
        Event.NOTHING: _WAIT,
        Event.REFUSED: _REFUSED,
        Event.FAILED: _WAIT,
        Event.ASSIGNED: (State.ANSWERING, Action.CONTINUE),
        Event.LATE: _TOO_LATE,
        Event.GONE: _GONE,
    },
    State.CLAIMING: {
        Event.FOUND: _ANSWERED,
        Event.PARKED: _WAIT,
        Event.NOTHING: _WAIT,
        Event.REFUSED: _REFUSED,
        Event.FAILED: _WAIT,
        Event.ASSIGNED: (State.CLAIMING, Action.CONTINUE),
        Event.LATE: _TOO_LATE,
        Event.GONE: _GONE,
    },
    State.WAITING: {
        Event.ASSIGNED: (State.CONFIRMING, Action.CONFIRM),
        Event.RECHECK: (State.RECHECKED, Action.WAIT),
        Event.TIME_UP: _GIVE_UP,
        Event.GONE: _GONE,
    },
    State.RECHECKED: {
        Event.FOUND: _ANSWERED,
        Event.PARKED: _WAIT,
        Event.NOTHING: _WAIT,
        Event.REFUSED: _REFUSED,
        Event.FAILED: _WAIT,
        Event.ASSIGNED: (State.RECHECKED, Action.CONTINUE),
        Event.TIME_UP: (State.OVERDUE, Action.WAIT),
        Event.GONE: _GONE,
    },
    State.OVERDUE: {
        Event.FOUND: _ANSWERED,
        Event.PARKED: _GIVE_UP,
        Event.NOTHING: _GIVE_UP,
        Event.REFUSED: _REFUSED,
        Event.FAILED: _GIVE_UP,
        Event.ASSIGNED: (State.OVERDUE, Action.CONTINUE),
        Event.LATE: _TOO_LATE,
        Event.GONE: _GONE,
    },
    State.CONFIRMING: {
        Event.FOUND: _ANSWERED,
        Event.NOTHING: _REPARK,
        Event.FAILED: _REPARK,
        Event.ASSIGNED: (State.CONFIRMING, Action.CONTINUE),
        Event.LATE: _TOO_LATE,
        Event.GONE: _GONE,
    },
    State.GIVING_UP: {
        Event.FOUND: _ANSWERED,
        Event.NOTHING: (State.EMPTY, Action.SEND_EMPTY),
        Event.REFUSED: _REFUSED,
        # Postgres is away: runs claimed for this poll must not wait for a runner that polls no more.
        Event.FAILED: _TOO_LATE,
        Event.ASSIGNED: (State.GIVING_UP, Action.CONTINUE),
        Event.LATE: _TOO_LATE,
        Event.GONE: _GONE,
    },
    State.ANSWERED: {Event.ASSIGNED: (State.ANSWERED, Action.CONTINUE), Event.GONE: _GONE},
    State.EMPTY: {Event.ASSIGNED: (State.EMPTY, Action.CONTINUE), Event.GONE: _GONE},
    State.REFUSED: {
        Event.ASSIGNED: (State.REFUSED, Action.CONTINUE),
        Event.GONE: (State.REFUSED, Action.CONTINUE),
    },
    # The call that was in progress may still find something; the clean-up releases it.
    State.ABANDONED: {
        Event.FOUND: _ABANDONED,
        Event.PARKED: _ABANDONED,
        Event.NOTHING: _ABANDONED,
        Event.REFUSED: _ABANDONED,
        Event.FAILED: _ABANDONED,
        Event.ASSIGNED: _ABANDONED,
        Event.GONE: _ABANDONED,
    },
}


class IllegalTransition(Exception):
    """Event that cannot happen to a poll in this state."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{event.name} in {state.name}")


def transition(state: State, event: Event) -> Step:
    """Return the next state, and the action that its handler takes now. Raises IllegalTransition."""
    try:
        return _TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


@dataclass(slots=True, eq=False)
class Poll:
    """Poll of a runner. ``ends_at`` is the event loop's time.

    ``call``: the database call in progress for it, its own or the re-check's. ``woken`` wakes a handler that waits.
    """

    ask: Ask
    ends_at: float
    client: Client
    state: State = State.ANSWERING
    action: Action = Action.ANSWER
    answer: PollAnswer | None = None
    error: CoordinatorError | None = None
    assigned: list[Claim] = field(default_factory=list)
    call: Call | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, event: Event) -> None:
        self._enter(*transition(self.state, event))
        if self.state is State.WAITING and self.assigned:
            self._enter(*transition(self.state, Event.ASSIGNED))

    def end_by(self, moment: float) -> None:
        self.ends_at = min(self.ends_at, moment)
        self.woken.set()

    def take_action(self) -> Action:
        """Return the action that is due; each is due once, and then waiting."""
        action, self.action = self.action, Action.WAIT
        return action

    def take_assigned(self) -> list[Claim]:
        assigned, self.assigned = self.assigned, []
        return assigned

    def assign(self, claim: Claim) -> None:
        self.assigned.append(claim)
        self.handle(Event.ASSIGNED)

    def note(self, result: PollAnswer | CoordinatorError | None) -> None:
        """Note the result of a call or of the re-check; None when it failed."""
        if isinstance(result, PollAnswer):
            self.ask = result.update(self.ask)
        match result:
            case PollAnswer() if not result.empty:
                self.answer = result
                self.handle(Event.FOUND)
            case PollAnswer():
                self.handle(Event.PARKED if result.parked else Event.NOTHING)
            case CoordinatorError():
                self.error = result
                self.handle(Event.REFUSED)
            case None:
                self.handle(Event.FAILED)

    def _enter(self, state: State, action: Action) -> None:
        self.state = state
        if action is not Action.CONTINUE:
            self.action = action
            if action is not Action.WAIT:
                self.woken.set()


def result_of(call: Call) -> PollAnswer | CoordinatorError | None:
    """Return the result of a call that has ended; None when Postgres was away, or the verb failed and is in the log."""
    if call.cancelled() or call.exception() is not None:
        return None
    return call.result()
