"""Probes of endpoints and closed ports from outside. Faults are returned as findings, not raised."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.slipway.platform.plugins.module_utils.postgresql_tls import request_tls
from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import unmet
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import (
    ReadError,
    node_view,
    parse_kubeconfig,
    request,
    tls_context,
)

# A dropped packet has no answer; this timeout is enough between a controller and its servers.
CLOSED_SECONDS = 2.0
# More than the probes of an environment of ten hosts, so that all timeouts elapse at the same time.
WORKERS = 512

Probe = dict[str, Any]
Outcome = tuple[list[str], dict[str, Any]]


def _context(authority: str) -> ssl.SSLContext:
    if not authority.strip():  # without one, ssl would trust the authorities of the system
        raise OSError("no certificate authority is given")
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _https(probe: Probe, timeout: float) -> Outcome:
    """GET over TLS 1.3, verified by authority and public name.

    A remaining validity below `valid_days` is a finding although the endpoint answers.
    """
    url = f"https://{probe['server_name']}{probe['path']} at {probe['address']}:{probe['port']}"
    try:
        with (
            socket.create_connection((probe["address"], probe["port"]), timeout=timeout) as raw,
            _context(probe["authority"]).wrap_socket(raw, server_hostname=probe["server_name"]) as secure,
        ):
            version = secure.version()
            expiry = str((secure.getpeercert() or {})["notAfter"])
            text = f"GET {probe['path']} HTTP/1.1\r\nHost: {probe['server_name']}\r\nConnection: close\r\n\r\n"
            secure.sendall(text.encode())
            response = http.client.HTTPResponse(secure)
            response.begin()
            body = response.read(65536).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return [f"{url} does not answer ({error})"], {}
    findings = []
    if version != "TLSv1.3":
        findings.append(f"{url} negotiated {version}, not TLSv1.3")
    days = (ssl.cert_time_to_seconds(expiry) - time.time()) / 86400
    if days < probe["valid_days"]:
        findings.append(f"the certificate at {url} expires on {expiry}; run site.yml, which renews it")
    if response.status not in probe["statuses"]:
        wanted = " or ".join(str(status) for status in probe["statuses"])
        findings.append(f"{url} answers {response.status}, not {wanted}")
    facts: dict[str, Any] = {"status": response.status, "tls": version}
    try:
        answer = json.loads(body)
        facts["json"] = answer if isinstance(answer, dict) else {}
    except ValueError:
        pass
    return findings, facts


def _redirect(probe: Probe, timeout: float) -> Outcome:
    """Plain HTTP redirects to HTTPS."""
    url = f"http://{probe['server_name']}{probe['path']} at {probe['address']}:{probe['port']}"
    connection = http.client.HTTPConnection(probe["address"], probe["port"], timeout=timeout)
    try:
        connection.request("GET", probe["path"], headers={"Host": probe["server_name"]})
        response = connection.getresponse()
        location = response.getheader("Location", "")
    except (OSError, http.client.HTTPException) as error:
        return [f"{url} does not answer ({error})"], {}
    finally:
        connection.close()
    target = urlsplit(location)
    redirected = (target.scheme, target.netloc.removesuffix(":443")) == ("https", probe["server_name"])
    if response.status not in (301, 308) or not redirected:
        return [f"{url} answers {response.status} to {location or 'nowhere'}, not a redirect to HTTPS"], {}
    return [], {"status": response.status, "location": location}


def _tls_refused(probe: Probe, timeout: float) -> Outcome:
    """A client limited to TLS 1.2 is rejected by the alert protocol_version, and by no other error."""
    try:
        context = _context(probe["authority"])
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection((probe["address"], probe["port"]), timeout=timeout) as raw,
            context.wrap_socket(raw, server_hostname=probe["server_name"]) as secure,
        ):
            return [f"{probe['address']}:{probe['port']} accepts {secure.version()}"], {}
    except ssl.SSLError as error:
        if error.reason == "TLSV1_ALERT_PROTOCOL_VERSION":
            return [], {}
        return [
            f"{probe['address']}:{probe['port']}: TLS 1.2 failed with another error than the alert protocol_version "
            f"({error}). Configure the server to reject TLS 1.2."
        ], {}
    except OSError as error:
        return [f"{probe['address']}:{probe['port']} does not answer ({error})"], {}


def _open(probe: Probe, timeout: float) -> Outcome:
    """The control port of closed ports: it answers if network, address and host are reachable."""
    try:
        with socket.create_connection((probe["address"], probe["port"]), timeout=timeout):
            return [], {}
    except OSError as error:
        remedy = " On a controller without IPv6, set verify_ipv6_enabled to false." if ":" in probe["address"] else ""
        return [
            f"port {probe['port']} of {probe['name']} ({probe['address']}) does not answer ({error}), so that closed "
            f"ports cannot be verified. Restore the connection from the controller to it.{remedy}"
        ], {}


def _closed(probe: Probe, timeout: float) -> Outcome:
    """The port must be refused or dropped. Evidence only together with an `open` probe of the same address."""
    try:
        with socket.create_connection((probe["address"], probe["port"]), timeout=min(timeout, CLOSED_SECONDS)):
            return [f"port {probe['port']} of {probe['name']} ({probe['address']}) is open from {_source(probe)}"], {}
    except (ConnectionRefusedError, TimeoutError):
        return [], {}
    except OSError as error:
        if error.errno == errno.ENETUNREACH:
            return [], {}  # the control port is the one finding for all ports
        return [
            f"port {probe['port']} of {probe['name']} ({probe['address']}) could not be probed ({error}). "
            f"Restore the connection from {probe.get('source') or 'the controller'} to it."
        ], {}


def _source(probe: Probe) -> str:
    return probe.get("source") or "outside"


def _ping(probe: Probe, timeout: float) -> Outcome:
    """The control of closed ports between hosts: an ICMP echo request is answered (RFC 792)."""
    request = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    request = request[:2] + struct.pack("!H", _checksum(request)) + request[4:]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as channel:
            channel.connect((probe["address"], 0))
            channel.send(request)
            deadline = time.monotonic() + timeout
            while (left := deadline - time.monotonic()) > 0:
                channel.settimeout(left)
                packet = channel.recv(1024)
                answer = packet[(packet[0] & 15) * 4 :]
                if answer[:2] == b"\0\0" and answer[4:8] == request[4:8]:
                    return [], {}
    except OSError as error:
        reason = str(error)
    else:
        reason = "timed out"
    return [
        f"{probe['name']} ({probe['address']}) does not answer a ping from {_source(probe)} ({reason}), so that ports "
        "closed to it cannot be verified. Restore the private network between them."
    ], {}


def _checksum(packet: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _api(probe: Probe, timeout: float) -> Outcome:
    """The Kubernetes API of the kubeconfig is ready, and its nodes are Ready at the expected version."""
    try:
        kubeconfig = parse_kubeconfig(Path(probe["kubeconfig"]).read_text())
        context = tls_context(
            kubeconfig["certificate-authority"], kubeconfig["client-certificate"], kubeconfig["client-key"]
        )
        server = kubeconfig["server"]
        call = partial(request, server, context, timeout=timeout, tls_name=kubeconfig["tls-server-name"])
        texts = {}
        for path in ("/readyz", "/api/v1/nodes"):
            status, texts[path] = call(path)
            if status != 200:
                return [f"{server}{path} answers {status}, not 200"], {}
        found = {node["metadata"]["name"]: node_view(node) for node in json.loads(texts["/api/v1/nodes"])["items"]}
        refused = _write(call, server) if probe["write"] else []
    except (OSError, http.client.HTTPException, ReadError, ValueError, KeyError) as error:
        return [f"the API named in {probe['kubeconfig']} does not answer ({error})"], {}
    if not probe["nodes"]:
        return [f"the API named in {probe['kubeconfig']} has no node to verify. Declare the servers in hosts.yml."], {}
    view = {"api": {"error": None, "ready": True, "nodes": found}}
    return [*unmet(view, nodes=probe["nodes"], version=probe["version"]), *refused], {"server": server}


def _write(call: Callable[..., tuple[int, str]], server: str) -> list[str]:
    """Create an object and delete it: a cluster whose etcd is full still answers reads."""
    folder, name = "/api/v1/namespaces/kube-system/configmaps", "slipway-verify"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    call(f"{folder}/{name}", method="DELETE")  # left by a run that was killed
    for wanted, (status, text) in ((201, call(folder, body=body)), (200, call(f"{folder}/{name}", method="DELETE"))):
        if status != wanted:
            reason = " ".join(text.split())[:300]
            return [f"{server}: a write is answered {status} ({reason}). Read the alarms of etcd and the API's log."]
    return []


def _postgres(probe: Probe, timeout: float) -> Outcome:
    """A TLS 1.3 handshake as a client of PostgreSQL or PgBouncer, verified by authority and name.

    A remaining validity below `valid_days` is a finding although the certificate is still accepted.
    """
    try:
        context = _context(probe["authority"])
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with socket.create_connection((probe["address"], probe["port"]), timeout=timeout) as raw:
            if not request_tls(raw):
                raise OSError("the server offers no TLS")
            with context.wrap_socket(raw, server_hostname=probe["server_name"]) as secure:
                expiry = str((secure.getpeercert() or {})["notAfter"])
    except OSError as error:
        return [f"{probe['name']}:{probe['port']}: TLS verification failed ({error})"], {}
    if (ssl.cert_time_to_seconds(expiry) - time.time()) / 86400 < probe["valid_days"]:
        return [
            f"the certificate of the database on {probe['name']} expires on {expiry}; run playbooks/postgresql.yml"
        ], {}
    return [], {}


KINDS = {
    "https": _https,
    "redirect": _redirect,
    "tls_refused": _tls_refused,
    "open": _open,
    "ping": _ping,
    "closed": _closed,
    "api": _api,
    "postgres": _postgres,
}


def _outcome(probe: Probe, timeout: float) -> Outcome:
    if probe.get("address") == "":  # which the resolver would take for localhost
        return [f"{probe['name']}: no address is known to probe. Correct what the inventory's warnings report."], {}
    return KINDS[probe["kind"]](probe, timeout)


def run(probes: list[Probe], timeout: float) -> tuple[list[str], dict[str, Any]]:
    """Run all probes at the same time; return findings in the order of the probes, and results by name."""
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        outcomes = list(pool.map(lambda probe: _outcome(probe, timeout), probes))
    findings = [finding for outcome in outcomes for finding in outcome[0]]
    results = {probe["name"]: outcome[1] for probe, outcome in zip(probes, outcomes, strict=True) if outcome[1]}
    return findings, results
