"""The static pods of a server beside etcd (API server, controller manager, scheduler), and kube-proxy of a node."""

from __future__ import annotations

from pathlib import Path

import yaml

from .config import Config, critical_values
from .layout import Layout, Release
from .pki import write
from .resources import Obj
from .staticpods import LIVENESS, STARTUP, StaticPod, arguments, probe


def kubeconfig(path: Path, server: str, ca: Path, certificate: Path, key: Path) -> Path:
    """A kubeconfig that names its certificates by path, as RKE2's for its own components."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "user", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
        "contexts": [{"name": "Default", "context": {"cluster": "local", "user": "user"}}],
        "current-context": "Default",
    }
    write(path, yaml.safe_dump(document))
    return path


def admission_file(config: Config) -> Path:
    """The admission configuration: the user's, else RKE2's default of the profile."""
    if path := config.text("pod-security-admission-config-file"):
        return Path(path)
    path_default = Path("/etc/rancher/rke2/rke2-pss.yaml")
    level = "restricted" if config.text("profile") == "cis" else "privileged"
    policy = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": level, "enforce-version": "latest"},
        "exemptions": {
            "usernames": [], "runtimeClasses": [],
            "namespaces": ["kube-system", "compliance-operator-system", "tigera-operator"],
        },
    }  # fmt: skip
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": policy}],
    }
    write(path_default, yaml.safe_dump(document, sort_keys=False))
    return path_default


def issuer(config: Config) -> str:
    return f"https://kubernetes.default.svc.{critical_values(config)['cluster-domain']}"


def audit(config: Config, layout: Layout) -> Obj:
    """Flags of the audit log: only with a policy, as upstream."""
    default = "/etc/rancher/rke2/audit-policy.yaml" if config.text("profile") == "cis" else ""
    policy = config.text("audit-policy-file") or default
    if not policy or not Path(policy).is_file():
        return {}
    return {
        "audit-policy-file": policy,
        "audit-log-path": layout.server / "logs" / "audit.log",
        "audit-log-maxage": 30,
        "audit-log-maxbackup": 10,
        "audit-log-maxsize": 100,
    }


async def write_apiserver(config: Config, layout: Layout, release: Release, address: str) -> None:
    """Write the static pod and wait until no process of an earlier one answers."""
    tls, critical = layout.tls, critical_values(config)
    flags: Obj = {
        "admission-control-config-file": admission_file(config),
        "advertise-address": address,
        "allow-privileged": True,
        "anonymous-auth": False,
        "api-audiences": f"{issuer(config)},rke2",
        "authorization-mode": "Node,RBAC",
        "bind-address": "0.0.0.0",
        "cert-dir": tls / "temporary-certs",
        "client-ca-file": tls / "client-ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-aggregator-routing": True,
        "enable-bootstrap-token-auth": True,
        "encryption-provider-config": layout.encryption,
        "encryption-provider-config-automatic-reload": True,
        "etcd-cafile": layout.etcd_tls / "server-ca.crt",
        "etcd-certfile": layout.etcd_tls / "client.crt",
        "etcd-keyfile": layout.etcd_tls / "client.key",
        "etcd-servers": "https://127.0.0.1:2379",
        "kubelet-certificate-authority": tls / "server-ca.crt",
        "kubelet-client-certificate": tls / "client-kube-apiserver.crt",
        "kubelet-client-key": tls / "client-kube-apiserver.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "profiling": False,
        "proxy-client-cert-file": tls / "client-auth-proxy.crt",
        "proxy-client-key-file": tls / "client-auth-proxy.key",
        "requestheader-allowed-names": "system:auth-proxy",
        "requestheader-client-ca-file": tls / "request-header-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": 6443,
        "service-account-issuer": issuer(config),
        "service-account-key-file": tls / "service.key",
        "service-account-signing-key-file": tls / "service.key",
        "service-cluster-ip-range": critical["service-cidr"],
        "service-node-port-range": config.text("service-node-port-range") or "30000-32767",
        "storage-backend": "etcd3",
        "tls-cert-file": tls / "serving-kube-apiserver.crt",
        "tls-private-key-file": tls / "serving-kube-apiserver.key",
        **audit(config, layout),
    }
    files = [flags["admission-control-config-file"]]
    if policy := flags.get("audit-policy-file"):
        files.append(Path(policy))
    read = ["kubectl", "get", "--server=https://localhost:6443/", f"--client-certificate={tls / 'client-admin.crt'}",
            f"--client-key={tls / 'client-admin.key'}", f"--certificate-authority={tls / 'server-ca.crt'}"]  # fmt: skip
    pod = StaticPod("kube-apiserver", layout, release)
    pod.write(
        ["kube-apiserver", *arguments(flags, config.items("kube-apiserver-arg"))],
        folders=[layout.server],
        files=files,
        watched=[tls / "serving-kube-apiserver.crt", tls / "client-ca.crt", layout.etcd_tls / "client.crt"],
        probes={
            # RKE2 runs kubectl for all three; a kubectl every ten seconds costs more than the rest of an idle server.
            "startupProbe": {"tcpSocket": {"port": 6443, "host": "127.0.0.1"}, **STARTUP},
            "livenessProbe": {"tcpSocket": {"port": 6443, "host": "127.0.0.1"}, "timeoutSeconds": 15, **LIVENESS},
            "readinessProbe": {
                "exec": {"command": [*read, "--raw=/readyz"]},
                "timeoutSeconds": 15,
                "periodSeconds": 20,
            },
        },
    )
    await pod.wait_replaced()


def write_controllers(config: Config, layout: Layout, release: Release) -> None:
    """Controller manager and scheduler."""
    tls, critical = layout.tls, critical_values(config)
    cred = layout.server / "cred"
    api = "https://127.0.0.1:6443"
    ca = tls / "server-ca.crt"
    path = kubeconfig(
        cred / "controller.kubeconfig", api, ca, tls / "client-controller.crt", tls / "client-controller.key"
    )
    flags: Obj = {
        "allocate-node-cidrs": True,
        "authentication-kubeconfig": path,
        "authorization-kubeconfig": path,
        "bind-address": "127.0.0.1",
        "cluster-cidr": critical["cluster-cidr"],
        "cluster-signing-kube-apiserver-client-cert-file": tls / "client-ca.crt",
        "cluster-signing-kube-apiserver-client-key-file": tls / "client-ca.key",
        "cluster-signing-kubelet-client-cert-file": tls / "client-ca.crt",
        "cluster-signing-kubelet-client-key-file": tls / "client-ca.key",
        "cluster-signing-kubelet-serving-cert-file": ca,
        "cluster-signing-kubelet-serving-key-file": tls / "server-ca.key",
        "cluster-signing-legacy-unknown-cert-file": ca,
        "cluster-signing-legacy-unknown-key-file": tls / "server-ca.key",
        "controllers": "*,tokencleaner",
        "kubeconfig": path,
        "profiling": False,
        "root-ca-file": ca,
        "secure-port": 10257,
        "service-account-private-key-file": tls / "service.key",
        "service-cluster-ip-range": critical["service-cidr"],
        "terminated-pod-gc-threshold": 1000,
        "use-service-account-credentials": True,
    }
    StaticPod("kube-controller-manager", layout, release).write(
        ["kube-controller-manager", *arguments(flags, config.items("kube-controller-manager-arg"))],
        folders=[layout.server],
        watched=[tls / "client-controller.crt"],
        probes={
            "startupProbe": probe(10257, "/healthz", "HTTPS", **STARTUP),
            "livenessProbe": probe(10257, "/healthz", "HTTPS", **LIVENESS),
        },
    )
    path = kubeconfig(
        cred / "scheduler.kubeconfig", api, ca, tls / "client-scheduler.crt", tls / "client-scheduler.key"
    )
    flags = {
        "authentication-kubeconfig": path,
        "authorization-kubeconfig": path,
        "bind-address": "127.0.0.1",
        "kubeconfig": path,
        "profiling": False,
        "secure-port": 10259,
    }
    StaticPod("kube-scheduler", layout, release).write(
        ["kube-scheduler", *arguments(flags, config.items("kube-scheduler-arg"))],
        folders=[layout.server],
        watched=[tls / "client-scheduler.crt"],
        probes={
            "startupProbe": probe(10259, "/healthz", "HTTPS", **STARTUP),
            "livenessProbe": probe(10259, "/healthz", "HTTPS", **LIVENESS),
        },
    )


def write_kube_proxy(config: Config, layout: Layout, release: Release, node: str, cluster: Obj) -> None:
    pod = StaticPod("kube-proxy", layout, release)
    if cluster["critical"]["disable-kube-proxy"] == "true":
        pod.remove()
        return
    api = "https://127.0.0.1:6443"
    path = kubeconfig(layout.agent / "kubeproxy.kubeconfig", api, layout.agent / "server-ca.crt",
                      layout.agent / "client-kube-proxy.crt", layout.agent / "client-kube-proxy.key")  # fmt: skip
    flags: Obj = {
        "cluster-cidr": cluster["critical"]["cluster-cidr"],
        "conntrack-max-per-core": 0,
        "conntrack-min": 0,
        "conntrack-tcp-timeout-close-wait": "0s",
        "conntrack-tcp-timeout-established": "0s",
        "healthz-bind-address": "127.0.0.1",
        "hostname-override": node,
        "kubeconfig": path,
        "proxy-mode": "iptables",
    }
    pod.write(
        ["kube-proxy", *arguments(flags, config.items("kube-proxy-arg"))],
        folders=[layout.agent, Path("/lib/modules")],
        watched=[layout.agent / "client-kube-proxy.crt"],
        probes={"livenessProbe": probe(10256, "/healthz", "HTTP", **LIVENESS)},
        privileged=True,
    )
