import socket
from typing import Final

from runtime.settings import Settings

_EVERY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 -- compared, not bound


def own_name(settings: Settings) -> str:
    """Return the host under which others may reach a socket of this process that is bound to every address."""
    return settings.advertised_host or socket.gethostname()


def advertised(settings: Settings, host: str, port: int) -> str:
    """Return the `host:port` under which another machine may reach a socket bound there."""
    name = own_name(settings) if host in _EVERY_ADDRESS else settings.advertised_host or host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
