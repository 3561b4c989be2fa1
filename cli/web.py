import ipaddress
import signal
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from runtime.settings import Settings
    from server.http_server import Server


def web(
    host: Annotated[str | None, typer.Option(help="Address to bind (default: COORDINATOR_LISTEN_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to bind (default: COORDINATOR_LISTEN_PORT).")
    ] = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="Listening socket to serve instead.")] = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True, help="Descriptor to write `ready` to.")] = None,
    successor: Annotated[
        bool, typer.Option("--successor", hidden=True, help="Another process still serves that socket.")
    ] = False,
    name: Annotated[str, typer.Option(hidden=True, help="Name in log lines.")] = "web",
) -> None:
    """Serve HTTP until SIGTERM, then drain.

    The drain takes COORDINATOR_DRAIN_SECONDS; SIGINT ends without it.
    """
    from runtime.logs import configure_logs, log
    from runtime.otel_loading import need_tracing
    from runtime.processes import allow_connections, exit_now, freeze_gc, tell_ready
    from runtime.settings import load_settings

    settings = load_settings()
    settings.need_servers()
    need_tracing(settings)
    if fd is not None:
        sockets = [socket.socket(fileno=fd)]
    else:
        address, number = host or settings.listen_host, settings.listen_port if port is None else port
        addresses = _resolve(address, number)
        _refuse_public(address, addresses, settings)
        sockets = _bind(addresses)
    configure_logs(settings, process=name)
    most = allow_connections(settings.most_connections, besides=2 * settings.web_pool_size)
    for listener in sockets:
        log("coordinator.web").info("listening", url=_url(listener))
    from app.main import create_app
    from runtime.addresses import advertised

    app = create_app(settings)
    app.state.address = advertised(settings, *sockets[0].getsockname()[:2])
    server = _server(app, settings, lambda: tell_ready(ready_fd), most, successor=successor)
    if fd is not None:
        # Only the supervisor that owns the socket knows when another process accepts there.
        signal.signal(signal.SIGUSR1, server.hand_over)
    freeze_gc()
    server.run(sockets)
    exit_now(0)


def _server(
    app: "FastAPI", settings: "Settings", told: "Callable[[], None]", most: int, *, successor: bool
) -> "Server":
    import uvicorn

    from server.admission import BACKLOG
    from server.http_server import KEEP_ALIVE_SECONDS, BoundedHttp, Server

    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.graceful_shutdown_seconds,
    )

    return Server(
        config,
        drain=app.state.drain,
        is_ready=app.state.is_ready,
        tell_ready=told,
        successor=successor,
        most_connections=most,
        instance=app.state.instance,
    )


Address = tuple[socket.AddressFamily, tuple[str, int]]


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise typer.BadParameter(f"{host}: {error.strerror}", param_hint="--host") from None
    return list(dict.fromkeys((family, (str(where[0]), port)) for family, *_, where in found))


def _refuse_public(host: str, addresses: list[Address], settings: "Settings") -> None:
    """Refuse a public address without authentication: every client that reaches the port could start jobs.

    Keys in the database are not considered.
    """
    public = [where[0] for _, where in addresses if not ipaddress.ip_address(where[0].partition("%")[0]).is_loopback]
    if public and not (settings.auth or settings.oidc_issuer or settings.insecure):
        complain(
            f"refusing to bind {host}: authentication is not configured, so everyone who reaches "
            f"{public[0]} could start jobs on your runners. Set COORDINATOR_AUTH=1 (`coordinator keys create` makes "
            "keys), bind 127.0.0.1, or set COORDINATOR_INSECURE=1 if only trusted machines reach that address."
        )
        raise typer.Exit(2)


def _bind(addresses: list[Address]) -> list[socket.socket]:
    sockets = []
    for family, where in addresses:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(where)
        except OSError as error:
            complain(f"cannot bind {where[0]} port {where[1]}: {error.strerror}")
            raise typer.Exit(1) from None
        sockets.append(listener)
    return sockets


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
