"""Ansible module: probe endpoints and closed ports of the platform from outside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Probe endpoints and closed ports and return findings
description:
  - Runs all probes at the same time from the host it runs on, usually the controller. Read-only, except for
    O(probes[].write).
  - Returns findings and does not fail; the caller collects all findings and fails once.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only, also where O(probes[].write) is set.
options:
  probes:
    type: list
    elements: dict
    required: true
    description: The probes.
    options:
      name:
        type: str
        required: true
        description: Name under which the result is returned.
      kind:
        type: str
        required: true
        choices: [https, redirect, tls_refused, open, ping, closed, api, postgres]
        description:
          - V(https) answers over TLS 1.3 with a certificate of the authority, V(redirect) redirects HTTP to HTTPS,
            V(tls_refused) rejects TLS 1.2 by the alert protocol_version, V(open) accepts a connection, V(closed)
            refuses or drops it, V(api) is a ready Kubernetes API with its nodes Ready, V(postgres) answers clients of
            PostgreSQL over TLS 1.3 with a certificate of the authority.
          - Probe a control on the same address as V(closed), a port with V(open) or the host with V(ping) (needs root);
            a host that is down answers on no port.
      address:
        type: str
        description: Address to connect to, an empty one is a finding; not for V(api).
      port:
        type: int
        description: Port to connect to; not for V(api) and V(ping).
      source:
        type: str
        description: Name of the host that runs the probe, for findings; empty for one outside.
      server_name:
        type: str
        description: Server name to request.
      path:
        type: str
        default: /
        description: Path to request.
      statuses:
        type: list
        elements: int
        default: [200]
        description: Expected HTTP statuses.
      authority:
        type: str
        description: Certificate of the authority, PEM.
      valid_days:
        type: int
        default: 0
        description: Minimum remaining validity of the certificate in days, for V(https) and V(postgres).
      kubeconfig:
        type: path
        description: Kubeconfig for V(api).
      nodes:
        type: list
        elements: str
        description: Names of all nodes, for V(api).
      version:
        type: str
        description: Version of RKE2 that all nodes run, for V(api).
      write:
        type: bool
        default: false
        description:
          - Whether V(api) also creates a ConfigMap C(slipway-verify) in the namespace kube-system, and deletes it. Not
            in check mode.
  timeout_seconds:
    type: int
    default: 5
    description: Seconds that each probe may take.
  settle_seconds:
    type: int
    default: 0
    description: Seconds during which failing probes are repeated.
"""

EXAMPLES = r"""
- name: Probe the platform
  slipway.platform.probe:
    probes:
      - name: SSH of server 1
        kind: open
        address: 203.0.113.7
        port: 22
      - name: etcd of server 1
        kind: closed
        address: 203.0.113.7
        port: 2379
  register: endpoint_probe
"""

RETURN = r"""
findings:
  description: One sentence for each failed probe.
  returned: always
  type: list
results:
  description: Results by name of the probe.
  returned: always
  type: dict
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.probes import run
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "kind": {
                        "type": "str",
                        "required": True,
                        "choices": ["https", "redirect", "tls_refused", "open", "ping", "closed", "api", "postgres"],
                    },
                    "address": {"type": "str"},
                    "port": {"type": "int"},
                    "source": {"type": "str"},
                    "server_name": {"type": "str"},
                    "path": {"type": "str", "default": "/"},
                    "statuses": {"type": "list", "elements": "int", "default": [200]},
                    "authority": {"type": "str"},
                    "valid_days": {"type": "int", "default": 0},
                    "kubeconfig": {"type": "path"},
                    "nodes": {"type": "list", "elements": "str"},
                    "version": {"type": "str"},
                    "write": {"type": "bool", "default": False},
                },
                "required_if": [
                    ("kind", "https", ["address", "port", "server_name", "authority"]),
                    ("kind", "redirect", ["address", "port", "server_name"]),
                    ("kind", "tls_refused", ["address", "port", "server_name", "authority"]),
                    ("kind", "open", ["address", "port"]),
                    ("kind", "ping", ["address"]),
                    ("kind", "closed", ["address", "port"]),
                    ("kind", "api", ["kubeconfig", "nodes", "version"]),
                    ("kind", "postgres", ["address", "port", "server_name", "authority"]),
                ],
            },
            "timeout_seconds": {"type": "int", "default": 5},
            "settle_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    for probe in module.params["probes"] if module.check_mode else ():
        probe["write"] = False
    try:
        findings, results = wait_until(
            "Probes",
            lambda: run(module.params["probes"], module.params["timeout_seconds"]),
            lambda outcome: outcome[0],
            timeout_seconds=module.params["settle_seconds"],
            interval_seconds=2,
        )
    except NotMet as error:
        findings, results = error.value
    module.exit_json(changed=False, findings=findings, results=results)


if __name__ == "__main__":
    main()
