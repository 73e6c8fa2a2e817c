"""Read the status of an RKE2 node: systemd, files, the Kubernetes API and etcd. Read-only.

Only the standard library is used: hosts have no more than Debian's python3.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import pwd
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import CORDON_ANNOTATION, RESTORE_RECORD
from ansible_collections.slipway.platform.plugins.module_utils.urls import https_url

ETC = Path("/etc/rancher")
DATA = Path("/var/lib/rancher/rke2")
BINARY = Path("/usr/local/bin/rke2")
INSTALLED = Path("/usr/local/share/rke2/installed-version")
STARTED_WITH = Path("/run/slipway-rke2/started-with")
INGRESS_SECRET = DATA / "server/manifests/platform-ingress-certificate.yaml"

# RKE2's etcd serves HTTP and JSON on a separate listener, 2382 on loopback, and only gRPC on 2379;
# an etcd without that split serves both on 2379.
ETCD_JSON_PORTS = (2382, 2379)

IMMUTABLE_SETTINGS = ("cluster-cidr", "service-cidr", "cluster-dns", "cluster-domain", "cni")


class ReadError(Exception):
    """The running system could not be read; the text holds the reason."""


# --- systemd ---------------------------------------------------------------------------------------------------------


def parse_service(show: str) -> dict[str, Any]:
    """Output of systemctl show as facts: state, enabled, start of the process (seconds since 1970), restarts."""
    values = dict(line.split("=", 1) for line in show.splitlines() if "=" in line)
    started = values.get("ExecMainStartTimestamp", "")
    started_at = 0.0
    if started and started != "n/a":
        stamp = datetime.strptime(started, "%a %Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=UTC)
        started_at = stamp.timestamp()
    return {
        "found": values.get("LoadState") == "loaded",
        "state": values.get("ActiveState", "inactive"),
        "sub_state": values.get("SubState", "dead"),
        "enabled": values.get("UnitFileState") == "enabled",
        "invocation": values.get("InvocationID", ""),
        "started_at": started_at,
        "restarts": int(values.get("NRestarts") or 0),
    }


def read_service(unit: str) -> dict[str, Any]:
    properties = "LoadState,ActiveState,SubState,UnitFileState,InvocationID,ExecMainStartTimestamp,NRestarts"
    show = subprocess.run(
        ["systemctl", "show", unit, "--timestamp=us+utc", f"--property={properties}"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
        check=True,
    )
    return parse_service(show.stdout)


def journal_tail(unit: str, lines: int = 30) -> str:
    tail = subprocess.run(
        ["journalctl", f"--unit={unit}", f"--lines={lines}", "--no-pager", "--output=short-iso"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=30,
        check=False,
    )
    return tail.stdout.strip()


def journal_since(unit: str, seconds: int) -> str:
    """Messages of the unit since that time, in seconds since 1970."""
    shown = subprocess.run(
        ["journalctl", f"--unit={unit}", f"--since=@{seconds}", "--no-pager", "--output=cat"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=30,
        check=False,
    )
    return shown.stdout


# --- files -----------------------------------------------------------------------------------------------------------


def read_installed() -> str | None:
    """The version that was unpacked last; None if the binary was replaced or partly unpacked since."""
    try:
        marker, binary = INSTALLED.stat(), BINARY.stat()
        return INSTALLED.read_text().strip() if binary.st_ctime <= marker.st_mtime else None
    except FileNotFoundError:
        return None


def read_release() -> list[str]:
    """Lines of `rke2 --version`: the release that a reboot would start. Empty without a binary that prints them."""
    try:
        shown = subprocess.run(
            [str(BINARY), "--version"], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except OSError:
        return []
    return shown.stdout.splitlines() if shown.returncode == 0 else []


def parse_started(record: str, invocation: str) -> dict[str, str]:
    """Digest by path of the files a unit was started with; empty when the record belongs to another start."""
    recorded_invocation, *lines = record.splitlines() or [""]
    if not invocation or recorded_invocation != invocation:
        return {}
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines if len(line) > 66)}


def read_started(service: dict[str, Any]) -> dict[str, str]:
    try:
        return parse_started(STARTED_WITH.read_text(), service["invocation"])
    except FileNotFoundError:
        return {}


def read_files(
    desired: list[dict[str, Any]], started_at: float, started_with: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Of the desired files: those that differ on disk, and those that the running process read with other content.

    The second list comes from the digests that the unit recorded at its start. Without a record, a file that differs or
    is newer than the process (started_at, 0 when none runs) counts as read with other content.
    """
    different, stale = [], []
    for file in desired:
        path = Path(file["path"])
        try:
            status = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            same = content == file["sha256"] and oct(status.st_mode & 0o7777) == oct(int(file["mode"], 8))
            newer = 0 < started_at < status.st_mtime
        except FileNotFoundError:
            same, content, newer = False, "", False
        if not same:
            different.append(file["path"])
        if not file["restart"]:
            continue
        if recorded := started_with.get(file["path"]):
            restart_needed = recorded != file["sha256"]
        else:
            restart_needed = newer or content != file["sha256"]
        if restart_needed:
            stale.append(file["path"])
    return different, stale


