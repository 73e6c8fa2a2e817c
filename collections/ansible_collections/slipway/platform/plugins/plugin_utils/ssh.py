"""Errors of SSH that do not pass by waiting, each with a sentence of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.output import error_line

AUTHENTICATION_SECONDS = 10.0
"""An image whose SSH server starts before cloud-init has written the keys rejects them for so long at most."""


@dataclass(frozen=True)
class Kind:
    """A kind of permanent error: how SSH reports it, what is wrong, and what to do, formatted with the target."""

    pattern: str
    fault: str
    remedy: str
    after_seconds: float = 0.0
    """Permanent only if it is reported for so long without a break."""


KINDS = (
    Kind(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|key is (?:revoked|unknown)",
        "its SSH host key is not the one in {known_hosts}",
        "If the server was rebuilt, restored or started in the rescue system, remove the old key with "
        "ssh-keygen -R {alias} -f {known_hosts}, and run again; otherwise another machine answers at this address",
    ),
    Kind(
        r"Too many authentication failures",
        "the SSH server ended the login of {user} after too many keys of the SSH agent",
        "Set ansible_ssh_private_key_file, so that no other key is offered, or remove keys from the agent",
    ),
    Kind(
        r"UNPROTECTED PRIVATE KEY FILE|Load key \S+ .*|no such identity|identity file .* not accessible",
        "the SSH private key {key} cannot be used",
        "Correct ansible_ssh_private_key_file, or the owner (this user) and mode (0600) of the file",
    ),
    Kind(
        r"connect to host \S+ port \d+: (?:Permission denied|Operation not permitted)",
        "a firewall of this machine rejects connections to port {port}",
        "Allow outgoing SSH on the controller",
    ),
    Kind(
        r"Permission denied \(|Permission denied, please try again|Authentication failed",
        "the SSH server rejects the login of {user} with {key}",
        "Use the private half of a key in platform_admin_public_keys (ansible_ssh_private_key_file or an SSH agent); a "
        "server gets the keys when it is created, and from playbooks/base.yml",
        AUTHENTICATION_SECONDS,
    ),
    Kind(
        r"Could not resolve hostname",
        "no address is known",
        "Check that the project of HCLOUD_TOKEN has a server of this name, and warnings of the inventory above; "
        "playbooks/provision.yml creates it",
    ),
    Kind(
        r"Network is unreachable|Address family not supported",
        "this machine has no route to {address}",
        "Run from a machine with {family}, or give the server an address that this machine can reach",
    ),
    Kind(
        r"no matching (?:host key type|key exchange method|cipher|MAC) found",
        "this machine's OpenSSH and the server's share no algorithm",
        "Upgrade OpenSSH on the controller",
    ),
    Kind(
        r"Bad owner or permissions on|Bad configuration option|bad configuration options?$|command-line:? line \d+"
        r"|too long for Unix domain socket",
        "this machine's SSH settings are not valid",
        "Correct ~/.ssh/config or ansible_ssh_common_args",
    ),
    Kind(
        r"sudo: a password is required|Missing sudo password|is not in the sudoers file",
        "{user} may not become root without a password",
        "Log in as platform_admin_user, or give the account NOPASSWD in sudoers",
    ),
)


class LoginError(Exception):
    """A login that failed; `permanent` if waiting does not help. The text is one sentence and a remedy."""

    def __init__(self, text: str, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


def kind_of(output: str) -> Kind | None:
    """The kind of a permanent error; None for one that may pass."""
    return next((kind for kind in KINDS if re.search(kind.pattern, output)), None)


def target_of(name: str, variables: Mapping[str, Any], option: Mapping[str, Any]) -> dict[str, str]:
    """What the texts name, from the host's variables and the options of the connection."""
    arguments = " ".join(str(option.get(key) or "") for key in ("ssh_args", "ssh_common_args", "ssh_extra_args"))
    known_hosts = re.search(r"UserKnownHostsFile=(?:\"([^\"]+)\"|([^\s'\"]+))", arguments)
    alias = re.search(r"HostKeyAlias=([^\s'\"]+)", arguments)
    address = str(variables.get("ansible_host") or name)
    return {
        "host": name if address == name else f"{name} ({address})",
        "address": address,
        "family": "IPv6" if ":" in address else "IPv4",
        "user": str(option.get("remote_user") or "this user"),
        "key": str(option.get("private_key_file") or "the keys of the SSH agent"),
        "port": str(option.get("port") or 22),
        "known_hosts": next(filter(None, known_hosts.groups())) if known_hosts else "~/.ssh/known_hosts",
        "alias": alias.group(1) if alias else address,
    }


def login_error(output: str, target: Mapping[str, str], lasted_seconds: float) -> LoginError:
    """The error of an attempt; `lasted_seconds` since this kind of error was first reported."""
    kind = kind_of(output)
    line = reported(output, kind.pattern if kind else "")
    if kind is None or lasted_seconds < kind.after_seconds:
        return LoginError(f"SSH does not answer ({line})")
    fault, remedy = kind.fault.format_map(target), kind.remedy.format_map(target)
    return LoginError(f"{target['host']}: {fault} ({line}). {remedy}.", permanent=True)


def reported(output: str, pattern: str) -> str:
    """The line of the pattern, or of the first error, without SSH's frames and Ansible's introduction."""
    text = re.sub(
        r"^(?:Failed to connect to the host via ssh|Data could not be sent to remote host[^:]*): *", "", output.strip()
    )
    lines = [line.strip("@ \r") for line in text.splitlines() if line.strip("@ \r\t")]
    line = next((line for line in lines if pattern and re.search(pattern, line)), error_line("\n".join(lines)))
    return " ".join(line.split()).rstrip(".")
