from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

WEBS: Final = ("web-1", "web-2", "web-3")
WORKERS: Final = ("worker-1", "worker-2")
OURS: Final = (*WEBS, *WORKERS)
BALANCER: Final = "balancer"
POSTGRES, REDIS = "postgres", "redis"
# Runners in processes of their own: the deployed kind, without tokens.
DEPLOYED: Final = ("deployed-1", "deployed-2")
# Runners of the load, which send tokens; faults choose among these.
TOKENED: Final = ("runner-1", "runner-2", "runner-3")
# New runner each time, which starts a run and dies for good.
MORTAL: Final = "a mortal runner"
# `coordinator runner` itself; the first one is behind a proxy.
SHIPPED: Final = ("shipped-1", "shipped-2")
LONGEST_FREEZE: Final = 20.0
# Seconds beyond which a runner is lost: 12 s of silence (cluster.SETTINGS).
BEYOND_LOST: Final = (14.0, 22.0)


class Kind(StrEnum):
    KILL = "kill -9"
    FREEZE = "freeze"
    CUT = "cut the network"
    SILENCE = "silence the network"
    FLUSH = "FLUSHALL"
    KILL_CLIENTS = "CLIENT KILL"
    FILL = "let writes fail"
    TERMINATE = "pg_terminate_backend"
    SKEW = "skew the clock"
    DIE = "death for good of"
    ANSWER = "answers of a proxy to"
    SLEEP = "sleep of the machine of"
    DRAIN = "drain"
    DEPLOY = "rolling deploy"


@dataclass(frozen=True)
class Fault:
    """Fault: begins ``at`` seconds from the beginning and lasts ``seconds``.

    A ``target`` with a slash is a connection: web-1/redis is web-1's to Redis. ``amount`` is the skew of a clock in
    seconds.
    """

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    amount: float = 0.0

    @property
    def lock(self) -> str:
        """Return what no other fault may be done to meanwhile; a runner that drains may be killed or frozen."""
        return f"{self.kind} {self.target}" if self.kind is Kind.DRAIN else self.target

    def __str__(self) -> str:
        text = f"{self.at:6.1f} s  {self.kind} {self.target}"
        text += f" for {self.seconds:g} s" if self.seconds else ""
        return text + (f" by {self.amount:+g} s" if self.amount else "")


Maker = Callable[[Random], Fault]


def _seconds(random: Random, least: float, most: float) -> float:
    return round(random.uniform(least, most), 1)


def _at_once(kind: Kind, *targets: str) -> Maker:
    return lambda random: Fault(0, kind, random.choice(targets))


def _lasting(kind: Kind, targets: tuple[str, ...], least: float = 1.0, most: float = LONGEST_FREEZE) -> Maker:
    return lambda random: Fault(0, kind, random.choice(targets), _seconds(random, least, most))


def _skewed(random: Random) -> Fault:
    amount = random.choice((-1, 1)) * random.choice((5, 70, 600, 7200))
    return Fault(0, Kind.SKEW, random.choice(OURS), _seconds(random, 5, 20), amount)


def _ways(server: str) -> tuple[str, ...]:
    # `all`: every connection to the server.
    return tuple(f"{name}/{server}" for name in (*WEBS, WORKERS[0], "all"))


# Each is used once before any is repeated. A killed server is away for `seconds`.
MAKERS: Final[dict[str, Maker]] = {
    "kill a web process": _at_once(Kind.KILL, *WEBS),
    "kill another web process": _at_once(Kind.KILL, *WEBS),
    "kill a worker": _at_once(Kind.KILL, *WORKERS),
    "kill the balancer": _at_once(Kind.KILL, BALANCER),
    "kill Redis": _lasting(Kind.KILL, (REDIS,), 0.2, 8),
    "crash Postgres": _lasting(Kind.KILL, (POSTGRES,), 0.2, 8),
    "freeze a web process": _lasting(Kind.FREEZE, WEBS),
    "freeze a worker": _lasting(Kind.FREEZE, WORKERS),
    "freeze the balancer": _lasting(Kind.FREEZE, (BALANCER,)),
    "freeze Redis": _lasting(Kind.FREEZE, (REDIS,)),
    "freeze Postgres": _lasting(Kind.FREEZE, (POSTGRES,)),
    "flush Redis": _at_once(Kind.FLUSH, REDIS),
    "cut Redis' clients": _at_once(Kind.KILL_CLIENTS, REDIS),
    "fill Redis' disk": _lasting(Kind.FILL, (REDIS,)),
    "cut Postgres' clients": _at_once(Kind.TERMINATE, POSTGRES),
    "cut the way to Redis": _lasting(Kind.CUT, _ways(REDIS)),
    "cut the way to Postgres": _lasting(Kind.CUT, _ways(POSTGRES)),
    "silence the way to Redis": _lasting(Kind.SILENCE, _ways(REDIS)),
    "silence the way to Postgres": _lasting(Kind.SILENCE, _ways(POSTGRES)),
    "skew a clock": _skewed,
    "kill a runner": _at_once(Kind.KILL, *DEPLOYED, *TOKENED),
    "a runner dies for good": _at_once(Kind.DIE, MORTAL),
    "freeze a deployed runner": _lasting(Kind.FREEZE, DEPLOYED, *BEYOND_LOST),
    "freeze a runner with tokens": _lasting(Kind.FREEZE, TOKENED, *BEYOND_LOST),
    "drain a runner": _lasting(Kind.DRAIN, (*DEPLOYED, *TOKENED), 3, 15),
    "let a proxy answer for us": _lasting(Kind.ANSWER, SHIPPED[:1], 2, 10),
    "let a machine sleep": _lasting(Kind.SLEEP, SHIPPED, *BEYOND_LOST),
    "deploy": lambda _: Fault(0, Kind.DEPLOY, "up"),
}


def schedule(seed: int, seconds: float, *, gap: float = 6.0) -> list[Fault]:
    """Return the faults of so many seconds in time order; one begins every ``gap`` seconds on average.

    Lasting faults end within the time. Every kind comes once before one is repeated.
    """
    random = Random(seed)
    faults: list[Fault] = []
    at = 0.0
    for maker in _in_turn(random):
        # Mix faults that overlap with faults that stand alone.
        at += random.choice((random.uniform(0, gap / 3), random.uniform(gap, gap * 8 / 3)))
        if at >= seconds - 1:
            return faults
        fault = maker(random)
        length = round(min(fault.seconds, seconds - at), 1) if fault.seconds else 0.0
        faults.append(Fault(round(at, 1), fault.kind, fault.target, length, fault.amount))
    return faults


def _in_turn(random: Random) -> Iterator[Maker]:
    while True:
        names = list(MAKERS)
        random.shuffle(names)
        yield from (MAKERS[name] for name in names)
