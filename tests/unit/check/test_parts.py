"""The pure parts of the environment check, each with its table."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment import capacity
from ansible_collections.slipway.platform.plugins.module_utils.environment.formats import (
    DOMAIN,
    KEY_TYPES,
    LABEL,
    secret,
    ssh_key,
)
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import (
    Environment,
    Fault,
    Host,
    Origin,
    Role,
    Setting,
    report,
    show,
    suggestion,
)
from ansible_collections.slipway.platform.plugins.module_utils.environment.network import is_local, reserved
from ansible_collections.slipway.platform.plugins.module_utils.environment.specs import missing, required_secrets
from ansible_collections.slipway.platform.plugins.module_utils.environment.values import value_faults

from tests.unit.check.conftest import REPOSITORY


def key(kind: str, *fields: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(field)) + field for field in (kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()} somebody"


def rsa(bits: int) -> str:
    return key("ssh-rsa", b"\x01\x00\x01", (1 << (bits - 1)).to_bytes(bits // 8 + 1))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (key("ssh-ed25519", b"x" * 32), None),
        (key("sk-ssh-ed25519@openssh.com", b"x" * 32, b"ssh:"), None),
        (rsa(4096), None),
        (rsa(2048), "fewer than 3072 bits"),
        (key("ssh-dss", b"x"), "is of the type ssh-dss"),
        ("ssh-ed25519", "is a placeholder"),
        ("ssh-ed25519 AAAA... you@example.com", "is a placeholder"),
        ("ssh-ed25519 <your key>", "is a placeholder"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "is damaged"),
        (key("ssh-ed25519", b"x").replace("ssh-ed25519 ", "ssh-rsa ", 1), "is damaged"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "is a private key"),
    ],
)
def test_public_keys(text: str, fault: str | None) -> None:
    found = ssh_key(text)
    assert found is None if fault is None else fault in (found or ("",))[0]


@pytest.mark.parametrize(
    "kind",
    [*(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)), "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ssh-rsa"],
)
def test_sshd_accepts_every_kind_of_key_that_check_accepts(kind: str) -> None:
    assert KEY_TYPES.fullmatch(kind)
    template = REPOSITORY / "roles/base/templates/etc/ssh/sshd_config.d/01-slipway.conf.j2"
    accepted = re.search(r"^PubkeyAcceptedAlgorithms (.*)$", template.read_text(), re.M)
    assert accepted is not None
    assert kind.replace("ssh-rsa", "rsa-sha2-512") in accepted[1].split(",")


@pytest.mark.parametrize("chance", ["Xxx", "xXX", "aTodOb"])
def test_chance_makes_no_placeholder(chance: str) -> None:
    text = "q7Rw2mZp0Lk9Tb4Vn8Ys" + chance + "J5hGd3Fc6Ae1UiOo"
    assert secret(text) is None
    assert "placeholder" in (secret(f"todo: a token {text}") or ("",))[0]


def test_a_key_may_hold_three_x() -> None:
    text = key("ssh-ed25519", b"\0\0" + bytes.fromhex("c71c71").ljust(30, b"\0"))
    assert ssh_key(text) is None
    assert "xxx" in text


NETWORK, SUBNET = IPv4Network("10.40.0.0/16"), IPv4Network("10.40.0.0/24")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.40.0.2", None),
        ("10.40.0.254", None),
        ("10.40.0.0", "network address of the subnet"),
        ("10.40.0.1", "gateway"),
        ("10.40.0.255", "broadcast"),
        ("10.40.1.2", "outside"),
        ("172.31.1.1", "reserved by Hetzner"),
    ],
)
def test_reserved_addresses(address: str, reason: str | None) -> None:
    found = reserved(IPv4Address(address), NETWORK, SUBNET)
    assert found is None if reason is None else reason in (found or ("",))[0]


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("198.19.255.1", True),
        ("10.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("api.hetzner.cloud", False),
        ("9.9.9.9", False),
    ],
)
def test_where_a_token_may_go_unencrypted(host: str, near: bool) -> None:
    assert is_local(host) == near


@pytest.mark.parametrize(
    ("name", "good"),
    [("a", True), ("a-b-1", True), ("a" * 63, True), ("a" * 64, False), ("-a", False), ("a-", False), ("A", False)],
)
def test_host_names(name: str, good: bool) -> None:
    assert bool(LABEL.fullmatch(name)) == good


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("example.com", True),
        ("a-b.example.museum", True),
        ("example", False),
        ("ex_ample.com", False),
        ("example.com.", False),
        (".com", False),
        ("10.0.0.1", False),
    ],
)
def test_domains(name: str, good: bool) -> None:
    assert bool(DOMAIN.fullmatch(name)) == good


@pytest.mark.parametrize(
    ("value", "name", "shown"),
    [
        ("a", "x", '"a"'),
        (["a", 1], "x", '["a", 1]'),
        ("hunter2", "rke2_token", "(a secret)"),
        ("hunter2", "s3_secret", "(a secret)"),
        ("-----BEGIN PRIVATE KEY-----", "x", "(a private key)"),
        ("x" * 100, "x", '"' + "x" * 78 + "…"),
    ],
)
def test_values_as_shown(value: object, name: str, shown: str) -> None:
    assert show(value, name) == shown


@pytest.mark.parametrize(
    ("name", "hint"),
    [("rke2_vresion", "Did you mean rke2_version?"), ("something_else", "Remove it.")],
)
def test_suggestions(name: str, hint: str) -> None:
    assert suggestion(name, ["rke2_version", "rke2_token"]) == hint


ORIGIN = Origin("file.yml", 3)


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ({"type": "str"}, "a", None),
        ({"type": "str"}, ["a"], "is no text"),
        ({"type": "str"}, "", "is empty"),
        ({"type": "str", "default": ""}, "", None),
        ({"type": "str", "default": ""}, " ", "is empty"),
        ({"type": "int", "format": "1..3"}, 4, "x: 4 is out of range. Choose 1 to 3."),
        ({"type": "int", "format": "0|8..9"}, "0", None),
        ({"type": "list", "elements": "str"}, ["a", None], "x[1]: null is no value"),
        ({"type": "list", "elements": "str"}, ["a", "a"], 'x[1]: "a" is listed twice'),
        ({"type": "list", "elements": "str", "required": True}, [], "has too few entries"),
        ({"type": "dict", "format": {"keys": "dns_label", "values": "address4"}}, {"a": "10.0.0.1"}, None),
        ({"type": "dict", "format": {"keys": "dns_label", "values": "address4"}}, {"a": "10"}, "x.a"),
        ({"type": "int"}, 3, None),
        ({"type": "int"}, "3", None),
        ({"type": "int"}, "three", 'x: "three" is no whole number'),
        ({"type": "bool"}, "yes", None),
        ({"type": "bool"}, "perhaps", 'x: "perhaps" is neither'),
        ({"type": "list", "elements": "str"}, "a", "Write it as a list"),
        ({"type": "list", "elements": "int"}, ["a"], 'x[0]: "a" is no whole number'),
        ({"type": "dict"}, [], "Write it as a dict"),
        ({"type": "str", "choices": ["acme", "own_ca"]}, "acmee", "Choose one of acme, own_ca. Did you mean acme?"),
        (
            {"type": "str", "choices": ["17", "18"]},
            17,
            "x: 17 is not possible. Choose one of 17, 18. Write it in quotes.",
        ),
        ({"type": "str", "required": True}, None, "x: null is no value"),
        ({"type": "dict", "options": {"a": {"type": "int"}}}, {"b": 1}, "x.b"),
        (
            {"type": "list", "elements": "dict", "options": {"a": {"type": "int", "required": True}}},
            [{}],
            "x[0]: {} has no a",
        ),
    ],
)
def test_values_against_their_spec(option: dict[str, object], value: object, fault: str | None) -> None:
    found = [fault.message for fault in value_faults(Setting("x", value, ORIGIN), option)]
    assert found == [] if fault is None else len(found) == 1 and fault in found[0]


def test_a_wrong_secret_is_not_repeated() -> None:
    (fault,) = value_faults(Setting("x_token", {"hunter2": 1}, ORIGIN), {"type": "str"})
    assert "hunter2" not in fault.message
    (fault,) = value_faults(Setting("x_token", "hunter2", ORIGIN), {"type": "int"})
    assert "hunter2" not in fault.message


def environment(*roles: Role, hosts: tuple[Host, ...] = ()) -> Environment:
    return Environment("prod", "inventories/prod", hosts, {}, (), {}, roles, {}, frozenset())


def test_only_secrets_of_roles_that_run_somewhere_are_required() -> None:
    token = {"required": True, "type": "str"}
    rke2 = Role("rke2", {"rke2_token": token, "rke2_version": token}, groups=frozenset({"rke2_server"}))
    other = Role("ceph", {"ceph_password": token}, groups=frozenset({"ceph"}))
    servers = frozenset({"rke2_server"})
    wired = Role("base", {"base_token": token}, {servers: frozenset({"base_token"})}, servers)
    server = Host("prod-1", ("rke2_server",), ORIGIN)
    assert list(required_secrets(environment(rke2, other, wired, hosts=(server,)))) == ["rke2_token"]


@pytest.mark.parametrize(
    ("enabled", "required"), [(None, ["rancher_admin_password"]), (True, ["rancher_admin_password"]), (False, [])]
)
def test_a_role_that_is_not_enabled_requires_nothing(enabled: bool | None, required: list[str]) -> None:
    options: dict[str, dict[str, object]] = {
        "rancher_enabled": {"type": "bool", "default": True},
        "rancher_admin_password": {"type": "str", "required": True},
        "rancher_hostname": {"type": "str", "required": True},
    }
    role = Role("rancher", options, groups=frozenset({"rke2_server"}))
    settings = {} if enabled is None else {"rancher_enabled": Setting("rancher_enabled", enabled, ORIGIN)}
    inventory = environment(role, hosts=(Host("prod-1", ("rke2_server",), ORIGIN, settings),))
    assert list(required_secrets(inventory)) == required
    assert len(list(missing(inventory))) == len(required)


NOW = datetime(2026, 11, 1, tzinfo=UTC)
GONE = {"announced": "2026-01-01T00:00:00+00:00", "unavailable_after": "2026-06-01T00:00:00+00:00"}


def offered(name: str, deprecation: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": "x86",
        "locations": [{"name": "fsn1", "available": deprecation is None, "deprecation": deprecation}],
    }


def wanting(host: str, *types: str, image: str = "debian-12") -> Host:
    values = {"provision_server_types": list(types), "provision_image": image}
    return Host(host, ("rke2_server",), ORIGIN, {name: Setting(name, value, ORIGIN) for name, value in values.items()})


@pytest.mark.parametrize(
    ("hosts", "faults"),
    [
        (("prod-1",), []),
        (("prod-2",), ["cx22 is not sold in fsn1", "debian-12 is not offered by the cloud"]),
        (("prod-1", "prod-2"), ["cx22 is not sold in fsn1", "debian-12 is not offered by the cloud"]),
    ],
)
def test_withdrawn_types_and_images_are_valid_for_existing_servers(hosts: tuple[str, ...], faults: list[str]) -> None:
    """Otherwise a platform could not be changed after its server type is withdrawn."""
    locations = {"platform_locations": Setting("platform_locations", ["fsn1"], ORIGIN)}
    wanted = replace(environment(hosts=tuple(wanting(host, "cx22") for host in hosts)), settings=locations)
    there = {"name": "prod-1", "server_type": {"name": "cx22"}, "image": {"name": "debian-12"}}
    cloud = {
        "locations": [{"name": "fsn1", "network_zone": "eu-central"}],
        "server_types": [offered("cx22", GONE), offered("cx23")],
        "images": [{"name": "debian-13", "architecture": "x86"}],
        "servers": [there],
        "volumes": [],
    }
    found = sorted(fault.message for fault in capacity.faults(wanted, cloud, NOW))
    assert len(found) == len(faults), found
    assert all(part in " ".join(found) for part in faults)
    if "prod-1" in hosts:
        both = replace(wanted, hosts=tuple(wanting(host, "cx22", "cx23") for host in hosts))
        assert list(capacity.server_types(both, cloud, NOW)) == []


def test_report_is_sorted_without_duplicates() -> None:
    seen = [(Origin("b.yml", 2), "two"), (Origin("a.yml", 10), "ten"), (Origin("a.yml", 9), "nine")]
    faults = [Fault(origin, problem, "Do it.") for origin, problem in seen]
    assert report([*faults, faults[0]], "inventories/prod").splitlines() == [
        "3 faults in inventories/prod; nothing has been changed.",
        "- nine, set in a.yml:9. Do it.",
        "- ten, set in a.yml:10. Do it.",
        "- two, set in b.yml:2. Do it.",
    ]
