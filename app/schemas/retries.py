from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from app.schemas.base import Described, MayLack, Validated
from models.core.retries import LARGEST_EXIT_CODE, LONGEST_CLASS, LONGEST_PAUSE_SECONDS, Backoff

MOST_NAMED = 64
LARGEST_FACTOR = 100
_DEFAULT = Backoff()


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Should be an exit code or an error class")  # noqa: TRY004 - pydantic shows ValueErrors
    return value


ErrorName = Annotated[
    Annotated[int, Field(ge=-LARGEST_EXIT_CODE, le=LARGEST_EXIT_CODE)]
    | Annotated[str, Field(min_length=1, max_length=LONGEST_CLASS)],
    BeforeValidator(_no_boolean),
]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_PAUSE_SECONDS, allow_inf_nan=False)]


class RetryBackoff(Validated):
    """Pauses between attempts: `initial` seconds, times `factor` after each, never more than `max`."""

    initial: Annotated[Seconds, Field(description="Seconds after the first failure")] = _DEFAULT.initial
    factor: Annotated[
        float,
        Field(ge=1, le=LARGEST_FACTOR, allow_inf_nan=False, description="Growth from one pause to the next"),
    ] = _DEFAULT.factor
    max: Annotated[Seconds, Field(description="Longest pause, in seconds")] = _DEFAULT.max
    jitter: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Part by which a pause may be shorter; computed from run and attempt, hence always the same",
        ),
    ] = _DEFAULT.jitter

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.initial > self.max:
            raise ValueError(f"initial should be at most max, which is {self.max:g} s")
        return self


class Retry(Validated):
    """Failures reported by runners that are tried again; without a policy a reported failure is final."""

    max_attempts: Annotated[
        int, Field(ge=1, le=100, description="Starts allowed, the first one included; 1 tries nothing again")
    ]
    backoff: RetryBackoff = RetryBackoff()
    on: Annotated[
        list[ErrorName] | None,
        Field(
            min_length=1,
            max_length=MOST_NAMED,
            description="Exit codes and error classes that are tried again, the class with or without its module; "
            "default: all failures",
        ),
    ] = None
    not_on: Annotated[
        list[ErrorName] | None,
        Field(max_length=MOST_NAMED, description="Exit codes and error classes that are final; wins over `on`"),
    ] = None

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if any(entry in (self.not_on or ()) for entry in self.on or ()):
            raise ValueError("on and not_on should not name the same exit code or class")
        return self


class RetryPauses(Described):
    """Pauses between the attempts of a run, in seconds."""

    initial: float
    factor: float
    max: float
    jitter: float


class RetryPolicy(Described):
    """Retry policy of a run, with the defaults of its submission filled in."""

    max_attempts: Annotated[int, Field(examples=[5])]
    backoff: RetryPauses
    on: Annotated[list[int | str] | None, Field(description="null: all failures", examples=[None])]
    not_on: Annotated[list[int | str], Field(examples=[[]])]


ReportedExitCode = Annotated[
    MayLack[int],
    Field(description="With `failed`: exit code of its process, negative for a signal; for retry policies"),
]
ReportedErrorClass = Annotated[
    MayLack[str], Field(description="With `failed`: class of its error; for retry policies", examples=["TimeoutError"])
]
ReportedRetryable = Annotated[MayLack[bool], Field(description="With `failed`: false makes it final")]
ReportedRetryAfter = Annotated[
    MayLack[float],
    Field(description="With `failed`: seconds until it is tried again, in place of the pause of its retry policy"),
]
