#!/usr/bin/python
"""Collect the state of a host that a role needs before its changes."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
short_description: Collect the state of a host that a role needs before its changes
description:
  - Packages and their versions, accounts, small files, private keys by their public half, the address that the SSH
    session comes from, the container type, the clock, memory and cores, and the network interface with a given
    address. Read at each run, unlike cached facts.
  - Run it without become if the SSH session is needed, because sudo hides it.
options:
  packages:
    description: Debian packages to look up. With any, packages whose installation is unfinished are returned too.
    type: list
    elements: str
    default: []
  accounts:
    description: Accounts to look up.
    type: list
    elements: str
    default: []
  files:
    description: Text files to read. No secrets.
    type: list
    elements: path
    default: []
  file_globs:
    description: Patterns of absolute paths of text files to read. No secrets.
    type: list
    elements: str
    default: []
  globs:
    description: Patterns of absolute paths to look up, with C(*) and C(?) as in a shell.
    type: list
    elements: str
    default: []
  private_keys:
    description: Files of private keys to describe. The keys are not returned.
    type: list
    elements: path
    default: []
  sensitive_files:
    description: Files to describe by a digest. Their content is not returned.
    type: list
    elements: path
    default: []
  address:
    description: Address whose network interface is looked up.
    type: str
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reads only.}
  diff_mode: {support: none, description: Reads only.}
"""

EXAMPLES = r"""
- name: Collect the state of the host
  slipway.platform.host_info:
    packages: [nginx]
    address: 10.40.1.10
  become: false
  register: host
"""

RETURN = r"""
packages:
  description: Version of each package, null where it is not installed.
  returned: always
  type: dict
unfinished_packages:
  description: >-
    Sorted names of packages whose installation was interrupted, and V(dpkg) if dpkg itself was; empty without
    O(packages).
  returned: always
  type: list
  elements: str
accounts:
  description: Login shell of each account, null where there is none.
  returned: always
  type: dict
files:
  description: Content of each file, null where there is none, and of each file that O(file_globs) match.
  returned: always
  type: dict
globs:
  description: Sorted paths that match each pattern.
  returned: always
  type: dict
private_keys:
  description: >-
    Owner, group, octal mode and public key (PEM, empty where openssl cannot read the private one) of each file, null
    where there is none.
  returned: always
  type: dict
sensitive_files:
  description: SHA-256 of the content, owner, group and octal mode of each file, null where there is none.
  returned: always
  type: dict
container:
  description: Container type as systemd-detect-virt reports it, V(none) outside of a container.
  returned: always
  type: str
login:
  description:
    - The user of this session, client address and server port of the SSH session (null without one).
    - C(is_local) is whether the client is this host itself.
  returned: always
  type: dict
clock:
  description: Clock of the host in seconds since the epoch.
  returned: always
  type: int
memory_mb:
  description: Megabytes of memory.
  returned: always
  type: int
cores:
  description: Cores that this host may use.
  returned: always
  type: int
interface:
  description: Name and MTU of the interface with the address, null where there is none.
  returned: always
  type: dict
"""

import grp
import hashlib
import json
import os
import platform
import pwd
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROGRAMS = {"ip": "iproute2", "systemd-detect-virt": "systemd"}
FINISHED = frozenset({"installed", "config-files", "not-installed"})
JOURNAL = Path("/var/lib/dpkg/updates")


def installed_versions(wanted: list[str], output: str) -> tuple[dict[str, str | None], list[str]]:
    """Versions and unfinished packages from `dpkg-query --show` with the format "status flag package version"."""
    found: dict[str, str | None] = dict.fromkeys(wanted)
    unfinished = set()
    for line in output.splitlines():
        status, flag, package, version = [*line.split(" "), "", "", ""][:4]
        if status == "installed" and package in found:
            found[package] = version
        if status not in FINISHED or flag == "reinstreq":
            unfinished.add(package)
    return found, sorted(unfinished)


def dpkg_interrupted(journal: Path = JOURNAL) -> bool:
    """As apt decides it: a killed dpkg leaves numbered files."""
    return any(entry.name.isdigit() for entry in journal.glob("*"))


def shell_of(account: str) -> str | None:
    """Look up an account's login shell."""
    try:
        return pwd.getpwnam(account).pw_shell
    except KeyError:
        return None


