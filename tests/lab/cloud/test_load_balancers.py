from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hcloud import Client
from hcloud.load_balancer_types import LoadBalancerType
from hcloud.load_balancers import (
    LoadBalancerAlgorithm,
    LoadBalancerService,
    LoadBalancerTarget,
    LoadBalancerTargetLabelSelector,
)
from hcloud.locations import Location

from lab.machines.base import Sample, TargetHealth
from tests.lab.cloud.conftest import Api, Lab

TCP = {"protocol": "tcp", "listen_port": 5432, "destination_port": 5433}
HTTP_DEFAULTS = {
    "cookie_name": "HCLBSTICKY", "cookie_lifetime": 300, "timeout_idle": 50, "certificates": [], "redirect_http": False,
    "sticky_sessions": False,
}  # fmt: skip
CHECK_DEFAULTS = {"domain": "", "path": "/", "response": "", "status_codes": ["2??", "3??"], "tls": False}


def create(api: Api, name: str = "lb", **more: Any) -> int:
    body = {"name": name, "load_balancer_type": "lb11", "location": "fsn1"} | more
    id: int = api.post("/load_balancers", body)["load_balancer"]["id"]
    return id


def get(api: Api, id: int) -> dict[str, Any]:
    shown: dict[str, Any] = api.get(f"/load_balancers/{id}")["load_balancer"]
    return shown


def change(api: Api, id: int, name: str, body: Any = None) -> dict[str, Any]:
    action: dict[str, Any] = api.post(f"/load_balancers/{id}/actions/{name}", body)["action"]
    assert {"id": id, "type": "load_balancer"} in action["resources"]
    return action


def code(api: Api, id: int, name: str, body: Any = None) -> str:
    return api.code("POST", f"/load_balancers/{id}/actions/{name}", body)


def on(server: int, **more: Any) -> dict[str, Any]:
    return {"type": "server", "server": {"id": server}, **more}


def matching(selector: str, **more: Any) -> dict[str, Any]:
    return {"type": "label_selector", "label_selector": {"selector": selector}, **more}


def managed(lab: Lab, name: str = "web") -> int:
    body = {"name": name, "type": "managed", "domain_names": [f"{name}.example.com"]}
    id: int = lab.api.post("/certificates", body)["certificate"]["id"]
    lab.wait_idle()
    return id


# Create and delete


def test_create_and_delete(lab: Lab, client: Client) -> None:
    made = client.load_balancers.create(
        name="lb",
        load_balancer_type=LoadBalancerType(name="lb21"),
        network_zone="eu-central",
        algorithm=LoadBalancerAlgorithm(type="least_connections"),
        services=[LoadBalancerService(protocol="tcp", listen_port=80, destination_port=8080, proxyprotocol=True)],
        targets=[LoadBalancerTarget("label_selector", label_selector=LoadBalancerTargetLabelSelector("role=web"))],
        labels={"a": "b"},
    )
    made.action.wait_until_finished()
    assert made.action.command == "create_load_balancer"
    balancer = client.load_balancers.get_by_name("lb")
    assert (balancer.location.name, balancer.algorithm.type, balancer.labels) == (
        "fsn1", "least_connections", {"a": "b"},
    )  # fmt: skip
    assert balancer.public_net.ipv6.ip.endswith("::1")
    [spec] = lab.machines.load_balancers.values()
    assert (spec.ipv4, spec.algorithm, spec.max_connections) == (
        balancer.public_net.ipv4.ip, "least_connections", 40_000,
    )  # fmt: skip
    address = client.primary_ips.get_by_id(balancer.public_net.ipv4.primary_ip.id)
    assert (address.assignee_type, address.assignee_id) == ("load_balancer", balancer.id)
    assert lab.api.code("DELETE", f"/primary_ips/{address.id}") == "must_be_unassigned"

    balancer.change_protection(delete=True).wait_until_finished()
    assert lab.api.code("DELETE", f"/load_balancers/{balancer.id}") == "protected"
    balancer.change_protection(delete=False).wait_until_finished()
    assert lab.api.delete(f"/load_balancers/{balancer.id}")["action"]["command"] == "delete_load_balancer"
    assert lab.api.code("GET", f"/load_balancers/{balancer.id}") == "not_found"
    assert lab.api.get("/primary_ips")["primary_ips"] == []
    lab.wait_idle()
    assert lab.machines.load_balancers == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"load_balancer_type": "lb99"}, "not_found"),
        ({"location": "moon"}, "not_found"),
        ({"location": None}, "invalid_input"),
        ({"network_zone": "eu-central"}, "invalid_input"),
        ({"location": None, "network_zone": "mars"}, "invalid_input"),
        ({"algorithm": {"type": "random"}}, "invalid_input"),
        ({"public_interface": False}, "load_balancer_not_attached_to_network"),
        ({"services": [TCP, TCP | {"protocol": "http"}]}, "source_port_already_used"),
        ({"services": [TCP | {"listen_port": port} for port in range(1, 7)]}, "resource_limit_exceeded"),
        ({"targets": [matching("a"), matching("a")]}, "target_already_defined"),
        ({"targets": [matching(f"a{number}") for number in range(26)]}, "resource_limit_exceeded"),
        ({"targets": [on(1)]}, "not_found"),
    ],
)
def test_invalid_creation(api: Api, change: dict[str, Any], expected: str) -> None:
    body = {"name": "lb", "load_balancer_type": "lb11", "location": "fsn1"} | change
    assert api.code("POST", "/load_balancers", body) == expected
    assert api.get("/load_balancers")["load_balancers"] == api.get("/primary_ips")["primary_ips"] == []


