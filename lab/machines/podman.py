"""The podman backend: Linux hosts in rootful containers, on networks and disks of this machine.

    server     containers.py (one boot) on disks.py (root disk), watched by watch.py
    network    router.py (public), networks.py (private), firewalls.py, faults.py, metadata.py
    volume     volumes.py
    balancer   load_balancers.py, haproxy.py

A container is one boot: starting a server creates new namespaces, links and a container for its root disk, so nothing
of an earlier boot (addresses, firewall rules, the state of a container) remains. The cloud owns the desired state: it
passes changes by operations, and all of it by `reconcile` after a restart of the daemon.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.machines import containers, images, namespaces, resolver
from lab.machines.base import (
    AttachmentSpec,
    Desired,
    ExitReason,
    Fault,
    FirewallSpec,
    HostSpec,
    ImageSupport,
    LoadBalancerSpec,
    MachineError,
    MetadataHandler,
    NetworkSpec,
    OnExit,
    PowerState,
    Sample,
    TargetHealth,
    VolumeSpec,
)
from lab.machines.commands import CommandError, run
from lab.machines.containers import Boot, Facts
from lab.machines.disks import DiskSnapshot, RescueDisk, RootDisk, remove_folder, unmount, write_identity
from lab.machines.faults import Faults
from lab.machines.firewalls import Firewalls
from lab.machines.load_balancers import LoadBalancers, public_link
from lab.machines.metadata import Metadata
from lab.machines.networks import Networks
from lab.machines.router import PublicLink, Router
from lab.machines.sysctl import Sysctls
from lab.machines.volumes import Volumes, attach_script, detach_script, fstab_script
from lab.machines.watch import Init, Watcher
from lab.settings import Settings

log = logging.getLogger(__name__)

KILL_SECONDS = 30
_REASONS = {containers.EXIT_REBOOT: ExitReason.REBOOT, containers.EXIT_POWEROFF: ExitReason.POWEROFF}


@dataclass(slots=True)
class _Host:
    """State of one server."""

    server_id: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    init: Init | None = None


class PodmanMachines:
    """Implements `lab.machines.base.Machines`."""

    def __init__(
        self,
        settings: Settings,
        metadata: MetadataHandler,
        on_exit: OnExit,
        address_of: resolver.AddressOf = lambda name: None,
    ) -> None:
        self._settings = settings
        self._on_exit = on_exit
        self._facts = Facts.detect()
        self._folder = settings.state_dir / "machines"
        self._volumes = Volumes(self._folder / "volumes")
        self._router = Router(settings)
        self._networks = Networks(settings)
        self._balancers = LoadBalancers(settings, self._folder / "load_balancers", self._router, self._networks)
        self._address_of = address_of
        # The lab's resolver first; the machine's own ones answer while the daemon is down.
        self._resolvers = [str(settings.machine_address), *resolver.machine_servers()]
        self._firewalls = Firewalls(settings, self._resolvers)
        self._faults = Faults(settings)
        self._metadata = Metadata(metadata)
        self._sysctls = Sysctls(settings.name)
        self._resolver: resolver.Resolver | None = None
        self._lock = threading.RLock()
        self._hosts: dict[int, _Host] = {}
        self._attached: dict[int, int] = {}
        self._watcher: Watcher | None = None
        self._ready = False

    # --- start

    def _prepare(self) -> list[str]:
        """Create what all operations need (router, sysctls, listeners) before the first one. Returns the changes."""
        with self._lock:
            if self._ready:
                return []
            self._folder.mkdir(parents=True, exist_ok=True)
            done = [*self._sysctls.acquire(), *self._router.ensure()]
            self._metadata.listen(self._router.namespace, self._router.owner)
            if self._resolver is None:
                address = str(self._settings.machine_address)
                self._resolver = resolver.Resolver(address, resolver.upstream_servers(), self._address_of)
            self._watcher = Watcher(self._handle_exit)
            for record in containers.records(self._settings.name).values():
                if record.running:
                    self._watch(self._host(record.server_id), record.pid)
            self._ready = True
            return done

    def _host(self, server_id: int) -> _Host:
        with self._lock:
            return self._hosts.setdefault(server_id, _Host(server_id))

    def _watch(self, host: _Host, pid: int) -> None:
        assert self._watcher is not None
        host.init = Init.of(host.server_id, pid)
        if host.init:
            self._watcher.watch(host.init)

    @contextmanager
    def _locked(self, server_id: int) -> Iterator[_Host]:
        self._prepare()
        host = self._host(server_id)
        with host.lock:
            yield host

    def _disk(self, server_id: int) -> RootDisk:
        return RootDisk(self._folder / "servers" / str(server_id))

    def _snapshot(self, snapshot_id: int) -> DiskSnapshot:
        return DiskSnapshot(self._folder / "snapshots" / str(snapshot_id))

    def _rescue(self, server_id: int) -> RescueDisk:
        return RescueDisk(self._disk(server_id).folder)

    # --- servers

    def image_support(self, image: str) -> ImageSupport:
        return images.support(image)

    def create_host(self, spec: HostSpec) -> None:
        with self._locked(spec.server_id):
            if not self._disk(spec.server_id).exists():
                self._create_disk(spec)
            self._router.set_link(PublicLink.of(spec), spec.server_id)

    def _create_disk(self, spec: HostSpec) -> None:
        disk = self._disk(spec.server_id)
        if spec.snapshot_id is None:
            image = images.ensure(self._settings, spec.image)
            disk.create(image, spec.disk_gb)
            self._write_identity(disk.root, spec.name)
        else:
            # As at Hetzner, cloud-init sets the host name and new SSH keys at the first boot; the machine id is copied.
            image = disk.restore(self._snapshot(spec.snapshot_id), spec.disk_gb)
        if spec.root_password:
            set_password(disk.root, spec.root_password)
        disk.finish(image)

    def _write_identity(self, root: Path, name: str) -> None:
        write_identity(root, name, uuid.uuid4().hex, self._resolvers)

    def delete_host(self, server_id: int) -> None:
        with self._locked(server_id):
            self.power_off(server_id)
            self._firewalls.assign(server_id, ())
            self._faults.clear(server_id)
            self._save_faults()
            self._networks.remove_host(server_id)
            self._router.remove_host(server_id)
            for volume_id in [key for key, value in self._attached.items() if value == server_id]:
                del self._attached[volume_id]
            containers.remove(self._settings.container_name(server_id))
            namespaces.delete(self._settings.host_namespace(server_id))
            self._rescue(server_id).remove()
            self._disk(server_id).remove()
            remove_folder(self._disk(server_id).folder)
        with self._lock:
            self._hosts.pop(server_id, None)

    def power_on(self, spec: HostSpec) -> None:
        with self._locked(spec.server_id) as host:
            if host.init:
                return
            server_id = spec.server_id
            disk = self._disk(server_id)
            disk.open()
            self._unplug(server_id)
            namespace = self._settings.host_namespace(server_id)
            namespaces.delete(namespace)
            namespaces.ensure(namespace)
            link = PublicLink.of(spec)
            self._router.set_link(link, server_id)
            self._rescue(server_id).remove()
            root: Path = disk.root
            mounts: tuple[tuple[Path, str], ...] = ((disk.var_lib, "/var/lib"), (disk.journal, "/var/log/journal"))
            if spec.rescue:
                root = self._create_rescue(spec)
                mounts = ((disk.root, "/mnt"), (disk.var_lib, "/mnt/var/lib"))
            try:
                self._plug(server_id, private_only=link is None)
                boot = Boot(
                    lab=self._settings.name,
                    container=self._settings.container_name(server_id),
                    namespace=namespaces.path(namespace),
                    spec=spec,
                    folder=disk.folder,
                    root=root,
                    mounts=mounts,
                )
                attached = sorted(key for key, value in self._attached.items() if value == server_id)
                pid = containers.start(boot, self._facts, [self._volumes.device(item) for item in attached])
            except MachineError:
                self._unplug(server_id)
                raise
            self._watch(host, pid)

    def _create_rescue(self, spec: HostSpec) -> Path:
        """Create a rescue system in memory, with the server's disk mounted at /mnt."""
        rescue = self._rescue(spec.server_id)
        rescue.create(images.ensure(self._settings, images.RESCUE_IMAGE))
        self._write_identity(rescue.root, "rescue")
        (rescue.root / "etc/cloud/cloud-init.disabled").touch()
        keys = rescue.root / "root/.ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text("".join(key.strip() + "\n" for key in spec.rescue_ssh_keys))
        run(["chroot", str(rescue.root), "ssh-keygen", "-A"])
        if spec.root_password:
            set_password(rescue.root, spec.root_password)
        return rescue.root

    def _plug(self, server_id: int, private_only: bool) -> None:
        self._router.open(server_id, self._settings.host_namespace(server_id))
        self._networks.open(server_id, private_only)
        self._faults.reapply(server_id)

    def _unplug(self, server_id: int) -> None:
        self._router.close(server_id)
        self._networks.close(server_id)

    def power_off(self, server_id: int) -> None:
        with self._locked(server_id) as host:
            # Links first: a process that is killed must not close its connections, as with a power loss.
            self._unplug(server_id)
            if host.init is None:
                return
            assert self._watcher is not None
            self._watcher.unwatch(host.init)
            host.init.send(signal.SIGKILL)
            if not host.init.wait(KILL_SECONDS):
                self._watcher.watch(host.init)
                raise MachineError(f"server {server_id} still runs {KILL_SECONDS} seconds after SIGKILL")
            host.init.close()
            host.init = None
            self._rescue(server_id).remove()

    def shutdown(self, server_id: int) -> None:
        self._signal_init(server_id, containers.POWER_BUTTON)

    def reboot(self, server_id: int) -> None:
        self._signal_init(server_id, containers.REBOOT_BUTTON)

    def _signal_init(self, server_id: int, button: int) -> None:
        with self._locked(server_id) as host:
            if host.init is None:
                raise MachineError(f"server {server_id} is off. Power it on first.")
            host.init.send(button)

    def _handle_exit(self, init: Init) -> None:
        """A host stopped by itself (called in its own thread)."""
        host = self._host(init.server_id)
        with host.lock:
            if host.init is not init:
                return
            host.init = None
            init.close()
            self._unplug(init.server_id)
            container = self._settings.container_name(init.server_id)
            code = containers.exit_code(container)
            # Remove the container, or the next daemon would report the same exit again.
            containers.remove(container)
            self._rescue(init.server_id).remove()
        reason = _REASONS.get(code or 0, ExitReason.CRASH)
        log.info("server %s stopped by itself: %s (%s)", init.server_id, reason, code)
        self._on_exit(init.server_id, reason)

    def rebuild(self, spec: HostSpec) -> None:
        with self._locked(spec.server_id):
            self.power_off(spec.server_id)
            containers.remove(self._settings.container_name(spec.server_id))
            self._create_disk(spec)
            self._router.set_link(PublicLink.of(spec), spec.server_id)

    def resize(self, spec: HostSpec) -> None:
        # Cores and memory take effect at the next start.
        with self._locked(spec.server_id):
            self._disk(spec.server_id).grow(spec.disk_gb)

    def set_public_link(self, spec: HostSpec) -> None:
        with self._locked(spec.server_id):
            self._router.set_link(PublicLink.of(spec), spec.server_id)

    def route_floating_ips(self, spec: HostSpec) -> None:
        with self._locked(spec.server_id):
            self._router.set_link(PublicLink.of(spec), spec.server_id)

    def state(self, server_id: int) -> PowerState:
        self._prepare()
        host = self._host(server_id)
        if host.init:
            return PowerState.RUNNING
        return PowerState.OFF if self._disk(server_id).exists() else PowerState.ABSENT

    def reset_password(self, server_id: int, password: str) -> None:
        with self._locked(server_id) as host:
            disk = self._disk(server_id)
            if host.init:
                inside = ["nsenter", f"--target={host.init.pid}", "--mount", "--pid", "--"]
                run([*inside, "chpasswd"], stdin=f"root:{password}\n")
            else:
                disk.open()
                set_password(disk.root, password)

    # --- private networks

    def apply_network(self, spec: NetworkSpec) -> None:
        self._prepare()
        self._networks.apply(spec)
        self._listen(spec.network_id)

    def _listen(self, network_id: int, again: bool = False) -> None:
        name = self._settings.network_namespace(network_id)
        with self._lock:
            if again or not self._metadata.listens(name):
                self._metadata.listen(name, lambda source: self._networks.owner(network_id, source))

    def delete_network(self, network_id: int) -> None:
        self._prepare()
        self._metadata.stop_listening(self._settings.network_namespace(network_id))
        self._networks.delete(network_id)

    def attach(self, spec: AttachmentSpec) -> None:
        with self._locked(spec.server_id):
            self._networks.attach(spec)

    def detach(self, server_id: int, network_id: int) -> None:
        with self._locked(server_id):
            self._networks.detach(server_id, network_id)
            self._faults.clear(server_id, network_id)
            self._save_faults()

    # --- firewalls

    def apply_firewall(self, spec: FirewallSpec) -> None:
        self._prepare()
        self._firewalls.apply(spec)

    def delete_firewall(self, firewall_id: int) -> None:
        self._prepare()
        self._firewalls.delete(firewall_id)

    def set_host_firewalls(self, server_id: int, firewall_ids: Sequence[int]) -> None:
        self._prepare()
        self._firewalls.assign(server_id, firewall_ids)

    # --- volumes

    def create_volume(self, spec: VolumeSpec) -> None:
        self._prepare()
        self._volumes.create(spec)

    def resize_volume(self, spec: VolumeSpec) -> None:
        self._volumes.resize(spec)

    def delete_volume(self, volume_id: int) -> None:
        self._attached.pop(volume_id, None)
        self._volumes.delete(volume_id)

    def attach_volume(self, volume_id: int, server_id: int, automount: bool = False) -> None:
        with self._locked(server_id) as host:
            device = self._volumes.device(volume_id)
            self._attached[volume_id] = server_id
            filesystem = self._volumes.filesystem(volume_id) if automount else ""
            if host.init:
                containers.enter(host.init.pid, attach_script(device, bool(filesystem), filesystem))
            elif filesystem:
                disk = self._disk(server_id)
                disk.open()
                run(["chroot", str(disk.root), "/bin/sh", "-s"], stdin=fstab_script(device, filesystem))

    def detach_volume(self, volume_id: int, server_id: int) -> None:
        with self._locked(server_id) as host:
            if self._attached.get(volume_id) == server_id:
                del self._attached[volume_id]
            if host.init:
                containers.enter(host.init.pid, detach_script(self._volumes.device(volume_id)))

    # --- snapshots

    def create_snapshot(self, snapshot_id: int, server_id: int) -> float:
        with self._locked(server_id):
            return self._snapshot(snapshot_id).create(self._disk(server_id))

    def delete_snapshot(self, snapshot_id: int) -> None:
        self._snapshot(snapshot_id).remove()

    # --- load balancers

    def apply_load_balancer(self, spec: LoadBalancerSpec) -> None:
        self._prepare()
        self._balancers.apply(spec)

    def delete_load_balancer(self, load_balancer_id: int) -> None:
        self._prepare()
        self._balancers.delete(load_balancer_id)

    def load_balancer_health(self, load_balancer_id: int) -> dict[tuple[int, str], TargetHealth]:
        return self._balancers.health(load_balancer_id)

    def load_balancer_samples(self, load_balancer_id: int) -> list[Sample]:
        return self._balancers.samples(load_balancer_id)

    # --- the whole lab

    def reconcile(self, desired: Desired) -> list[str]:
        done = self._prepare() or self._repair_infrastructure()
        specs = {spec.server_id: spec for spec in desired.hosts}
        done += self._remove_unwanted(desired, specs)
        for volume in desired.volumes:
            if not self._volumes.path(volume.volume_id).exists():
                self._volumes.create(volume)
                done.append(f"volume {volume.volume_id}: created an empty one, its data was missing")
            self._volumes.resize(volume)
        self._attached = dict(desired.volume_attachments)
        for spec in desired.hosts:
            if not self._disk(spec.server_id).exists():
                done.append(f"server {spec.name}: created a new disk, its disk was missing")
                done += self._attempt(spec, self.create_host)
        done += self._stop_or_restore_namespace(desired, specs)
        plugged = {server_id for server_id, host in self._hosts.items() if host.init}
        links = {server_id: PublicLink.of(spec) for server_id, spec in specs.items()}
        for balancer in desired.load_balancers:
            if self._balancers.prepare(balancer.load_balancer_id):
                done.append(f"created the namespace of load balancer {balancer.name}")
            plugged.add(balancer.load_balancer_id)
            links[balancer.load_balancer_id] = public_link(balancer)
        done += self._restore_public_links(links, plugged)
        private_only = {server_id for server_id, link in links.items() if link is None}
        balanced = [entry.attachment for entry in desired.load_balancers if entry.attachment]
        done += self._networks.load(desired.networks, [*desired.attachments, *balanced], plugged, private_only)
        for network in desired.networks:
            self._listen(network.network_id, again=True)
        self._firewalls.replace(desired.firewalls, desired.firewall_members)
        self._load_faults(specs, {network.network_id for network in desired.networks})
        done += self._start_missing(desired, specs)
        for balancer in desired.load_balancers:
            try:
                done += self._balancers.apply(balancer)
            except MachineError as error:
                log.error("load balancer %s: %s", balancer.name, error)
                done.append(f"load balancer {balancer.name}: {error}")
        return done

    def _repair_infrastructure(self) -> list[str]:
        with self._lock:
            done = [*self._sysctls.acquire(), *self._router.ensure()]
            self._metadata.listen(self._router.namespace, self._router.owner)
            return done

    def _remove_unwanted(self, desired: Desired, specs: dict[int, HostSpec]) -> list[str]:
        done = []
        balancers = {spec.load_balancer_id for spec in desired.load_balancers}
        for balancer_id in sorted(self._balancers.ids() - balancers):
            self._balancers.delete(balancer_id)
            done.append(f"removed undeclared load balancer {balancer_id}")
        known = set(containers.records(self._settings.name)) | self._server_folders() | self._numbered("h")
        for server_id in sorted(known - set(specs) - balancers):
            self.delete_host(server_id)
            done.append(f"removed undeclared server {server_id}")
        networks = {spec.network_id for spec in desired.networks}
        for network_id in sorted(self._numbered("n") - networks):
            self.delete_network(network_id)
            done.append(f"removed undeclared network {network_id}")
        volumes = {spec.volume_id for spec in desired.volumes}
        for volume_id in sorted(self._volumes.ids() - volumes):
            self.delete_volume(volume_id)
            done.append(f"removed undeclared volume {volume_id}")
        snapshots = self._numbered_folders("snapshots")
        for snapshot_id in sorted(snapshots - desired.snapshots):
            self.delete_snapshot(snapshot_id)
            done.append(f"removed undeclared snapshot {snapshot_id}")
        done += [f"snapshot {id}: its data is missing" for id in sorted(desired.snapshots - snapshots)]
        return done

    def _server_folders(self) -> set[int]:
        return self._numbered_folders("servers")

    def _numbered_folders(self, kind: str) -> set[int]:
        folder = self._folder / kind
        return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else set()

    def _numbered(self, letter: str) -> set[int]:
        """Ids in the names of this lab's namespaces of one kind."""
        pattern = re.compile(rf"{re.escape(self._settings.name)}-{letter}(\d+)")
        return {int(found[1]) for name in namespaces.existing() if (found := pattern.fullmatch(name))}

    def _stop_or_restore_namespace(self, desired: Desired, specs: dict[int, HostSpec]) -> list[str]:
        """Of the running hosts, stop those that are to be off, and restore the names of the others' namespaces."""
        done = []
        for server_id, host in sorted(self._hosts.items()):
            with host.lock:
                if host.init is None:
                    continue
                if not host.init.alive():
                    continue
                if server_id not in desired.running:
                    self.power_off(server_id)
                    done.append(f"powered off server {specs[server_id].name}, which is to be off")
                    continue
                name = self._settings.host_namespace(server_id)
                if not containers.holds_namespace(host.init.pid, name):
                    namespaces.delete(name)
                    namespaces.adopt(name, host.init.pid)
                    done.append(f"restored the namespace of server {specs[server_id].name}")
        return done

    def _restore_public_links(self, links: dict[int, PublicLink | None], plugged: set[int]) -> list[str]:
        """The links of hosts and load balancers."""
        done = []
        for server_id in sorted(self._router.ports() - plugged):
            self._router.close(server_id)
            done.append(f"unplugged server {server_id}, which is off")
        missing = plugged - self._router.ports()
        done += self._router.load([link for link in links.values() if link], plugged - missing)
        for server_id in sorted(missing):
            if self._router.open(server_id, self._settings.host_namespace(server_id)):
                done.append(f"plugged server {server_id} into the public network")
        return done

    def _start_missing(self, desired: Desired, specs: dict[int, HostSpec]) -> list[str]:
        done = []
        records = containers.records(self._settings.name)
        for server_id in sorted(desired.running & set(specs)):
            if self._host(server_id).init:
                continue
            record = records.get(server_id)
            if record and not record.running and record.exit_code == containers.EXIT_POWEROFF:
                done.append(f"server {specs[server_id].name} powered itself off, it stays off")
                containers.remove(record.container)
                self._on_exit(server_id, ExitReason.POWEROFF)
                continue
            done.append(f"started server {specs[server_id].name}")
            done += self._attempt(specs[server_id], self.power_on)
        return done

    def _attempt(self, spec: HostSpec, operation: Callable[[HostSpec], None]) -> list[str]:
        """Call an operation for one server; its failure must not stop the others."""
        try:
            operation(spec)
        except MachineError as error:
            log.error("server %s: %s", spec.name, error)
            return [f"server {spec.name}: {error}"]
        return []

    # --- faults

    def set_fault(self, fault: Fault) -> None:
        self._prepare()
        self._faults.set(fault)
        self._save_faults()

    def faults(self) -> list[Fault]:
        return self._faults.all()

    def fill_disk(self, server_id: int, free_mb: int | None) -> None:
        with self._locked(server_id):
            disk = self._disk(server_id)
            disk.open()
            disk.fill(free_mb)

    def filled_disks(self) -> dict[int, int]:
        disks = {server_id: self._disk(server_id) for server_id in sorted(self._server_folders())}
        return {server_id: disk.free_mb() for server_id, disk in disks.items() if disk.fill_file.exists()}

    @property
    def _faults_file(self) -> Path:
        return self._folder / "faults.json"

    def _save_faults(self) -> None:
        fresh = self._faults_file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(fault) for fault in self._faults.all()]))
        fresh.replace(self._faults_file)

    def _load_faults(self, specs: dict[int, HostSpec], networks: set[int]) -> None:
        """Load the faults that were set before the daemon was restarted."""
        if self._faults_file.exists() and not self._faults.all():
            for row in json.loads(self._faults_file.read_text()):
                fault = Fault(**row)
                if fault.server_id in specs and (fault.network_id is None or fault.network_id in networks):
                    self._faults.set(fault)
        for network_id in (None, *networks):
            self._faults.apply(network_id)

    def console_log(self, server_id: int) -> str:
        return containers.read_console(self._disk(server_id).folder / "console.log")

    # --- end

    def close(self) -> None:
        with self._lock:
            self._balancers.close()
            self._metadata.close()
            self._faults.close()
            if self._resolver:
                self._resolver.close()
                self._resolver = None
            if self._watcher:
                self._watcher.close()
                self._watcher = None
            for host in self._hosts.values():
                if host.init:
                    host.init.close()
                    host.init = None
            self._ready = False

    def destroy(self) -> None:
        """Remove the lab's objects as found on the machine, so that it works without the state of the daemon."""
        self.close()
        self._hosts.clear()
        self._balancers.stop_all()
        containers.remove_all(self._settings.name)
        self._unmount_all()
        for volume_id in self._volumes.ids():
            self._volumes.delete(volume_id)
        for letter in ("h", "n"):
            for number in self._numbered(letter):
                namespaces.delete(f"{self._settings.name}-{letter}{number}")
        self._router.destroy()
        if self._folder.exists():
            shutil.rmtree(self._folder)
            if not any(self._settings.state_dir.iterdir()):
                self._settings.state_dir.rmdir()
        self._sysctls.release(alive=lambda lab: f"{lab}-up" in namespaces.links(None))

    def _unmount_all(self) -> None:
        prefix = str(self._folder) + "/"
        rows = Path("/proc/self/mountinfo").read_text().splitlines()
        targets = [row.split()[4] for row in rows if row.split()[4].startswith(prefix)]
        for target in reversed(targets):
            unmount(Path(target))


def set_password(root: Path, password: str) -> None:
    """Set root's password in the root file system of a host that is off."""
    try:
        run(["chroot", str(root), "chpasswd"], stdin=f"root:{password}\n")
    except CommandError as error:
        raise MachineError("chpasswd failed to set the root password") from error
