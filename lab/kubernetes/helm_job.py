#!/usr/bin/python3
"""The program of a helm job's container: runs helm with the arguments, variables and mounts of helm-controller.

In place of klipper-helm's script, with the same outcome for every status of a release. Not done: helm-mapkubeapis.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/config")
CONTENT = Path("/chart")
AUTHORITIES = Path("/ca-files")
AUTH = Path("/auth")
TEMPORARY = Path("/tmp")
TERMINATION_LOG = Path("/dev/termination-log")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HASH_LABEL = "helmcharts.helm.cattle.io/configHash"
INTERRUPTED = ("pending-install", "pending-upgrade", "pending-rollback", "superseded", "uninstalling")
UPGRADED_AGAIN = ("pending-upgrade", "superseded")


def report(text: str) -> None:
    print(text, flush=True)
    with TERMINATION_LOG.open("a") as file:
        file.write(f"{text}\n")


def helm(*words: str, text: str | None = None) -> None:
    subprocess.run(["helm", *words], check=True, input=text, text=True)


def main(words: Sequence[str]) -> int:
    action, arguments = words[0], list(words[1:])
    name, namespace = os.environ["NAME"], os.environ["TARGET_NAMESPACE"]
    in_namespace = ["--namespace", namespace]
    status, revision = read_release(name, namespace)
    expected = os.environ.get("EXPECTED_RELEASE_REVISION", "")
    if revision and expected and expected != str(revision):
        report(f"Current release revision {revision} does not match expected revision {expected}")
        return 0
    if action == "delete":
        if revision:
            report("Uninstalling helm chart")
            helm("uninstall", name, *in_namespace, "--wait")
        else:
            report("No helm chart installed; nothing to delete")
        return 0
    trust = authorities()
    target = [name, chart(name, trust), *trust, *options(), *values()]
    if not revision:
        report("Installing helm chart")
        helm("install", *arguments, *target)
        return 0
    if status in INTERRUPTED:
        report(f"Resetting helm release status from '{status}' to 'failed'")
        set_failed(name, namespace, revision)
        status = "deployed" if status in UPGRADED_AGAIN else "failed"
    policy = "retry" if status == "deployed" else os.environ.get("FAILURE_POLICY") or "reinstall"
    if policy == "abort":
        report(f"Release status is '{status}' and failure policy is 'abort'; waiting for operator intervention")
        return 1
    if policy == "reinstall":
        report(f"Uninstalling {status} helm chart")
        helm("uninstall", name, *in_namespace, "--wait")
        report("Installing helm chart")
        helm("install", *arguments, *target)
        return 0
    report(f"Upgrading {name} from status {status}")
    helm("upgrade", *arguments, *target)
    return 0


def read_release(name: str, namespace: str) -> tuple[str, int]:
    """Status and revision of the release; revision 0 without one."""
    shown = subprocess.run(
        ["helm", "status", name, "--namespace", namespace, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode:
        if "release: not found" in shown.stderr:
            return "", 0
        raise SystemExit(f"helm status of {name} failed: {shown.stderr.strip()}")
    release = json.loads(shown.stdout)
    return release["info"]["status"], int(release["version"])


def authorities() -> list[str]:
    paths = [path for path in (CONFIG / "ca-file.pem", *sorted(AUTHORITIES.glob("*"))) if path.is_file()]
    if not paths:
        return []
    bundle = TEMPORARY / "ca-file.pem"
    bundle.write_text("\n".join(path.read_text() for path in paths))
    return ["--ca-file", str(bundle)]


def switches() -> list[str]:
    return ["--insecure-skip-tls-verify"] if os.environ.get("INSECURE_SKIP_TLS_VERIFY") == "true" else []


def options() -> list[str]:
    timeout, digest = os.environ.get("TIMEOUT", ""), os.environ.get("CONFIG_HASH", "")
    plain = ["--plain-http"] if os.environ.get("PLAIN_HTTP") == "true" else []
    return [
        *switches(), *plain, *(["--timeout", timeout] if timeout else []),
        *(["--labels", f"{HASH_LABEL}={digest}"] if digest else []),
    ]  # fmt: skip


def values() -> list[str]:
    return [word for path in sorted(CONFIG.glob("*.yaml")) for word in ("--values", str(path))]


def chart(name: str, trust: list[str]) -> str:
    """The chart as helm takes it: the archive of chartContent, a URL, or a name in a repository that is added here."""
    content = CONTENT / f"{name}.tgz.base64"
    if content.is_file():
        archive = TEMPORARY / f"{name}.tgz"
        archive.write_bytes(base64.b64decode(content.read_text()))
        return str(archive)
    wanted = os.environ["CHART"].replace(
        "%{KUBERNETES_API}%",
        f"{os.environ.get('KUBERNETES_SERVICE_HOST', '')}:{os.environ.get('KUBERNETES_SERVICE_PORT', '')}",
    )
    if "://" not in wanted and (repository := os.environ.get("REPO")):
        credentials, password = [], None
        if (AUTH / "username").is_file():
            password = (AUTH / "password").read_text()
            credentials = ["--username", (AUTH / "username").read_text(), "--password-stdin"]
        elif (AUTH / "tls.crt").is_file():
            credentials = ["--cert-file", str(AUTH / "tls.crt"), "--key-file", str(AUTH / "tls.key")]
        if credentials and os.environ.get("AUTH_PASS_CREDENTIALS") == "true":
            credentials.append("--pass-credentials")
        helm("repo", "add", *trust, *switches(), *credentials, name, repository, text=password)
    return wanted


def failed(release: str) -> str:
    """A release as helm stores it, with the status failed."""
    content = json.loads(gzip.decompress(base64.b64decode(release)))
    content["info"]["status"] = "failed"
    return base64.b64encode(gzip.compress(json.dumps(content).encode(), mtime=0)).decode()


def set_failed(name: str, namespace: str, revision: int) -> None:
    """Mark an interrupted operation as failed, so that helm accepts a new one."""
    kind = "configmaps" if os.environ.get("HELM_DRIVER") == "configmap" else "secrets"
    path = f"/api/v1/namespaces/{namespace}/{kind}/sh.helm.release.v1.{name}.v{revision}"
    stored = call("GET", path)
    release = stored["data"]["release"]
    if kind == "secrets":
        release = base64.b64encode(failed(base64.b64decode(release).decode()).encode()).decode()
    else:
        release = failed(release)
    stored["data"]["release"] = release
    stored["metadata"]["labels"]["status"] = "failed"
    call("PUT", path, stored)


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port}{path}", method=method, data=None if body is None else json.dumps(body).encode()
    )
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
    request.add_header("Content-Type", "application/json")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # RKE2's authorities lack the key usage that it requires
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
