"""A cluster of three hosts as one of them sees it, and a client that may do one thing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["ansible://test-ceph-1"]

FSID = "391c49a8-b2db-49af-ae16-e787041d899e"
HOSTS = [f"test-ceph-{number}" for number in (1, 2, 3)]
EXPECTED = {"AUTH_INSECURE_CLIENT_KEY_TYPE", "AUTH_INSECURE_KEYS_ALLOWED", "AUTH_INSECURE_KEYS_CREATABLE"}
STATE = Path(os.environ.get("SLIPWAY_STATE_ROOT", "/var/lib/slipway")) / os.environ.get("SLIPWAY_LAB", "lab")


def ceph(host: Host, command: str) -> Any:
    """Asked in the container of the host's monitor, with the key that lies there."""
    with host.sudo():
        return json.loads(
            host.check_output(
                f"podman exec ceph-{FSID}-mon-{HOSTS[0]} ceph --connect-timeout 20 --format json --name mon. "
                f"--keyring /var/lib/ceph/mon/ceph-{HOSTS[0]}/keyring {command}"
            )
        )


def journal(host: Host) -> str:
    with host.sudo():
        return str(host.check_output(f"journalctl -u 'ceph-{FSID}@*' -n 40 --no-pager"))


def settled(host: Host, question: str, right: Callable[[Any], bool], seconds: float = 120) -> Any:
    """An answer, once it is right or was not for long: what passes by itself may come at any moment."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ceph(host, question)
        if right(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(2)


def test_the_cluster_is_well_and_nothing_else_is_muted(host: Host) -> None:
    health = settled(host, "health detail", lambda seen: seen["status"] == "HEALTH_OK")
    assert health["status"] == "HEALTH_OK", json.dumps(health["checks"]) + journal(host)
    assert {mute["code"] for mute in health["mutes"]} == EXPECTED


def test_three_monitors_and_two_managers_run_where_they_should(host: Host) -> None:
    status = settled(host, "status", lambda seen: seen["mgrmap"]["num_standbys"] == 1)
    assert sorted(status["quorum_names"]) == HOSTS
    daemons = [daemon for daemon in ceph(host, "orch ps") if daemon["daemon_type"] in ("mon", "mgr")]
    placed = sorted((daemon["daemon_type"], daemon["hostname"]) for daemon in daemons)
    assert placed == [("mgr", name) for name in HOSTS[:2]] + [("mon", name) for name in HOSTS]
    assert status["mgrmap"]["num_standbys"] == 1


def test_every_host_has_an_osd_that_is_up_and_in(host: Host) -> None:
    tree = ceph(host, "osd tree")
    up = {
        node["id"]
        for node in tree["nodes"]
        if node["type"] == "osd" and node["status"] == "up" and node["reweight"] > 0
    }
    hosts = {node["name"]: node["children"] for node in tree["nodes"] if node["type"] == "host"}
    assert sorted(hosts) == HOSTS
    assert all(len(children) == 1 and set(children) <= up for children in hosts.values())


def test_traffic_is_encrypted_and_clients_prove_who_they_are(host: Host) -> None:
    config = {(entry["section"], entry["name"]): entry["value"] for entry in ceph(host, "config dump")}
    for mode in ("cluster", "service", "client", "mon_cluster", "mon_service", "mon_client"):
        assert config["global", f"ms_{mode}_mode"] == "secure"
    assert config["mon", "auth_allow_insecure_global_id_reclaim"] == "false"


def test_keys_have_the_types_that_were_chosen(host: Host) -> None:
    monmap = ceph(host, "mon dump")
    assert {cipher["name"] for cipher in monmap["auth_allowed_ciphers"]} == {"aes", "aes256k"}
    assert monmap["auth_preferred_cipher"]["name"] == monmap["auth_service_cipher"]["name"] == "aes256k"
    keys = {entry["entity"]: entry["key"] for entry in ceph(host, "auth ls")["auth_dump"]}
    # The first bytes of a key are its type: AQ is aes, Ag is aes256k.
    assert {entity for entity, key in keys.items() if key.startswith("AQ")} == {"client.trial"}
    assert keys["client.admin"].startswith("Ag")


def rados(host: Host, keyring: str, command: str) -> Any:
    """In a container of its own, with nothing but the client's key and the address of a monitor."""
    with host.sudo():
        image = host.check_output(f"podman inspect --format '{{{{.ImageName}}}}' ceph-{FSID}-mon-{HOSTS[0]}")
        inner = f"cat >/tmp/k && rados --name client.trial --keyring /tmp/k -m 10.95.1.51:3300 {command}"
        return host.run(
            "printf '%%s' %s | podman run --rm -i --net=host --entrypoint sh %s -c %s", keyring, image, inner
        )


def test_a_client_writes_and_reads_its_pool_and_nothing_else(host: Host) -> None:
    keyring = (STATE / "molecule/ceph/ceph.client.trial.keyring").read_text()
    written = rados(host, keyring, "--pool trial put hello /etc/hostname")
    assert written.rc == 0, written.stderr + journal(host)
    assert rados(host, keyring, "--pool trial get hello -").stdout.strip()
    assert rados(host, keyring, "--pool .mgr ls").rc != 0
    assert rados(host, keyring, "--pool trial rm hello").rc == 0


def test_metrics_are_shown(host: Host) -> None:
    # The active manager has them; the other answers nothing, or nothing at all.
    asked = [f"curl -s --max-time 30 http://{address}:9283/metrics" for address in ("10.95.1.51", "10.95.1.52")]
    metrics = str(host.run("; ".join(asked)).stdout)
    assert "ceph_health_status" in metrics
