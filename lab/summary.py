"""The output of `lab status` and the summary of `lab up`.

Pure functions: values in, rich renderables out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.settings import Settings

Fields = Mapping[str, Any]

STATES = {"running": "green", "off": "red", "initializing": "yellow", "starting": "yellow", "stopping": "yellow"}


def seconds_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


@dataclass(frozen=True, slots=True)
class Platform:
    """Endpoints of the site."""

    name: str
    """A public name of the site."""
    ca_path: Path
    """The certificate of the site's CA."""
    store_endpoint: str = ""
    """URL of the object storage with its backups."""
    bucket: str = ""


STORE_GROUP = "object_storage"


# lab status


def status(description: Fields, cloud: Fields, platform: Platform | None = None) -> RenderableType:
    """The whole of `lab status`."""
    parts: list[RenderableType] = [_heading(description, cloud)]
    parts.append(servers(cloud["servers"]) if cloud["servers"] else _dim("No servers."))
    if cloud.get("networks"):
        parts.append(_networks(cloud["networks"]))
    if platform and (store_address := store(cloud)):
        parts.append(Text.assemble(("object storage  ", "dim"), _store_text(platform, store_address)))
    if any(cloud["counts"].values()):
        parts.append(_dim(" · ".join(_counted(count, kind) for kind, count in cloud["counts"].items() if count)))
    if cloud.get("faults"):
        parts.append(faults(cloud["faults"]))
    if cloud.get("problems"):
        parts.append(Text("\n".join(f"! {problem}" for problem in cloud["problems"][-5:]), style="red"))
    parts.append(_origins(description))
    return Group(*_spaced(parts))


def servers(rows: Sequence[Fields]) -> Table:
    table = _table("server", "state", "public address", "private", "type", "volumes")
    for row in sorted(rows, key=lambda row: str(row["name"])):
        state = str(row["status"])
        table.add_row(
            Text(str(row["name"]), style="bold"),
            Text(f"● {state}", style=STATES.get(state, "yellow")),
            address(row) or "-",
            "\n".join(row["private"].values()) or "-",
            f"{row['type']}, {row['location']}",
            "\n".join(row["volumes"]),
        )
    return table


def address(server: Fields) -> str | None:
    """Public address of a server: IPv4, else the host's address in its IPv6 network."""
    public = server["public"]
    if public.get("ipv4"):
        return str(public["ipv4"])
    if public.get("ipv6"):
        return str(IPv6Network(public["ipv6"], strict=False)[1])
    return None


def store(cloud: Fields) -> str | None:
    """Address of the object storage, if there is one."""
    for row in cloud["servers"]:
        if row["labels"].get("slipway_group") == STORE_GROUP:
            return address(row)
    return None


def _store_text(platform: Platform, store_address: str) -> str:
    return f"{platform.store_endpoint}, at {store_address}, bucket {platform.bucket}"


def _networks(rows: Sequence[Fields]) -> Table:
    table = _table("network", "range", "servers")
    for row in rows:
        table.add_row(str(row["name"]), str(row["ip_range"]), str(row["members"]))
    return table


def faults(rows: Sequence[Fields]) -> RenderableType:
    """The faults in force; `lab fault clear` clears them."""
    if not rows:
        return _dim("No faults.")
    table = _table("no.", "fault", "parameters", "left")
    for row in rows:
        parameters = " ".join(
            f"{key}={value}" for key, value in row.items() if key not in {"id", "kind", "left"} and value
        )
        left = row.get("left")
        table.add_row(
            str(row.get("id", "")),
            Text(str(row["kind"]), style="yellow"),
            parameters,
            "until cleared" if left is None else str(left),
        )
    return table


def _heading(description: Fields, cloud: Fields) -> Text:
    return Text.assemble(
        ("lab ", "dim"),
        (str(description["name"]), "bold"),
        ("  API ", "dim"),
        str(description["api_endpoint"]),
        (f"  daemon {cloud['memory_mb']:.0f} MB", "dim"),
        (f"  registry {description['ceph']['registry']}" if "ceph" in description else "", "dim"),
        ("  reconciling …" if cloud.get("reconciling") else "", "yellow"),
    )


# The summary of lab up


