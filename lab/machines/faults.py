"""Faults on a host's links: cut, loss and delay, applied at the router's or network's end of the link.

A cut works in both directions; loss and delay apply to packets towards the host, so that ping measures the configured
value. netem delays where the kernel has it; otherwise packets wait in a queue of this process (without the process:
no delay, no loss).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from lab.machines import namespaces
from lab.machines.base import Fault, MachineError
from lab.machines.commands import run, succeeds
from lab.machines.delay import DelayQueue
from lab.machines.networks import port as private_port
from lab.settings import Settings

TABLE = "faults"


def link_name(fault: Fault) -> str:
    return f"p{fault.server_id}" if fault.network_id is None else private_port(fault.server_id)


def render(faults: Iterable[Fault]) -> str:
    """The complete nftables table of one namespace."""
    before: list[str] = []
    after: list[str] = []
    for fault in faults:
        link = link_name(fault)
        if fault.cut:
            before.append(f'iifname "{link}" drop')
            after.append(f'oifname "{link}" drop')
        if fault.loss_percent:
            after.append(f'oifname "{link}" numgen random mod 100 < {fault.loss_percent} drop')
    head = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
    if not before and not after:
        return head
    chains = [("before", "prerouting priority -300", before), ("after", "postrouting priority 300", after)]
    body = "".join(
        f"  chain {name} {{\n    type filter hook {hook};\n" + "".join(f"    {rule}\n" for rule in rules) + "  }\n"
        for name, hook, rules in chains
    )
    return f"{head}table inet {TABLE} {{\n{body}}}\n"


class Faults:
    """The faults that are set; they persist over a restart of the host until it is deleted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._faults: dict[tuple[int, int | None], Fault] = {}
        self._queues: dict[str, DelayQueue] = {}

    def set(self, fault: Fault) -> None:
        if not 0 <= fault.loss_percent <= 100:
            raise MachineError(f"loss_percent is {fault.loss_percent}. Set 0 to 100.")
        if not 0 <= fault.delay_ms <= 60_000:
            raise MachineError(f"delay_ms is {fault.delay_ms}. Set 0 to 60000.")
        with self._lock:
            key = (fault.server_id, fault.network_id)
            if fault == Fault(*key):
                self._faults.pop(key, None)
            else:
                self._faults[key] = fault
            self.apply(fault.network_id)

    def all(self) -> list[Fault]:
        with self._lock:
            return list(self._faults.values())

    def clear(self, server_id: int, network_id: int | str | None = "all") -> None:
        """Remove the faults of a host, or of one of its links."""
        with self._lock:
            removed = [key for key in self._faults if key[0] == server_id and network_id in ("all", key[1])]
            for key in removed:
                del self._faults[key]
                self.apply(key[1])

    def namespace(self, network_id: int | None) -> str:
        if network_id is None:
            return self._settings.router_namespace
        return self._settings.network_namespace(network_id)

    def apply(self, network_id: int | None) -> None:
        """Load the faults of one namespace."""
        with self._lock:
            name = self.namespace(network_id)
            if not namespaces.path(name).exists():
                return
            here = [fault for key, fault in self._faults.items() if key[1] == network_id]
            run(["ip", "netns", "exec", name, "nft", "-f", "-"], stdin=render(here))
            self._delay(name, {link_name(fault): fault.delay_ms for fault in here if fault.delay_ms})

    def reapply(self, server_id: int) -> None:
        """Load the faults of a host whose links are new."""
        with self._lock:
            for fault_server, network_id in list(self._faults):
                if fault_server == server_id:
                    self.apply(network_id)

    def close(self) -> None:
        with self._lock:
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()

    def _delay(self, namespace: str, delays: dict[str, int]) -> None:
        if has_netem():
            for link in namespaces.links(namespace):
                if link in delays:
                    change = ["replace", "dev", link, "root", "netem", "delay", f"{delays[link]}ms", "limit", "100000"]
                    run(["tc", "-n", namespace, "qdisc", *change])
                elif link[0] in "pv" and link[1:].isdecimal():
                    succeeds(["tc", "-n", namespace, "qdisc", "delete", "dev", link, "root"])
            return
        queue = self._queues.get(namespace)
        if queue is None:
            if not delays:
                return
            queue = self._queues[namespace] = DelayQueue(namespace)
        queue.set(delays)
        if not delays:
            self._queues.pop(namespace).close()


def has_netem() -> bool:
    """Whether the kernel has netem (cached)."""
    global _netem
    if _netem is None:
        name = "slipway-netem"
        namespaces.ensure(name)
        _netem = succeeds(["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
        namespaces.delete(name)
    return _netem


_netem: bool | None = None