def read_sysctls(desired: dict[str, str]) -> list[str]:
    """Names of the kernel settings that differ from the desired values."""
    different = []
    for name, value in sorted(desired.items()):
        path = Path("/proc/sys", *name.split("."))
        if not path.exists() or path.read_text().strip() != value:
            different.append(name)
    return different


def read_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_data(node_type: str) -> bool:
    """Whether this host is a node of a cluster, or started to join one."""
    if node_type == "server":
        return (DATA / "server/db/etcd/member").is_dir() or (DATA / "server/db/etcd/name").is_file()
    return (ETC / "node/password").is_file()


def parse_immutable_settings(config: str) -> dict[str, str]:
    """The immutable settings of a node's configuration."""
    found = {}
    for key in IMMUTABLE_SETTINGS:
        value = re.search(rf"^{key}:\s*(?:\n\s*-\s*)?(\S+)\s*$", config, re.MULTILINE)
        if value is not None:
            found[key] = value.group(1).strip("'\"")
    return found


def read_immutable_settings() -> dict[str, str]:
    try:
        return parse_immutable_settings((ETC / "rke2/config.yaml").read_text())
    except FileNotFoundError:
        return {}


def token_digest(token: str) -> str:
    """The password's digest, of a token in either form: <password>, or K10<authority's digest>::<user>:<password>."""
    return hashlib.sha256(token.strip().rpartition(":")[2].encode()).hexdigest()


def read_token() -> str:
    """Digest of the token that encrypts the cluster's bootstrap data on this server; empty before its first start."""
    try:
        return token_digest((DATA / "server/token").read_text())
    except FileNotFoundError:
        return ""


def read_restore() -> dict[str, Any] | None:
    """The record of the last restore of etcd on this server; None if there was none."""
    try:
        record: dict[str, Any] = json.loads(Path(RESTORE_RECORD).read_text())
    except FileNotFoundError:
        return None
    return record


def read_certificate() -> dict[str, str] | None:
    """The public half of the ingress certificate in the manifests folder, and the digest of the whole manifest."""
    try:
        manifest = INGRESS_SECRET.read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^\s+tls\.crt:\s*(\S+)\s*$", manifest, re.MULTILINE)
    pem = base64.b64decode(found.group(1)).decode() if found else ""
    return {"pem": pem, "digest": hashlib.sha256(manifest.encode()).hexdigest()}


def read_serving_certificate() -> str:
    """The certificate of this server's API server, PEM; RKE2 renews it at a start within 120 days of its expiry."""
    try:
        return (DATA / "server/tls/serving-kube-apiserver.crt").read_text()
    except FileNotFoundError:
        return ""


# --- the Kubernetes API ----------------------------------------------------------------------------------------------


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to data in memory, never on disk: ssl loads certificates from paths only."""
    descriptor = os.memfd_create("slipway")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def parse_kubeconfig(text: str) -> dict[str, str]:
    """server, tls-server-name (may be empty), and authority, certificate and key as PEM, of RKE2's own kubeconfigs."""
    values: dict[str, str] = {}
    for key in ("server", "certificate-authority", "client-certificate", "client-key"):
        found = re.search(rf"^\s*-?\s*{key}(-data)?:\s*\"?([^\s\"]+)\"?\s*$", text, re.MULTILINE)
        if found is None:
            raise ReadError(f"the kubeconfig has no {key}")
        if key == "server":
            values[key] = found.group(2)
        elif found.group(1):
            values[key] = base64.b64decode(found.group(2)).decode()
        else:
            values[key] = Path(found.group(2)).read_text()
    name = re.search(r"^\s*tls-server-name:\s*\"?([^\s\"]+)\"?\s*$", text, re.MULTILINE)
    values["tls-server-name"] = name.group(1) if name else ""
    return values


