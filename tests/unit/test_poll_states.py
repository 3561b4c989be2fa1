"""States of a poll: every event in every state, legal and illegal."""

import itertools

import pytest

from app.polls.poll import Action, Event, IllegalTransition, State, transition

CALLS = (State.ANSWERING, State.CLAIMING, State.CONFIRMING, State.GIVING_UP)
ENDS = (State.ANSWERED, State.EMPTY, State.REFUSED, State.ABANDONED)
RESULTS = (Event.FOUND, Event.PARKED, Event.NOTHING, Event.REFUSED, Event.FAILED)

SEND = (State.ANSWERED, Action.SEND)
REFUSE = (State.REFUSED, Action.REFUSE)
WAIT = (State.WAITING, Action.WAIT)
REPARK = (State.WAITING, Action.REPARK)
GIVE_UP = (State.GIVING_UP, Action.GIVE_UP)
SEND_EMPTY = (State.ABANDONED, Action.SEND_EMPTY)
DISCONNECT = (State.ABANDONED, Action.DISCONNECT)

# Columns: found, parked, nothing, refused, failed.
BY_RESULT = {
    State.ANSWERING: (SEND, (State.CLAIMING, Action.CLAIM), WAIT, REFUSE, WAIT),
    State.CLAIMING: (SEND, WAIT, WAIT, REFUSE, WAIT),
    State.RECHECKED: (SEND, WAIT, WAIT, REFUSE, WAIT),
    State.OVERDUE: (SEND, GIVE_UP, GIVE_UP, REFUSE, GIVE_UP),
    State.CONFIRMING: (SEND, None, REPARK, None, REPARK),
    State.GIVING_UP: (SEND, None, (State.EMPTY, Action.SEND_EMPTY), REFUSE, SEND_EMPTY),
    State.ABANDONED: ((State.ABANDONED, Action.CONTINUE),) * 5,
}

EXPECTED = {
    **{
        (state, event): step
        for state, steps in BY_RESULT.items()
        for event, step in zip(RESULTS, steps, strict=True)
        if step is not None
    },
    **{(state, Event.ASSIGNED): (state, Action.CONTINUE) for state in State},
    (State.WAITING, Event.ASSIGNED): (State.CONFIRMING, Action.CONFIRM),
    (State.WAITING, Event.RECHECK): (State.RECHECKED, Action.WAIT),
    (State.WAITING, Event.TIME_UP): GIVE_UP,
    (State.RECHECKED, Event.TIME_UP): (State.OVERDUE, Action.WAIT),
    **{(state, Event.LATE): SEND_EMPTY for state in (*CALLS, State.OVERDUE)},
    **{(state, Event.GONE): DISCONNECT for state in State},
    (State.REFUSED, Event.GONE): (State.REFUSED, Action.CONTINUE),
    (State.ABANDONED, Event.GONE): (State.ABANDONED, Action.CONTINUE),
}


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(State, Event)), ids=lambda value: value.name.lower().replace("_", "-")
)
def test_transition_of_every_state_by_every_event(state: State, event: Event) -> None:
    if (state, event) in EXPECTED:
        assert transition(state, event) == EXPECTED[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.name} in {state.name}"):
            transition(state, event)


def test_poll_that_is_over_takes_no_further_action_but_to_disconnect() -> None:
    after = {transition(state, event) for (state, event) in EXPECTED if state in ENDS}
    assert {state for state, _ in after} <= set(ENDS)
    assert {action for _, action in after} == {Action.CONTINUE, Action.DISCONNECT}