def newest_report(artifacts: Path, since: float = 0.0) -> Fields | None:
    """The run report of the last site.yml since then, or None."""
    reports = []
    for path in artifacts.glob("*/run.json"):
        if path.stat().st_mtime < since:
            continue
        with contextlib.suppress(ValueError):
            report = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(report, dict) and report.get("playbook") == "site":
                reports.append((path.stat().st_mtime, report))
    return max(reports, key=lambda pair: pair[0], default=(0.0, None))[1]


def page(
    description: Fields,
    cloud: Fields,
    report: Fields | None,
    *,
    settings: Settings,
    seconds: float,
    platform: Platform | None,
) -> RenderableType:
    """Hosts, addresses, commands, times, and what is simulated."""
    title = "The platform is running" if platform else "The local cloud is running"
    parts: list[RenderableType] = [
        Text.assemble((title, "bold green"), (f"  after {seconds_text(seconds)}", "dim")),
    ]
    if cloud["servers"]:
        parts.append(servers(cloud["servers"]))
    parts.append(_access(description, cloud, settings, platform))
    if report:
        parts.append(_times(report))
    parts.append(_origins(description))
    return Padding(Group(*_spaced(parts)), (1, 0, 0, 0))


def _access(description: Fields, cloud: Fields, settings: Settings, platform: Platform | None) -> Table:
    names = sorted(str(server["name"]) for server in cloud["servers"])
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    balancers = [server for server in cloud["servers"] if "-lb-" in str(server["name"]) and address(server)]
    if platform and balancers:
        balancer = address(balancers[0])
        kubeconfig = settings.state_dir / "ansible" / "kubeconfig"
        grid.add_row("platform", f"https://{platform.name}/, at {balancer}")
        grid.add_row(
            "",
            f"curl --cacert {platform.ca_path} --resolve {platform.name}:443:{balancer} https://{platform.name}/",
        )
        grid.add_row("Kubernetes", f"https://{balancer}:6443")
        grid.add_row("kubeconfig", str(kubeconfig))
        grid.add_row("", f"kubectl --kubeconfig {kubeconfig} get nodes")
    if platform and (store_address := store(cloud)):
        grid.add_row("object storage", _store_text(platform, store_address))
        grid.add_row("", f"keys: object_storage_* in {settings.state_dir / 'secrets.yml'}, CA: {platform.ca_path}")
    prefix = "" if settings == Settings() else f"SLIPWAY_LAB={settings.name} SLIPWAY_LAB_SLOT={settings.slot} "
    if names:
        grid.add_row("log in", f"{prefix}lab ssh {names[0]}")
    grid.add_row("cloud API", str(description["api_endpoint"]))
    grid.add_row("clients", f'eval "$({prefix}lab env)"; hcloud server list')
    if ceph := description.get("ceph"):
        grid.add_row("images", f"https://{ceph['registry']}/ (Ceph {ceph['version']})")
    grid.add_row("status, remove", f"{prefix}lab status · {prefix}lab logs -f · {prefix}lab down")
    return grid


def _times(report: Fields) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    table.add_column("phase")
    table.add_column("time", justify="right")
    table.add_column("changed", justify="right")
    for phase in report.get("phases", ()):
        changed = phase.get("changed")
        table.add_row(
            str(phase["name"]), seconds_text(float(phase["seconds"])), "" if changed is None else str(changed)
        )
    return table


def _origins(description: Fields) -> RenderableType:
    """Sources of the software of the hosts, and what is simulated."""
    rke2 = description["rke2"]
    notes = [Text(str(rke2["note"]), style="yellow" if rke2["source"] == "simulation" else "dim")]
    if ceph := description.get("ceph"):
        notes.append(_dim(str(ceph["note"])))
    if (charts := description.get("charts")) and charts["note"]:
        notes.append(Text(str(charts["note"]), style="yellow" if "simulation" in charts["note"] else "dim"))
    if gitlab := description.get("gitlab"):
        notes.append(Text(str(gitlab["note"]), style="yellow"))
    if images := description.get("images"):
        notes.append(_dim(str(images["note"])))
    return Group(*notes)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind.replace('_', ' ')}{'' if count == 1 else 's'}"


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _spaced(parts: Sequence[RenderableType]) -> list[RenderableType]:
    """The parts with an empty line between them."""
    spaced: list[RenderableType] = []
    for part in parts:
        spaced += [part, Text()]
    return spaced[:-1]