def tls_context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    # RKE2's own certificate authorities lack the key usage that Python 3.13's strict mode requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with _in_memory(f"{certificate}\n{key}".encode()) as path:
        context.load_cert_chain(path)
    return context


def request(
    url: str,
    context: ssl.SSLContext,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    method: str = "",
    timeout: float = 5,
    tls_name: str = "",
) -> tuple[int, str]:
    """Status and body; the certificate is verified under `tls_name`, or the URL's host. GET, or POST with a body."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=timeout)
    try:
        if tls_name:
            raw = socket.create_connection((host, port), timeout=timeout)
            connection.sock = context.wrap_socket(raw, server_hostname=tls_name)
        headers = {} if body is None else {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, text, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def node_view(node: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Node object that the plan uses."""
    metadata, status = node["metadata"], node.get("status", {})
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
    voter = conditions.get("EtcdIsVoter")
    return {
        "ready": conditions.get("Ready") == "True",
        "version": status.get("nodeInfo", {}).get("kubeletVersion", ""),
        "unschedulable": bool(node.get("spec", {}).get("unschedulable")),
        "cordoned_by_role": CORDON_ANNOTATION in (metadata.get("annotations") or {}),
        "etcd_voter": None if voter is None else voter == "True",
        "addresses": [entry["address"] for entry in status.get("addresses", []) if entry["type"] == "InternalIP"],
    }


def read_admin() -> tuple[str, ssl.SSLContext, str]:
    """Address of this server's API, the context of its administrator, and its certificate authority."""
    kubeconfig = parse_kubeconfig((ETC / "rke2/rke2.yaml").read_text())
    authority = kubeconfig["certificate-authority"]
    context = tls_context(authority, kubeconfig["client-certificate"], kubeconfig["client-key"])
    return kubeconfig["server"], context, authority


def read_api(timeout: float = 5) -> dict[str, Any]:
    """Status of the cluster from this server's own API: readyz and all nodes."""
    result: dict[str, Any] = {"ready": False, "nodes": {}, "authority_digest": "", "error": None}
    try:
        server, context, authority = read_admin()
        result["authority_digest"] = hashlib.sha256(authority.strip().encode()).hexdigest()
        status, _ = request(server, context, "/readyz", timeout=timeout)
        result["ready"] = status == 200
        status, text = request(server, context, "/api/v1/nodes", timeout=timeout)
        if status != 200:
            raise ReadError(f"{server} returned {status}")
        result["nodes"] = {node["metadata"]["name"]: node_view(node) for node in json.loads(text)["items"]}
    except (OSError, http.client.HTTPException, ReadError, ValueError, KeyError) as error:
        result["error"] = _reason(error)
    return result


def read_own_node(node_name: str, api_address: str, timeout: float = 5) -> dict[str, Any]:
    """An agent's own node, read with its kubelet's certificate: by its local load balancer, else at `api_address`."""
    folder = DATA / "agent"
    problems = []
    try:
        context = tls_context(
            *((folder / name).read_text() for name in ("server-ca.crt", "client-kubelet.crt", "client-kubelet.key"))
        )
    except OSError as error:
        return {"ready": False, "nodes": {}, "error": _reason(error)}
    for address in ("127.0.0.1", api_address):
        try:
            status, text = request(https_url(address, 6443), context, f"/api/v1/nodes/{node_name}", timeout=timeout)
            if status in (200, 404):
                nodes = {node_name: node_view(json.loads(text))} if status == 200 else {}
                return {"ready": True, "nodes": nodes, "error": None}
            problems.append(f"{address} returned {status}")
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            problems.append(f"{address}: {_reason(error)}")
    return {"ready": False, "nodes": {}, "error": "; ".join(problems)}


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist"
    return f"{type(error).__name__}: {error}"


# --- etcd ------------------------------------------------------------------------------------------------------------


def parse_members(text: str) -> dict[str, Any]:
    response = json.loads(text)
    return {
        "cluster_id": str(response.get("header", {}).get("cluster_id", "")),
        "members": [
            {
                "id": str(member["ID"]),
                "name": member.get("name", ""),
                "learner": bool(member.get("isLearner", False)),
                "client_urls": member.get("clientURLs", []),
                "answers": False,
            }
            for member in response.get("members", [])
        ],
    }


