"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import NotRequired, TypedDict


class RetryBackoff(TypedDict):
    """Pauses between attempts: `initial` seconds, times `factor` after each, never more than `max`.

    Attributes:
        initial: Seconds after the first failure.
        factor: Growth from one pause to the next.
        max: Longest pause, in seconds.
        jitter: Part by which a pause may be shorter; computed from run and attempt, hence always the same.
    """

    initial: NotRequired[float]
    factor: NotRequired[float]
    max: NotRequired[float]
    jitter: NotRequired[float]


class Retry(TypedDict):
    """Failures reported by runners that are tried again; without a policy a reported failure is final.

    Attributes:
        max_attempts: Starts allowed, the first one included; 1 tries nothing again.
        on: Exit codes and error classes that are tried again, the class with or without its module; default: all
            failures.
        not_on: Exit codes and error classes that are final; wins over `on`.
    """

    max_attempts: int
    backoff: NotRequired[RetryBackoff]
    on: NotRequired[list[int | str] | None]
    not_on: NotRequired[list[int | str] | None]


class RetryPauses(TypedDict):
    """Pauses between the attempts of a run, in seconds."""

    initial: float
    factor: float
    max: float
    jitter: float


class RetryPolicy(TypedDict):
    """Retry policy of a run, with the defaults of its submission filled in.

    Attributes:
        on: null: all failures.
    """

    max_attempts: int
    backoff: RetryPauses
    on: list[int | str] | None
    not_on: list[int | str]