def test_given_addresses_stay_after_the_deletion(lab: Lab) -> None:
    api = lab.api
    body = {"name": "fixed", "type": "ipv4", "location": "fsn1", "auto_delete": False}
    address = api.post("/primary_ips", body)["primary_ip"]
    wrong = {"name": "lb", "load_balancer_type": "lb11", "location": "hel1", "public_net": {"ipv4": address["id"]}}
    assert api.code("POST", "/load_balancers", wrong) == "primary_ip_datacenter_mismatch"
    wrong = wrong | {"location": "fsn1", "public_net": {"ipv6": address["id"]}}
    assert api.code("POST", "/load_balancers", wrong) == "primary_ip_version_mismatch"
    id = create(api, public_net={"ipv4": address["id"]})
    assert get(api, id)["public_net"]["ipv4"]["ip"] == address["ip"]
    body = {"name": "two", "load_balancer_type": "lb11", "location": "fsn1", "public_net": {"ipv4": address["id"]}}
    assert api.code("POST", "/load_balancers", body) == "primary_ip_assigned"
    server = {"name": "web", "server_type": "cx23", "image": "debian-13", "public_net": {"ipv4": address["id"]}}
    assert api.code("POST", "/servers", server) == "primary_ip_assigned"
    off = lab.off(public_net={"enable_ipv4": False})["id"]
    assert api.code("POST", f"/primary_ips/{address['id']}/actions/assign", {"assignee_id": off}) == (
        "primary_ip_already_assigned"
    )
    api.delete(f"/load_balancers/{id}")
    assert api.get(f"/primary_ips/{address['id']}")["primary_ip"]["assignee_type"] == "unassigned"


def test_types(api: Api) -> None:
    types = api.get("/load_balancer_types")["load_balancer_types"]
    assert [type["name"] for type in types] == ["lb11", "lb21", "lb31"]
    assert api.get("/load_balancer_types/1")["load_balancer_type"] == types[0]
    assert api.get("/load_balancer_types", name="lb31")["load_balancer_types"] == types[2:]
    assert api.code("GET", "/load_balancer_types/4") == "not_found"


# Services


def test_defaults_of_a_service(api: Api) -> None:
    id = create(api)
    change(api, id, "add_service", TCP)
    # The collection sends nulls and an empty list of certificates.
    sent = {"protocol": "http", "listen_port": 80, "http": {"certificates": []}, "health_check": {"port": None}}
    change(api, id, "add_service", sent)
    change(api, id, "add_service", {"protocol": "https"})
    tcp, http, https = get(api, id)["services"]
    check = {"interval": 15, "timeout": 10, "retries": 3}
    assert tcp == {**TCP, "proxyprotocol": False, "health_check": {"protocol": "tcp", "port": 5433, **check}}
    assert http == {
        "protocol": "http", "listen_port": 80, "destination_port": 80, "proxyprotocol": False, "http": HTTP_DEFAULTS,
        "health_check": {"protocol": "http", "port": 80, "http": CHECK_DEFAULTS, **check},
    }  # fmt: skip
    assert (https["listen_port"], https["destination_port"]) == (443, 80)


