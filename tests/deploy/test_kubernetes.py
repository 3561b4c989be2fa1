"""Check the manifests: valid for every supported Kubernetes, least privilege, and every reference resolved."""

from collections.abc import Mapping
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no annotations
import pytest
import yaml

from tests.support.artefacts import KUBERNETES, manifests, of_kind, pods

OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()
EVERYTHING = [*manifests(), *manifests("examples")]
PODS = dict(pods())
LONG_LIVED = [each["metadata"]["name"] for each in of_kind("Deployment")]


def called(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def container_of(name: str) -> dict[str, Any]:
    (container,) = PODS[name]["spec"]["containers"]
    return dict(container)


def chosen(selector: Mapping[str, Any]) -> list[str]:
    """Return the pods that a selector matches."""
    wanted = selector.get("matchLabels", {}).items()
    return [name for name, template in PODS.items() if wanted <= template["metadata"]["labels"].items()]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", EVERYTHING, ids=called)
def test_manifest_matches_its_schema(manifest: dict[str, Any], version: str) -> None:
    """Refuse keys that Kubernetes does not know."""
    kubernetes_validate.validate(manifest, version, strict=True)


def test_kustomization_lists_every_file() -> None:
    """A forgotten file would never be applied."""
    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    files = {path.name for path in (KUBERNETES / "base").glob("*.yaml")} - {"kustomization.yaml"}
    images = {image["name"] for image in kustomization["images"]}

    assert set(kustomization["resources"]) == files
    assert {container_of(name)["image"] for name in PODS} == images
    assert {each["metadata"].get("namespace", kustomization["namespace"]) for each in EVERYTHING} == {"coordinator"}
    assert of_kind("Namespace")[0]["metadata"]["name"] == kustomization["namespace"]


@pytest.mark.parametrize("name", PODS)
def test_pod_has_least_privilege(name: str) -> None:
    """Require what the `restricted` level asks for, a read-only file system and no token."""
    spec, container = PODS[name]["spec"], container_of(name)
    accounts = {each["metadata"]["name"]: each["automountServiceAccountToken"] for each in of_kind("ServiceAccount")}

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert accounts[spec["serviceAccountName"]] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", PODS)
def test_configuration_of_a_pod_exists(name: str) -> None:
    """A pod with a missing ConfigMap never starts."""
    known = {each["metadata"]["name"] for each in EVERYTHING if each["kind"] in {"ConfigMap", "Secret"}}
    named = {next(iter(source.values()))["name"] for source in container_of(name)["envFrom"]}

    assert named <= known


@pytest.mark.parametrize("name", LONG_LIVED)
def test_replicas_are_replaced_one_by_one(name: str) -> None:
    """Scale by load, not by the manifest; spread replicas, start the new one first, and keep some through
    node drains.
    """
    (deployment,) = [each for each in of_kind("Deployment") if each["metadata"]["name"] == name]
    spec = deployment["spec"]
    (scaler,) = [
        each["spec"] for each in of_kind("HorizontalPodAutoscaler") if each["spec"]["scaleTargetRef"]["name"] == name
    ]
    (budget,) = [each["spec"] for each in of_kind("PodDisruptionBudget") if chosen(each["spec"]["selector"]) == [name]]

    assert "replicas" not in spec
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert chosen(spec["selector"]) == [name]
    assert [chosen(each["labelSelector"]) for each in spec["template"]["spec"]["topologySpreadConstraints"]] == [
        [name]
    ] * 2
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert budget["maxUnavailable"] == 1


def test_service_and_ingress_lead_to_web() -> None:
    """Match labels and the port's name."""
    (service,) = of_kind("Service")
    (ingress,) = [each for each in EVERYTHING if each["kind"] == "Ingress"]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    names = of_kind("ConfigMap")[0]["data"]["COORDINATOR_ALLOWED_HOSTS"].split(",")

    assert chosen({"matchLabels": service["spec"]["selector"]}) == ["coordinator-web"]
    assert service["spec"]["ports"][0]["targetPort"] == container_of("coordinator-web")["ports"][0]["name"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    assert {rule["host"] for rule in ingress["spec"]["rules"]} <= set(names)
    assert service["metadata"]["name"] in names


def test_network_policies_allow_documented_traffic_only() -> None:
    """Deny all first; then let every process reach its servers, and clients reach web alone."""
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind("NetworkPolicy")}
    refused = policies.pop("coordinator-nobody")

    assert refused == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert sorted(chosen(policies["coordinator-servers"]["podSelector"])) == sorted(PODS)
    assert policies["coordinator-servers"]["policyTypes"] == ["Egress"]
    assert chosen(policies["coordinator-web"]["podSelector"]) == ["coordinator-web"]
    assert policies["coordinator-web"]["policyTypes"] == ["Ingress"]
    assert chosen(policies["coordinator-issuer"]["podSelector"]) == ["coordinator-web"]
    assert policies["coordinator-issuer"]["policyTypes"] == ["Egress"]
    (to_issuer,) = policies["coordinator-issuer"]["egress"]
    assert to_issuer["ports"] == [{"protocol": "TCP", "port": 443}]
    assert chosen(policies["coordinator-webhooks"]["podSelector"]) == ["coordinator-worker"]
    (to_receivers,) = policies["coordinator-webhooks"]["egress"]
    assert to_receivers["ports"] == [{"protocol": "TCP", "port": 443}]
    assert all(block["ipBlock"]["except"] for block in to_receivers["to"])
    assert len(policies) == 5


def test_prometheus_reaches_web_and_workers_at_ports_that_they_serve() -> None:
    """Let it in from its namespace only; list pods by addresses, since no pod's name resolves."""
    (policy,) = [each["spec"] for each in of_kind("NetworkPolicy") if each["metadata"]["name"] == "coordinator-metrics"]
    (allowed,) = policy["ingress"]
    (source,) = allowed["from"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    components = {PODS[name]["metadata"]["labels"]["app.kubernetes.io/component"] for name in LONG_LIVED}
    served = {name: container_of(name)["ports"][0]["containerPort"] for name in LONG_LIVED}
    given = {name: {each["name"]: each for each in container_of(name)["env"]} for name in LONG_LIVED}

    assert policy["policyTypes"] == ["Ingress"]
    assert expression["operator"] == "In"
    assert set(expression["values"]) == components
    assert source["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert {each["port"] for each in allowed["ports"]} == set(served.values())
    assert given["coordinator-worker"]["COORDINATOR_METRICS_PORT"]["value"] == str(served["coordinator-worker"])
    assert given["coordinator-worker"]["COORDINATOR_METRICS_HOST"]["value"] == "0.0.0.0"
    for name in LONG_LIVED:
        field = given[name]["COORDINATOR_ADVERTISED_HOST"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert field == "status.podIP"


def test_prometheus_asks_the_service_with_a_key() -> None:
    """Authentication is on in the manifests; scrapes and the list of targets both need the key."""
    config = yaml.safe_load((KUBERNETES.parent / "observability" / "prometheus.kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    (service,) = of_kind("Service")
    name = f"{service['metadata']['name']}.{of_kind('Namespace')[0]['metadata']['name']}.svc"

    assert discovery["url"] == f"http://{name}/metrics/targets"
    assert service["spec"]["ports"][0]["port"] == 80
    assert name in of_kind("ConfigMap")[0]["data"]["COORDINATOR_ALLOWED_HOSTS"].split(",")
    assert of_kind("ConfigMap")[0]["data"]["COORDINATOR_AUTH"] == "1"
    assert job["authorization"] == discovery["authorization"]
    assert set(job["authorization"]) == {"credentials_file"}


def test_web_has_separate_liveness_and_readiness_probes() -> None:
    """An outage of Postgres must not restart every replica."""
    container = container_of("coordinator-web")
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness", "startup")}

    assert paths == {"readiness": "/health/ready", "liveness": "/health/live", "startup": "/health/live"}


def test_example_secret_holds_placeholders_only() -> None:
    (secret,) = [each for each in EVERYTHING if each["kind"] == "Secret"]

    assert all("PASSWORD@" in value for value in secret["stringData"].values())
