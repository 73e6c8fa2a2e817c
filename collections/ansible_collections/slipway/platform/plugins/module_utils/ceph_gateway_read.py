"""Read the object gateways of a cluster: service specification, daemons and presented certificates."""

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
MARKER_PREFIX = "slipway/object_gateway/"
"""Config-keys with the digest of the settings that each gateway was started with."""
COMMANDS = [
    ["orch", "ls", "rgw", "--export"],
    ["orch", "ps", "--daemon_type", "rgw"],
    ["config", "dump"],
    ["config-key", "dump", MARKER_PREFIX],
]


def read_presented_digest(address: str, port: int) -> str | None:
    """Digest of the certificate presented over TLS 1.3; None without a TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The digest is compared with that of the stored certificate, which is stricter than a verified chain.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        with (
            socket.create_connection((address, port), timeout=PROBE_SECONDS) as raw,
            context.wrap_socket(raw) as channel,
        ):
            certificate = channel.getpeercert(binary_form=True)
    except OSError:
        return None
    return hashlib.sha256(certificate or b"").hexdigest()


def read_config_key(cluster: Cluster, key: str) -> str:
    """Value of a config-key, empty without one."""
    answer = cluster.execute([["config-key", "get", key]], strict=False)[0]
    return "" if answer["code"] else str(answer["output"])


def parsed(answer: dict[str, Any]) -> Any:
    """The JSON output of a command. The orchestrator prints a sentence for an empty list, even with --format json."""
    text = str(answer["output"]).strip()
    return [] if text.startswith("No ") else json.loads(text or "[]")


def read(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], *, fresh: bool = False) -> Found:
    commands = [*COMMANDS]
    if fresh:
        commands[1] = [*commands[1], "--refresh"]
    services, daemons, config, keys = (parsed(answer) for answer in cluster.execute(commands, json_wanted=True))
    with ThreadPoolExecutor(8) as pool:
        presented = dict(
            zip(
                addresses,
                pool.map(lambda host: read_presented_digest(addresses[host], wanted.port), addresses),
                strict=True,
            )
        )
    return found_from(
        wanted,
        services=services or [],
        daemons=daemons or [],
        config=config,
        certificate=read_config_key(cluster, wanted.certificate_key),
        markers={key.removeprefix(MARKER_PREFIX): str(value) for key, value in dict(keys).items()},
        presented=presented,
    )
