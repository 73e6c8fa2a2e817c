"""cert-manager in a cluster: its issuers sign, an Ingress gets a certificate, and a renewal gives another one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory

KUBECTL = "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml"
NAMESPACE = "test-cert-manager"


@pytest.fixture
def server(inventory: Inventory) -> Host:
    return inventory.host(inventory.group("rke2_server")[0])


def kubectl(host: Host, command: str) -> str:
    with host.sudo():
        return str(host.check_output(f"{KUBECTL} {command}"))


def read(host: Host, command: str) -> Any:
    return json.loads(kubectl(host, f"get {command} --output json"))


def apply(host: Host, *manifests: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    with host.sudo():
        host.check_output(f"echo %s | {KUBECTL} apply --filename -", text)


def is_ready(host: Host, command: str) -> bool:
    conditions = read(host, command).get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def certificate(host: Host, namespace: str, secret: str) -> x509.Certificate:
    data = read(host, f"secret {secret} --namespace {namespace}")["data"]
    return x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))


def authority(inventory: Inventory) -> x509.Certificate:
    return x509.load_pem_x509_certificate(inventory.secrets["platform_ca_certificate"].encode())


@pytest.fixture
def namespace(server: Host) -> Iterator[str]:
    apply(server, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield NAMESPACE
    kubectl(server, f"delete namespace {NAMESPACE}")


def test_the_wildcard_certificate_is_signed_by_the_platform(server: Host, inventory: Inventory) -> None:
    issued = certificate(server, "kube-system", "platform-wildcard-tls")
    issued.verify_directly_issued_by(authority(inventory))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domain = inventory.settings["platform_domain"]
    assert names.get_values_for_type(x509.DNSName) == [f"*.{domain}"]


def test_an_ingress_gets_a_certificate(server: Host, inventory: Inventory, namespace: str) -> None:
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "web", "namespace": namespace, "annotations": {"cert-manager.io/cluster-issuer": "platform-ca"},
        },
        "spec": {
            "tls": [{"hosts": ["web.example.test"], "secretName": "web-tls"}],
            "rules": [{"host": "web.example.test", "http": {"paths": [{
                "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    }  # fmt: skip
    apply(server, ingress)
    until(lambda: is_ready(server, f"certificate web-tls --namespace {namespace}"), 60, errors=(AssertionError,))
    certificate(server, namespace, "web-tls").verify_directly_issued_by(authority(inventory))


def test_a_forced_renewal_gives_another_certificate(server: Host, namespace: str) -> None:
    """As `kubectl cert-manager renew` forces it."""
    wanted = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "renewed", "namespace": namespace},
        "spec": {
            "secretName": "renewed", "dnsNames": ["renewed.example.test"],
            "issuerRef": {"kind": "ClusterIssuer", "name": "platform-ca"},
        },
    }  # fmt: skip
    apply(server, wanted)
    selected = f"--namespace {namespace}"
    until(lambda: is_ready(server, f"certificate renewed {selected}"), 60)
    before = certificate(server, namespace, "renewed").serial_number
    condition = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "test"}
    ready = read(server, f"certificate renewed {selected}")["status"]["conditions"]
    with server.sudo():
        server.check_output(
            f"{KUBECTL} patch certificate renewed {selected} --subresource status --type merge --patch %s",
            json.dumps({"status": {"conditions": [*ready, condition]}}),
        )
    until(lambda: certificate(server, namespace, "renewed").serial_number, 60, lambda serial: serial != before)


def test_the_namespace_is_closed_and_restricted(server: Host) -> None:
    policies = {item["metadata"]["name"] for item in read(server, "networkpolicy --namespace cert-manager")["items"]}
    labels = read(server, "namespace cert-manager")["metadata"]["labels"]
    assert policies >= {"default-deny", "egress", "webhook"}
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_definitions_are_kept_by_an_uninstallation(server: Host) -> None:
    definition = read(server, "customresourcedefinition certificates.cert-manager.io")
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
