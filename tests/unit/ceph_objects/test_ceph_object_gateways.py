"""Object gateways: the planned changes, and their order."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.ceph_object_gateways import (
    gateway_probes,
    s3_keys,
)
from ansible_collections.slipway.platform.plugins.module_utils import ceph_gateway_read
from ansible_collections.slipway.platform.plugins.module_utils.ceph_object_gateways import (
    Found,
    Gateway,
    Wanted,
    bundle,
    certificate_of,
    fingerprint,
    found_from,
    plan,
    unmet,
)
from ansible_collections.slipway.platform.plugins.modules import ceph_object_gateways as module
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = ["s3.example.com", "*.s3.example.com"]
ADDRESSES = ["10.0.1.51"]


def issue(days: int = 365) -> tuple[str, str]:
    """(key, self-signed certificate) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3.example.com")])
    now = datetime.now(UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in NAMES]
    alternatives += [x509.IPAddress(ip_address(text)) for text in ADDRESSES]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), made.public_bytes(serialization.Encoding.PEM).decode()


KEY, CERTIFICATE = issue()
BUNDLE = bundle(KEY, CERTIFICATE)
WANTED = Wanted("s3", ("b", "a"), 7480, "s3.example.com", {"rgw_gc_obj_min_wait": "300"})
SPEC = WANTED.spec() | {"service_name": "rgw.s3"}
FRONTEND = "beast " + " ".join(WANTED.frontend)


def gateway(host: str, **more: Any) -> Gateway:
    values: dict[str, Any] = {
        "frontend": FRONTEND, "digest": WANTED.digest, "certificate": fingerprint(BUNDLE),
    } | more  # fmt: skip
    return Gateway(f"rgw.s3.{host}.x", host, "2026-11-21T09:00:00Z", True, **values)


AS_WANTED = Found(spec=SPEC, options=WANTED.all_options, certificate=BUNDLE, gateways=(gateway("a"), gateway("b")))


def test_a_bundle_holds_key_and_certificate() -> None:
    assert BUNDLE.startswith("-----BEGIN PRIVATE KEY-----") and BUNDLE.endswith("-----END CERTIFICATE-----\n")
    assert certificate_of(BUNDLE) == CERTIFICATE
    assert fingerprint(BUNDLE) == fingerprint(CERTIFICATE) and len(fingerprint(BUNDLE)) == 64
    assert (certificate_of(""), fingerprint("nonsense")) == ("", "")


def test_no_change_without_drift() -> None:
    assert plan(WANTED, AS_WANTED).changes == []
    assert unmet(WANTED, AS_WANTED) == []


def test_new_gateways_get_options_and_certificate() -> None:
    made = plan(WANTED, Found(), BUNDLE)
    assert made.certificate == BUNDLE and made.spec == WANTED.spec() and made.restart == []
    assert made.options["rgw_sigv4_insecure"] == "false" and made.options["rgw_dns_name"] == "s3.example.com"
    assert made.spec["placement"] == {"hosts": ["a", "b"]}
    assert made.changes[-1] == "deploy the gateways rgw.s3 on a, b"


def test_without_a_certificate_is_a_fault() -> None:
    assert plan(WANTED, Found()).faults


def test_only_tls_13_is_accepted() -> None:
    assert "no_tlsv1_2" in WANTED.frontend[-1]


@pytest.mark.parametrize(
    "change",
    [
        {"frontend": "beast ssl_port=7480"},
        {"digest": ""},
        {"digest": "other"},
        {"certificate": None},
        {"certificate": "other"},
    ],
)
def test_an_outdated_gateway_is_restarted(change: dict[str, Any]) -> None:
    made = plan(WANTED, replace(AS_WANTED, gateways=(gateway("a"), gateway("b", **change))))
    assert made.restart == ["rgw.s3.b.x"]
    assert made.changes == ["restart rgw.s3.b.x"]


