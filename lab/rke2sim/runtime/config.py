"""Flags of `rke2 server` and `rke2 agent`, read from config.yaml, config.yaml.d and the command line.

Every flag of RKE2 is listed here as one of three kinds: implemented; accepted without effect, because nothing that the
lab can observe depends on it; or unsupported, because a run with it would give a wrong result.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import log
from .log import Fatal

CONFIG_FILE = Path("/etc/rancher/rke2/config.yaml")
DATA_DIR = "/var/lib/rancher/rke2"


@dataclass(frozen=True, slots=True)
class Flag:
    name: str
    kind: str  # str, bool, int or list
    server: bool = True
    agent: bool = False
    default: Any = None
    unsupported: str = ""


def _flags(kind: str, names: str, *, server: bool = True, agent: bool = False, unsupported: str = "") -> list[Flag]:
    return [Flag(name, kind, server, agent, unsupported=unsupported) for name in names.split()]


_SPLIT = "servers of the simulation always carry etcd, the API and the controllers"
_OWN_ETCD = "the only store of the simulation is its own etcd"
_RUNTIME = "the simulation runs its own containerd and kubelet"
_CLOUD = "the simulation has no cloud provider"

FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in [
        # Both roles, implemented.
        *_flags("str", "token token-file node-name server profile", agent=True),
        *_flags("list", "node-ip node-external-ip node-label node-taint", agent=True),
        *_flags("bool", "debug protect-kernel-defaults", agent=True),
        Flag("data-dir", "str", agent=True, default=DATA_DIR),
        Flag("config", "str", agent=True),
        # Both roles, accepted without effect.
        *_flags("bool", "selinux disable-default-registry-endpoint nonroot-devices enable-pprof", agent=True),
        *_flags(
            "str",
            "private-registry snapshotter resolv-conf airgap-extra-registry lb-server-port default-runtime"
            " image-credential-provider-bin-dir image-credential-provider-config system-default-registry"
            " kube-apiserver-image kube-controller-manager-image kube-scheduler-image kube-proxy-image"
            " cloud-controller-manager-image etcd-image pause-image runtime-image v vmodule log"
            " node-internal-dns node-external-dns audit-policy-file pod-security-admission-config-file",
            agent=True,
        ),
        *_flags(
            "list",
            "kubelet-arg kube-proxy-arg control-plane-resource-requests control-plane-resource-limits"
            " control-plane-probe-configuration kube-apiserver-extra-mount kube-scheduler-extra-mount"
            " kube-controller-manager-extra-mount kube-proxy-extra-mount etcd-extra-mount"
            " cloud-controller-manager-extra-mount kube-apiserver-extra-env kube-scheduler-extra-env"
            " kube-controller-manager-extra-env kube-proxy-extra-env etcd-extra-env"
            " cloud-controller-manager-extra-env",
            agent=True,
        ),
        *_flags("bool", "alsologtostderr", agent=True),
        # Servers, implemented.
        *_flags(
            "str",
            "agent-token agent-token-file cluster-reset-restore-path cluster-domain write-kubeconfig"
            " write-kubeconfig-mode write-kubeconfig-group secrets-encryption-provider"
            " egress-selector-mode service-node-port-range etcd-snapshot-schedule-cron etcd-snapshot-dir"
            " etcd-snapshot-name etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-access-key etcd-s3-secret-key"
            " etcd-s3-session-token etcd-s3-bucket etcd-s3-bucket-lookup-type etcd-s3-region etcd-s3-folder"
            " etcd-s3-timeout etcd-snapshot-reconcile-interval helm-job-image servicelb-namespace",
        ),
        *_flags(
            "list",
            "tls-san cluster-cidr service-cidr cluster-dns cni ingress-controller disable etcd-arg"
            " kube-apiserver-arg kube-controller-manager-arg kube-scheduler-arg"
            " kube-cloud-controller-manager-arg helm-controller-arg",
        ),
        *_flags(
            "bool",
            "cluster-reset etcd-s3 etcd-s3-insecure etcd-s3-skip-ssl-verify etcd-disable-snapshots"
            " etcd-snapshot-compress etcd-expose-metrics supervisor-metrics disable-cloud-controller"
            " disable-kube-proxy tls-san-security secrets-encryption",
        ),
        *_flags("int", "etcd-snapshot-retention etcd-s3-retention"),
        # Unsupported: a run with one of these would give a wrong result.
        *_flags(
            "str", "datastore-endpoint datastore-cafile datastore-certfile datastore-keyfile", unsupported=_OWN_ETCD
        ),
        *_flags(
            "bool",
            "disable-etcd disable-apiserver disable-controller-manager disable-scheduler disable-agent",
            unsupported=_SPLIT,
        ),
        *_flags("str", "container-runtime-endpoint kubelet-path", agent=True, unsupported=_RUNTIME),
        *_flags("str", "cloud-provider-name cloud-provider-config", agent=True, unsupported=_CLOUD),
        *_flags("bool", "node-name-from-cloud-provider-metadata", agent=True, unsupported=_CLOUD),
        *_flags("bool", "with-node-id", agent=True, unsupported="the simulation uses node names as they are"),
        *_flags("str", "bind-address", agent=True, unsupported="the simulation listens on every address"),
        *_flags("str", "advertise-address", unsupported="the simulation advertises the node's address"),
        *_flags("bool", "enable-servicelb", unsupported="the simulation has no service load balancer"),
        *_flags("bool", "embedded-registry", unsupported="the simulation has no registry mirror"),
        *_flags("bool", "prime", unsupported="the simulation has no Prime registry"),
        *_flags("str", "etcd-s3-proxy", unsupported="the simulation connects to S3 directly"),
        *_flags("str", "etcd-s3-config-secret", unsupported="the simulation reads S3 settings from keys only"),
    ]
}

ENVIRONMENT = {
    "RKE2_TOKEN": "token",
    "RKE2_TOKEN_FILE": "token-file",
    "RKE2_URL": "server",
    "RKE2_AGENT_TOKEN": "agent-token",
    "RKE2_AGENT_TOKEN_FILE": "agent-token-file",
    "RKE2_NODE_NAME": "node-name",
    "RKE2_DATA_DIR": "data-dir",
    "RKE2_CNI": "cni",
    "RKE2_CIS_PROFILE": "profile",
}

CNIS = ("none", "calico", "canal", "cilium", "flannel")
INGRESSES = ("none", "traefik", "ingress-nginx")


class Config:
    """The settings of one node: flag name → typed value; absent flags are None, False or an empty list."""

    def __init__(self, role: str, values: Mapping[str, Any]) -> None:
        self.role = role
        self.values = dict(values)

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        if value is None:
            value = FLAGS[name].default
        return default if value is None else str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return default if value is None else bool(value)

    def number(self, name: str, default: int) -> int:
        value = self.values.get(name)
        return default if value is None else int(value)

    def items(self, name: str) -> list[str]:
        return list(self.values.get(name) or [])

    def words(self, name: str) -> list[str]:
        """A list whose entries may be comma-separated lists."""
        return [word.strip() for item in self.items(name) for word in item.split(",") if word.strip()]

    def component_arg(self, flag: str, name: str, default: str) -> str:
        """The value of `name=value` within a `*-arg` list; the last one wins, as on a command line."""
        for item in self.items(flag):
            key, _, value = item.removeprefix("--").partition("=")
            if key == name:
                default = value
        return default

    def secret(self, name: str) -> str:
        """`token` or `agent-token`, from the flag or from its file."""
        if direct := self.text(name):
            return direct
        if path := self.text(f"{name}-file"):
            try:
                return Path(path).read_text().strip()
            except OSError as fault:
                raise Fatal(f"failed to read --{name}-file {path}: {fault.strerror}") from fault
        return ""

    @property
    def data_dir(self) -> Path:
        return Path(self.text("data-dir"))


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def merge_documents(documents: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Merge config files in order: a later `key` replaces an earlier one, `key+` appends to it."""
    merged: dict[str, list[str]] = {}
    for document in documents:
        for key, value in document.items():
            texts = [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]
            name = str(key).removesuffix("+")
            if str(key).endswith("+"):
                merged[name] = merged.get(name, []) + texts
            else:
                merged[name] = texts
    return merged


