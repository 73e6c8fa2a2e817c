#!/usr/bin/python
"""Read in one go what a role must know of a host before it changes it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
short_description: Read in one go what a role must know of a host before it changes it
description:
  - Packages and their versions, accounts, small files, the address that the SSH session comes from, the container
    type, the clock, memory and cores, and the network interface that carries an address. Fresh at each run, where
    cached facts may be old.
  - Run it without become, else sudo hides the SSH session.
options:
  packages:
    description: Debian packages to look up.
    type: list
    elements: str
    default: []
  accounts:
    description: Accounts to look up.
    type: list
    elements: str
    default: []
  files:
    description: Text files to read, no secrets.
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
- name: Look at the host
  slipway.platform.host_info:
    packages: [nginx]
    address: 10.40.1.10
  become: false
  register: host
"""

RETURN = r"""
packages:
  description: Version of each package asked for, null where it is not installed.
  returned: always
  type: dict
accounts:
  description: Login shell of each account asked for, null where there is none.
  returned: always
  type: dict
files:
  description: Content of each file asked for, null where there is none.
  returned: always
  type: dict
container:
  description: Kind of container as systemd-detect-virt names it, V(none) on a machine of its own.
  returned: always
  type: str
login:
  description: The user of this session, and client address and server port of the SSH session (null without one).
  returned: always
  type: dict
clock:
  description: Seconds since the epoch by the host's clock.
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
  description: Name and MTU of the interface that carries the address, null where none does.
  returned: always
  type: dict
"""

import json
import os
import pwd
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def installed_versions(wanted: list[str], output: str) -> dict[str, str | None]:
    """Read `dpkg-query --show` with the format "status package version"."""
    found: dict[str, str | None] = dict.fromkeys(wanted)
    for line in output.splitlines():
        status, package, version = [*line.split(" "), "", ""][:3]
        if status == "installed" and package in found:
            found[package] = version
    return found


def shell_of(account: str) -> str | None:
    """Look up an account's login shell."""
    try:
        return pwd.getpwnam(account).pw_shell
    except KeyError:
        return None


def content_of(path: str) -> str | None:
    """Read a file, if there is one."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def session(environment: Mapping[str, str], user: str) -> dict[str, Any]:
    """Read SSH_CONNECTION: client address, client port, server address, server port."""
    parts = environment.get("SSH_CONNECTION", "").split()
    if len(parts) != 4:
        return {"user": user, "address": None, "port": None}
    return {"user": user, "address": parts[0].removeprefix("::ffff:").split("%")[0], "port": int(parts[3])}


def carrying(address: str, output: str) -> dict[str, Any] | None:
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
            "address": {"type": "str"},
        },
        supports_check_mode=True,
    )
    wanted = module.params["packages"]
    packages: dict[str, str | None] = {}
    if wanted:
        # dpkg-query exits 1 when it does not know one of them; the others are told all the same.
        status = "${db:Status-Status} ${Package} ${Version}\n"
        _code, out, _err = module.run_command(["dpkg-query", "--show", "--showformat", status, *wanted])
        packages = installed_versions(wanted, out)
    # systemd-detect-virt exits 1 for "none".
    _code, container, _err = module.run_command(["systemd-detect-virt", "--container"])
    interface = None
    if module.params["address"]:
        code, out, err = module.run_command(["ip", "-json", "address", "show"])
        if code != 0:
            module.fail_json(msg=f"The network interfaces cannot be read: {err.strip() or out.strip()}")
        interface = carrying(module.params["address"], out)
    module.exit_json(
        changed=False,
        packages=packages,
        accounts={name: shell_of(name) for name in module.params["accounts"]},
        files={path: content_of(path) for path in module.params["files"]},
        container=container.strip() or "none",
        login=session(os.environ, pwd.getpwuid(os.getuid()).pw_name),
        clock=int(time.time()),
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        cores=len(os.sched_getaffinity(0)),
        interface=interface,
    )


if __name__ == "__main__":
    main()