def test_a_new_certificate_restarts_all_gateways() -> None:
    made = plan(WANTED, AS_WANTED, bundle(*issue()))
    assert made.certificate and made.restart == ["rgw.s3.a.x", "rgw.s3.b.x"]


def test_a_changed_option_restarts_all_gateways() -> None:
    wanted = replace(WANTED, options={"rgw_gc_obj_min_wait": "60"})
    made = plan(wanted, AS_WANTED)
    assert made.options == {"rgw_gc_obj_min_wait": "60"} and len(made.restart) == 2
    assert made.spec is None and not made.certificate


def test_defaults_of_the_orchestrator_are_no_drift() -> None:
    spec = json.loads(json.dumps(SPEC))
    spec["spec"] |= {"rgw_exit_timeout_secs": 120}
    spec["placement"]["hosts"] = ["b", "a"]
    assert plan(WANTED, replace(AS_WANTED, spec=spec)).changes == []
    spec["placement"]["hosts"] = ["b"]
    assert plan(WANTED, replace(AS_WANTED, spec=spec)).spec == WANTED.spec()


def test_missing_gateways_are_reported() -> None:
    faults = unmet(WANTED, replace(AS_WANTED, gateways=(gateway("b", certificate=None),)))
    assert faults == [
        "rgw.s3.b.x on b does not answer over TLS 1.3 at port 7480",
        "a has no gateway of rgw.s3",
    ]


def test_the_answers_of_a_cluster_are_read() -> None:
    found = found_from(
        WANTED,
        services=[SPEC, {"service_name": "rgw.other"}],
        daemons=[
            {"daemon_name": "rgw.s3.a.x", "hostname": "a", "service_name": "rgw.s3", "status": 1, "started": "t"},
            {"daemon_name": "rgw.other.a.y", "hostname": "a", "service_name": "rgw.other", "status": 1},
        ],
        config=[
            {"section": "client.rgw.s3.a.x", "name": "rgw_frontends", "value": FRONTEND},
            {"section": "client.rgw.s3", "name": "rgw_dns_name", "value": "s3.example.com"},
            {"section": "global", "name": "rgw_dns_name", "value": "elsewhere"},
        ],
        certificate=BUNDLE,
        markers={"rgw.s3.a.x": WANTED.digest},
        presented={"a": fingerprint(BUNDLE), "b": None},
    )
    assert found.other_services == ("rgw.other",)
    assert found.options == {"rgw_dns_name": "s3.example.com"}
    assert found.gateways == (replace(gateway("a"), started="t"),)


class Memory:
    """Test double of a cluster whose gateways use a new certificate only after a restart."""

    def __init__(self) -> None:
        self.store: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.spec: dict[str, Any] | None = None
        self.running: dict[str, tuple[int, str]] = {}
        self.log: list[str] = []

    def execute(
        self, commands: list[list[str]], strict: bool = True, json_wanted: bool = False
    ) -> list[dict[str, Any]]:
        if json_wanted:
            return [
                {"output": json.dumps(entry) if entry else "No things reported\n"}
                for entry in self.json_answers(commands)
            ]
        text = self.store.get(commands[0][2])
        return [{"code": 0 if text is not None else 2, "output": text or "", "message": ""}]

    def json_answers(self, commands: list[list[str]]) -> list[Any]:
        assert [command[0] for command in commands] == ["orch", "orch", "config", "config-key"]
        daemons = [
            {
                "daemon_name": f"rgw.s3.{host}.x",
                "hostname": host,
                "service_name": "rgw.s3",
                "status": 1,
                "started": str(n),
            }
            for host, (n, _) in self.running.items()
        ]
        config = [{"section": "client.rgw.s3", "name": name, "value": value} for name, value in self.options.items()]
        config += [
            {"section": f"client.rgw.s3.{host}.x", "name": "rgw_frontends", "value": FRONTEND} for host in self.running
        ]
        markers = {key: value for key, value in self.store.items() if key.startswith(module.MARKER_PREFIX)}
        return [[self.spec | {"service_name": "rgw.s3"}] if self.spec else [], daemons, config, markers]

    def run(self, args: list[str], input: str | None = None) -> str:
        self.log.append(" ".join(args[:4] if args[:2] != ["config-key", "set"] else args[:3]))
        if args[:2] == ["config-key", "set"]:
            self.store[args[2]] = args[3] if len(args) > 3 else str(input)
        elif args[:2] == ["config", "set"]:
            self.options[args[3]] = args[4]
        elif args[:2] == ["orch", "apply"]:
            self.spec = json.loads(input or "")
            self.running = dict.fromkeys(self.spec["placement"]["hosts"], (1, self.store["rgw/cert/rgw.s3"]))
        else:
            host = args[3].split(".")[2]
            self.running[host] = (self.running[host][0] + 1, self.store["rgw/cert/rgw.s3"])
        return ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()

    def presented(address: str, port: int) -> str | None:
        return fingerprint(made.running[address][1]) if address in made.running else None

    monkeypatch.setattr(ceph_gateway_read, "read_presented_digest", presented)
    return made


