import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version

import psutil
import psycopg

from benchmarks.cluster import Servers
from benchmarks.stage import generate, started
from runtime.processes import free_port, port_is_free, wait_until
from runtime.redis_client import sync_client

LIBRARIES = ("fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "psycopg", "dramatiq", "redis")


def facts(servers: Servers) -> dict[str, str]:
    with psycopg.connect(servers.postgres.url) as connection:
        settings = [
            f"{name} {_setting(connection, name)}" for name in ("fsync", "synchronous_commit", "shared_buffers")
        ]
        postgres = f"{_setting(connection, 'server_version')} ({', '.join(settings)})"
    client = sync_client(servers.redis.url)
    redis = client.info("server")
    client.close()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} cores, {platform.machine()} {_model()}".rstrip(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.system(),
        "Python": platform.python_version(),
        "Postgres": postgres,
        "Redis": str(redis.get("valkey_version") or redis["redis_version"]),
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def generator_cost() -> dict[str, float]:
    return _against("serve-trivially")


def pace() -> float:
    """Measure the requests a second that one process of FastAPI and uvicorn answers with nothing behind them: the
    machine's current speed.
    """
    return _against("serve-barely")["rate"]


def _against(server_load: str) -> dict[str, float]:
    port = free_port()
    with started(server_load, {"urls": [], "port": port}) as server:
        wait_until(lambda: not port_is_free(port), within=30)
        figures = generate("own-cost", {"urls": [f"http://127.0.0.1:{port}"], "seconds": 2, "clients": 32})
        server.kill()
    return figures


def _setting(connection: "psycopg.Connection[tuple[object, ...]]", name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


def _model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123  a file of the kernel, read line by line
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