def read_files(path: Path) -> list[dict[str, Any]]:
    drop_ins = Path(f"{path}.d")
    paths = [path] if path.exists() else []
    if drop_ins.is_dir():
        paths += sorted(item for item in drop_ins.iterdir() if item.suffix in (".yaml", ".yml"))
    documents = []
    for item in paths:
        try:
            document = yaml.safe_load(item.read_text())
        except yaml.YAMLError as fault:
            raise Fatal(f"failed to parse config file {item}: {fault}") from fault
        if document is None:
            continue
        if not isinstance(document, dict):
            raise Fatal(f"failed to parse config file {item}: it is not a mapping")
        documents.append(document)
    return documents


def parse_arguments(arguments: list[str]) -> dict[str, list[str]]:
    """`--name value`, `--name=value` and bare booleans; short forms -c, -t and -s as in RKE2."""
    short = {"c": "config", "t": "token", "s": "server", "d": "data-dir", "l": "log"}
    texts_by_name: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise Fatal(f"unexpected argument {word!r}")
        name, has_value, value = word.lstrip("-").partition("=")
        name = short.get(name, name)
        flag = FLAGS.get(name)
        if flag is None:
            raise Fatal(f"flag provided but not defined: -{name}")
        if not has_value:
            if flag.kind == "bool":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise Fatal(f"flag needs an argument: -{name}")
        texts_by_name.setdefault(name, []).append(value)
    return texts_by_name


