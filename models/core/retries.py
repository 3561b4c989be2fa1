"""Retry policy of a run: which reported failures are tried again, and after how many seconds. No database."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

# Longest pause that a policy or a report can ask for: a week.
LONGEST_PAUSE_SECONDS: Final = 604_800
LONGEST_CLASS: Final = 200
# Exit codes that reports may have: of processes 0 to 255, minus the signal, and 32 bits elsewhere.
LARGEST_EXIT_CODE: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between attempts: ``initial``, times ``factor`` for each further one, ``max`` at most.

    ``jitter`` is the part of it, 0 to 1, by which a pause may be shorter.
    """

    initial: float = 1.0
    factor: float = 2.0
    max: float = 300.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts allowed, counted from the first start; ``on`` and ``not_on`` hold exit codes and error classes.

    Without ``on`` every failure is tried again that ``not_on`` does not name; ``not_on`` wins.
    """

    max_attempts: int
    backoff: Backoff = field(default_factory=Backoff)
    on: tuple[int | str, ...] | None = None
    not_on: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Reported failure. ``retryable`` False ends the run; ``retry_after`` replaces the pause of the policy."""

    error: str | None = None
    exit_code: int | None = None
    error_class: str | None = None
    retryable: bool = True
    retry_after: float | None = None


def retry_delay(policy: RetryPolicy, failure: Failure, *, run_id: str, attempt: int) -> float | None:
    """Return the seconds until the run is tried again after attempt number ``attempt``; None: the failure is final."""
    if attempt >= policy.max_attempts or not failure.retryable or _names(policy.not_on, failure):
        return None
    if policy.on is not None and not _names(policy.on, failure):
        return None
    if failure.retry_after is not None:
        return min(failure.retry_after, float(LONGEST_PAUSE_SECONDS))
    return pause_after(policy.backoff, run_id=run_id, attempt=attempt)


def pause_after(backoff: Backoff, *, run_id: str, attempt: int) -> float:
    """Return the pause after an attempt. The jitter is a hash of run and attempt: the same on every replica."""
    try:
        pause = backoff.initial * backoff.factor ** (attempt - 1)
    except OverflowError:
        pause = math.inf
    # 0 times infinity is no number.
    pause = 0.0 if backoff.initial == 0 else min(pause, backoff.max)
    return round(pause * (1 - backoff.jitter * _share(run_id, attempt)), 3)


def _share(run_id: str, attempt: int) -> float:
    """Return a number from 0 up to 1."""
    digest = hashlib.sha256(f"{run_id} {attempt}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _names(listed: Sequence[int | str], failure: Failure) -> bool:
    return any(_is_named(entry, failure) for entry in listed)


def _is_named(entry: int | str, failure: Failure) -> bool:
    if isinstance(entry, int):
        return entry == failure.exit_code
    found = failure.error_class
    # A class is named with or without its module.
    return found is not None and (found == entry or found.endswith(f".{entry}"))


def write_policy(policy: RetryPolicy) -> str:
    return json.dumps(asdict(policy), separators=(",", ":"))


def read_policy(text: str) -> RetryPolicy:
    """Return the policy of a stored text; fields that a later version adds are ignored."""
    stored: dict[str, Any] = json.loads(text)
    backoff = stored.get("backoff") or {}
    on = stored.get("on")
    return RetryPolicy(
        stored["max_attempts"],
        Backoff(**{each.name: float(backoff[each.name]) for each in fields(Backoff) if each.name in backoff}),
        None if on is None else tuple(on),
        tuple(stored.get("not_on") or ()),
    )
