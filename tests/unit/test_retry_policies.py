"""Decide on reported failures by any policy, compared with a model of the rules."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from models.core.retries import (
    LONGEST_PAUSE_SECONDS,
    Backoff,
    Failure,
    RetryPolicy,
    pause_after,
    read_policy,
    retry_delay,
    write_policy,
)

CODES = st.sampled_from([0, 1, 75, -9])
CLASSES = st.sampled_from(["ValueError", "app.errors.Busy", "Busy", "errors.Busy", "usy", "xBusy"])
NAMES = st.lists(CODES | CLASSES, max_size=3).map(tuple)
BACKOFFS = st.builds(
    Backoff,
    initial=st.floats(0, 100),
    factor=st.floats(1, 100),
    max=st.floats(100, LONGEST_PAUSE_SECONDS),
    jitter=st.floats(0, 1),
)
POLICIES = st.builds(
    RetryPolicy, max_attempts=st.integers(1, 100), backoff=BACKOFFS, on=st.none() | NAMES, not_on=NAMES
)
FAILURES = st.builds(
    Failure,
    error=st.none(),
    exit_code=st.none() | CODES,
    error_class=st.none() | CLASSES,
    retryable=st.booleans(),
    retry_after=st.none() | st.floats(0, LONGEST_PAUSE_SECONDS),
)


def names_of(failure: Failure) -> set[int | str]:
    """Return everything by which a policy may name the failure: its code, and each ending of its class at a dot."""
    found: set[int | str] = set() if failure.exit_code is None else {failure.exit_code}
    parts = [] if failure.error_class is None else failure.error_class.split(".")
    return found | {".".join(parts[place:]) for place in range(len(parts))}


@settings(max_examples=300)
@given(POLICIES, FAILURES, st.integers(1, 100))
def test_decision_and_pause_follow_the_policy(policy: RetryPolicy, failure: Failure, attempt: int) -> None:
    names = names_of(failure)
    again = (
        attempt < policy.max_attempts
        and failure.retryable
        and names.isdisjoint(policy.not_on)
        and (policy.on is None or not names.isdisjoint(policy.on))
    )
    delay = retry_delay(policy, failure, run_id="run_1", attempt=attempt)
    assert (delay is not None) == again
    if delay is not None:
        backoff = policy.backoff
        longest = min(Fraction(backoff.initial) * Fraction(backoff.factor) ** (attempt - 1), Fraction(backoff.max))
        shortest = longest * (1 - Fraction(backoff.jitter))
        if failure.retry_after is not None:
            assert delay == failure.retry_after
        else:
            assert float(shortest) - 0.001 <= delay <= float(longest) * (1 + 1e-9) + 0.001
        assert delay == retry_delay(policy, failure, run_id="run_1", attempt=attempt)
    assert read_policy(write_policy(policy)) == policy


def test_pauses_of_many_runs_are_spread() -> None:
    pauses = {pause_after(Backoff(initial=10, jitter=0.5), run_id=f"run_{n}", attempt=1) for n in range(100)}
    assert len(pauses) > 90
    assert max(pauses) - min(pauses) > 4
