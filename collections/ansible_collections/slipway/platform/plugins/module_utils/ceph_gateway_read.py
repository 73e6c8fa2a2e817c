"""Read the object gateways of a cluster: what is declared to the orchestrator, what runs and what it presents."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_object_gateways import Found, Wanted, found_from

PROBE_SECONDS = 10.0
NOTE = "slipway/object_gateway/"
"""What each gateway was started with is noted in the cluster itself."""
QUESTIONS = [
    ["orch", "ls", "rgw", "--export"],
    ["orch", "ps", "--daemon_type", "rgw"],
    ["config", "dump"],
    ["config-key", "dump", NOTE],
]


def presented(address: str, port: int) -> str | None:
    """Digest of the certificate that somebody presents over TLS 1.3; None when nobody does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Whose certificate it is, is told by comparing it with the stored one, which is stricter than its chain.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with (
            socket.create_connection((address, port), timeout=PROBE_SECONDS) as raw,
            context.wrap_socket(raw) as channel,
        ):
            shown = channel.getpeercert(binary_form=True)
    except OSError:
        return None
    return hashlib.sha256(shown or b"").hexdigest()


def stored(cluster: Cluster, key: str) -> str:
    """A text that the monitors keep, empty when they do not."""
    answer = cluster.ask([["config-key", "get", key]], strict=False)[0]
    return "" if answer["code"] else str(answer["output"])


def parsed(answer: dict[str, Any]) -> Any:
    """The orchestrator has a sentence for an empty list, also where JSON was asked for."""
    text = str(answer["output"]).strip()
    return [] if text.startswith("No ") else json.loads(text or "[]")


def read(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], *, fresh: bool = False) -> Found:
    questions = [*QUESTIONS]
    if fresh:
        questions[1] = [*questions[1], "--refresh"]
    services, daemons, config, keys = (parsed(answer) for answer in cluster.ask(questions, json_wanted=True))
    with ThreadPoolExecutor(8) as pool:
        shown = dict(
            zip(addresses, pool.map(lambda host: presented(addresses[host], wanted.port), addresses), strict=True)
        )
    return found_from(
        wanted,
        services=services or [],
        daemons=daemons or [],
        config=config,
        certificate=stored(cluster, wanted.certificate_key),
        notes={key.removeprefix(NOTE): str(value) for key, value in dict(keys).items()},
        presented=shown,
    )
