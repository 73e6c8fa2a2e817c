"""Pods of an application: rollout, names, policies, secrets, scaling, and what its clients notice of losses."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.application import (
    LABELS,
    NAMESPACE,
    PORT,
    RESTRICTED,
    SERVER,
    Kubectl,
    Requests,
    client,
    container,
    manifests,
    named,
)
from tests.platform.conftest import INVENTORY, REPOSITORY, play
from tests.platform.database import Site
from tests.platform.test_rke2 import AGENTS, FAILURES, SERVERS, Calls, conditions, connect, cordons
from tests.support.deadlines import until
from tests.support.probe import PROBE

BALANCER = "lab-lb-1"
OTHERS = (BALANCER, "lab-ceph-1", "lab-postgresql-1", "lab-gitlab-runner-1", SERVERS[1], AGENTS[0])
"""Hosts that may not reach ports of pods on the first server."""
SETTLE_SECONDS = 2
"""kube-proxy learns of a Ready pod, and of one that is not, after the API."""
HOST_PORT, NODE_PORT = 18080, 30088
CANARY = "canary-4f1d0c"
ETCD = "/var/lib/rancher/rke2/server/db/etcd"
AUDIT = "/var/lib/rancher/rke2/server/logs/audit.log"


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


@pytest.fixture(scope="module")
def kubectl(description: dict[str, Any]) -> Kubectl:
    return Kubectl(Path(description["secrets_path"]).parent / "ansible/kubeconfig")


@pytest.fixture(scope="module")
def image(kubectl: Kubectl) -> str:
    pods = kubectl.read("daemonset", "--namespace", "kube-system", "rke2-traefik")["spec"]["template"]["spec"]
    return str(pods["containers"][0]["image"])


@pytest.fixture(scope="module")
def name() -> str:
    settings = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())
    return f"pods.apps.{settings['platform_domain']}"


def serves_on_two_nodes(kubectl: Kubectl) -> bool:
    pods = kubectl.pods()
    return len(pods) == len(set(pods.values())) == 2


@pytest.fixture(scope="module", autouse=True)
def application(kubectl: Kubectl, image: str, name: str) -> Iterator[None]:
    try:
        kubectl.apply(*manifests(image, name), client(image, "admitted"), client(image, "excluded"))
        until(lambda: serves_on_two_nodes(kubectl), 120)
        kubectl(
            "wait", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=60s", "pod/admitted", "pod/excluded"
        )
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")


@pytest.fixture(scope="module")
def requested(
    cloud: Client, description: dict[str, Any], name: str, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The command of a client outside of the platform."""
    balancer = cloud.servers.get_by_name(BALANCER)
    assert balancer is not None
    ca_path = tmp_path_factory.mktemp("ca") / "platform.pem"
    ca_path.write_text(yaml.safe_load(Path(description["secrets_path"]).read_text())["platform_ca_certificate"])
    return [
        *("curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", str(ca_path)),
        *("--resolve", f"{name}:443:{balancer.public_net.ipv4.ip}", f"https://{name}/"),
    ]