def content_of(path: str) -> str | None:
    """Content of a file, None if it does not exist. Invalid UTF-8 is replaced, so it differs from any expected text."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def matching(pattern: str) -> list[str]:
    """Paths that match an absolute pattern."""
    return sorted(str(path) for path in Path("/").glob(pattern.removeprefix("/")))


def permissions_of(path: str) -> dict[str, str] | None:
    """Owner, group and mode of a file, None if it does not exist."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return {
        "owner": _name(lambda: pwd.getpwuid(found.st_uid).pw_name, found.st_uid),
        "group": _name(lambda: grp.getgrgid(found.st_gid).gr_name, found.st_gid),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }


def private_key_of(path: str, public_half: Callable[[str], str]) -> dict[str, str] | None:
    """Describe the file of a private key, None if it does not exist."""
    found = permissions_of(path)
    return None if found is None else {**found, "public_key": public_half(path)}


def sensitive_file_of(path: str) -> dict[str, str] | None:
    """Describe a file by a digest, None if it does not exist."""
    found = permissions_of(path)
    return None if found is None else {**found, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)


def session(environment: Mapping[str, str], user: str) -> dict[str, Any]:
    """Read SSH_CONNECTION: client address, client port, server address, server port."""
    parts = environment.get("SSH_CONNECTION", "").split()
    if len(parts) != 4:
        return {"user": user, "address": None, "port": None, "is_local": False}
    client, server = (part.removeprefix("::ffff:").split("%")[0] for part in (parts[0], parts[2]))
    # Linux connects to an address of its own from that address.
    return {"user": user, "address": client, "port": int(parts[3]), "is_local": client == server}


def interface_with(address: str, output: str) -> dict[str, Any] | None:
    """Find the interface with the address in the output of `ip -json address show`."""
    for link in json.loads(output or "[]"):
        if any(info.get("local") == address for info in link.get("addr_info", ())):
            return {"name": link["ifname"], "mtu": link["mtu"]}
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "accounts": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "file_globs": {"type": "list", "elements": "str", "default": []},
            "globs": {"type": "list", "elements": "str", "default": []},
            "private_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "sensitive_files": {"type": "list", "elements": "path", "default": []},
            "address": {"type": "str"},
        },
        supports_check_mode=True,
    )
    wanted = module.params["packages"]
    packages: dict[str, str | None] = {}
    unfinished: list[str] = []
    if wanted:
        status = "${db:Status-Status} ${db:Status-Eflag} ${Package} ${Version}\n"
        _code, out, _err = module.run_command(["dpkg-query", "--show", "--showformat", status])
        packages, unfinished = installed_versions(wanted, out)
        unfinished += ["dpkg"] if dpkg_interrupted() else []

    def public_half(path: str) -> str:
        openssl = module.get_bin_path("openssl")
        if openssl is None:
            return ""
        # The empty passphrase prevents a prompt.
        code, out, _err = module.run_command([openssl, "pkey", "-in", path, "-passin", "pass:", "-pubout"])
        return str(out) if code == 0 else ""

    # A missing program is reported with its package. systemd-detect-virt exits 1 for "none".
    for program, package in PROGRAMS.items():
        if module.get_bin_path(program, opt_dirs=["/usr/sbin", "/sbin"]) is None:
            module.fail_json(msg=f"{platform.node()}: the program {program} is missing. Install Debian's {package}.")
    _code, container, _err = module.run_command(["systemd-detect-virt", "--container"])
    interface = None
    if module.params["address"]:
        code, out, err = module.run_command(["ip", "-json", "address", "show"])
        if code != 0:
            module.fail_json(msg=f"The network interfaces cannot be read: {err.strip() or out.strip()}")
        interface = interface_with(module.params["address"], out)
    read_too = [path for pattern in module.params["file_globs"] for path in matching(pattern)]
    module.exit_json(
        changed=False,
        packages=packages,
        unfinished_packages=unfinished,
        accounts={name: shell_of(name) for name in module.params["accounts"]},
        files={path: content_of(path) for path in module.params["files"] + read_too},
        globs={pattern: matching(pattern) for pattern in module.params["globs"]},
        private_keys={path: private_key_of(path, public_half) for path in module.params["private_keys"]},
        sensitive_files={path: sensitive_file_of(path) for path in module.params["sensitive_files"]},
        container=container.strip() or "none",
        login=session(os.environ, pwd.getpwuid(os.getuid()).pw_name),
        clock=int(time.time()),
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        cores=len(os.sched_getaffinity(0)),
        interface=interface,
    )


if __name__ == "__main__":
    main()
