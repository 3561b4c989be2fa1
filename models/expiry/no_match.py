from collections.abc import Collection
from typing import Final

from models.claims.fleet import Fleet, Value, demanded
from models.claims.matching import Demands
from models.state.locked_rows import LockedSession

PREFIX: Final = "No matching runner: "
MOST_NAMED: Final = 9
LONGEST_VALUE: Final = 200
ELSEWHERE: Final = '; resume it with another hostname, or anywhere with "affinity": false'


def no_match_text(
    demands: Demands,
    fleet: Fleet,
    *,
    excluded: Collection[int] = (),
    session: LockedSession | None = None,
    absent: int = 0,
) -> str:
    """Return the error of a run with these demands.

    ``excluded``: registrations that had the run and may not have it again. ``session``: that of a resume, whose
    affinity is named where no runner offers it. ``absent``: number of runners that are lost or leaving.
    """
    if fleet.empty:
        return PREFIX + ("no runner is registered" if not absent else _absent(absent))
    wanted = demanded(demands)
    missing = [value for value in wanted if not fleet.is_offered(value)]
    if missing:
        return PREFIX + f"no runner offers {_listed(missing, session, 'or')}{_elsewhere(missing, session)}"
    if excluded and fleet.find(demands) is not None:
        return PREFIX + "every runner that offers what it demands has had this run and may not have it again"
    if fleet.offers_but_for_its_tags(demands):
        return PREFIX + "the runners that offer what it demands take only runs that demand one of their tags"
    return PREFIX + f"no single runner offers {_listed(wanted, session, 'and')} together{_elsewhere(wanted, session)}"


def _absent(number: int) -> str:
    return f"no runner is online, {number} {'is' if number == 1 else 'are'} lost or leaving"


def _listed(values: list[Value], session: LockedSession | None, conjunction: str) -> str:
    named = [_named(value, session) for value in values[:MOST_NAMED]]
    if len(values) > MOST_NAMED:
        named.append(f"{len(values) - MOST_NAMED} more")
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} {conjunction} {named[-1]}"


def _named(demanded_value: Value, session: LockedSession | None) -> str:
    name, value = demanded_value
    # Write as Python does: control characters do not reach the terminal of a reader.
    shown = repr(value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…")
    if session is None or demanded_value not in _affinity(session):
        return f"{name} {shown}"
    return f"{name} {shown} of session {session.session_id!r}"


def _affinity(session: LockedSession) -> set[Value]:
    named = (("hostname", session.hostname), ("executor_profile", session.executor_profile))
    return {(name, value) for name, value in named if value is not None}


def _elsewhere(values: list[Value], session: LockedSession | None) -> str:
    return ELSEWHERE if session is not None and not _affinity(session).isdisjoint(values) else ""
