"""A cluster of three servers and an agent after an upgrade, in the view of each server."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://rke2_server"]

# Reads the API with the admin kubeconfig of a server; hosts have no Kubernetes client.
READ = """
import base64, json, re, ssl, tempfile, urllib.request
text = open("/etc/rancher/rke2/rke2.yaml").read()
def value(key):
    return base64.b64decode(re.search(key + r"-data: *\\"?([^\\s\\"]+)", text).group(1)).decode()
context = ssl.create_default_context(cadata=value("certificate-authority"))
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
with tempfile.NamedTemporaryFile("w") as pair:
    pair.write(value("client-certificate") + value("client-key"))
    pair.flush()
    context.load_cert_chain(pair.name)
print(urllib.request.urlopen("https://127.0.0.1:6443{path}", context=context, timeout=5).read().decode())
"""


def journal(host: Host) -> str:
    with host.sudo():
        return str(host.check_output("journalctl -u rke2-server -n 40 --no-pager"))


def read(host: Host, path: str) -> str:
    with host.sudo():
        return str(host.check_output("python3 -c %s", READ.replace("{path}", path)))


def test_every_node_is_ready_at_the_new_version(host: Host, inventory: Inventory) -> None:
    nodes = json.loads(read(host, "/api/v1/nodes"))["items"]
    nodes_by_name = {node["metadata"]["name"]: node for node in nodes}
    assert sorted(nodes_by_name) == sorted(inventory.group("rke2_server") + inventory.group("rke2_agent"))
    for name, node in nodes_by_name.items():
        ready = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}["Ready"]
        assert (name, ready) == (name, "True"), journal(host)
        assert node["status"]["nodeInfo"]["kubeletVersion"] == inventory.settings["rke2_version"]
        assert not node["spec"].get("unschedulable"), "the upgrade removes its own cordons"


def test_the_api_is_ready_and_rejects_anonymous_requests(host: Host) -> None:
    assert read(host, "/readyz").strip() == "ok"
    status = host.check_output("curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1:6443/api/v1/nodes")
    assert status in ("401", "403")


@pytest.mark.scenario("the site is built with one release, as tests/cluster upgrades")
def test_a_snapshot_was_saved_before_the_upgrade_on_one_server(host: Host, inventory: Inventory) -> None:
    first = host.check_output("hostname") == inventory.group("rke2_server")[0]
    with host.sudo():
        # The first snapshot of a server creates the folder; most servers have none here.
        files = host.check_output("find /var/lib/rancher/rke2/server/db -name 'before-change-*' -size +0")
    assert bool(files) is first, "the first server that responds saves the snapshot"
