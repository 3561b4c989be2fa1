"""Hold alerts, dashboard and the page about metrics to the metrics that processes serve."""

import json
import re
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import promql_parser as promql
import pytest
import yaml

from runtime.processes import write_pid_file
from runtime.settings import PREFIX, Settings
from scripts import observability
from testkit.cluster import Cluster, Process
from testkit.ports import own_port, own_ports
from testkit.waiting import eventually
from tests.support.artefacts import compose, instructions

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "observability"
ALERTS = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"][0]["rules"]
# Labels and a metric that Prometheus itself adds.
TARGET_LABELS = {"job", "instance"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def served_names() -> dict[str, set[str]]:
    """Return the labels of every series by its name."""
    found = {"up": set(TARGET_LABELS)}
    for metric in observability.own_metrics():
        for suffix in SUFFIXES[metric.kind]:
            own = {"le"} if suffix == "_bucket" else set()
            found[metric.name + suffix] = {*metric.labels, *TARGET_LABELS, *own}
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in json.loads(observability.DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            # Grafana fills it in.
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def parts(expression: Any) -> Iterator[Any]:
    """Yield an expression and all that it is made of."""
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for inner in getattr(expression, "args", ()):
        yield from parts(inner)


def faults(expression: str) -> list[str]:
    """Return the metrics and labels of an expression that no process serves."""
    known, found = served_names(), []
    reachable: set[str] = set()
    every = list(parts(promql.parse(expression)))
    for part in every:
        if isinstance(part, promql.VectorSelector):
            name = part.name or ""
            if name not in known:
                found.append(f"no metric {name}")
            labels = known.get(name, set())
            reachable |= labels
            found += [f"{name} has no label {by.name}" for by in part.matchers.matchers if by.name not in labels]
    for part in every:
        modifier = getattr(part, "modifier", None)
        grouped = (
            getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None) or ()
        )
        found += [f"nothing here has the label {label}" for label in grouped if label not in reachable]
    return found


def test_every_expression_names_metrics_and_labels_that_are_served() -> None:
    """Parse the expressions of all alerts and panels; a wrong name is found, wherever it stands."""
    every = dict(expressions())
    assert len(every) > 50
    assert {name: found for name, expr in every.items() if (found := faults(expr))} == {}
    for wrong in (
        "coordinator_runs_redy > 1",
        'rate(coordinator_claims_total{sauce="poll"}[5m])',
        "sum by (profil) (coordinator_runs_ready)",
        "coordinator_streams > on (profile) coordinator_polls_parked",
        "histogram_quantile(0.9, rate(coordinator_batch_seconds[5m]))",
    ):
        assert faults(wrong), wrong


def test_alerts_are_named_described_and_tested_once() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    page = observability.PAGE.read_text()
    assert re.findall(r"^\| `(Coordinator\w+)` \|", page, re.MULTILINE) == names
    cases = yaml.safe_load((FILES / "alerts_test.yml").read_text())["tests"]
    assert [case["name"] for case in cases] == ["healthy", *names]
    assert [check["alertname"] for check in cases[0]["alert_rule_test"]] == names


def test_dashboard_and_page_are_those_that_the_metrics_make() -> None:
    """Run `python -m scripts.observability` after a change of metrics."""
    assert observability.DASHBOARD.read_text() == observability.as_text(observability.dashboard())
    page = observability.PAGE.read_text()
    assert page == observability.with_table(page)


# Show it in the summary; it is no failure.
@pytest.mark.filterwarnings("default:promtool is not installed")
def test_promtool_accepts_rules_their_tests_and_what_processes_serve(cluster: Cluster) -> None:
    """Check with Prometheus's own tool (Debian package `prometheus`) where it is installed; parsing is checked above."""
    promtool = shutil.which("promtool")
    if promtool is None:
        warnings.warn("promtool is not installed: rules and metrics were not given to it", UserWarning, stacklevel=1)
        return

    def check(*arguments: str, given: str | None = None) -> None:
        done = subprocess.run(
            [promtool, *arguments], cwd=FILES, input=given, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    check("check", "rules", "alerts.yml")
    check("test", "rules", "alerts_test.yml")
    check("check", "config", "prometheus.yml")
    check("check", "config", "prometheus.compose.yml")
    check("check", "config", "--syntax-only", "prometheus.kubernetes.yml")
    port = own_port()
    web = cluster.start_web()
    cluster.start_worker(metrics_port=port)
    for url in (f"{web.url}/metrics", f"{web.url}/metrics/cluster", f"http://127.0.0.1:{port}/metrics"):
        text = httpx.get(url, timeout=30).text
        check("check", "metrics", given=text)


def listed(web: Process) -> dict[str, list[str]]:
    """Return the addresses that a web process names to Prometheus, by job."""
    groups = httpx.get(f"{web.url}/metrics/targets", timeout=30).json()
    return {group["labels"]["job"]: sorted(group["targets"]) for group in groups}


def test_every_process_is_listed_at_an_address_that_answers(cluster: Cluster) -> None:
    """Bind every address, as in containers: by the name of the machine, or by the address that the pod is given."""
    port, first = own_port(), own_ports(2)
    web = cluster.start("web", ["web", "--host", "0.0.0.0", "--port", str(port)], {"insecure": 1})
    web.url = f"http://127.0.0.1:{port}"
    cluster.wait_until_ready(web)
    settings = {"metrics_port": first, "metrics_host": "0.0.0.0", "advertised_host": "127.0.0.1"}
    cluster.start_worker("--processes", "2", wait=False, **settings)
    name, workers = f"{socket.gethostname()}:{port}", [f"127.0.0.1:{first + number}" for number in range(2)]
    wanted = {"coordinator-web": [name], "coordinator-worker": workers, "coordinator-cluster": [name]}
    eventually(lambda: listed(web) == wanted, what=f"targets {wanted}")
    for path, status in (("/metrics", 200), ("/metrics/cluster", 200), ("/runs", 403)):
        # Ask as Prometheus does when the name resolves.
        assert httpx.get(web.url + path, headers={"Host": name}, timeout=30).status_code == status
    for worker in workers:
        assert httpx.get(f"http://{worker}/metrics", timeout=30).status_code == 200


# Show it in the summary; it is no failure.
@pytest.mark.filterwarnings("default:Prometheus is not installed")
def test_prometheus_itself_reads_every_process(cluster: Cluster) -> None:
    """Start it with our file (Debian package `prometheus`) where it is installed, at one of two web processes."""
    program = shutil.which("prometheus")
    if program is None:
        warnings.warn("Prometheus is not installed: it read no process", UserWarning, stacklevel=1)
        return
    first = own_ports(2)
    webs = [cluster.start_web() for _ in range(2)]
    cluster.start_worker("--processes", "2", wait=False, metrics_port=first)
    text = (FILES / "prometheus.yml").read_text().replace("15s", "1s").replace("http://127.0.0.1:8765", webs[0].url)
    shutil.copy(FILES / "alerts.yml", cluster.directory)
    (cluster.directory / "prometheus.yml").write_text(text)
    url, log_file = f"http://127.0.0.1:{own_port()}", cluster.directory / "prometheus.log"
    options = [f"--web.listen-address={url.removeprefix('http://')}", "--config.file=prometheus.yml"]
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            [program, *options, "--storage.tsdb.path=data"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cluster.directory,
            start_new_session=True,
        )
    write_pid_file(cluster.directory / "run" / "prometheus.pid", popen.pid)
    cluster.processes.append(Process("prometheus", popen, log_file, url))
    addresses = sorted(web.url.removeprefix("http://") for web in webs)
    wanted = {
        *(("coordinator-web", address, "up") for address in addresses),
        *(("coordinator-cluster", address, "up") for address in addresses),
        *(("coordinator-worker", f"127.0.0.1:{first + number}", "up") for number in range(2)),
    }
    last: set[tuple[str, str, str]] = set()

    def read() -> bool:
        nonlocal last
        try:
            answer = httpx.get(f"{url}/api/v1/targets", timeout=30)
        except httpx.TransportError:
            return False
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # until it has read its own files
            return False
        found = answer.json()["data"]["activeTargets"]
        last = {(one["labels"]["job"], one["labels"]["instance"], one["health"]) for one in found}
        return last == wanted

    try:
        eventually(read, 90, what="all targets up")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{last}\n{log_file.read_text()[-4000:]}") from None


def test_compose_of_traces_sends_them_to_its_collector() -> None:
    """Read the file that is laid over docker-compose.yml: our settings, one build, a confined collector."""
    added = yaml.safe_load((FILES / "traces.compose.yml").read_text())["services"]
    services = compose()["services"]
    ours = {name for name, service in services.items() if service["image"] == "coordinator:local"}
    assert set(added) - set(services) == {"jaeger"}
    assert {name for name in added if name != "jaeger"} == ours
    # One image, so one build for all that name it; with the lock that holds the exporter.
    (lock,) = {added[name]["build"]["args"]["LOCK"] for name in ours}
    assert "opentelemetry-exporter-otlp-proto-http==" in (ROOT / "deploy" / "locks" / f"{lock}.lock").read_text()
    assert next(each.rest for each in instructions() if each.name == "ARG" and each.stage == "build") == "LOCK=runtime"
    traced = {name: service["environment"] for name, service in added.items() if "environment" in service}
    assert set(traced) == {"web", "worker"}
    for environment in traced.values():
        given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if PREFIX in name}
        assert Settings(**given).tracing is True
        collector = urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
        assert (collector.scheme, collector.hostname, collector.port) == ("http", "jaeger", 4318)
    jaeger = added["jaeger"]
    assert all(set(services[name]["networks"]) & set(jaeger["networks"]) for name in traced)
    assert (jaeger["read_only"], jaeger["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in jaeger["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in jaeger["ports"])
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:\d+\.\d+\.\d+\}", jaeger["image"])
