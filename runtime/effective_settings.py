from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from runtime.settings import ALIASES, PREFIX, Settings, source_of

MASK = "***"
SECRETS = {"token", "oidc_client_secret"}


@dataclass(frozen=True)
class EffectiveSetting:
    name: str
    value: str
    unit: str
    source: str
    description: str


_UNITS = {"seconds", "days", "bytes", "events", "items", "threads", "readers"}
_UNITS_BY_NAME = {
    "web_pool_size": "connections",
    "max_session_depth": "levels",
    "list_limit": "rows",
    "init_limit": "sessions",
    "submissions_per_minute": "runs",
    "events_per_minute": "events",
    "run_events_max": "events",
    "event_bytes_per_minute": "bytes",
    "changes_per_minute": "requests",
    "registrations_per_minute": "requests",
    "reports_per_minute": "requests",
    "reads_per_second": "reads",
    "streams_per_caller": "streams",
    "demands_per_owner": "sets",
    "lists_per_caller": "lists",
    "polls_per_runner": "polls",
    "most_connections": "connections",
}


def effective(settings: Settings) -> list[EffectiveSetting]:
    rows: list[EffectiveSetting] = []
    for name, field in Settings.model_fields.items():
        last = name.rpartition("_")[2]
        unit = _UNITS_BY_NAME.get(name, last if last in _UNITS else "")
        shown = _shown(name, getattr(settings, name))
        rows.append(EffectiveSetting(PREFIX + name.upper(), shown, unit, source_of(name), field.description or ""))
    return rows


def _shown(name: str, value: object) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    if name in SECRETS:
        return MASK
    return masked(str(value)) if name in ALIASES else str(value)


def masked(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user_info, at, address = parts.netloc.rpartition("@")
    user, colon, _ = user_info.partition(":")
    netloc = f"{user}:{MASK}@{address}" if colon else f"{user_info}{at}{address}"
    query = [(key, MASK if "password" in key.lower() else text) for key, text in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, safe="*/:")))
