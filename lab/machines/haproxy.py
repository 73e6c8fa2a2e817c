"""HAProxy for one load balancer: its configuration, its process in a namespace, and what it reports.

The configuration is a pure function of the specification, so that an unchanged one is not loaded again. A changed one
is loaded by a new process that takes over the listening sockets; the old one serves its connections to their end.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.machines.base import HealthCheckSpec, LoadBalancerSpec, MachineError, Sample, ServiceSpec, TargetHealth
from lab.machines.commands import run

PROGRAM = "haproxy"
MAX_CONNECTIONS = 4000
"""A connection takes two descriptors, and a machine may allow 20,000 a process; a lab needs no more."""
DRAIN_SECONDS = 300
"""How long a replaced process serves its last connections."""
STOP_SECONDS = 10
ANSWER_SECONDS = 0.5
_BALANCE = {"round_robin": "roundrobin", "least_connections": "leastconn"}
_DETAILS = {
    "L4TOUT": "layer4_timeout",
    "L4CON": "layer4_no_connection",
    "L6TOUT": "layer4_timeout",
    "L7TOUT": "layer7_timeout",
    "L7STS": "unexpected_http_status",
    "L7RSP": "unexpected_http_content",
}


def bundle_name(pem: str) -> str:
    """File name of a certificate with its key: it changes with the content, and so does the configuration."""
    return hashlib.sha256(pem.encode()).hexdigest()[:24] + ".pem"


def render(spec: LoadBalancerSpec, folder: Path) -> str:
    connections = min(spec.max_connections, MAX_CONNECTIONS)
    lines = [
        f"# load balancer {spec.load_balancer_id}",
        "global",
        f"  maxconn {connections}",
        "  user haproxy",
        "  group haproxy",
        f"  stats socket {folder}/socket mode 600 level admin expose-fd listeners",
        f"  server-state-file {folder}/states",
        f"  hard-stop-after {DRAIN_SECONDS}s",
        # The first checks of all targets at once, not spread over the interval.
        "  max-spread-checks 100ms",
        "  ssl-server-verify none",
        "  ssl-default-bind-options ssl-min-ver TLSv1.2",
        "  tune.ssl.default-dh-param 2048",
        "defaults",
        f"  maxconn {connections}",
        "  load-server-state-from-file global",
        "  timeout connect 5s",
        "  timeout http-request 30s",
        "  timeout client 50s",
        "  timeout server 50s",
    ]
    for service in spec.services:
        lines += _frontend(service, folder)
        lines += _backend(spec, service)
    if not spec.services:
        # HAProxy requires a listener; this one has no address of a network.
        lines += ["frontend none", f"  bind unix@{folder}/none"]
    return "\n".join(lines) + "\n"


def _ends_tls(service: ServiceSpec) -> bool:
    return service.protocol == "https" and bool(service.certificates)


def _mode(service: ServiceSpec) -> str:
    return "http" if service.protocol == "http" or _ends_tls(service) else "tcp"


def _timeouts(service: ServiceSpec) -> list[str]:
    if _mode(service) == "tcp":
        return ["  timeout {side} 1h"]
    return [f"  timeout {{side}} {service.timeout_idle}s"]


def _binds(port: int, tls: str = "") -> list[str]:
    """One listener for each family: in a common one IPv4 clients would have addresses such as ::ffff:198.18.0.1."""
    return [f"  bind 0.0.0.0:{port}{tls}", f"  bind [::]:{port} v6only{tls}"]


def _frontend(service: ServiceSpec, folder: Path) -> list[str]:
    port, mode = service.listen_port, _mode(service)
    crts = "".join(f" crt {folder}/{bundle_name(pem)}" for pem in service.certificates)
    tls = f" ssl{crts} alpn h2,http/1.1" if _ends_tls(service) else ""
    lines = [
        f"frontend service-{port}",
        f"  mode {mode}",
        *_binds(port, tls),
        *(line.format(side="client") for line in _timeouts(service)),
        f"  default_backend service-{port}",
    ]
    if mode == "http":
        scheme = "https" if tls else "http"
        lines += [
            "  option forwardfor",
            f"  http-request set-header X-Forwarded-Proto {scheme}",
            f"  http-request set-header X-Forwarded-Port {port}",
        ]
    if service.redirect_http:
        where = "" if port == 443 else f":{port}"
        lines += [
            f"frontend redirect-{port}",
            "  mode http",
            *_binds(80),
            f"  http-request redirect code 301 location https://%[req.hdr(host),field(1,:)]{where}%[capture.req.uri]",
        ]
    return lines


def _backend(spec: LoadBalancerSpec, service: ServiceSpec) -> list[str]:
    check = service.health_check
    # The target expects the PROXY protocol only on the port of the service.
    with_proxy = service.proxyprotocol and check.port == service.destination_port
    lines = [
        f"backend service-{service.listen_port}",
        f"  mode {_mode(service)}",
        f"  balance {_BALANCE[spec.algorithm]}",
        f"  timeout check {check.timeout}s",
        *(line.format(side="server") for line in _timeouts(service)),
        *(_http_check(check, with_proxy) if check.protocol == "http" else []),
    ]
    if service.cookie_name and _mode(service) == "http":
        lines.append(f"  cookie {service.cookie_name} insert indirect nocache maxlife {service.cookie_lifetime}s")
    options = [
        f"check port {check.port} inter {check.interval}s fall {check.retries} rise {check.retries}",
        *(["send-proxy"] if service.proxyprotocol else []),
        *(["check-send-proxy"] if with_proxy and check.protocol == "tcp" else []),
    ]
    for target in spec.targets:
        address = f"[{target}]" if ":" in target else target
        cookie = f" cookie {hashlib.sha256(target.encode()).hexdigest()[:16]}" if service.cookie_name else ""
        lines.append(f"  server {target} {address}:{service.destination_port} {' '.join(options)}{cookie}")
    return lines


def _http_check(check: HealthCheckSpec, with_proxy: bool) -> list[str]:
    tls = " ssl" + (f" sni {_quoted(check.domain)}" if check.domain else "") if check.tls else ""
    host = f" ver HTTP/1.1 hdr Host {_quoted(check.domain)}" if check.domain else ""
    lines = [
        "  option httpchk",
        f"  http-check connect port {check.port}{tls}{' send-proxy' if with_proxy else ''}",
        f"  http-check send meth GET uri {_quoted(check.path)}{host}",
        f"  http-check expect rstatus {_quoted(status_pattern(check.status_codes))}",
    ]
    if check.response:
        lines.append(f"  http-check expect string {_quoted(check.response)}")
    return lines


def status_pattern(codes: Iterable[str]) -> str:
    """`2??` and `4*` as a regular expression."""
    return "^(" + "|".join(code.replace("?", ".").replace("*", ".*") for code in codes) + ")$"


def _quoted(text: str) -> str:
    """One word of the configuration, without any expansion."""
    return "'" + text.replace("'", "'\\''") + "'"


class Process:
    """The HAProxy of one load balancer, in a folder and a network namespace."""

    def __init__(self, folder: Path, namespace: Path) -> None:
        self.folder = folder
        self.config = folder / "haproxy.cfg"
        self._namespace = namespace

    def apply(self, spec: LoadBalancerSpec) -> bool:
        """Serve the specification; True when the process was started or replaced."""
        text = render(spec, self.folder)
        # Without an answer, the processes only serve their last connections.
        states = self._query("show servers state")
        if states and self.config.exists() and self.config.read_text() == text:
            return False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        bundles = {bundle_name(pem): pem for service in spec.services for pem in service.certificates}
        for name, pem in bundles.items():
            with open(self.folder / name, "w", opener=_private) as file:
                file.write(pem)
        new = self.config.with_suffix(".new")
        new.write_text(text)
        run([PROGRAM, "-c", "-q", "-f", str(new)])
        (self.folder / "states").write_text(states)
        new.replace(self.config)
        # Not `ip netns exec`: it would create a mount namespace, which would keep the disks of hosts mounted.
        argv = ["nsenter", f"--net={self._namespace}", PROGRAM, "-D", "-f", str(self.config)]
        if states:
            argv += ["-x", str(self.folder / "socket")]
        if running := self.pids():
            argv += ["-sf", *map(str, running)]
        run(argv)
        for path in self.folder.glob("*.pem"):
            if path.name not in bundles:
                path.unlink()
        return True

    def stop(self) -> None:
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while self.pids():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return
        raise MachineError(f"{PROGRAM} {self.pids()} still runs after SIGKILL")

    def pids(self) -> list[int]:
        """The processes of this load balancer, also those that only serve their last connections."""
        wanted = str(self.config).encode()
        return [pid for pid, words in _haproxies() if wanted in words]

    def in_namespace(self) -> bool:
        """Whether all its processes are in the namespace that has the name now."""
        inode = self._namespace.stat().st_ino
        return all(_inode(Path(f"/proc/{pid}/ns/net")) in (inode, None) for pid in self.pids())

    def health(self) -> dict[tuple[int, str], TargetHealth]:
        found = {}
        for row in self._statistics():
            kind, _, port = row["# pxname"].partition("-")
            if kind == "service" and row["svname"] not in ("FRONTEND", "BACKEND"):
                found[int(port), row["svname"]] = target_health(row)
        return found

    def sample(self) -> Sample | None:
        rows = [row for row in self._statistics() if row["svname"] == "FRONTEND"]
        if not rows:
            return None

        def total(name: str) -> int:
            return sum(int(row[name] or 0) for row in rows)

        return Sample(time.time(), *map(total, ("scur", "stot", "req_tot", "bin", "bout")))

    def _statistics(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self._query("show stat"))))

    def _query(self, command: str) -> str:
        """The answer to a command of the runtime API; empty without an answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(str(self.folder / "socket"))
                connection.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""


def target_health(row: dict[str, str]) -> TargetHealth:
    """The health of a row of `show stat`; an asterisk marks a check that runs."""
    result = row["check_status"].removeprefix("* ")
    if result in ("", "INI", "UNK"):
        return TargetHealth("unknown")
    if row["status"].startswith("UP"):
        return TargetHealth("healthy")
    detail = _DETAILS.get(result, "unspecified")
    code = int(row["check_code"]) if detail == "unexpected_http_status" and row["check_code"] else None
    return TargetHealth("unhealthy", detail, code)


def _haproxies() -> Iterator[tuple[int, list[bytes]]]:
    """Process id and arguments of all HAProxy processes of this machine."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if re.search(rb"(^|/)haproxy$", words[0]):
                    yield int(path.name), words


def _inode(path: Path) -> int | None:
    """None when the process ended meanwhile."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