def answer(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def test_a_service_is_found_by_its_name_and_reaches_pods_on_different_nodes(kubectl: Kubectl) -> None:
    pods = kubectl.pods()
    assert len(set(pods.values())) == 2
    seen: set[str] = set()

    def reached() -> set[str]:
        seen.add(json.loads(kubectl.fetch("admitted", f"http://shop.{NAMESPACE}.svc.cluster.local/"))["pod"])
        return seen

    until(reached, 60, lambda names: names == set(pods))


def test_logs_and_forwarded_ports_of_a_pod_pass_the_load_balancer(kubectl: Kubectl) -> None:
    pod = next(iter(kubectl.pods()))
    assert "GET / HTTP/1.1" in kubectl("logs", "--namespace", NAMESPACE, "--tail", "5", pod)
    command = [
        "kubectl",
        "--kubeconfig",
        str(kubectl.kubeconfig),
        "port-forward",
        "--namespace",
        NAMESPACE,
        pod,
        f":{PORT}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            port = re.search(r":(\d+) ->", forwarding.stdout.readline())
            assert port is not None
            with socket.create_connection(("127.0.0.1", int(port.group(1))), timeout=10) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert pod in connection.makefile().read()
        finally:
            forwarding.terminate()


def test_a_changed_template_is_rolled_out_without_a_failed_request(kubectl: Kubectl, requested: list[str]) -> None:
    until(lambda: answer(requested), 30)
    before, requests = set(kubectl.pods()), Requests(requested)
    with requests.running():
        kubectl("rollout", "restart", "--namespace", NAMESPACE, "deployment/shop")
        kubectl("rollout", "status", "--namespace", NAMESPACE, "deployment/shop", "--timeout=100s")
    assert requests.failed == [] and len(requests.answered) > 10
    until(lambda: serves_on_two_nodes(kubectl), 60)
    assert before.isdisjoint(kubectl.pods())


def test_the_ingress_passes_the_address_of_the_client(requested: list[str], cloud: Client) -> None:
    balancer = cloud.servers.get_by_name(BALANCER)
    assert balancer is not None
    with socket.create_connection((balancer.public_net.ipv4.ip, 443), timeout=5) as connection:
        own = connection.getsockname()[0]
    seen = until(lambda: answer([*requested, "--header", "X-Forwarded-For: 6.6.6.6"]), 30)["headers"]
    assert seen["x-forwarded-for"].split(", ")[0] == own
    assert (seen["x-real-ip"], seen["x-forwarded-proto"]) == (own, "https")


def test_a_network_policy_admits_only_the_clients_that_it_names(kubectl: Kubectl) -> None:
    policy = named(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "shop",
        spec={
            "podSelector": {"matchLabels": LABELS},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"client": "admitted"}}}]}],
        },
    )
    url = f"http://shop.{NAMESPACE}/"

    def served() -> tuple[bool, bool]:
        admitted, excluded = (kubectl.fetch(pod, url).startswith("{") for pod in ("admitted", "excluded"))
        return admitted, excluded

    assert served() == (True, True)
    try:
        kubectl.apply(policy)
        until(served, 60, lambda seen: seen == (True, False))
    finally:
        kubectl("delete", "networkpolicy", "--namespace", NAMESPACE, "shop")
    until(served, 60, lambda seen: seen == (True, True))


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"securityContext": {**RESTRICTED, "privileged": True, "allowPrivilegeEscalation": True}}, "privileged"),
        ({"securityContext": {}}, "runAsNonRoot != true"),
        ({"ports": [{"containerPort": PORT, "hostPort": HOST_PORT}]}, "hostPort"),
    ],
)
def test_a_pod_with_rights_over_its_node_is_refused(
    kubectl: Kubectl, image: str, fields: dict[str, Any], refusal: str
) -> None:
    pod = named("v1", "Pod", "wrong", spec={"containers": [container(image, SERVER, **fields)]})
    done = kubectl.run("apply", "--filename", "-", stdin=json.dumps(pod))
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr and refusal in done.stderr, done.stderr


def test_a_secret_is_encrypted_on_disk_and_absent_from_the_audit_log(kubectl: Kubectl, site: Site) -> None:
    """A ConfigMap shows that the search finds what is not encrypted."""
    for kind, field in (("Secret", "stringData"), ("ConfigMap", "data")):
        kubectl.apply(named("v1", kind, "canary", **{field: {"key": f"{CANARY}-{kind.lower()}"}}))

    def files(text: str) -> list[str]:
        """Files of etcd on the servers, the log of writes among them, that contain the text."""
        found = [site.run(server, f"grep --recursive --text --files-with-matches {text} {ETCD}") for server in SERVERS]
        return [line for one in found for line in one.output.splitlines()]

    until(lambda: files(f"{CANARY}-configmap"), 30)
    assert files(f"{CANARY}-secret") == []
    assert files(f"/registry/secrets/{NAMESPACE}/canary")
    lines = [
        json.loads(line)
        for server in SERVERS
        for line in site.run(server, f'grep \'"name":"canary"\' {AUDIT}').output.splitlines()
    ]
    assert {line["objectRef"]["resource"] for line in lines} == {"secrets", "configmaps"}
    assert {line["level"] for line in lines} == {"Metadata"}
    assert not any({"requestObject", "responseObject"} & set(line) for line in lines)
    assert [site.run(server, f"grep --count {CANARY} {AUDIT}").output.strip() for server in SERVERS] == ["0"] * 3