def test_update_changes_only_what_is_sent(api: Api) -> None:
    id = create(api)
    change(api, id, "add_service", TCP | {"proxyprotocol": True, "health_check": {"interval": 5}})
    change(api, id, "update_service", {"listen_port": 5432, "protocol": "http"})
    [service] = get(api, id)["services"]
    assert (service["protocol"], service["http"], service["proxyprotocol"]) == ("http", HTTP_DEFAULTS, True)
    assert service["health_check"] == {"protocol": "tcp", "port": 5433, "interval": 5, "timeout": 10, "retries": 3}
    sent = {"health_check": {"protocol": "http", "http": {"path": "/up"}}, "http": {"timeout_idle": 60}}
    change(api, id, "update_service", {"listen_port": 5432, **sent})
    [service] = get(api, id)["services"]
    assert service["health_check"]["http"] == CHECK_DEFAULTS | {"path": "/up"}
    assert service["http"] == HTTP_DEFAULTS | {"timeout_idle": 60}
    change(api, id, "update_service", {"listen_port": 5432, "protocol": "tcp", "health_check": {"protocol": "tcp"}})
    [service] = get(api, id)["services"]
    assert "http" not in service and "http" not in service["health_check"]
    change(api, id, "delete_service", {"listen_port": 5432})
    assert get(api, id)["services"] == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"protocol": "tcp", "listen_port": 80}, "invalid_input"),
        ({"protocol": "udp", "listen_port": 80, "destination_port": 80}, "invalid_input"),
        ({"protocol": "http", "listen_port": 70000}, "invalid_input"),
        (TCP, "source_port_already_used"),
        (TCP | {"listen_port": 1, "http": {"sticky_sessions": True}}, "invalid_input"),
        ({"protocol": "http", "http": {"redirect_http": True}}, "invalid_input"),
        ({"protocol": "http", "http": {"certificates": [1]}}, "invalid_input"),
        ({"protocol": "https", "http": {"certificates": [1]}}, "not_found"),
        ({"protocol": "https", "http": {"sticky_sessions": True}}, "invalid_input"),
        ({"protocol": "http", "http": {"timeout_idle": 10}}, "invalid_input"),
        ({"protocol": "http", "http": {"cookie_name": "a b"}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"interval": 1}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"http": {"path": "/a b"}}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"http": {"path": "/a\nbind :1"}}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"http": {"response": "a\nbind :1"}}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"http": {"domain": "a%b"}}}, "invalid_input"),
        ({"protocol": "http", "health_check": {"http": {"status_codes": ["2xx"]}}}, "invalid_input"),
    ],
)
def test_invalid_services(api: Api, body: dict[str, Any], expected: str) -> None:
    id = create(api, services=[TCP])
    assert code(api, id, "add_service", body) == expected
    assert len(get(api, id)["services"]) == 1


def test_a_redirect_uses_port_80(lab: Lab) -> None:
    id = create(lab.api, services=[TCP | {"listen_port": 80}])
    redirect = {"protocol": "https", "http": {"certificates": [managed(lab)], "redirect_http": True}}
    assert code(lab.api, id, "add_service", redirect) == "source_port_already_used"
    change(lab.api, id, "delete_service", {"listen_port": 80})
    change(lab.api, id, "add_service", redirect)
    assert code(lab.api, id, "add_service", {"protocol": "http"}) == "source_port_already_used"
    assert code(lab.api, id, "update_service", {"listen_port": 80, "proxyprotocol": True}) == "not_found"


def test_certificates_are_in_use(lab: Lab) -> None:
    certificate = managed(lab)
    id = create(lab.api, services=[{"protocol": "https", "http": {"certificates": [certificate]}}])
    assert lab.api.get(f"/certificates/{certificate}")["certificate"]["used_by"] == [
        {"id": id, "type": "load_balancer"}
    ]
    assert lab.api.code("DELETE", f"/certificates/{certificate}") == "resource_in_use"
    [service] = lab.machines.load_balancers[id].services
    assert "BEGIN CERTIFICATE" in service.certificates[0] and "PRIVATE KEY" in service.certificates[0]
    lab.api.delete(f"/load_balancers/{id}")
    lab.api.delete(f"/certificates/{certificate}")