def convert(flag: Flag, texts: list[str]) -> Any:
    if flag.kind == "list":
        return [text for text in texts if text]
    last = texts[-1] if texts else ""
    if flag.kind == "bool":
        word = last.strip().lower()
        if word in ("", "true", "1", "t"):
            return True
        if word in ("false", "0", "f"):
            return False
        raise Fatal(f'invalid boolean value "{last}" for -{flag.name}: parse error')
    if flag.kind == "int":
        try:
            return int(last)
        except ValueError as fault:
            raise Fatal(f'invalid value "{last}" for flag -{flag.name}: parse error') from fault
    return last


def load(role: str, arguments: list[str], *, lenient: bool = False) -> Config:
    """Read files and arguments. Unknown keys are an error; with `lenient` (other commands) they are logged and skipped.

    RKE2 since 2021 only logs unknown keys in files ("found in config.yaml, skipping"); the simulation fails, because a
    skipped key is a setting without effect.
    """
    texts_by_name = parse_arguments(arguments)
    explicit = (texts_by_name.get("config") or [os.environ.get("RKE2_CONFIG_FILE", "")])[-1]
    path = Path(explicit) if explicit else CONFIG_FILE
    if explicit and not path.exists():
        raise Fatal(f"failed to read config file {path}: no such file or directory")
    merged = merge_documents(read_files(path))
    for variable, name in ENVIRONMENT.items():
        if value := os.environ.get(variable):
            merged[name] = [value]
    for name, texts in texts_by_name.items():
        flag = FLAGS[name]
        merged[name] = merged.get(name, []) + texts if flag.kind == "list" else texts
    values: dict[str, Any] = {}
    for name, texts in merged.items():
        known = FLAGS.get(name)
        if known is None or not (known.server if role == "server" else known.agent):
            if lenient or (role == "agent" and known is not None and known.server and known.name.startswith("etcd-s3")):
                log.warning(f"Unknown flag --{name} found in config.yaml, skipping")
                continue
            raise Fatal(f"flag provided but not defined: -{name}")
        value = convert(known, texts)
        if known.unsupported and value and not lenient:
            raise Fatal(f"the simulation of RKE2 does not support --{name}: {known.unsupported}")
        values[name] = value
    config = Config(role, values)
    if not lenient:
        _validate(config)
    return config


def _validate(config: Config) -> None:
    profile = config.text("profile")
    if profile not in ("", "cis", "etcd"):
        raise Fatal(f"Error: invalid value provided for --profile flag: {profile} (valid items: cis, etcd)")
    if config.role != "server":
        return
    for name, choices in (("cni", CNIS), ("ingress-controller", INGRESSES)):
        values = config.words(name)
        if name == "cni" and values[:1] == ["multus"]:
            if len(values) == 1:
                raise Fatal(
                    "Failed to validate --cni flag: multus must be used alongside another primary cni selection"
                )
            values = values[1:]
        for value in values:
            if value not in choices:
                raise Fatal(f"Invalid value {value} for --{name} flag: must be one of {','.join(choices)}")
    if "ingress-nginx" in config.words("ingress-controller"):
        raise Fatal(
            "the simulation of RKE2 does not support --ingress-controller=ingress-nginx: its ingress is Traefik's"
        )
    provider = config.text("secrets-encryption-provider")
    if provider not in ("", "aescbc", "secretbox"):
        raise Fatal(f"unsupported secrets-encryption-provider {provider}: must be one of aescbc, secretbox")


CRITICAL = (
    "cluster-cidr",
    "service-cidr",
    "cluster-dns",
    "cluster-domain",
    "disable-cloud-controller",
    "disable-kube-proxy",
    "egress-selector-mode",
)
"""Settings that must be identical on all servers: a join with other values fails. agent-token is compared too."""


def critical_values(config: Config) -> dict[str, str]:
    defaults = {
        "cluster-cidr": "10.42.0.0/16",
        "service-cidr": "10.43.0.0/16",
        "cluster-dns": "10.43.0.10",
        "cluster-domain": "cluster.local",
        "egress-selector-mode": "agent",
    }
    result = {}
    for name in CRITICAL:
        kind = FLAGS[name].kind
        if kind == "list":
            value = ",".join(config.words(name))
        elif kind == "bool":
            value = as_text(config.flag(name))
        else:
            value = config.text(name)
        result[name] = value or defaults.get(name, "")
    return result
