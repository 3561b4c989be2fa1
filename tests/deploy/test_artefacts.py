"""Check Dockerfile, compose file and manifests: well-formed, and in step with the code and each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
import typer
import yaml
from redis import Redis, RedisError
from typer.core import TyperGroup

from cli.main import app
from runtime.settings import PREFIX, Settings, load_settings
from server.http_server import KEEP_ALIVE_SECONDS
from testkit.ports import own_port
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.artefacts import (
    CADDYFILE,
    COMPOSE,
    DOCKERFILE,
    KUBERNETES,
    ROOT,
    TEXTS,
    Launch,
    compose,
    instructions,
    launches,
    manifests,
)

TOOLS = Path(sys.executable).parent
LONGEST_POLL = 600


def run(*command: str) -> None:
    """Run a tool of the venv; its findings are the failure."""
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def by_kind(kind: str) -> list[Launch]:
    return [launch for launch in launches() if launch.kind == kind]


def seconds(text: str, name: str) -> float:
    """Return the value of a duration or plain number behind a name."""
    found = re.search(rf'{name}:?\s+"?(\d+)(s|ms)?\b', text)
    assert found, name
    return float(found[1])


def test_dockerfile_passes_hadolint() -> None:
    """Apply all rules."""
    run("hadolint", "--failure-threshold", "style", DOCKERFILE.name)


def test_compose_file_matches_its_schema() -> None:
    """A misspelt key would otherwise be ignored."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE.name)


def test_image_holds_every_package_and_runs_unprivileged() -> None:
    """A package that is built but not copied would be missing in the image only."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = {
        each.rest.split()[0].rstrip("/") for each in instructions() if each.name == "COPY" and each.stage == "build"
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    final = {each.name: each.rest for each in instructions() if each.stage == "final"}

    assert set(packages) <= copied
    assert allowed == {*copied, "README.md", "LICENSE"}
    assert final["USER"] == "10001:10001"
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert final["ENTRYPOINT"] == '["coordinator"]'
    assert final["COPY"] == "--from=build /opt/coordinator /opt/coordinator"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_named_variable_is_a_setting(path: Path) -> None:
    """A process refuses to start with an unknown setting."""
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+[A-Z])\b", path.read_text()))
    known = {name.upper() for name in Settings.model_fields}

    assert {name for name in named if not name.startswith("RUN_")} <= known


@pytest.mark.parametrize("launch", launches(), ids=lambda launch: launch.where)
def test_every_process_accepts_its_settings(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check values and names; settings for web alone do not stop other processes."""
    for name in [name for name in os.environ if name in {"DATABASE_URL", "REDIS_URL"}]:
        monkeypatch.delenv(name)
    for name, value in launch.environment.items():
        if name != "PATH":
            monkeypatch.setenv(name, value)
    settings = load_settings()

    if launch.kind != "runner":
        settings.need_servers()