def test_a_service_waits_for_its_managed_certificate(lab: Lab) -> None:
    """Without it, HAProxy would pass TLS through."""
    lab.api.post(f"{lab.url}/_lab/faults", {"kind": "action_error", "command": "create_certificate", "count": 1})
    certificate = managed(lab)
    id = create(lab.api, services=[{"protocol": "https", "http": {"certificates": [certificate]}}])
    lab.wait_idle()
    assert lab.machines.load_balancers[id].services == ()
    lab.api.post(f"/certificates/{certificate}/actions/retry")
    lab.wait_idle()
    assert len(lab.machines.load_balancers[id].services) == 1


# Targets


def test_server_targets(lab: Lab) -> None:
    api, server = lab.api, lab.server()
    id = create(api, services=[TCP])
    change(api, id, "add_target", on(server["id"]))
    assert code(api, id, "add_target", on(server["id"])) == "target_already_defined"
    address = server["public_net"]["ipv4"]["ip"]
    assert lab.machines.load_balancers[id].targets == (address,)
    assert api.get(f"/servers/{server['id']}")["server"]["load_balancers"] == [id]

    def health() -> list[dict[str, Any]]:
        [target] = get(api, id)["targets"]
        assert target["server"] == {"id": server["id"], "ip": address} and target["use_private_ip"] is False
        return target["health_status"]  # type: ignore[no-any-return]

    assert health() == [{"listen_port": 5432, "status": "unknown"}]
    lab.machines.health = {(5432, address): TargetHealth("unhealthy", "unexpected_http_status", 500)}
    assert health() == [
        {"listen_port": 5432, "status": "unhealthy", "detail": "unexpected_http_status", "http_status_code": 500}
    ]
    lab.machines.health = {}
    change(api, id, "remove_target", on(server["id"]))
    assert code(api, id, "remove_target", on(server["id"])) == "not_found"
    assert get(api, id)["targets"] == [] and lab.machines.load_balancers[id].targets == ()


def test_selectors_follow_labels(lab: Lab) -> None:
    web = lab.server("web", labels={"role": "web"})
    db = lab.server("db", labels={"role": "db"})
    id = create(lab.api, targets=[matching("role in (web,proxy)")], services=[TCP])

    def served() -> list[str]:
        lab.wait_idle()
        [target] = get(lab.api, id)["targets"]
        shown = [row["server"]["ip"] for row in target["targets"]]
        assert list(lab.machines.load_balancers[id].targets) == shown
        return shown

    addresses = [server["public_net"]["ipv4"]["ip"] for server in (web, db)]
    assert served() == addresses[:1]
    lab.api.put(f"/servers/{db['id']}", {"labels": {"role": "proxy"}})
    assert served() == addresses
    lab.api.put(f"/servers/{web['id']}", {"labels": {}})
    assert served() == addresses[1:]
    late = lab.server("late", labels={"role": "web"})
    assert served() == [addresses[1], late["public_net"]["ipv4"]["ip"]]
    lab.api.delete(f"/servers/{late['id']}")
    assert served() == addresses[1:]


def test_a_deleted_server_is_no_target(lab: Lab) -> None:
    server = lab.server()["id"]
    id = create(lab.api, targets=[on(server)])
    lab.api.delete(f"/servers/{server}")
    lab.wait_idle()
    assert get(lab.api, id)["targets"] == [] and lab.machines.load_balancers[id].targets == ()


def test_targets_by_private_address(lab: Lab) -> None:
    api, network = lab.api, lab.network()["id"]
    inside, outside = lab.server("in", networks=[network]), lab.server("out")
    id = create(api, services=[TCP])
    private = on(inside["id"], use_private_ip=True)
    assert code(api, id, "add_target", private) == "load_balancer_not_attached_to_network"
    change(api, id, "attach_to_network", {"network": network})
    assert code(api, id, "add_target", on(outside["id"], use_private_ip=True)) == "resolve_cloud_private_targets_error"
    change(api, id, "add_target", private)
    change(api, id, "add_target", matching("a=b", use_private_ip=True))
    address = inside["private_net"][0]["ip"]
    assert lab.machines.load_balancers[id].targets == (address,)
    api.put(f"/servers/{outside['id']}", {"labels": {"a": "b"}})
    api.post(f"/servers/{outside['id']}/actions/attach_to_network", {"network": network})
    lab.wait_idle()
    assert len(lab.machines.load_balancers[id].targets) == 2
    api.post(f"/servers/{inside['id']}/actions/detach_from_network", {"network": network})
    lab.wait_idle()
    assert address not in lab.machines.load_balancers[id].targets


