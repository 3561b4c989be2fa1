"""Read Dockerfile, docker-compose.yml and deploy/kubernetes as data: every process they start, and how."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
CADDYFILE = ROOT / "deploy" / "caddy" / "Caddyfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"
POD_ADDRESS = "10.0.0.7"
TEXTS = [DOCKERFILE, COMPOSE, CADDYFILE, *sorted(KUBERNETES.rglob("*.yaml")), ROOT / "docs" / "deployment.md"]


@dataclass(frozen=True)
class Launch:
    """Process of ours as an orchestrator starts and ends it. Times in seconds."""

    where: str
    command: list[str]
    environment: Mapping[str, str]
    grace: float
    before_signal: float = 0

    @property
    def kind(self) -> str:
        return self.command[0]


@dataclass(frozen=True)
class Instruction:
    """Instruction of a Dockerfile, with its stage."""

    stage: str
    name: str
    rest: str


def instructions() -> list[Instruction]:
    """Parse the Dockerfile, with continued lines joined and comments removed; the last stage is called `final`."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    found: list[Instruction] = []
    stage = ""
    for line in joined:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" AS ")[2] if " AS " in rest else "final"
        found.append(Instruction(stage, name, rest.strip()))
    return found


def compose() -> dict[str, Any]:
    """Parse the compose file with anchors resolved and variables unresolved."""
    return dict(yaml.safe_load(COMPOSE.read_text()))


def manifests(folder: str = "base") -> list[dict[str, Any]]:
    """Parse all Kubernetes objects of a folder except `kustomization.yaml`."""
    found: list[dict[str, Any]] = []
    for path in sorted((KUBERNETES / folder).glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found.extend(yaml.safe_load_all(path.read_text()))
    return found


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests() if manifest["kind"] in kinds]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every pod template with the name of its controller."""
    for manifest in of_kind("Deployment", "Job"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]


def _filled(value: str) -> str:
    """Return a value of a compose file with the defaults of unset variables."""
    return re.sub(r"\$\{\w+:\?[^}]*\}", "given", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    words = [
        pair for each in instructions() if each.stage == "final" and each.name == "ENV" for pair in each.rest.split()
    ]
    return dict(word.split("=", 1) for word in words)


def launches() -> list[Launch]:
    """Return every process of ours, in compose and in Kubernetes."""
    return [*_compose_launches(), *_kubernetes_launches()]


def _compose_launches() -> Iterator[Launch]:
    for name, service in compose()["services"].items():
        if service["image"] != "coordinator:local":
            continue
        given = {name: _filled(value) for name, value in service.get("environment", {}).items()}
        environment = {**image_environment(), **given}
        grace = str(service.get("stop_grace_period", "10s"))
        yield Launch(f"compose {name}", list(service["command"]), environment, float(grace.removesuffix("s")))


def _kubernetes_launches() -> Iterator[Launch]:
    settings = {each["metadata"]["name"]: each["data"] for each in of_kind("ConfigMap")}
    secret = {
        each["metadata"]["name"]: each["stringData"] for each in manifests("examples") if each["kind"] == "Secret"
    }
    for name, template in pods():
        (container,) = template["spec"]["containers"]
        environment = dict(image_environment())
        for source in container["envFrom"]:
            if "configMapRef" in source:
                environment |= settings[source["configMapRef"]["name"]]
            else:
                environment |= secret[source["secretRef"]["name"]]
        # A field of the pod is an address.
        environment |= {each["name"]: each.get("value", POD_ADDRESS) for each in container.get("env", ())}
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        grace = template["spec"].get("terminationGracePeriodSeconds", 30)
        yield Launch(f"kubernetes {name}", list(container["args"]), environment, grace, float(before[1]))