def test_ports_of_pods_are_closed_for_those_who_may_not_reach_them(
    kubectl: Kubectl, site: Site, cloud: Client, image: str
) -> None:
    """A hostPort and a NodePort are redirected before the host's own chain of input."""
    server = cloud.servers.get_by_name(SERVERS[0])
    assert server is not None
    private, public = server.private_net[0].ip, server.public_net.ipv4.ip
    pod = named(
        "v1",
        "Pod",
        "ports",
        "kube-system",
        spec={
            "nodeName": SERVERS[0],
            "tolerations": [{"operator": "Exists"}],
            "containers": [container(image, SERVER, ports=[{"containerPort": PORT, "hostPort": HOST_PORT}])],
        },
    )
    pod["metadata"]["labels"] = {"app": "ports"}
    ports = [{"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}]
    service = named(
        "v1", "Service", "ports", "kube-system", spec={"type": "NodePort", "selector": {"app": "ports"}, "ports": ports}
    )

    def state(name: str, port: int) -> str:
        return site.on(name, f"python3 -c {shlex.quote(PROBE)} {private} {port}").strip()

    try:
        kubectl.apply(pod, service)
        for port in (HOST_PORT, NODE_PORT):
            until(partial(state, SERVERS[0], port), 60, lambda seen: seen == "open")
        probes = [(name, port) for name in OTHERS for port in (HOST_PORT, NODE_PORT)]
        with ThreadPoolExecutor() as pool:
            seen = dict(zip(probes, pool.map(lambda probe: state(*probe), probes), strict=True))
        assert set(seen.values()) == {"dropped"}, seen
        for port in (HOST_PORT, NODE_PORT):
            with pytest.raises(OSError, match="timed out"):
                socket.create_connection((public, port), timeout=3)
    finally:
        kubectl("delete", "--namespace", "kube-system", "pod/ports", "service/ports", "--ignore-not-found")


@pytest.mark.soak
def test_replicas_follow_the_load(kubectl: Kubectl) -> None:
    """Measured by metrics-server; the third and fourth replica run on the other nodes."""
    target = {"type": "Utilization", "averageUtilization": 60}
    scaler = named(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "shop",
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": 2,
            "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    )
    started = time.monotonic()
    try:
        kubectl.apply(scaler)

        def loaded() -> int:
            kubectl.fetch("admitted", f"http://shop.{NAMESPACE}/busy")
            return len(kubectl.pods())

        until(loaded, 240, lambda count: count == 4, pause=0)
        print(f"four replicas are ready after {time.monotonic() - started:.0f} s")
        until(lambda: len(kubectl.pods()), 240, lambda count: count == 2)
    finally:
        kubectl("delete", "horizontalpodautoscaler", "--namespace", NAMESPACE, "shop")
        kubectl("scale", "--namespace", NAMESPACE, "deployment/shop", "--replicas=2")


@pytest.mark.soak
def test_a_changed_setting_restarts_servers_one_at_a_time_without_a_failed_call_or_request(
    kubectl: Kubectl, requested: list[str]
) -> None:
    """Each server is Ready again before the next one is drained; pods leave it within their disruption budget."""
    until(lambda: answer(requested), 30)
    before, calls, requests = kubectl.pods(), Calls(kubectl.kubeconfig), Requests(requested)
    change = json.dumps({"rke2_kube_apiserver_args": ["audit-log-maxage=7"]})
    with cordons(kubectl.kubeconfig) as cordoned, calls.running(), requests.running():
        run = play("--extra-vars", change, playbook="playbooks/rke2.yml")
    assert run.code == 0, run.excerpt
    slowest = max(seconds for _, seconds in requests.answered)
    print(f"{len(requests.answered)} requests, the slowest took {slowest:.1f} s; {len(calls.answered)} calls")
    assert (calls.failed, requests.failed) == ([], [])
    assert sorted(run.changed) == SERVERS
    assert set().union(*cordoned) == set(SERVERS)
    assert max(len(names) for names in cordoned) == 1
    until(lambda: serves_on_two_nodes(kubectl), 60)
    assert before != kubectl.pods(), "no pod was evicted"
    restored = play(playbook="playbooks/rke2.yml")
    assert restored.code == 0, restored.excerpt
    assert play(playbook="playbooks/rke2.yml").changed == {}


@pytest.mark.soak
def test_pods_of_a_host_without_power_start_elsewhere(
    kubectl: Kubectl, requested: list[str], cloud: Client, site: Site
) -> None:
    until(lambda: serves_on_two_nodes(kubectl), 60)
    node = next(iter(kubectl.pods().values()))
    server, requests = cloud.servers.get_by_name(node), Requests(requested)
    assert server is not None
    try:
        with requests.running():
            cut = time.monotonic()
            server.power_off().wait_until_finished()

            def moved() -> bool:
                done = kubectl.run("get", "nodes")
                return done.returncode == 0 and serves_on_two_nodes(kubectl) and node not in kubectl.pods().values()

            until(moved, 180, errors=(AssertionError, subprocess.TimeoutExpired))
            seconds = time.monotonic() - cut
            until(lambda: [start for start, _ in requests.answered if start - cut > seconds + SETTLE_SECONDS][20:], 60)
    finally:
        server.power_on().wait_until_finished()
    late = [text for start, text in requests.failed if start - cut > seconds + SETTLE_SECONDS]
    print(
        f"two replicas after {seconds:.0f} s; {len(requests.failed)} requests failed, {len(requests.answered)} did not"
    )
    assert late == [], "requests fail although two replicas are ready"
    until(lambda: all(entry["Ready"] == "True" for entry in conditions(connect(kubectl.kubeconfig)).values()), 180,
          errors=FAILURES)  # fmt: skip


def rules(site: Site, name: str) -> str:
    """What kube-proxy and the pod network leave in the kernel."""
    return site.on(
        name, "nft list ruleset | grep -E 'KUBE-|CNI-' || true; ip -brief link | grep -E 'cni0|flannel|veth' || true"
    )


@pytest.mark.soak
def test_a_killed_agent_leaves_no_rules_and_starts_again(site: Site, kubectl: Kubectl) -> None:
    (agent,) = AGENTS
    assert "KUBE-" in rules(site, agent)
    site.on(agent, "rke2-killall.sh")
    assert rules(site, agent) == ""
    site.on(agent, "systemctl start rke2-agent")
    until(
        lambda: conditions(connect(kubectl.kubeconfig))[agent]["Ready"],
        120,
        lambda state: state == "True",
        errors=FAILURES,
    )
    until(lambda: serves_on_two_nodes(kubectl), 120)
