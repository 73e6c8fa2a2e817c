"""Every implemented operation in one project; the oracle validates each response against Hetzner's document."""

from __future__ import annotations

import pytest
from hcloud import Client
from hcloud.firewalls.domain import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images.domain import Image
from hcloud.locations.domain import Location
from hcloud.networks.domain import NetworkRoute, NetworkSubnet
from hcloud.server_types.domain import ServerType
from hcloud.servers.domain import ServerCreatePublicNetwork

from tests.lab.cloud.conftest import Lab


def test_every_operation_responds_as_documented(lab: Lab, public_key: str) -> None:
    api = lab.api
    key = api.post("/ssh_keys", {"name": "key", "public_key": public_key})["ssh_key"]["id"]
    api.put(f"/ssh_keys/{key}", {"labels": {"a": "b"}})
    api.get("/ssh_keys")
    api.get(f"/ssh_keys/{key}")
    group = api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    api.put(f"/placement_groups/{group}", {"name": "spread"})

    network = api.post("/networks", {"name": "net", "ip_range": "10.0.0.0/16"})["network"]["id"]
    actions = f"/networks/{network}/actions"
    api.post(f"{actions}/add_subnet", {"type": "cloud", "network_zone": "eu-central", "ip_range": "10.0.1.0/24"})
    api.post(f"{actions}/add_subnet", {"type": "server", "network_zone": "eu-central"})
    api.post(f"{actions}/delete_subnet", {"ip_range": "10.0.0.0/24"})
    api.post(f"{actions}/add_route", {"destination": "10.100.0.0/16", "gateway": "10.0.1.7"})
    api.post(f"{actions}/delete_route", {"destination": "10.100.0.0/16", "gateway": "10.0.1.7"})
    api.post(f"{actions}/change_ip_range", {"ip_range": "10.0.0.0/15"})
    api.post(f"{actions}/change_protection", {"delete": True})
    api.post(f"{actions}/change_protection", {"delete": False})
    api.put(f"/networks/{network}", {"labels": {"x": ""}, "expose_routes_to_vswitch": True})

    rules = [{"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0", "::/0"]}]
    firewall = api.post("/firewalls", {"name": "wall", "rules": rules})["firewall"]["id"]
    api.put(f"/firewalls/{firewall}", {"name": "fire"})
    api.post(f"/firewalls/{firewall}/actions/set_rules", {"rules": []})
    volume = api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1", "format": "ext4"})["volume"]["id"]
    ip = api.post("/primary_ips", {"name": "ip", "type": "ipv4", "location": "fsn1"})["primary_ip"]["id"]

    server = lab.server(
        ssh_keys=[key],
        networks=[network],
        volumes=[volume],
        firewalls=[{"firewall": firewall}],
        placement_group=group,
        labels={"role": "web"},
        user_data="#cloud-config\n",
    )["id"]
    api.put(f"/servers/{server}", {"name": "web-2"})
    actions = f"/servers/{server}/actions"
    target = {"type": "server", "server": {"id": server}}
    chosen = {"type": "label_selector", "label_selector": {"selector": "role=web"}}
    api.post(f"/firewalls/{firewall}/actions/remove_from_resources", {"remove_from": [target]})
    api.post(f"/firewalls/{firewall}/actions/apply_to_resources", {"apply_to": [chosen]})
    api.get("/firewalls")
    api.get(f"/firewalls/{firewall}")
    assert api.get(f"/servers/{server}")["server"]["public_net"]["firewalls"] == [{"id": firewall, "status": "applied"}]
    api.post(f"/firewalls/{firewall}/actions/remove_from_resources", {"remove_from": [chosen]})

    for verb in ("reset_password", "reboot", "reset", "enable_backup", "disable_backup", "shutdown", "poweron"):
        api.post(f"{actions}/{verb}")
        lab.wait_idle()
    api.post(f"{actions}/enable_rescue", {"type": "linux64", "ssh_keys": [key]})
    api.post(f"{actions}/disable_rescue")
    api.post(f"{actions}/rebuild", {"image": "debian-12"})
    api.post(f"{actions}/change_alias_ips", {"network": network, "alias_ips": ["10.0.1.50"]})
    assert api.get(f"/networks/{network}/members")["members"][0]["alias_ips"] == ["10.0.1.50"]
    api.post(f"{actions}/detach_from_network", {"network": network})
    api.post(f"{actions}/attach_to_network", {"network": network, "ip": "10.0.1.9"})
    api.post(f"{actions}/change_protection", {"delete": True, "rebuild": True})
    api.post(f"{actions}/change_protection", {"delete": False, "rebuild": False})
    address = api.get(f"/servers/{server}")["server"]["public_net"]["ipv4"]
    api.post(f"{actions}/change_dns_ptr", {"ip": address["ip"], "dns_ptr": "web.example.com"})
    api.post(f"{actions}/poweroff")
    api.post(f"{actions}/change_type", {"server_type": "cx33", "upgrade_disk": False})
    api.post(f"{actions}/poweroff")
    api.post(f"{actions}/remove_from_placement_group")
    api.post(f"{actions}/add_to_placement_group", {"placement_group": group})
    api.post(f"{actions}/poweroff")

    api.post(f"/primary_ips/{address['id']}/actions/unassign")
    api.post(f"/primary_ips/{ip}/actions/assign", {"assignee_id": server, "assignee_type": "server"})
    api.put(f"/primary_ips/{ip}", {})
    mine = api.get(f"/primary_ips/{ip}")["primary_ip"]["ip"]
    api.post(f"/primary_ips/{ip}/actions/change_dns_ptr", {"ip": mine, "dns_ptr": None})
    api.post(f"/primary_ips/{ip}/actions/change_protection", {"delete": True})
    api.post(f"/primary_ips/{ip}/actions/change_protection", {"delete": False})

    api.post(f"{actions}/detach_iso")
    image = api.post(f"{actions}/create_image", {"type": "snapshot"})["image"]["id"]
    api.post(f"/images/{image}/actions/change_protection", {"delete": False})
    api.put(f"/images/{image}", {"description": "golden"})

    floating = api.post("/floating_ips", {"type": "ipv4", "server": server})["floating_ip"]
    address = f"/floating_ips/{floating['id']}"
    api.put(address, {"description": "web"})
    api.post(f"{address}/actions/unassign")
    api.post(f"{address}/actions/assign", {"server": server})
    api.post(f"{address}/actions/change_dns_ptr", {"ip": floating["ip"], "dns_ptr": "web.example.com"})
    api.post(f"{address}/actions/change_protection", {"delete": False})

    zone = api.post("/zones", {"name": "example.com", "mode": "primary"})["zone"]["id"]
    other = {"name": "example.net", "mode": "secondary", "primary_nameservers": [{"address": "192.0.2.53"}]}
    api.post("/zones", other)
    api.post(
        "/zones/example.net/actions/change_primary_nameservers", {"primary_nameservers": [{"address": "192.0.2.1"}]}
    )
    api.get("/zones")
    api.put(f"/zones/{zone}", {"labels": {"a": "b"}})
    api.post(f"/zones/{zone}/actions/change_protection", {"delete": False})
    api.post(f"/zones/{zone}/actions/change_ttl", {"ttl": 60})
    zonefile = api.get(f"/zones/{zone}/zonefile")["zonefile"]
    api.post(f"/zones/{zone}/actions/import_zonefile", {"zonefile": zonefile})
    record = {"value": "192.0.2.1", "comment": "web"}
    api.post(f"/zones/{zone}/rrsets", {"name": "www", "type": "A", "records": [record]})
    api.get(f"/zones/{zone}/rrsets")
    rrset = "/zones/example.com/rrsets/www/A"
    api.get(rrset)
    api.put(rrset, {"labels": {"a": "b"}})
    for verb in ("set_records", "update_records", "remove_records", "add_records"):
        api.post(f"{rrset}/actions/{verb}", {"records": [record]})
    api.post(f"{rrset}/actions/change_ttl", {"ttl": 60})
    api.post(f"{rrset}/actions/change_protection", {"change": False})
    api.delete(rrset)

    api.post(f"/volumes/{volume}/actions/detach")
    api.post(f"/volumes/{volume}/actions/attach", {"server": server, "automount": False})
    api.post(f"/volumes/{volume}/actions/resize", {"size": 20})
    api.post(f"/volumes/{volume}/actions/change_protection", {"delete": False})
    api.put(f"/volumes/{volume}", {"name": "data"})

    api.post(f"{lab.url}/_lab/faults", {"kind": "action_error", "command": "create_certificate", "count": 1})
    body = {"name": "web", "type": "managed", "domain_names": ["www.example.com"]}
    certificate = api.post("/certificates", body)["certificate"]["id"]
    lab.wait_idle()
    api.post(f"/certificates/{certificate}/actions/retry")
    lab.wait_idle()
    api.put(f"/certificates/{certificate}", {"labels": {"a": "b"}})
    body = {"name": "lb", "load_balancer_type": "lb11", "location": "fsn1"}
    balancer = api.post("/load_balancers", body)["load_balancer"]["id"]
    api.put(f"/load_balancers/{balancer}", {"name": "front"})
    lab.wait_idle()
    for verb, body in (
        ("add_service", {"protocol": "https", "http": {"certificates": [certificate]}}),
        ("add_service", {"protocol": "tcp", "listen_port": 5432, "destination_port": 5432}),
        ("update_service", {"listen_port": 5432, "proxyprotocol": True}),
        ("attach_to_network", {"network": network}),
        ("add_target", chosen | {"use_private_ip": True}),
        ("disable_public_interface", {}),
        ("enable_public_interface", {}),
        ("add_target", target),
        ("change_algorithm", {"type": "least_connections"}),
        ("change_type", {"load_balancer_type": "lb21"}),
        ("change_protection", {"delete": True}),
        ("change_protection", {"delete": False}),
    ):
        api.post(f"/load_balancers/{balancer}/actions/{verb}", body)
        lab.wait_idle()
    shown = api.get(f"/load_balancers/{balancer}")["load_balancer"]["public_net"]["ipv4"]["ip"]
    api.post(f"/load_balancers/{balancer}/actions/change_dns_ptr", {"ip": shown, "dns_ptr": "lb.example.com"})
    period = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    api.get(f"/load_balancers/{balancer}/metrics", type="bandwidth", **period)

    for plural, id in (
        ("servers", server), ("networks", network), ("firewalls", firewall), ("volumes", volume), ("primary_ips", ip),
        ("images", image), ("floating_ips", floating["id"]), ("zones", zone),
        ("certificates", certificate), ("load_balancers", balancer),
    ):  # fmt: skip
        api.get(f"/{plural}")
        api.get(f"/{plural}/{id}")
        actions = api.get(f"/{plural}/{id}/actions", sort="id:desc", status="success")["actions"]
        assert actions, plural
        last = actions[0]["id"]
        assert api.get(f"/{plural}/{id}/actions/{last}")["action"]["id"] == last
        assert last in [action["id"] for action in api.get(f"/{plural}/actions", sort="id:desc")["actions"]]
        assert api.get(f"/{plural}/actions/{last}") == api.get(f"/actions/{last}")
        assert [action["id"] for action in api.get("/actions", id=last)["actions"]] == [last]
    api.get("/placement_groups")
    api.get(f"/placement_groups/{group}")
    for path in ("locations", "server_types", "images", "isos", "load_balancer_types"):
        rows = api.get(f"/{path}", per_page=50)[path]
        api.get(f"/{path}/{rows[0]['id']}")
    api.get("/pricing")
    assert api.get("/images/114690387/actions")["actions"] == []

    for verb, body in (
        ("remove_target", target),
        ("remove_target", chosen),
        ("detach_from_network", {"network": network}),
        ("delete_service", {"listen_port": 443}),
    ):
        api.post(f"/load_balancers/{balancer}/actions/{verb}", body)
        lab.wait_idle()
    api.delete(f"/load_balancers/{balancer}")
    api.delete(f"/certificates/{certificate}")
    api.post(f"/volumes/{volume}/actions/detach")
    api.post(f"{address}/actions/unassign")
    api.delete(f"/servers/{server}")
    for path in (
        f"/images/{image}", address, f"/zones/{zone}", "/zones/example.net",
        f"/volumes/{volume}", f"/primary_ips/{ip}", f"/firewalls/{firewall}", f"/placement_groups/{group}",
        f"/networks/{network}", f"/ssh_keys/{key}",
    ):  # fmt: skip
        api.delete(path)
        assert api.code("GET", path) == "not_found"

    assert set(lab.oracle.operations) == lab.oracle.seen


