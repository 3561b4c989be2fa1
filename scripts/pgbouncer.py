import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from devserver.embedded import start_postgres
from devserver.supervisor import ROOT
from runtime.processes import free_port, port_is_free, wait_until
from testkit.servers import FAST_POSTGRES, POOLER

# Each test has a database, and so a pool, of its own: large enough for tests of many concurrent clients.
_SETTINGS = """\
[databases]
* = host=127.0.0.1 port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = plain
auth_file = {users}
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 40
server_idle_timeout = 1
unix_socket_dir =
"""


@contextmanager
def pgbouncer(url: str, directory: Path) -> Iterator[str]:
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        raise SystemExit("There is no pgbouncer in PATH (Debian: apt install pgbouncer)")
    server = urlsplit(url)
    port = free_port()
    users, settings = directory / "users", directory / "settings"
    users.write_text(f'"{server.username}" "{server.password}"\n')
    values = {"server_port": server.port, "user": server.username, "password": server.password}
    settings.write_text(_SETTINGS.format(port=port, users=users, **values))
    # PgBouncer refuses to serve as root.
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, "-q", *as_nobody, str(settings)], stderr=subprocess.DEVNULL)
    try:
        if not wait_until(lambda: not port_is_free(port), within=10):
            raise SystemExit("pgbouncer does not listen")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def main(arguments: list[str]) -> int:
    if not any(Path(ROOT, argument.partition("::")[0]).exists() for argument in arguments):
        arguments = [*arguments, "tests/integration", "tests/processes"]
    with tempfile.TemporaryDirectory(prefix="coordinator-pgbouncer-") as name:
        directory = Path(name)
        # Neither the server nor the pooler runs as root, and both need the directory.
        directory.chmod(0o755)
        server = start_postgres(directory, settings=FAST_POSTGRES)
        try:
            with pgbouncer(server.url, directory) as pooler:
                servers = [f"DATABASE_URL={server.url}", f"{POOLER}={pooler}"]
                command = ["env", *servers, sys.executable, "-m", "pytest", "-m", "not direct", *arguments]
                return subprocess.run(command, cwd=ROOT, check=False).returncode
        finally:
            server.stop("immediate")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
