import difflib
import re
from collections.abc import Iterable, Mapping


def unknown_variable(environ: Mapping[str, str], prefix: str, fields: Iterable[str]) -> str | None:
    """Return the complaint about the first variable under the prefix that is no setting, None if all are."""
    known = {field.upper() for field in fields}
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(prefix) or _is_foreign(prefix, name.upper(), value):
            continue
        own_name = name.upper().removeprefix(prefix)
        if own_name not in known:
            close = difflib.get_close_matches(own_name, sorted(known), n=1, cutoff=0.7)
            hint = f" Did you mean {prefix}{close[0]}?" if close else " `coordinator settings` lists all."
            return f"{name} is not a setting.{hint}"
    return None


def _is_foreign(prefix: str, name: str, value: str) -> bool:
    """Return whether a variable under our prefix is no setting: one passed to a run, or a Kubernetes service link."""
    link = rf"{prefix}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
    if name.startswith(f"{prefix}RUN_") or re.fullmatch(link, name):
        return True
    return re.fullmatch(rf"{prefix}(\w+_)?PORT", name) is not None and "://" in value