def test_addresses_as_targets(lab: Lab) -> None:
    api, server = lab.api, lab.server()
    id = create(api)
    change(api, id, "add_target", {"type": "ip", "ip": {"ip": "142.132.203.104"}})
    [target] = get(api, id)["targets"]
    assert target == {"type": "ip", "ip": {"ip": "142.132.203.104"}, "health_status": []}
    for ip, expected in (
        ("142.132.203.104", "target_already_defined"),
        (server["public_net"]["ipv4"]["ip"], "cloud_resource_ip_not_allowed"),
        ("10.0.0.1", "load_balancer_not_attached_to_network"),
        ("x", "invalid_input"),
    ):
        assert code(api, id, "add_target", {"type": "ip", "ip": {"ip": ip}}) == expected
    change(api, id, "attach_to_network", {"network": lab.network()["id"]})
    assert code(api, id, "add_target", {"type": "ip", "ip": {"ip": "10.0.0.1"}}) == "network_has_no_vswitch_subnet"
    v6 = server["public_net"]["ipv6"]["ip"].replace("/64", "7")
    change(api, id, "add_target", {"type": "server", "server": {"id": server["id"], "ip": v6}})
    assert get(api, id)["targets"][1]["server"]["ip"] == v6
    other = lab.server("other")["id"]
    wrong = {"type": "server", "server": {"id": other, "ip": v6}}
    assert code(api, id, "add_target", wrong) == "ip_not_assigned_to_server"
    no_v4 = lab.server("six", public_net={"enable_ipv4": False})["id"]
    assert code(api, id, "add_target", on(no_v4)) == "resolve_cloud_public_targets_error"


# Networks, public interface, size, names


def test_networks(lab: Lab) -> None:
    api, network = lab.api, lab.network()["id"]
    id = create(api)
    assert code(api, id, "attach_to_network", {"network": network, "ip": "10.9.0.1"}) == "ip_not_available"
    assert code(api, id, "attach_to_network", {"network": network, "ip_range": "10.0.9.0/24"}) == "no_subnet_available"
    action = change(api, id, "attach_to_network", {"network": network, "ip": "10.0.1.7"})
    assert {"id": network, "type": "network"} in action["resources"]
    assert get(api, id)["private_net"] == [{"network": network, "ip": "10.0.1.7"}]
    assert code(api, id, "attach_to_network", {"network": network}) == "load_balancer_already_attached"
    assert api.get(f"/networks/{network}")["network"]["load_balancers"] == [id]
    [member] = api.get(f"/networks/{network}/members", type="load_balancer")["members"]
    assert (member["id"], member["ip"], member["type"]) == (id, "10.0.1.7", "load_balancer")
    server = lab.server()["id"]
    taken = {"network": network, "ip": "10.0.1.7"}
    assert api.code("POST", f"/servers/{server}/actions/attach_to_network", taken) == "ip_not_available"
    subnet = {"ip_range": "10.0.1.0/24"}
    assert api.code("POST", f"/networks/{network}/actions/delete_subnet", subnet) == "service_error"
    change(api, id, "detach_from_network", {"network": network})
    assert code(api, id, "detach_from_network", {"network": network}) == "invalid_input"
    change(api, id, "attach_to_network", {"network": network})
    api.delete(f"/networks/{network}")
    lab.wait_idle()
    assert get(api, id)["private_net"] == [] and lab.machines.load_balancers[id].attachment is None


def test_public_interface(lab: Lab) -> None:
    api, network = lab.api, lab.network()["id"]
    server = lab.server(networks=[network])["id"]
    id = create(api, targets=[on(server)])
    assert code(api, id, "disable_public_interface") == "load_balancer_not_attached_to_network"
    change(api, id, "attach_to_network", {"network": network})
    assert code(api, id, "disable_public_interface") == "targets_without_use_private_ip"
    change(api, id, "remove_target", on(server))
    change(api, id, "add_target", on(server, use_private_ip=True))
    change(api, id, "disable_public_interface")
    shown = get(api, id)["public_net"]
    assert shown["enabled"] is False and shown["ipv4"]["ip"]
    assert lab.machines.load_balancers[id].ipv4 is None
    assert code(api, id, "add_target", matching("a")) == "load_balancer_public_interface_disabled"
    change(api, id, "enable_public_interface")
    assert lab.machines.load_balancers[id].ipv4 == shown["ipv4"]["ip"]