def _answers(url: str, context: ssl.SSLContext, timeout: float) -> bool:
    """Whether a member completes a TLS handshake with its own certificate on its client URL."""
    parts = urlsplit(url)
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 2379), timeout=timeout) as raw,
            context.wrap_socket(raw, server_hostname=parts.hostname),
        ):
            return True
    except OSError:
        return False


def parse_alarms(text: str, members: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Alarms that members raised: name of the member (its ID when it has no name) and kind, like NOSPACE."""
    names = {member["id"]: member["name"] for member in members}
    return [
        {"member": names.get(str(entry.get("memberID", ""))) or str(entry.get("memberID", "")), "alarm": entry["alarm"]}
        for entry in json.loads(text).get("alarms", [])
    ]


def _call_etcd(context: ssl.SSLContext, path: str, body: dict[str, Any], timeout: float) -> str:
    problems = []
    for port in ETCD_JSON_PORTS:
        try:
            status, text = request(f"https://127.0.0.1:{port}", context, path, body=body, timeout=timeout)
            if status == 200:
                return text
            problems.append(f"port {port} returned {status}")
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"port {port}: {error}")
    raise ReadError("; ".join(problems))


def _etcd_context() -> ssl.SSLContext:
    folder = DATA / "server/tls/etcd"
    return tls_context(*((folder / name).read_text() for name in ("server-ca.crt", "client.crt", "client.key")))


def read_raft_index(timeout: float = 5) -> int | None:
    """Index of the last entry in the local member's log, read without a quorum; None if the member does not answer."""
    try:
        return int(json.loads(_call_etcd(_etcd_context(), "/v3/maintenance/status", {}, timeout))["raftIndex"])
    except (OSError, ReadError, ValueError, KeyError):
        return None


def read_etcd(timeout: float = 5) -> dict[str, Any]:
    """Members of etcd and their alarms from the local member, by a linearizable read, which needs a quorum.

    Without a quorum the result has the error, and the members that the local one knows.
    """
    result: dict[str, Any] = {"cluster_id": "", "members": [], "alarms": [], "error": None}
    try:
        context = _etcd_context()
    except OSError as error:
        result["error"] = f"{error.filename}: {error.strerror}"
        return result
    try:
        result |= parse_members(_call_etcd(context, "/v3/cluster/member/list", {"linearizable": True}, timeout))
        alarms = _call_etcd(context, "/v3/maintenance/alarm", {"action": "GET"}, timeout)
        result["alarms"] = parse_alarms(alarms, result["members"])
    except (ReadError, ValueError, KeyError) as error:
        result["error"] = str(error)
        with suppress(ReadError, ValueError, KeyError):
            result |= parse_members(_call_etcd(context, "/v3/cluster/member/list", {"linearizable": False}, timeout))
        return result
    context.set_alpn_protocols(["h2"])
    for member in result["members"]:
        member["answers"] = any(_answers(url, context, 2) for url in member["client_urls"])
    return result


def read_state(parameters: dict[str, Any]) -> dict[str, Any]:
    """The status of this host that the plan uses."""
    node_type, node_name = parameters["type"], parameters["node_name"]
    unit = f"rke2-{node_type}.service"
    service = read_service(unit)
    running = service["state"] in ("active", "activating", "reloading")
    started_at, started_with = (service["started_at"], read_started(service)) if running else (0.0, {})
    different, stale = read_files(parameters["files"], started_at, started_with)
    return {
        "type": node_type,
        "node_name": node_name,
        "desired_version": parameters["version"],
        "installed_version": read_installed(),
        "service": service,
        "has_data": has_data(node_type),
        "immutable_settings": read_immutable_settings(),
        "token_digest": read_token() if node_type == "server" else "",
        "different_files": different,
        "stale_files": stale,
        "different_sysctls": read_sysctls(parameters["sysctls"]),
        "missing_users": [user for user in parameters["users"] if not read_user(user)],
        "api": read_api() if running and node_type == "server" else None,
        "etcd": read_etcd() if running and node_type == "server" else None,
        "ingress_certificate": read_certificate() if node_type == "server" else None,
        "restore": read_restore() if node_type == "server" else None,
    }