def reconcile(cluster: Memory, wanted: Wanted = WANTED, issued: str = "") -> list[str]:
    hosts = {host: host for host in wanted.hosts}
    found = module.read(cluster, wanted, hosts)  # type: ignore[arg-type]
    made = plan(wanted, found, issued)
    module.apply(cluster, wanted, hosts, found, made, 5)  # type: ignore[arg-type]
    return made.changes


def test_a_second_run_changes_nothing(cluster: Memory) -> None:
    assert reconcile(cluster, issued=BUNDLE)
    assert not any("redeploy" in line for line in cluster.log), "they started with all settings"
    assert reconcile(cluster) == []


def test_a_new_certificate_is_stored_before_the_first_of_successive_restarts(cluster: Memory) -> None:
    reconcile(cluster, issued=BUNDLE)
    cluster.log.clear()
    reconcile(cluster, issued=bundle(*issue()))
    assert cluster.log == [
        "config-key set rgw/cert/rgw.s3",
        "orch daemon redeploy rgw.s3.a.x",
        "config-key set slipway/object_gateway/rgw.s3.a.x",
        "orch daemon redeploy rgw.s3.b.x",
        "config-key set slipway/object_gateway/rgw.s3.b.x",
    ]
    assert reconcile(cluster) == []


def test_an_interrupted_run_is_completed(cluster: Memory) -> None:
    reconcile(cluster, issued=BUNDLE)
    wanted = replace(WANTED, options={"rgw_gc_obj_min_wait": "60"})
    cluster.options["rgw_gc_obj_min_wait"] = "60"
    cluster.store[f"{module.MARKER_PREFIX}rgw.s3.a.x"] = wanted.digest
    assert reconcile(cluster, wanted) == ["restart rgw.s3.b.x"]
    assert reconcile(cluster, wanted) == []


def test_the_private_key_is_not_an_argument(cluster: Memory) -> None:
    reconcile(cluster, issued=BUNDLE)
    assert not any("PRIVATE" in line for line in cluster.log)
    assert "PRIVATE" in cluster.store["rgw/cert/rgw.s3"]


def test_probes_and_keys() -> None:
    probes = gateway_probes({"a": "10.0.1.51"}, 7480, "s3.example.com", "CA")
    assert [(probe["kind"], probe["address"]) for probe in probes] == [
        ("https", "10.0.1.51"),
        ("tls_refused", "10.0.1.51"),
    ]
    assert {probe["valid_days"] for probe in probes} == {0}
    assert {probe["valid_days"] for probe in gateway_probes({"a": "10.0.1.51"}, 1, "s3", "CA", 30)} == {30}
    users = [{"name": name, "access_key": name, "secret_key": name} for name in ("owner", "writer")]
    assert [key["owner"] for key in s3_keys(users, [{"name": "b", "owner": "owner"}])] == ["owner"]
