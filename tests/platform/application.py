"""A small application in the cluster, and its clients: through the load balancer, and in pods of their own.

Its image is the release's own with Python, so that it is on every node and no registry is needed.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMESPACE = "shop"
LABELS = {"app": "shop"}
PORT = 8080
SERVER = f"""
import http.server, json, os, signal, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        end = time.process_time() + (0.2 if self.path == "/busy" else 0)
        while time.process_time() < end:
            pass
        headers = {{name.lower(): value for name, value in self.headers.items()}}
        body = json.dumps({{"pod": os.environ["HOSTNAME"], "headers": headers}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text, *values):
        print(text % values, flush=True)

# The first process of a container gets no signal that it does not handle: without this a pod ends after 30 s.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""
FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())
except OSError as error:
    print("refused", error)
"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the cluster's default pod security asks of every pod."""


def named(api_version: str, kind: str, name: str, namespace: str | None = NAMESPACE, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def container(image: str, program: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", program],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
        "securityContext": RESTRICTED,
        **fields,
    }


def client(image: str, name: str) -> dict[str, Any]:
    """A pod that does nothing; FETCH is run in it."""
    waiting = container(image, "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()")
    pod = named("v1", "Pod", name, spec={"containers": [waiting], "terminationGracePeriodSeconds": 5})
    pod["metadata"]["labels"] = {"client": name}
    return pod


def manifests(image: str, host: str) -> list[dict[str, Any]]:
    """Two replicas on different nodes, which stop only when no node sends them requests any more."""
    served = container(
        image,
        SERVER,
        ports=[{"name": "http", "containerPort": PORT}],
        readinessProbe={"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 2},
        lifecycle={"preStop": {"sleep": {"seconds": 5}}},
    )
    spread = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": LABELS}}
    pod = {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [spread]}},
        "containers": [served],
        "tolerations": [
            {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
            for state in ("not-ready", "unreachable")
        ],
    }
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "shop", "port": {"name": "http"}}}}
    return [
        named("v1", "Namespace", NAMESPACE, None),
        named(
            "apps/v1",
            "Deployment",
            "shop",
            spec={
                "replicas": 2,
                "selector": {"matchLabels": LABELS},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": LABELS}, "spec": pod},
            },
        ),
        named(
            "v1",
            "Service",
            "shop",
            spec={"selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        ),
        named(
            "policy/v1", "PodDisruptionBudget", "shop", spec={"minAvailable": 1, "selector": {"matchLabels": LABELS}}
        ),
        named("networking.k8s.io/v1", "Ingress", "shop", spec={"rules": [{"host": host, "http": {"paths": [path]}}]}),
    ]


@dataclass(frozen=True)
class Kubectl:
    """kubectl on this machine, through the load balancer."""

    kubeconfig: Path

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "--output", "json"))

    def apply(self, *items: dict[str, Any]) -> None:
        self("apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def fetch(self, pod: str, url: str) -> str:
        """What a program in a pod gets from a URL; "refused" and the reason when it gets nothing."""
        return self("exec", "--namespace", NAMESPACE, pod, "--", "python3", "-c", FETCH, url).strip()

    def pods(self) -> dict[str, str]:
        """Ready pods of the application that are not being deleted: name → node."""
        items = self.read("pods", "--namespace", NAMESPACE, "--selector", "app=shop")["items"]
        return {
            item["metadata"]["name"]: item["spec"]["nodeName"]
            for item in items
            if "deletionTimestamp" not in item["metadata"]
            and any(
                (entry["type"], entry["status"]) == ("Ready", "True") for entry in item["status"].get("conditions", [])
            )
        }


@dataclass
class Requests:
    """Requests of a client outside of the platform, five a second, independent of the answers of earlier ones."""

    command: list[str]
    answered: list[tuple[float, float]] = field(default_factory=list)
    """Start and duration in seconds."""
    failed: list[tuple[float, str]] = field(default_factory=list)

    def send(self) -> None:
        started = time.monotonic()
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            self.answered.append((started, time.monotonic() - started))
        else:
            self.failed.append((started, done.stderr.strip()))

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        threads: list[threading.Thread] = []

        def start() -> None:
            while not stop.wait(0.2):
                threads.append(threading.Thread(target=self.send))
                threads[-1].start()

        starter = threading.Thread(target=start)
        starter.start()
        try:
            yield
        finally:
            stop.set()
            starter.join()
            for thread in threads:
                thread.join()