def test_official_sdk(lab: Lab, client: Client, public_key: str) -> None:
    key = client.ssh_keys.create(name="key", public_key=public_key, labels={"owner": "me"})
    assert client.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
    network = client.networks.create(
        name="net",
        ip_range="10.0.0.0/16",
        subnets=[NetworkSubnet(type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24")],
        routes=[NetworkRoute(destination="10.99.0.0/16", gateway="10.0.1.4")],
    )
    rule = FirewallRule(direction="in", protocol="tcp", source_ips=["0.0.0.0/0"], port="22", description="ssh")
    selector = FirewallResource(type="label_selector", label_selector=FirewallResourceLabelSelector("role=web"))
    firewall = client.firewalls.create(name="wall", rules=[rule], resources=[selector]).firewall
    group = client.placement_groups.create(name="group", type="spread").placement_group
    created = client.servers.create(
        name="web-1",
        server_type=ServerType(name="cx23"),
        image=Image(name="debian-13"),
        ssh_keys=[key],
        networks=[network],
        placement_group=group,
        location=Location(name="fsn1"),
        labels={"role": "web"},
        user_data="#!/bin/true\n",
        public_net=ServerCreatePublicNetwork(enable_ipv4=True, enable_ipv6=True),
    )
    for action in (created.action, *created.next_actions):
        action.wait_until_finished()
    assert created.root_password is None
    assert [action.command for action in created.next_actions] == ["attach_to_network", "start_server"]
    server = client.servers.get_by_name("web-1")
    assert (server.status, server.server_type.name, server.image.name) == ("running", "cx23", "debian-13")
    assert server.private_net[0].network.name == "net"
    assert server.public_net.firewalls[0].firewall.id == firewall.id
    assert server.public_net.ipv6.ip.endswith("::/64")
    assert server.placement_group.id == group.id
    [member] = network.get_member_all()
    assert (member.id, member.ip, member.status) == (server.id, server.private_net[0].ip, "ok")
    firewall.reload()
    assert firewall.applied_to[0].applied_to_resources[0].server.id == server.id
    assert (firewall.rules[0].description, firewall.rules[0].port) == ("ssh", "22")

    volume = client.volumes.create(name="disk", size=10, server=server, automount=False)
    for action in (volume.action, *volume.next_actions):
        action.wait_until_finished()
    assert client.volumes.get_by_name("disk").linux_device == f"/dev/disk/by-id/scsi-0HC_Volume_{volume.volume.id}"
    server.detach_from_network(network).wait_until_finished()
    server.attach_to_network(network, ip="10.0.1.20", alias_ips=["10.0.1.21"]).wait_until_finished()
    server.reload()
    assert (server.private_net[0].ip, server.private_net[0].alias_ips) == ("10.0.1.20", ["10.0.1.21"])
    server.change_dns_ptr(server.public_net.ipv4.ip, "web.example.com").wait_until_finished()
    server.power_off().wait_until_finished()
    server.change_type(ServerType(name="cx33"), upgrade_disk=False).wait_until_finished()
    server.enable_rescue(type="linux64", ssh_keys=[key.id]).action.wait_until_finished()
    server.reload()
    assert server.rescue_enabled and server.public_net.ipv4.dns_ptr == "web.example.com"
    server.reset().wait_until_finished()
    server.reload()
    assert not server.rescue_enabled
    server.rebuild(Image(name="debian-12")).action.wait_until_finished()

    given = client.primary_ips.create(type="ipv4", name="given", location=Location(name="fsn1")).primary_ip
    assert given.assignee_type == "unassigned"
    server.power_off().wait_until_finished()
    old = client.primary_ips.get_by_id(server.public_net.primary_ipv4.id)
    old.unassign().wait_until_finished()
    given.assign(server.id, "server").wait_until_finished()
    old.delete()
    server.reload()
    assert server.public_net.ipv4.ip == given.ip
    server.power_on().wait_until_finished()

    assert client.actions.get_by_id(created.action.id).command == "create_server"
    assert server.get_actions(sort=["id:asc"])[0].command == "create_server"
    with pytest.raises(Exception, match="still attached"):
        volume.volume.delete()
    server.delete().wait_until_finished()
    volume.volume.reload()
    assert volume.volume.server is None
    volume.volume.delete()
    firewall.remove_from_resources([selector])
    firewall.delete()
    network.delete()
    group.delete()
    given.delete()
    key.delete()
    assert client.servers.get_all() + client.volumes.get_all() + client.primary_ips.get_all() == []
