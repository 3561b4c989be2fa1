from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Guarantees:
    durable: str
    fenced: str
    history: str
    cancel: str
    remote: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Product beside ours. The driver of its name has the loads; ``packages`` are named with their versions.

    ``server`` is a command of its environment that serves before anything else, and ``server_settings`` its
    environment; ``{port0}``, ``{url}`` and ``{home}`` are filled in. ``ports`` is how many it is given, of which the
    first ``listens`` answer when it is ready. ``workers`` is the number of processes of the driver's `work`;
    ``works_always`` keeps them beside submissions.
    """

    name: str
    setup: str
    guarantees: Guarantees
    packages: tuple[str, ...]
    server: tuple[str, ...] = ()
    server_settings: Mapping[str, str] = field(default_factory=dict)
    ports: int = 0
    listens: int = 0
    workers: int = 0
    works_always: bool = False


OURS: Final = "ours"
OUR_SETUP: Final = (
    "2 web processes, 2 workers, Postgres and Redis; 64 runners over HTTP, three requests a life (claim, started,"
    " completed); a start is the arrival of the poll's answer at the other replica"
)
OUR_GUARANTEES: Final = Guarantees(
    durable="yes: Postgres, fsync before the answer",
    fenced="yes: claim token on every report",
    history="yes: one dense order of all events, resumable",
    cancel="yes: pending and running, told to the runner",
    remote="yes: runners poll over HTTP",
)

PEERS: Final = (
    Peer(
        "prefect",
        "one server on Postgres; its REST interface as its workers use it: create_flow_run, get_scheduled_flow_runs,"
        " set_state three times a life, 16 slots; a start is the accepted claim of a worker that polls without pause"
        " (its own polls every 10 s)",
        Guarantees(
            durable="yes: Postgres",
            fenced="no: rules for states, no token of the worker",
            history="a run's states by time",
            cancel="yes: pending and running",
            remote="yes: workers poll over HTTP",
        ),
        ("prefect",),
        server=("prefect", "server", "start", "--host", "127.0.0.1", "--port", "{port0}"),
        server_settings={
            "PREFECT_HOME": "{home}",
            "PREFECT_API_DATABASE_CONNECTION_URL": "{asyncpg_url}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_UI_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
        ports=1,
        listens=1,
    ),
    Peer(
        "procrastinate",
        "in process: one client with a pool of 16 connections, 2 worker processes of 20 concurrent async jobs on"
        " psycopg; jobs are kept; filled by batch_defer",
        Guarantees(
            durable="yes: Postgres",
            fenced="no: a job is finished by its id and status",
            history="a job's events by id",
            cancel="yes: pending, running by request",
            remote="no: workers need Postgres",
        ),
        ("procrastinate",),
        workers=2,
    ),
    Peer(
        "dbos",
        "in process: DBOSClient.enqueue, 2 processes of 32 workflows each, queue polled every 50 ms (default 1 s);"
        " a workflow without steps",
        Guarantees(
            durable="yes: Postgres",
            fenced="yes: owner of the execution on the outcome",
            history="a workflow's steps by number",
            cancel="yes: at the next step",
            remote="no: workers need Postgres",
        ),
        ("dbos",),
        workers=2,
    ),
    Peer(
        "celery",
        "in process: Redis as broker and for results, acks_late, prefetch 1, track_started, 2 workers of 4 processes;"
        " Redis appends to its file and syncs every second",
        Guarantees(
            durable="up to 1 s is lost with Redis's machine",
            fenced="no: redelivered after the visibility timeout",
            history="no: the last state of a task",
            cancel="pending by memory of the workers, running by signal",
            remote="no: workers need Redis",
        ),
        ("celery", "redis"),
        workers=2,
    ),
    Peer(
        "restate",
        "one server (Rust) with its own log, a Python service of 2 processes that it calls over HTTP/2; submissions are"
        " sends, whose handlers run meanwhile; a life is one call by 64 clients, without steps",
        Guarantees(
            durable="yes: its own log, fsync",
            fenced="yes: one attempt is bound to the server's stream",
            history="an invocation's journal by number",
            cancel="yes: pending and running",
            remote="services over HTTP, called by the server",
        ),
        ("restate-sdk", "hypercorn", "@restatedev/restate-server"),
        server=("restate-server", "--no-logo"),
        server_settings={
            "RESTATE_BASE_DIR": "{home}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_LOG_FILTER": "warn",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_INGRESS__BIND_ADDRESS": "127.0.0.1:{port0}",
            "RESTATE_ADMIN__BIND_ADDRESS": "127.0.0.1:{port1}",
            "RESTATE_BIND_ADDRESS": "127.0.0.1:{port2}",
            "RESTATE_ADVERTISED_ADDRESS": "http://127.0.0.1:{port2}",
            "DO_NOT_TRACK": "1",
        },
        ports=4,
        listens=3,
        workers=1,
        works_always=True,
    ),
)
