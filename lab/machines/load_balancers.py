"""Load balancers: a namespace with a public and a private link like a host's, and HAProxy in it.

    <lab>-h<id>: eth0 ══ router, enp7s0 ══ network

HAProxy is not a child of the daemon: it serves while the daemon is stopped, and the next daemon finds it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from lab.machines import namespaces
from lab.machines.base import LoadBalancerSpec, Sample, TargetHealth
from lab.machines.haproxy import Process
from lab.machines.networks import Networks
from lab.machines.router import PublicLink, Router
from lab.settings import Settings

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 10
SAMPLES = 8640
"""A day."""


def public_link(spec: LoadBalancerSpec) -> PublicLink | None:
    """None while the public interface is disabled."""
    if spec.ipv4 is None and spec.ipv6_network is None:
        return None
    return PublicLink(spec.load_balancer_id, spec.public_mac, spec.ipv4, spec.ipv6_network)


class LoadBalancers:
    def __init__(self, settings: Settings, folder: Path, router: Router, networks: Networks) -> None:
        self._settings = settings
        self._folder = folder
        self._router = router
        self._networks = networks
        self._lock = threading.RLock()
        self._samples: dict[int, deque[Sample]] = {}
        self._closing = threading.Event()
        self._sampler: threading.Thread | None = None

    def ids(self) -> set[int]:
        """Ids of the load balancers that exist on this machine."""
        return {int(path.name) for path in self._folder.iterdir()} if self._folder.is_dir() else set()

    def apply(self, spec: LoadBalancerSpec) -> list[str]:
        """Converge to the specification; returns the changes."""
        id = spec.load_balancer_id
        with self._lock:
            done = [f"created the namespace of load balancer {spec.name}"] if self.prepare(id) else []
            self._link(spec)
            if self._process(id).apply(spec):
                done.append(f"loaded the configuration of load balancer {spec.name}")
            self._start_sampler()
        return done

    def prepare(self, id: int) -> bool:
        """Create the namespace unless it exists; True when it was created."""
        namespace = self._settings.host_namespace(id)
        with self._lock:
            process = self._process(id)
            was_created = namespaces.ensure(namespace)
            if was_created or not process.in_namespace():
                # What is left belongs to a namespace that lost its name.
                process.stop()
                self._router.close(id)
                self._networks.close(id)
            return was_created

    def _link(self, spec: LoadBalancerSpec) -> None:
        id, link = spec.load_balancer_id, public_link(spec)
        for member in self._networks.of_host(id):
            if spec.attachment is None or member.network_id != spec.attachment.network_id:
                self._networks.detach(id, member.network_id)
        namespace = self._settings.host_namespace(id)
        if link is None:
            self._router.remove_host(id)
            namespaces.batch(namespace, ["link set lo up"])
        else:
            if id not in self._router.ports():
                self._router.close(id)
            self._router.set_link(link, id)
            self._router.open(id, namespace)
        self._networks.open(id, private_only=link is None)
        if spec.attachment:
            self._networks.attach(spec.attachment)

    def delete(self, id: int) -> None:
        with self._lock:
            self._process(id).stop()
            self._networks.remove_host(id)
            self._router.remove_host(id)
            namespaces.delete(self._settings.host_namespace(id))
            shutil.rmtree(self._folder / str(id), ignore_errors=True)
            self._samples.pop(id, None)

    def health(self, id: int) -> dict[tuple[int, str], TargetHealth]:
        return self._process(id).health()

    def samples(self, id: int) -> list[Sample]:
        return list(self._samples.get(id, ()))

    def close(self) -> None:
        """Stop sampling; the load balancers serve on."""
        self._closing.set()
        if self._sampler:
            self._sampler.join()
            self._sampler = None

    def stop_all(self) -> None:
        for id in self.ids():
            self._process(id).stop()

    def _process(self, id: int) -> Process:
        return Process(self._folder / str(id), namespaces.path(self._settings.host_namespace(id)))

    def _start_sampler(self) -> None:
        if self._sampler is None:
            self._closing.clear()
            self._sampler = threading.Thread(target=self._sample, name="sample-load-balancers", daemon=True)
            self._sampler.start()

    def _sample(self) -> None:
        while True:
            self._take(self.ids())
            if self._closing.wait(SAMPLE_SECONDS):
                return

    def _take(self, ids: Iterable[int]) -> None:
        for id in ids:
            if sample := self._process(id).sample():
                self._samples.setdefault(id, deque(maxlen=SAMPLES)).append(sample)
