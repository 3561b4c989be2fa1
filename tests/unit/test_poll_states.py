"""States of a poll: every event in every state, legal and illegal."""

import itertools

import pytest

from app.polls.poll import BEFORE_OR_AFTER_WAITING, IllegalTransition, PollAction, PollEvent, PollState, transition

CALLS = (PollState.ANSWERING, PollState.CLAIMING, PollState.WOKEN, PollState.CONFIRMING, PollState.GIVING_UP)
ENDS = (PollState.ANSWERED, PollState.EMPTY, PollState.REFUSED, PollState.ABANDONED)
RESULTS = (PollEvent.FOUND, PollEvent.PARKED, PollEvent.NOTHING, PollEvent.REFUSED, PollEvent.FAILED)

SEND = (PollState.ANSWERED, PollAction.SEND)
REFUSE = (PollState.REFUSED, PollAction.REFUSE)
WAIT = (PollState.WAITING, PollAction.WAIT)
REPARK = (PollState.WAITING, PollAction.REPARK)
GIVE_UP = (PollState.GIVING_UP, PollAction.GIVE_UP)
SEND_EMPTY = (PollState.ABANDONED, PollAction.SEND_EMPTY)
DISCONNECT = (PollState.ABANDONED, PollAction.DISCONNECT)

# Columns: found, parked, nothing, refused, failed.
BY_RESULT = {
    PollState.ANSWERING: (SEND, (PollState.CLAIMING, PollAction.CLAIM), WAIT, REFUSE, WAIT),
    PollState.CLAIMING: (SEND, WAIT, WAIT, REFUSE, WAIT),
    PollState.WOKEN: (SEND, WAIT, WAIT, REFUSE, WAIT),
    PollState.RECHECKED: (SEND, WAIT, WAIT, REFUSE, WAIT),
    PollState.OVERDUE: (SEND, GIVE_UP, GIVE_UP, REFUSE, GIVE_UP),
    PollState.CONFIRMING: (SEND, None, REPARK, None, REPARK),
    PollState.GIVING_UP: (SEND, None, (PollState.EMPTY, PollAction.SEND_EMPTY), REFUSE, SEND_EMPTY),
    PollState.ABANDONED: ((PollState.ABANDONED, PollAction.CONTINUE),) * 5,
}

EXPECTED = {
    **{
        (state, event): step
        for state, steps in BY_RESULT.items()
        for event, step in zip(RESULTS, steps, strict=True)
        if step is not None
    },
    **{(state, PollEvent.ASSIGNED): (state, PollAction.CONTINUE) for state in PollState},
    (PollState.WAITING, PollEvent.ASSIGNED): (PollState.CONFIRMING, PollAction.CONFIRM),
    (PollState.WAITING, PollEvent.RECHECK): (PollState.RECHECKED, PollAction.WAIT),
    (PollState.WAITING, PollEvent.WAKE): (PollState.WOKEN, PollAction.CLAIM),
    (PollState.WAITING, PollEvent.TIME_UP): GIVE_UP,
    (PollState.RECHECKED, PollEvent.TIME_UP): (PollState.OVERDUE, PollAction.WAIT),
    **{(state, PollEvent.LATE): SEND_EMPTY for state in (*CALLS, PollState.OVERDUE)},
    **{(state, PollEvent.GONE): DISCONNECT for state in PollState},
    (PollState.REFUSED, PollEvent.GONE): (PollState.REFUSED, PollAction.CONTINUE),
    (PollState.ABANDONED, PollEvent.GONE): (PollState.ABANDONED, PollAction.CONTINUE),
}


@pytest.mark.parametrize(
    ("state", "event"),
    list(itertools.product(PollState, PollEvent)),
    ids=lambda value: value.name.lower().replace("_", "-"),
)
def test_transition_of_every_state_by_every_event(state: PollState, event: PollEvent) -> None:
    if (state, event) in EXPECTED:
        assert transition(state, event) == EXPECTED[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.name} in {state.name}"):
            transition(state, event)


def test_poll_that_is_over_takes_no_further_action_but_to_disconnect() -> None:
    after = {transition(state, event) for (state, event) in EXPECTED if state in ENDS}
    assert {state for state, _ in after} <= set(ENDS)
    assert {action for _, action in after} == {PollAction.CONTINUE, PollAction.DISCONNECT}


def test_poll_counts_as_parked_from_its_row_on_until_it_ends() -> None:
    """Count a poll in its second claim: its statement may have begun before the commit of a run."""
    parked = set(PollState) - BEFORE_OR_AFTER_WAITING
    assert parked == {
        PollState.CLAIMING,
        PollState.WAITING,
        PollState.WOKEN,
        PollState.RECHECKED,
        PollState.OVERDUE,
        PollState.CONFIRMING,
        PollState.GIVING_UP,
    }
