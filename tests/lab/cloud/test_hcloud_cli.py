"""Debian's hcloud-cli as an operator uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import pki
from tests.lab.cloud.conftest import Lab
from tests.lab.cloud.support import TOKEN

Hcloud = Callable[..., str]


@pytest.fixture
def hcloud(lab: Lab, tmp_path: Path) -> Hcloud:
    program = shutil.which("hcloud")
    assert program, "hcloud is not installed. Install Debian's hcloud-cli with: make setup"
    environment = os.environ | {
        "HCLOUD_ENDPOINT": lab.endpoint,
        "HCLOUD_TOKEN": TOKEN,
        "HCLOUD_CONFIG": str(tmp_path / "cli.toml"),
        "HOME": str(tmp_path),
    }

    def run(command: str, fails: bool = False) -> str:
        done = subprocess.run([program, *command.split()], env=environment, capture_output=True, text=True, timeout=300)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, f"hcloud {command}: {output}"
        return output

    return run


def table(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()[1:]]


def described(hcloud: Hcloud, command: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(hcloud(f"{command} -o json"))
    return shown


def test_hcloud_commands(lab: Lab, hcloud: Hcloud, tmp_path: Path, public_key: str) -> None:
    (tmp_path / "key.pub").write_text(public_key)
    hcloud(f"ssh-key create --name key --public-key-from-file {tmp_path}/key.pub --label a=b")
    hcloud("network create --name net --ip-range 10.0.0.0/16")
    hcloud("network add-subnet net --type cloud --network-zone eu-central --ip-range 10.0.1.0/24")
    hcloud("network add-route net --destination 10.100.0.0/16 --gateway 10.0.1.2")
    hcloud("firewall create --name wall")
    hcloud("firewall add-rule wall --direction in --protocol tcp --port 22 --source-ips 0.0.0.0/0 --source-ips ::/0")
    hcloud("placement-group create --name group --type spread")
    hcloud("primary-ip create --name address --type ipv4 --assignee-type server --datacenter fsn1-dc14", fails=True)

    hcloud(
        "server create --name web --type cx23 --image debian-13 --location fsn1 --ssh-key key --network net "
        "--firewall wall --placement-group group --label role=web"
    )
    assert table(hcloud("server list -o columns=name,status,private_net")) == [["web", "running", "10.0.1.1", "(net)"]]
    assert table(hcloud("server list -l role=db -o columns=name")) == []
    assert "Status:" in hcloud("server describe web")
    assert hcloud("server ip web").strip() == described(hcloud, "server describe web")["public_net"]["ipv4"]["ip"]

    hcloud("volume create --name disk --size 10 --server web --format ext4")
    assert table(hcloud("volume list -o columns=name,size,server")) == [["disk", "10", "GB", "web"]]
    hcloud("volume detach disk")
    hcloud("volume resize disk --size 20")
    hcloud("volume attach disk --server web")
    hcloud("volume delete disk", fails=True)

    for verb in ("shutdown", "poweron", "reboot", "reset", "poweroff"):
        hcloud(f"server {verb} web")
        lab.wait_idle()
    hcloud("server change-type web cx33 --keep-disk")
    assert described(hcloud, "server describe web")["server_type"]["name"] == "cx33"
    hcloud("server detach-from-network web --network net")
    hcloud("server attach-to-network web --network net --ip 10.0.1.9")
    hcloud("server change-alias-ips web --network net --alias-ips 10.0.1.10")
    assert described(hcloud, "server describe web")["private_net"][0]["alias_ips"] == ["10.0.1.10"]
    hcloud("server enable-rescue web --ssh-key key")
    hcloud("server disable-rescue web")
    hcloud("server rebuild web --image debian-12")
    hcloud("server add-label web tier=front")
    assert described(hcloud, "server describe web")["labels"] == {"role": "web", "tier": "front"}
    hcloud("server enable-protection web delete rebuild")
    assert "protected" in hcloud("server delete web", fails=True)
    hcloud("server disable-protection web delete rebuild")
    hcloud("server create --name bad --type cx23 --image ubuntu-24.04", fails=True)
    hcloud("floating-ip create --type ipv4 --name floating --server web")
    address = described(hcloud, "floating-ip describe floating")["ip"]
    hcloud(f"floating-ip set-rdns floating --ip {address} --hostname web.example.com")
    assert described(hcloud, "floating-ip describe floating")["dns_ptr"][0]["dns_ptr"] == "web.example.com"
    hcloud("floating-ip unassign floating")
    hcloud("floating-ip assign floating web")
    assert table(hcloud("floating-ip list -o columns=name,server")) == [["floating", "web"]]
    hcloud("server create-image web --type snapshot --description golden --label key=value")
    [[image, *_]] = table(hcloud("image list -t snapshot -o columns=id,description"))
    hcloud(f"image update {image} --description silver")
    hcloud(f"image enable-protection {image} delete")
    assert "protected" in hcloud(f"image delete {image}", fails=True)
    hcloud(f"image disable-protection {image} delete")
    hcloud(f"server create --name clone --type cx33 --image {image} --location fsn1")
    assert described(hcloud, "server describe clone")["image"]["description"] == "silver"
    assert "systemrescue-12.02-amd64.iso" in hcloud("iso list")
    hcloud("server detach-iso web")
    hcloud("server delete clone")
    hcloud(f"image delete {image}")
    hcloud("floating-ip unassign floating")
    hcloud("floating-ip delete floating")

    for command in (
        "location list", "server-type list", "image list", "network list", "firewall list", "ssh-key list",
        "placement-group list", "primary-ip list", "server-type describe cx23", "image describe debian-13",
        "network describe net", "firewall describe wall", "placement-group describe group", "ssh-key describe key",
    ):  # fmt: skip
        assert len(hcloud(command).splitlines()) > 1, command

    hcloud("volume detach disk")
    for noun in ("volume delete disk", "server delete web", "firewall delete wall", "network delete net",
                 "placement-group delete group", "ssh-key delete key"):  # fmt: skip
        hcloud(noun)
    assert lab.machines.hosts == {} and lab.machines.volumes == {}


def test_hcloud_commands_of_load_balancers(lab: Lab, hcloud: Hcloud, tmp_path: Path) -> None:
    chain, key = pki.issue_for_domains(tmp_path / "authority", "other", ["www.example.com"])
    (tmp_path / "chain.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(key)
    hcloud(f"certificate create --name own --cert-file {tmp_path}/chain.pem --key-file {tmp_path}/key.pem")
    hcloud("certificate create --name issued --type managed --domain issued.example.com")
    assert table(hcloud("certificate list -o columns=name,type")) == [["own", "uploaded"], ["issued", "managed"]]
    assert "issued.example.com" in hcloud("certificate describe issued")
    hcloud("certificate add-label own a=b")
    hcloud("certificate update own --name mine")
    ids = {row["name"]: row["id"] for row in json.loads(hcloud("certificate list -o json"))}

    assert len(table(hcloud("load-balancer-type list"))) == 3
    assert "lb11" in hcloud("load-balancer-type describe lb11")
    hcloud("network create --name net --ip-range 10.0.0.0/16")
    hcloud("network add-subnet net --type cloud --network-zone eu-central --ip-range 10.0.1.0/24")
    hcloud("server create --name web --type cx23 --image debian-13 --location fsn1 --network net --label role=web")

    hcloud("load-balancer create --name lb --type lb11 --location fsn1 --label a=b")
    hcloud("load-balancer add-service lb --protocol tcp --listen-port 5432 --destination-port 5432")
    hcloud(f"load-balancer add-service lb --protocol https --http-certificates {ids['mine']},{ids['issued']} "
           "--http-redirect-http --http-sticky-sessions --http-cookie-name KEKS")  # fmt: skip
    hcloud("load-balancer update-service lb --listen-port 5432 --proxy-protocol --health-check-interval 5s")
    services = described(hcloud, "load-balancer describe lb")["services"]
    assert [(service["listen_port"], service["proxyprotocol"]) for service in services] == [(5432, True), (443, False)]
    assert services[0]["health_check"]["interval"] == 5 and services[1]["http"]["cookie_name"] == "KEKS"
    hcloud("load-balancer attach-to-network lb --network net --ip 10.0.1.60")
    hcloud("load-balancer add-target lb --server web --use-private-ip")
    hcloud("load-balancer add-target lb --label-selector role=web")
    hcloud("load-balancer add-target lb --ip 142.132.203.104")
    assert len(described(hcloud, "load-balancer describe lb")["targets"]) == 3
    assert "Health" in hcloud("load-balancer describe lb")
    hcloud("load-balancer disable-public-interface lb", fails=True)
    hcloud("load-balancer remove-target lb --label-selector role=web")
    hcloud("load-balancer remove-target lb --ip 142.132.203.104")
    hcloud("load-balancer disable-public-interface lb")
    hcloud("load-balancer enable-public-interface lb")
    hcloud("load-balancer change-algorithm lb --algorithm-type least_connections")
    hcloud("load-balancer change-type lb lb21")
    hcloud("load-balancer set-rdns lb --hostname lb.example.com")
    hcloud("load-balancer metrics lb --type open_connections")
    hcloud("load-balancer add-label lb tier=front")
    hcloud("load-balancer update lb --name front")
    assert [row[0] for row in table(hcloud("load-balancer list -o columns=name"))] == ["front"]
    hcloud("load-balancer remove-target front --server web")
    hcloud("load-balancer detach-from-network front --network net")
    hcloud("load-balancer delete-service front --listen-port 5432")
    hcloud("load-balancer enable-protection front delete")
    assert "protected" in hcloud("load-balancer delete front", fails=True)
    hcloud("load-balancer disable-protection front delete")
    assert "in use" in hcloud("certificate delete mine", fails=True)
    for noun in ("load-balancer delete front", "certificate delete mine", "certificate delete issued",
                 "server delete web", "network delete net"):  # fmt: skip
        hcloud(noun)
    assert lab.machines.load_balancers == {}
