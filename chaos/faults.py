import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import psutil
import psycopg
import redis

from chaos import clock
from chaos.cluster import ChaosCluster, signal_all
from chaos.drains import drain_runner
from chaos.ledger import Ledger
from chaos.schedule import POSTGRES, REDIS, Fault, Kind
from chaos.shipped import Shipped
from runtime.redis_client import sync_client

_TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'coordinator%' AND datname = current_database()
"""
_DEPLOY_SECONDS = 240.0


class Cast(Protocol):
    def kill(self, name: str) -> None: ...
    def freeze(self, name: str) -> None: ...
    def thaw(self, name: str) -> None: ...
    def die(self) -> None: ...


@dataclass
class Done:
    fault: Fault
    begun: float
    ended: float = 0.0
    outcome: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.fault), "took": round(self.ended - self.begun, 2), "outcome": self.outcome}


@dataclass
class Faults:
    cluster: ChaosCluster
    cast: Cast
    say: Callable[[str], None]
    shipped: Shipped | None = None
    ledger: Ledger = field(default_factory=Ledger)
    done: list[Done] = field(default_factory=list)
    # Errors of the faults themselves.
    broken: list[str] = field(default_factory=list)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)

    def run(self, faults: Sequence[Fault]) -> None:
        begun = time.monotonic()
        threads: list[threading.Thread] = []
        for fault in faults:
            time.sleep(max(0.0, begun + fault.at - time.monotonic()))
            self._locks.setdefault(fault.lock, threading.Lock())
            thread = threading.Thread(target=self._do, args=(fault,), name=str(fault), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(_DEPLOY_SECONDS + 60)

    def faults_of_faults(self) -> list[str]:
        failed = [
            done for done in self.done if done.fault.kind is Kind.DEPLOY and not done.outcome.startswith("exit code 0")
        ]
        alone = [done for done in failed if not any(_overlap(done, other) for other in self.done if other is not done)]
        unfinished = [f"{done.fault} is not over" for done in self.done if not done.ended]
        return [*self.broken, *(f"{done.fault}: {done.outcome}" for done in alone), *unfinished]

    def _do(self, fault: Fault) -> None:
        with self._locks[fault.lock]:
            done = Done(fault, time.monotonic())
            self.done.append(done)
            self.say(f"{fault}")
            try:
                done.outcome = self._way(fault)(fault) or "done"
            except (OSError, psutil.Error, psycopg.Error, redis.RedisError) as error:
                # Two faults at once: the target of this one is already away.
                done.outcome = f"could not be done: {error!r}"
            except Exception as error:  # noqa: BLE001 -- reported in the verdict
                done.outcome = f"{fault.kind} {fault.target} went wrong: {error!r}"
                self.broken.append(done.outcome)
            done.ended = time.monotonic()
            if done.outcome != "done":
                self.say(f"          {fault.kind} {fault.target}: {done.outcome}")

    def _way(self, fault: Fault) -> Callable[[Fault], str | None]:
        match fault.kind:
            case Kind.KILL if fault.target in {POSTGRES, REDIS}:
                return self._crash
            case Kind.KILL:
                return self._kill
            case Kind.FREEZE:
                return self._freeze
            case Kind.CUT | Kind.SILENCE:
                return self._cut
            case Kind.FLUSH | Kind.KILL_CLIENTS | Kind.FILL:
                return self._redis
            case Kind.TERMINATE:
                return self._terminate
            case Kind.SKEW:
                return self._skew
            case Kind.DIE:
                return lambda _: self.cast.die()
            case Kind.ANSWER | Kind.SLEEP:
                return self._of_shipped
            case Kind.DRAIN:
                return lambda fault: drain_runner(self.cluster, self.ledger, fault)
            case Kind.DEPLOY:
                return self._deploy

    def _crash(self, fault: Fault) -> None:
        server = self.cluster.postgres if fault.target == POSTGRES else self.cluster.redis
        server.kill()
        try:
            time.sleep(fault.seconds)
        finally:
            server.start()

    def _kill(self, fault: Fault) -> str | None:
        if fault.target.startswith(("deployed", "runner")):
            self.cast.kill(fault.target)
            return None
        process = self.cluster.process(fault.target)
        if process is None:
            return "already dead"
        process.kill()
        return None

    def _freeze(self, fault: Fault) -> None:
        with self._frozen(fault.target):
            time.sleep(fault.seconds)

    @contextmanager
    def _frozen(self, target: str) -> Iterator[None]:
        if target.startswith(("deployed", "runner")):
            self.cast.freeze(target)
            try:
                yield
            finally:
                self.cast.thaw(target)
            return
        frozen = self.cluster.server_family(target) if target in {POSTGRES, REDIS} else self.cluster.family(target)
        signal_all(frozen, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_all(frozen, signal.SIGCONT)

    def _cut(self, fault: Fault) -> None:
        name, _, server = fault.target.partition("/")
        way = self.cluster.to_postgres if server == POSTGRES else self.cluster.to_redis
        targets = None if name == "all" else lambda: self.cluster.family(name)
        with way.cut(targets) if fault.kind is Kind.CUT else way.silence(targets):
            time.sleep(fault.seconds)

    def _redis(self, fault: Fault) -> None:
        with ExitStack() as held:
            client = sync_client(self.cluster.redis.url)
            held.callback(client.close)
            match fault.kind:
                case Kind.FLUSH:
                    client.flushall()
                case Kind.KILL_CLIENTS:
                    for kind in ("normal", "pubsub"):
                        client.client_kill_filter(_type=kind, skipme=True)
                case _:
                    # Like a full disk (MISCONF): every command that may write is refused, the rest is answered.
                    client.config_set("maxmemory", "1")
                    held.callback(self._empty_again)
                    time.sleep(fault.seconds)

    def _empty_again(self) -> None:
        client = sync_client(self.cluster.redis.url, answer_timeout=30)
        client.config_set("maxmemory", "0")
        client.close()

    def _terminate(self, _fault: Fault) -> None:
        with psycopg.connect(self.cluster.postgres.url, autocommit=True, connect_timeout=3) as connection:
            connection.execute(_TERMINATE)

    def _skew(self, fault: Fault) -> None:
        with clock.skewed(self.cluster.clocks, self.cluster.family(fault.target), int(fault.amount)):
            time.sleep(fault.seconds)

    def _of_shipped(self, fault: Fault) -> str | None:
        if self.shipped is None:
            return "there is no such runner"
        if fault.kind is Kind.ANSWER:
            self.shipped.answer_instead(fault.seconds)
        else:
            with self.shipped.asleep(fault.target):
                time.sleep(fault.seconds)
        return None

    def _deploy(self, _fault: Fault) -> str:
        deployed = self.cluster.up.rolling_deploy(_DEPLOY_SECONDS)
        last = (deployed.stdout.strip() or deployed.stderr.strip()).rpartition("\n")[2]
        return f"exit code {deployed.returncode}: {last}"


def _overlap(done: Done, other: Done) -> bool:
    # A process killed up to 20 s before may still be starting.
    return other.begun <= done.ended and done.begun <= other.ended + 20