@pytest.mark.parametrize("launch", launches(), ids=lambda launch: launch.where)
def test_every_command_and_option_exists(launch: Launch) -> None:
    """Parse them by the command line itself, without running them."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    name, *arguments = launch.command
    command = group.commands[name]

    command.make_context(name, arguments, **group.commands[name].context_settings)


@pytest.mark.parametrize("launch", launches(), ids=lambda launch: launch.where)
def test_grace_period_exceeds_the_longest_orderly_end(launch: Launch) -> None:
    """Leave a few seconds more than a process may take after SIGTERM."""
    settings = Settings.model_validate(
        {
            name.removeprefix(PREFIX).lower(): value
            for name, value in launch.environment.items()
            if name.startswith(PREFIX)
        }
    )
    match launch.kind:
        case "web":
            # Accepted requests are decided and connections closed after that, bounded at 2 s each (app/web.py).
            takes = settings.drain_seconds + settings.graceful_shutdown_seconds + 6
        case "worker":
            takes = settings.worker_grace_seconds + 2
        case "runner":
            takes = float(launch.command[launch.command.index("--grace") + 1]) + 5
        case _:
            return
    assert launch.grace >= launch.before_signal + takes


def test_port_is_the_same_everywhere() -> None:
    """Compare image, health check, compose, load balancer and Kubernetes."""
    default = str(Settings.model_fields["listen_port"].default)
    web = compose()["services"]["web"]
    lb = compose()["services"]["lb"]
    (deployment,) = [
        each for each in manifests() if each["metadata"]["name"] == "coordinator-web" and each["kind"] == "Deployment"
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert {launch.environment["COORDINATOR_LISTEN_PORT"] for launch in by_kind("web")} == {default}
    assert [each.rest for each in instructions() if each.name == "EXPOSE"] == [default]
    assert re.findall(r"127\.0\.0\.1:(\d+)/health/live", DOCKERFILE.read_text()) == [default]
    assert re.findall(r"127\.0\.0\.1:(\d+)/health/ready", web["healthcheck"]["test"][-1]) == [default]
    assert {upstream.rpartition(":")[2] for upstream in lb["environment"]["WEB_REPLICAS"].split()} == {default}
    assert container["ports"] == [{"name": "http", "containerPort": int(default)}]
    worker = compose()["services"]["worker"]["environment"]
    scraped = yaml.safe_load((ROOT / "deploy" / "observability" / "prometheus.compose.yml").read_text())
    ports = {job["job_name"]: job["dns_sd_configs"][0] for job in scraped["scrape_configs"]}
    assert ports["coordinator-worker"]["port"] == int(worker["COORDINATOR_METRICS_PORT"])
    assert {ports[f"coordinator-{name}"]["port"] for name in ("web", "cluster")} == {int(default)}
    assert [ports[f"coordinator-{name}"]["names"] for name in ("web", "worker")] == [["web"], ["worker"]]
    published, inside = lb["ports"][0].rsplit(":", 1)
    assert published == f"127.0.0.1:{default}"
    assert f"\n:{inside} {{" in CADDYFILE.read_text()
    assert f"http://lb:{inside}" in compose()["services"]["runner"]["command"]


def test_load_balancer_names_every_documented_replica() -> None:
    """Use the names that compose gives them."""
    upstreams = compose()["services"]["lb"]["environment"]["WEB_REPLICAS"].split()
    told = [int(number) for path in TEXTS for number in re.findall(r"--scale web=(\d+)", path.read_text())]

    assert upstreams == [f"${{COMPOSE_PROJECT_NAME:-coordinator}}-web-{n}:8765" for n in range(1, len(upstreams) + 1)]
    assert len(upstreams) >= max(told)


def test_balancers_wait_longer_than_longest_poll() -> None:
    """Close idle connections before our server does."""
    caddy = CADDYFILE.read_text()
    (ingress,) = [each for each in manifests("examples") if each["kind"] == "Ingress"]
    annotations = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}

    assert seconds(caddy, "response_header_timeout") > LONGEST_POLL
    assert seconds(caddy, "read_timeout") > LONGEST_POLL
    assert seconds(caddy, "keepalive") < min(KEEP_ALIVE_SECONDS, Settings().drain_seconds / 2)
    assert int(annotations["proxy-read-timeout"]) > LONGEST_POLL
    assert int(annotations["proxy-send-timeout"]) > LONGEST_POLL
    assert annotations["proxy-buffering"] == "off"
    # With -1 a client's disconnect may not reach the replica that holds its poll.
    assert not re.search(r"^\s*flush_interval", caddy, re.MULTILINE)


def test_pools_fit_into_postgres() -> None:
    """Count all replicas that compose may start, twice those of a rolling start, and some connections for people."""
    services = compose()["services"]
    allowed = int(re.findall(r"max_connections=(\d+)", services["postgres"]["command"])[0])
    settings = Settings()
    web = settings.web_pool_size + max(2, settings.web_pool_size // 2) + 2
    worker = settings.worker_threads + 3
    replicas = len(services["lb"]["environment"]["WEB_REPLICAS"].split())

    assert replicas * web + 8 * worker + 10 <= allowed


def test_only_the_load_balancer_listens_and_only_on_loopback() -> None:
    """Authentication is off until COORDINATOR_AUTH=1."""
    services = compose()["services"]
    networks = compose()["networks"]

    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    # Prometheus, in a profile of its own, shows metrics to this machine.
    assert set(published) == {"lb", "prometheus"}
    assert services["prometheus"]["profiles"] == ["observability"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    open_networks = {name for name, network in networks.items() if not (network or {}).get("internal")}
    assert [name for name, service in services.items() if open_networks & set(service["networks"])] == [*published]


def test_no_password_of_compose_has_default() -> None:
    """Compose refuses to start without one: a public default is no password."""
    text = COMPOSE.read_text()

    assert set(re.findall(r"\$\{(\w*PASSWORD\w*)([^}]{0,2})", text)) == {
        ("POSTGRES_PASSWORD", ":?"),
        ("VALKEY_PASSWORD", ":?"),
    }
    for launch in launches():
        if launch.kind != "runner" and "REDIS_URL" in launch.environment:
            assert "@" in launch.environment["REDIS_URL"]
    service = compose()["services"]["redis"]
    assert "requirepass $$VALKEY_PASSWORD" in service["command"][-1]
    assert "${VALKEY_PASSWORD" not in service["command"][-1]


def test_every_service_of_compose_is_confined() -> None:
    """Require a read-only root, named capabilities only, and no new privileges."""
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    added = {name: service.get("cap_add", []) for name, service in compose()["services"].items()}
    assert {name: sorted(caps) for name, caps in added.items() if caps} == {
        "lb": ["NET_BIND_SERVICE"],
        "postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
    }


def test_foreign_images_have_exact_versions_and_take_a_digest() -> None:
    """`postgres:18` is another image every month."""
    for name in ("postgres", "redis", "lb"):
        image = compose()["services"][name]["image"]
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:\d+\.\d+(\.\d+)?\}", image), image


def test_redis_reads_its_password_from_stdin(own_redis: OwnRedis, tmp_path: Path) -> None:
    """Start the local server as compose does: the password is required and is in no argument."""
    program = psutil.Process(own_redis.server.pid).exe()
    port = own_port()
    here = f"{program} - --port {port} --bind 127.0.0.1 --dir {tmp_path}"
    script = compose()["services"]["redis"]["command"][-1].replace("$$", "$").replace("valkey-server -", here, 1)
    process = subprocess.Popen(["/bin/sh", "-c", script], env={"VALKEY_PASSWORD": "s3cret", "PATH": "/usr/bin:/bin"})
    good, bad = redis_client(f"redis://:s3cret@127.0.0.1:{port}"), redis_client(f"redis://127.0.0.1:{port}")
    try:
        eventually(lambda: answers(good), what="the server")
        assert not answers(bad)
        # The shell was replaced by the server, so SIGTERM reaches it.
        assert psutil.Process(process.pid).exe() == program
        assert "s3cret" not in " ".join(psutil.Process(process.pid).cmdline())
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def test_mounted_paths_exist() -> None:
    """A missing path would become an empty directory."""
    services = compose()["services"].values()
    sources = [volume.split(":")[0] for service in services for volume in service.get("volumes", [])]
    named = compose()["volumes"]

    assert [source for source in sources if source not in named and not (ROOT / source).exists()] == []
    assert KUBERNETES.is_dir()
