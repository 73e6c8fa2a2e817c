"""The packaged components: manifests in server/manifests, in place of RKE2's charts, with their names."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from typing import Any

import yaml

from .config import Config, critical_values
from .layout import Layout, Release
from .pki import write
from .resources import Obj

NAMESPACE = "kube-system"
NAMES = ("rke2-canal", "rke2-coredns", "rke2-metrics-server", "rke2-traefik")
EVERYWHERE = [{"operator": "Exists"}]
COREFILE = """\
.:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {domain} {ranges} {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus 0.0.0.0:9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}}
"""
CONFLIST = {
    "name": "k8s-pod-network",
    "cniVersion": "1.0.0",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "mtu": "MTU",
            "isDefaultGateway": True,
            "hairpinMode": True,
            # In /run: the addresses of pods end with the boot of their host.
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni/networks",
                "ranges": [[{"subnet": "SUBNET"}]],
            },
        },
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    ],
}
"""Configuration of the CNI plugins; flanneld replaces "MTU" and "SUBNET" by those of the node."""


def named(api_version: str, kind: str, name: str, **fields: Any) -> Obj:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": name.partition(":")[0]}}
    if kind.startswith("Cluster") or kind in ("APIService", "IngressClass"):
        del metadata["namespace"]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def account(name: str, rules: list[Obj]) -> list[Obj]:
    """A service account with rights in the whole cluster."""
    rbac = "rbac.authorization.k8s.io"
    return [
        named("v1", "ServiceAccount", name),
        named(f"{rbac}/v1", "ClusterRole", name, rules=rules),
        named(
            f"{rbac}/v1", "ClusterRoleBinding", name,
            roleRef={"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        ),
    ]  # fmt: skip


def rule(groups: str, resources: str, verbs: str) -> Obj:
    return {"apiGroups": groups.split(","), "resources": resources.split(), "verbs": verbs.split()}


def workload(kind: str, name: str, pod: Obj, settings: dict[str, str] | None = None, **spec: Any) -> Obj:
    """A workload whose pods are replaced when their settings change."""
    labels = {"app.kubernetes.io/name": name}
    checksum = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    metadata = {"labels": labels, "annotations": {"checksum/config": checksum}}
    template = {"metadata": metadata, "spec": {"serviceAccountName": name, **pod}}
    return named("apps/v1", kind, name, spec={"selector": {"matchLabels": labels}, "template": template, **spec})


def host_path(name: str, path: str, kind: str = "DirectoryOrCreate") -> Obj:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def network(release: Release, critical: dict[str, str]) -> list[Obj]:
    """The pod network as canal's: flannel's VXLAN between the nodes, and network policies by iptables."""
    name, image = "rke2-canal", release.images["network"]
    settings = {
        "net-conf.json": json.dumps({"Network": critical["cluster-cidr"], "Backend": {"Type": "vxlan"}}),
        "cni-conf.json": json.dumps(CONFLIST),
    }
    flannel: Obj = {
        "name": "kube-flannel",
        "image": image,
        # Every 5 s by default: 17 processes a second in an idle lab.
        "command": ["flanneld", "--iface=$(HOST_IP)", "--iptables-resync=60"],
        "env": [field("HOST_IP", "status.hostIP"), field("NODE_NAME", "spec.nodeName"),
                field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "run", "mountPath": "/run/flannel"},
                         {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
                         {"name": "bin", "mountPath": "/host/opt/cni/bin"},
                         {"name": "net", "mountPath": "/host/etc/cni/net.d"},
                         {"name": "config", "mountPath": "/etc/kube-flannel"}],
    }  # fmt: skip
    policies: Obj = {
        "name": "network-policies",
        "image": image,
        "command": ["network-policies", f"--service-cidr={critical['service-cidr']}"],
        "env": [field("NODE_NAME", "spec.nodeName")],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "xtables-lock", "mountPath": "/run/xtables.lock"}],
    }
    pod = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": EVERYWHERE,
        "terminationGracePeriodSeconds": 5,
        "containers": [flannel, policies],
        "volumes": [
            host_path("bin", "/opt/cni/bin"), host_path("net", "/etc/cni/net.d"), host_path("run", "/run/flannel"),
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
            {"name": "config", "configMap": {"name": name}},
        ],
    }  # fmt: skip
    rules = [
        rule("", "nodes", "get list watch patch update"),
        rule("", "nodes/status", "patch update"),
        rule("", "pods namespaces services endpoints", "get list watch"),
        rule("discovery.k8s.io", "endpointslices", "get list watch"),
        rule("networking.k8s.io", "networkpolicies clustercidrs", "get list watch"),
    ]
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    return [
        *account(name, rules),
        named("v1", "ConfigMap", name, data=settings),
        workload("DaemonSet", name, pod, settings, updateStrategy=update),
    ]


def coredns(release: Release, critical: dict[str, str]) -> list[Obj]:
    name = "rke2-coredns-rke2-coredns"
    ranges = " ".join(
        ipaddress.ip_network(item, strict=False)[0].reverse_pointer.split(".", 2)[2]
        if ipaddress.ip_network(item, strict=False).version == 4
        else "ip6.arpa"
        for item in critical["service-cidr"].split(",")
    )
    container: Obj = {
        "name": "coredns",
        "image": release.images["coredns"],
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 30},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 5},
        "ports": [{"containerPort": 53, "protocol": "UDP", "name": "udp-53"},
                  {"containerPort": 53, "protocol": "TCP", "name": "tcp-53"}],
    }  # fmt: skip
    spread = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
    }
    pod = {
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
                        {"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": spread}],
        }},
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }  # fmt: skip
    service = named(
        "v1", "Service", name,
        spec={
            "clusterIP": critical["cluster-dns"].split(",")[0],
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "udp-53", "port": 53, "protocol": "UDP"},
                      {"name": "tcp-53", "port": 53, "protocol": "TCP"}],
        },
    )  # fmt: skip
    service["metadata"]["labels"]["k8s-app"] = "kube-dns"
    rules = [
        rule("", "endpoints services pods namespaces", "list watch"),
        rule("discovery.k8s.io", "endpointslices", "list watch"),
    ]
    corefile = COREFILE.format(domain=critical["cluster-domain"], ranges=ranges)
    return [
        *account(name, rules),
        named("v1", "ConfigMap", name, data={"Corefile": corefile}),
        service,
        workload("Deployment", name, pod, {"Corefile": corefile}, replicas=2),
    ]


def metrics_server(release: Release) -> list[Obj]:
    name = "rke2-metrics-server"
    authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    container: Obj = {
        "name": "metrics-server",
        "image": release.images["metrics-server"],
        "args": ["--secure-port=10250", "--cert-dir=/tmp", "--kubelet-preferred-address-types=InternalIP",
                 "--kubelet-use-node-status-port", "--metric-resolution=15s",
                 f"--kubelet-certificate-authority={authority}"],
        "ports": [{"containerPort": 10250, "name": "https"}],
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 10250, "scheme": "HTTPS"}, "periodSeconds": 10},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    pod = {
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    rbac = "rbac.authorization.k8s.io"
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]
    rules = [rule("", "nodes/metrics", "get"), rule("", "pods nodes namespaces configmaps", "get list watch")]
    return [
        *account(name, rules),
        named(f"{rbac}/v1", "ClusterRoleBinding", f"{name}:system:auth-delegator", subjects=subjects,
              roleRef={"apiGroup": rbac, "kind": "ClusterRole", "name": "system:auth-delegator"}),
        named(f"{rbac}/v1", "RoleBinding", f"{name}-auth-reader", subjects=subjects,
              roleRef={"apiGroup": rbac, "kind": "Role", "name": "extension-apiserver-authentication-reader"}),
        named("v1", "Service", name, spec={
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "https", "port": 443, "targetPort": 10250}],
        }),
        workload("Deployment", name, pod),
        named("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.k8s.io", spec={
            "group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": True, "groupPriorityMinimum": 100,
            "versionPriority": 100, "service": {"name": name, "namespace": NAMESPACE},
        }),
    ]  # fmt: skip


def ingress(release: Release) -> list[Obj]:
    """The simulated ingress, where Traefik's chart has it: a DaemonSet with hostPorts 80 and 443."""
    name = "rke2-traefik"
    container: Obj = {
        "name": name,
        "image": release.images["traefik"],
        "ports": [{"name": "web", "containerPort": 8000, "hostPort": 80},
                  {"name": "websecure", "containerPort": 8443, "hostPort": 443}],
        "env": [field("NODE_NAME", "spec.nodeName")],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 8000}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "settings", "mountPath": "/run/ingress"}],
    }  # fmt: skip
    pod = {
        "priorityClassName": "system-cluster-critical",
        "tolerations": EVERYWHERE,
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
        "volumes": [{"name": "settings", "emptyDir": {"medium": "Memory"}}],
    }
    ingress_class = named(
        "networking.k8s.io/v1", "IngressClass", "traefik", spec={"controller": "traefik.io/ingress-controller"}
    )
    ingress_class["metadata"]["annotations"] = {"ingressclass.kubernetes.io/is-default-class": "true"}
    rules = [
        rule("helm.cattle.io", "helmchartconfigs", "get"),
        rule("", "secrets", "get"),
        rule("", "services", "list"),
        rule("networking.k8s.io", "ingresses", "list"),
    ]
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    return [*account(name, rules), ingress_class, workload("DaemonSet", name, pod, updateStrategy=update)]


def wanted(config: Config, release: Release) -> dict[str, list[Obj]]:
    critical = critical_values(config)
    found = {"rke2-coredns": coredns(release, critical), "rke2-metrics-server": metrics_server(release)}
    if config.words("cni") != ["none"]:
        found["rke2-canal"] = network(release, critical)
    if "traefik" in (config.words("ingress-controller") or ["traefik"]):
        found["rke2-traefik"] = ingress(release)
    return {name: items for name, items in found.items() if name not in config.words("disable")}


def write_manifests(config: Config, layout: Layout, release: Release) -> None:
    """Write the manifests of this release and remove those that are disabled."""
    present = wanted(config, release)
    for name in NAMES:
        path = layout.manifests / f"{name}.yaml"
        if name not in present:
            path.unlink(missing_ok=True)
            continue
        text = yaml.safe_dump_all(json.loads(json.dumps(present[name])), sort_keys=False)  # without YAML's anchors
        if not path.exists() or path.read_text() != text:
            write(path, text)