def test_type_algorithm_and_names(lab: Lab) -> None:
    api = lab.api
    id = create(api)
    change(api, id, "change_algorithm", {"type": "least_connections"})
    assert change(api, id, "change_type", {"load_balancer_type": "lb21"})["command"] == "change_load_balancer_type"
    for port in range(1, 7):
        change(api, id, "add_service", TCP | {"listen_port": port})
    assert code(api, id, "change_type", {"load_balancer_type": "lb11"}) == "invalid_load_balancer_type"
    shown = get(api, id)
    assert (shown["algorithm"], shown["load_balancer_type"]["name"]) == ({"type": "least_connections"}, "lb21")
    for type, default in (("ipv4", "clients.your-server.de"), ("ipv6", None)):
        ip = shown["public_net"][type]["ip"]
        change(api, id, "change_dns_ptr", {"ip": ip, "dns_ptr": "lb.example.com"})
        assert get(api, id)["public_net"][type]["dns_ptr"] == "lb.example.com"
        change(api, id, "change_dns_ptr", {"ip": ip, "dns_ptr": None})
        name = get(api, id)["public_net"][type]["dns_ptr"]
        assert name.endswith(default) if default else name is None
    assert code(api, id, "change_dns_ptr", {"ip": "198.18.0.250", "dns_ptr": "x.example.com"}) == "invalid_input"
    api.put(f"/load_balancers/{id}", {"name": "new", "labels": {"x": "y"}})
    assert api.get("/load_balancers", label_selector="x=y")["load_balancers"][0]["name"] == "new"


def test_a_busy_load_balancer_is_locked(lab: Lab) -> None:
    lab.api.post(f"{lab.url}/_lab/faults", {"kind": "action_error", "command": "add_service", "seconds": 1, "count": 1})
    id = create(lab.api)
    action = change(lab.api, id, "add_service", TCP)
    assert action["status"] == "running"
    assert code(lab.api, id, "change_algorithm", {"type": "least_connections"}) == "locked"
    lab.wait_idle()
    change(lab.api, id, "change_algorithm", {"type": "least_connections"})


# Metrics


def test_metrics(lab: Lab, client: Client) -> None:
    balancer = client.load_balancers.create("lb", LoadBalancerType("lb11"), location=Location("fsn1")).load_balancer
    # The process was replaced before the last sample, so its counters start again.
    counters = [(0, 1, 10, 10, 1000, 0), (10, 2, 30, 20, 3000, 100), (20, 3, 40, 40, 4000, 200), (30, 4, 5, 5, 50, 50)]
    lab.machines.samples = [Sample(1_700_000_000.0 + seconds, *rest) for seconds, *rest in counters]
    start, end = (datetime.fromtimestamp(1_700_000_000 + seconds, UTC) for seconds in (0, 40))
    types = ["open_connections", "connections_per_second", "requests_per_second", "bandwidth"]
    metrics = balancer.get_metrics(types, start, end, step=20).metrics
    values = {name: [float(value) for _, value in row["values"]] for name, row in metrics.time_series.items()}
    assert values == {
        "open_connections": [2.0, 3.5],
        "connections_per_second": [2.0, 0.75],
        "requests_per_second": [1.0, 1.25],
        "bandwidth.in": [200.0, 52.5],
        "bandwidth.out": [10.0, 7.5],
    }
    lab.machines.samples = []
    path = f"/load_balancers/{balancer.id}/metrics"
    times = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    shown = lab.api.get(path, type="bandwidth,open_connections", **times)["metrics"]
    assert shown["time_series"]["bandwidth.in"] == {"values": []} and shown["step"] == 432
    assert lab.api.get(path, type="bandwidth", step=1, **times)["metrics"]["step"] == 172.8
    for wrong in ({"type": "cpu"}, {"type": ""}, {"start": "x"}, {"end": "2025-01-01T00:00:00Z"}, {"step": "0"}):
        assert lab.api.code("GET", path, **({"type": "bandwidth"} | times | wrong)) == "invalid_input"
