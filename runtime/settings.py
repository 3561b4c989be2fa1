import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from runtime.oidc_settings import OidcSettings
from runtime.secret_files import NoSecret, complete_url, read_secret
from runtime.variables import unknown_variable
from runtime.webhooks.allowed import parse_allowed

PREFIX = "COORDINATOR_"
ALIASES = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}

Names = Annotated[tuple[str, ...], NoDecode]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
SecondsOrOff = Annotated[float, Field(ge=0, le=31_536_000)]
Days = Annotated[float, Field(gt=0, le=36_500)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrOff = Annotated[int, Field(ge=0, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=2**31 - 1)]


class SettingsError(Exception):
    """The environment sets an unknown or impossible value; the message is for the operator."""


def _about(default: Any, description: str) -> Any:
    """Return a field with a default and a help text; the last word of its name is the unit."""
    return Field(default, description=description)


def _address(name: str, description: str) -> Any:
    choices = AliasChoices(f"{PREFIX}{name.upper()}", ALIASES[name])
    return Field("", description=description, validation_alias=choices, repr=False)


class Settings(OidcSettings):
    """Settings of every process: `COORDINATOR_` and the name in capitals; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", populate_by_name=True
    )

    # Servers
    database_url_file: str = _about("", "File with the URL of Postgres, instead of the URL")
    database_password_file: str = _about("", "File with the password that the URL of Postgres leaves out")
    redis_url_file: str = _about("", "File with the URL of Redis, instead of the URL")
    redis_password_file: str = _about("", "File with the password that the URL of Redis leaves out")
    database_url: str = _address("database_url", "URL of Postgres 15 or newer (DATABASE_URL is read too)")
    redis_url: str = _address(
        "redis_url", "URL of Redis 7 or Valkey, with a logical database of its own (REDIS_URL is read too)"
    )
    prepare_statements: bool = _about(True, "Use prepared statements; turn off behind a PgBouncer older than 1.21")
    startup_options: bool = _about(
        True, "Send the timeouts below when connecting; turn off behind a PgBouncer: each transaction sets them then"
    )
    connect_timeout_seconds: Annotated[int, Field(ge=1, le=60)] = _about(
        3, "Time limit for opening a Postgres connection"
    )
    lock_timeout_seconds: Seconds = _about(2, "Longest wait of a statement for a row lock")
    statement_timeout_seconds: Seconds = _about(10, "Longest duration of a statement")
    idle_in_transaction_seconds: Seconds = _about(5, "Longest pause of a client within a transaction")
    tcp_user_timeout_seconds: Seconds = _about(10, "Time after which unacknowledged data proves a connection dead")
    pool_timeout_seconds: Seconds = _about(2, "Longest wait for a free connection of the pool")
    web_pool_size: Count = _about(8, "Connections of a web process to Postgres for writes")

    # Web
    listen_host: str = _about(
        "127.0.0.1", "Address that `coordinator web` binds; any but loopback requires authentication"
    )
    listen_port: Annotated[int, Field(ge=0, le=65_535)] = _about(8765, "Port that `coordinator web` binds")
    insecure: bool = _about(False, "Allow binding to a public address although authentication is off")
    auth: bool = _about(False, "Require credentials from the start; otherwise once an issuer is set or a key exists")
    allow_query_tokens: bool = _about(
        False, "Accept `?api_key=` on GET requests, for dashboards that can send no header"
    )
    public_docs: bool = _about(False, "Serve /docs and /openapi.json without credentials")
    cors_origins: Names | None = _about(
        None, "Origins that browsers may call from, comma-separated (default: loopback, none with authentication)"
    )
    allowed_hosts: Names = _about((), "Further host names of the service, comma-separated")
    url: Names = _about(
        ("http://127.0.0.1:8765",), "Addresses of the coordinator for clients and runners, comma-separated"
    )

    # Clients
    token: str = Field("", description="API key or token of clients and runners", repr=False)
    token_file: str = _about("", "File with the token, mode 0600 (default: ~/.config/coordinator/token)")
    ca_file: str = _about("", "File with the only certificates that clients and runners trust (default: the system's)")

    # Polls, claims and heartbeats
    poll_timeout_seconds: Annotated[float, Field(ge=0, le=600)] = _about(30, "Time for which a runner's poll is held")
    told_heartbeat_seconds: Seconds = _about(60, "Heartbeat interval told to a runner")
    told_heartbeat_instance_seconds: Seconds = _about(10, "Heartbeat interval told to a runner with an instance_id")
    stale_after_seconds: Seconds = _about(30, "Silence after which a runner is stale (at least 2 x told)")
    lost_after_seconds: Seconds = _about(60, "Silence after which a runner is lost (at least 3 x told)")
    forget_runner_seconds: Seconds = _about(86_400, "Silence after which a runner must register again")
    claim_timeout_seconds: Seconds = _about(15, "Time after which an undelivered claim returns to pending")
    start_timeout_seconds: Seconds = _about(
        120, "Time after which a delivered claim without `started` returns to pending"
    )
    stop_timeout_seconds: Seconds = _about(
        60, "Time after which a stop without a report counts as done (at least 3 x told)"
    )
    orphan_after_seconds: SecondsOrOff = _about(
        900, "Silence of a run after an outage of ours, after which it is lost; 0: never"
    )
    no_match_timeout_seconds: Seconds = _about(300, "Time after which a ready run that no live runner satisfies fails")
    priority_ageing_seconds: SecondsOrOff = _about(0, "Waiting time for which a ready run gains one priority; 0: never")
    # Not `run_timeout_seconds`: variables COORDINATOR_RUN_* are those that the runner passes to a command.
    default_run_timeout_seconds: Seconds | None = _about(None, "Time limit of a run that sets none itself; unset: none")
    max_session_depth: Annotated[int, Field(ge=1, le=1000)] = _about(10, "Levels of child sessions below a session")

    # Ticks
    sweep_seconds: Seconds = _about(2, "Interval of dispatch, broadcast and callbacks without a wake-up")
    expiry_seconds: Seconds = _about(1, "Interval at which expiry looks at all deadlines")
    recheck_seconds: Annotated[float, Field(gt=0, le=4)] = _about(
        2, "Interval of the re-check of parked polls, jittered"
    )
    fast_paths: bool = _about(
        True,
        "Web processes number events and wake parked polls themselves after their commits, and write plain cases in"
        " one statement; off: workers and transactions alone do",
    )

    # Feed
    feed_poll_seconds: Seconds = _about(0.5, "Interval at which the feed's reader looks without a wake-up")
    feed_window_events: Count = _about(10_000, "Events of the feed that a web process keeps in memory")
    feed_window_bytes: Bytes = _about(16 * 1024**2, "Size of those events")
    catch_up_page_events: Count = _about(500, "Events in one page of a client that catches up")
    catch_up_readers: Annotated[int, Field(ge=1, le=100)] = _about(
        3, "Clients of a process that read pages at once to catch up"
    )
    send_timeout_seconds: Seconds = _about(15, "Time after which a stream's client that reads nothing is cut")
    stream_lifetime_seconds: Seconds = _about(
        600, "Lifetime of a stream, which then ends cleanly and is resumed (+- 20 %)"
    )
    sse_heartbeat_seconds: Annotated[float, Field(gt=0, le=30)] = _about(15, "Interval of comments on a silent stream")

    # Start and stop
    drain_seconds: SecondsOrOff = _about(10, "Time for which a web process serves on after SIGTERM, not ready")
    graceful_shutdown_seconds: Annotated[int, Field(ge=1, le=600)] = _about(
        5, "Time after the drain until connections are cut"
    )
    worker_grace_seconds: SecondsOrOff = _about(20, "Time for which a worker finishes its actors after SIGTERM")
    report_hold_seconds: Annotated[float, Field(ge=0, le=30)] = _about(
        25, "Longest time for which reports are held while Postgres is away"
    )
    worker_threads: Annotated[int, Field(ge=1, le=256)] = _about(4, "Threads of a worker process")

    # Metrics of workers; those of web processes are on their own port
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = _about(
        0, "Port on which a worker serves /metrics; further processes of `worker --processes` take the next; 0: none"
    )
    metrics_host: str = _about("127.0.0.1", "Address that this port binds; it asks for no credentials")
    advertised_host: str = _about(
        "", "Host that /metrics/targets names for this process (default: the bound one, or this machine's name)"
    )

    # Retention
    idempotency_seconds: Seconds = _about(86_400, "Time for which an Idempotency-Key is remembered")
    event_retention_days: Days = _about(30, "Time for which events are kept")
    retention_days: Days | None = _about(None, "Time for which finished sessions are kept; unset: for ever")

    # Limits
    list_limit: Count = _about(10_000, "Most rows of a list without `limit`")
    init_limit: Count = _about(10_000, "Most sessions in the feed's `init`")
    submission_bytes: Bytes = _about(1024**2, "Largest body of a submission")
    batch_bytes: Bytes = _about(16 * 1024**2, "Largest body of a batch")
    parameters_bytes: Bytes = _about(256 * 1024, "Largest `parameters` of a run")
    event_bytes: Bytes = _about(16 * 1024**2, "Largest event; beyond that its largest fields are left out")
    body_bytes: Bytes = _about(64 * 1024**2, "Largest body of any request")
    bodies_bytes: Bytes = _about(
        128 * 1024**2, "Bodies that a web process holds at once, at most half of it for one caller; others wait"
    )
    submissions_per_minute: CountOrOff = _about(600, "Runs that one caller may submit a minute; 0: no limit")
    events_per_minute: CountOrOff = _about(6000, "Events that a caller may append to a session a minute; 0: no limit")
    event_bytes_per_minute: Annotated[int, Field(ge=0, le=2**40)] = _about(
        256 * 1024**2, "Bytes of events that a caller may append a minute; 0: no limit"
    )
    changes_per_minute: CountOrOff = _about(
        3000, "Changes, binds, stops, deletes and tickets of a caller a minute; 0: no limit"
    )
    registrations_per_minute: CountOrOff = _about(
        600, "Registrations and departures of a caller's runners a minute; 0: no limit"
    )
    reports_per_minute: CountOrOff = _about(60_000, "Reports and heartbeats of a caller a minute; 0: no limit")
    # Not `run_*` for the same reason as default_run_timeout_seconds.
    run_events_max: CountOrOff = _about(0, "Most events stored of a run, not counting its result and end; 0: no limit")
    reads_per_second: CountOrOff = _about(
        50, "Reads of a user a second in one process; further ones wait, 1 s at most; 0: no limit"
    )
    streams_per_caller: CountOrOff = _about(
        20, "Streams of a caller in one process; beyond, the oldest ends; 0: no limit"
    )
    demands_per_owner: CountOrOff = _about(
        1000, "Distinct sets of demands of an owner's runs, each until unused for a day; 0: no limit"
    )
    lists_per_caller: CountOrOff = _about(
        20, "Lists of a caller that a process streams at once; further ones wait 10 s, then 429; 0: no limit"
    )
    blueprint_environment: Names = _about(
        (), "Variables of this process that agents may name as `${env.NAME}`, separated by commas"
    )
    polls_per_runner: Count = _about(5, "Polls of a runner that a process holds; beyond, the oldest ends")
    most_connections: Count | None = _about(
        None,
        "Connections that a web process accepts, others wait; at most what its limit of open files allows (default)",
    )
    group_commit_items: Count = _about(256, "Most items in one transaction")
    group_commit_bytes: Bytes = _about(4 * 1024**2, "Largest size of those items")

    webhook_allow: Names = _about(
        (), "Networks (10.0.0.0/8) and hosts to which webhooks may lead although they are private or http"
    )

    # This process
    tracing: bool = _about(False, "Export traces as the variables OTEL_* say; needs the extra coordinator[otel]")
    log_format: Literal["console", "json"] = _about("console", "Format of log lines")
    log_level: Literal["debug", "info", "warning", "error"] = _about("info", "Lowest level that is logged")
    data_dir: str = _about(".coordinator", "Directory in which `coordinator up` keeps databases, logs and pid files")

    def deadlines(self) -> dict[str, Any]:
        """Return the arguments of `models.core.limits.Limits`, from which web and workers build it alike."""
        return {
            "claim_timeout": self.claim_timeout_seconds,
            "start_timeout": self.start_timeout_seconds,
            "stop_timeout": self.stop_timeout_seconds,
            "stale_after": self.stale_after_seconds,
            "lost_after": self.lost_after_seconds,
            "forget_runner": self.forget_runner_seconds,
            "orphan_after": self.orphan_after_seconds,
            "no_match_timeout": max(1, int(self.no_match_timeout_seconds)),
            "priority_ageing": self.priority_ageing_seconds,
            "told_heartbeat": max(1, int(self.told_heartbeat_seconds)),
            "told_heartbeat_instance": max(1, int(self.told_heartbeat_instance_seconds)),
            "report_hold": self.report_hold_seconds,
            "max_depth": self.max_session_depth,
        }

    @field_validator(
        "cors_origins",
        "allowed_hosts",
        "url",
        "blueprint_environment",
        "oidc_roles",
        "oidc_scopes",
        "webhook_allow",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _networks_and_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_allowed(value)
        return value

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _no_service_link(cls, value: object) -> object:
        """Take the link that Kubernetes sets for a Service named coordinator-metrics for no port."""
        return 0 if isinstance(value, str) and "://" in value else value

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, value: str) -> str:
        if not value:
            return value
        scheme, separator, rest = value.partition("://")
        if scheme not in {"postgres", "postgresql", "postgresql+psycopg"} or not separator:
            message = "must begin with postgresql:// or postgres://"
            raise ValueError(message)
        _refuse_odd_address(value)
        return f"postgresql+psycopg://{rest}"

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            message = "must begin with redis://, rediss:// or unix://"
            raise ValueError(message)
        _refuse_odd_address(value)
        return value

    @model_validator(mode="after")
    def _stale_before_lost(self) -> Self:
        if self.lost_after_seconds <= self.stale_after_seconds:
            message = "COORDINATOR_LOST_AFTER_SECONDS must be more than COORDINATOR_STALE_AFTER_SECONDS"
            raise ValueError(message)
        return self

    def need_servers(self) -> None:
        """Raise SettingsError unless Postgres and Redis are both named."""
        for name, alias in ALIASES.items():
            if not getattr(self, name):
                variable = f"{PREFIX}{name.upper()} (or {alias})"
                raise SettingsError(f"{variable} is not set. `coordinator up` brings its own Postgres and Redis.")


def _refuse_odd_address(url: str) -> None:
    """Raise ValueError for a host or port that no library can parse; never quote the URL and its password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        message = "names a host or a port that is none (a password with /, ? or # needs percent signs)"
        raise ValueError(message) from None


def load_settings() -> Settings:
    """Return the settings of this process. Raises SettingsError for an unknown or invalid `COORDINATOR_` variable."""
    if complaint := unknown_variable(os.environ, PREFIX, Settings.model_fields):
        raise SettingsError(complaint)
    try:
        return with_secrets(Settings())
    except ValidationError as error:
        raise SettingsError("\n".join(_complaint(item) for item in error.errors(include_url=False))) from None


def blueprint_variables(settings: Settings) -> dict[str, str]:
    """Return the variables of the environment that blueprints may name, as far as they are set."""
    return {name: value for name in settings.blueprint_environment if (value := os.environ.get(name)) is not None}


def with_secrets(settings: Settings) -> Settings:
    """Return the settings completed from files: whole URLs, or passwords missing in URLs. Raises SettingsError."""
    changed = {}
    for name in ALIASES:
        password_file = f"{name.removesuffix('_url')}_password_file"
        files = (getattr(settings, f"{name}_file"), getattr(settings, password_file))
        try:
            if any(files):
                changed[name] = complete_url(PREFIX + name.upper(), getattr(settings, name), *files)
        except NoSecret as reason:
            raise SettingsError(str(reason)) from None
    changed |= _client_secret(settings)
    # Validate the completed URLs.
    return Settings.model_validate({**settings.model_dump(), **changed}) if changed else settings


def _client_secret(settings: Settings) -> dict[str, str]:
    path, name = settings.oidc_client_secret_file, f"{PREFIX}OIDC_CLIENT_SECRET"
    if not path:
        return {}
    try:
        secret = read_secret(path, f"{name}_FILE")
    except NoSecret as reason:
        raise SettingsError(str(reason)) from None
    if settings.oidc_client_secret not in {"", secret}:
        raise SettingsError(f"{name} and {name}_FILE are both set, to different secrets")
    return {"oidc_client_secret": secret}


def _complaint(item: Mapping[str, Any]) -> str:
    where = str(item["loc"][0]) if item["loc"] else ""
    name = where if where.startswith(PREFIX) or where in ALIASES.values() else PREFIX + where.upper()
    reason = item["msg"].removeprefix("Value error, ")
    if not where:
        return str(reason)
    # Leave out a URL's value: it may hold a password.
    shown = "" if where.lower().endswith(("_url", "token", "secret")) else f", not {item['input']!r}"
    return f"{name}: {reason}{shown}"


def source_of(name: str) -> str:
    environ = {variable.upper(): value for variable, value in os.environ.items()}
    variables = [PREFIX + name.upper(), *([ALIASES[name]] if name in ALIASES else [])]
    return next((variable for variable in variables if environ.get(variable)), "default")
