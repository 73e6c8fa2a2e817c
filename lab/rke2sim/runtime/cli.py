"""The command `rke2` of the simulated release."""

from __future__ import annotations

import asyncio
import platform
import sys

from . import config, log
from .layout import Layout, Release
from .log import Fatal

USAGE = """NAME:
   rke2 - Rancher Kubernetes Engine 2 (simulation)

USAGE:
   rke2 [global options] command [command options]

COMMANDS:
   server           Run management server
   agent            Run node agent
   etcd-snapshot    Manage etcd snapshots: save, ls, delete, prune
   certificate      Check certificates: check
   secrets-encrypt  Print the status of secrets encryption: status
   token            Generate a token: generate

GLOBAL OPTIONS:
   --help, -h     show help
   --version, -v  print the version
"""


def version_text(release: Release) -> str:
    return (
        f"rke2 version {release.version} ({release.commit})\n"
        f"simulation of RKE2 for the lab with real Kubernetes, python {platform.python_version()}\n"
    )


def unsupported(command: str) -> Fatal:
    return Fatal(f"the simulation of RKE2 does not support {command!r}: no role of the platform uses it")


def dispatch(arguments: list[str], release: Release) -> int:
    words = list(arguments)
    if not words or words[0] in ("help", "-h", "--help", "h"):
        print(USAGE, end="")
        return 0
    if words[0] in ("--version", "-v", "version"):
        print(version_text(release), end="")
        return 0
    if words[0] == "--debug":
        words.pop(0)
    command, rest = words[0], words[1:]
    match command:
        case "server":
            settings = config.load("server", rest)
            if settings.flag("cluster-reset"):
                from . import reset

                return asyncio.run(reset.run(settings, release))
            if settings.text("cluster-reset-restore-path"):
                raise Fatal("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
            from . import server

            asyncio.run(server.run(settings, release))
        case "agent":
            from . import agent

            asyncio.run(agent.run(config.load("agent", rest), release))
        case "etcd-snapshot":
            from . import snapshots

            return snapshots.command(rest)
        case "token":
            from . import tokens

            if rest[:1] != ["generate"]:
                raise unsupported(" ".join(["token", *rest[:1]]))
            print(tokens.generate())
        case "certificate":
            from . import certificates

            if rest[:1] != ["check"]:
                raise unsupported(" ".join(["certificate", *rest[:1]]))
            certificates.check(Layout(config.load("server", [], lenient=True).data_dir), rest[1:])
        case "secrets-encrypt":
            from . import certificates

            if rest != ["status"]:
                raise unsupported(" ".join(["secrets-encrypt", *rest]))
            certificates.encryption_status(config.load("server", [], lenient=True))
        case "completion":
            raise unsupported("completion")
        case _:
            print(f"No help topic for '{command}'", file=sys.stderr)
            return 3
    return 0


def main(release: str) -> int:
    try:
        return dispatch(sys.argv[1:], Release.load(release))
    except Fatal as fault:
        log.fatal(f"Error: {fault}")
        return 1
    except KeyboardInterrupt:
        return 130
