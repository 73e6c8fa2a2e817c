"""The work of each kind of job on the machines.

A job holds ids, never a copy of the state: it reads the desired state when it runs and converges the machine, so that
it can be repeated after an interruption. `run` blocks and is called outside of any transaction; `done` or `failed` then
changes the state in the transaction that completes the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.cloud import specs
from lab.cloud.domain import actions, certificates, load_balancers
from lab.cloud.domain.objects import (
    ActionError,
    Certificate,
    Firewall,
    FloatingIp,
    Job,
    LoadBalancer,
    Network,
    Server,
    Snapshot,
    Volume,
)
from lab.cloud.domain.view import View
from lab.cloud.store import Store, Transaction
from lab.machines.base import ExitReason, HostSpec, Machines, PowerState

Issuer = Callable[[Sequence[str]], tuple[str, str]]
"""Domain names → certificate chain and private key, both in PEM format."""


@dataclass(frozen=True, slots=True)
class Context:
    """The store and the machines that jobs work on."""

    store: Store
    machines: Machines
    issue: Issuer

    def host(self, job: Job) -> HostSpec | None:
        with self.store.transaction() as tx:
            server = tx.get(Server, job.args["server"])
            return specs.host(View(tx), server) if server else None


def no_change(tx: Transaction, job: Job) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Work:
    run: Callable[[Context, Job], None]
    done: Callable[[Transaction, Job], None] = no_change
    failed: Callable[[Transaction, Job], None] = no_change


def status(value: str) -> Callable[[Transaction, Job], None]:
    def change(tx: Transaction, job: Job) -> None:
        if server := tx.get(Server, job.args["server"]):
            tx.put(replace(server, status=value))

    return change


off = status("off")


# Servers


def create_server(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.create_host(spec)


def server_not_created(tx: Transaction, job: Job) -> None:
    """The jobs that were to follow fail too."""
    status("unknown")(tx, job)
    key = f"server:{job.args['server']}"
    for later in tx.all(Job):
        if later.action is not None and key in later.keys and later.id > job.id:
            actions.finish(tx, later, ActionError("action_failed", "the server could not be created"))
            WORK[later.work].failed(tx, later)
    status("unknown")(tx, job)


def start_server(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.power_on(spec)


def started(tx: Transaction, job: Job) -> None:
    """The rescue system is for one boot, and the created host has its own copy of the password."""
    if server := tx.get(Server, job.args["server"]):
        tx.put(replace(server, status="running", rescue=None, root_password=None))


def stop_server(context: Context, job: Job) -> None:
    context.machines.power_off(job.args["server"])


def shutdown_server(context: Context, job: Job) -> None:
    context.machines.shutdown(job.args["server"])


def reboot_server(context: Context, job: Job) -> None:
    context.machines.reboot(job.args["server"])


def reset_server(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.power_off(spec.server_id)
        context.machines.power_on(spec)


def rebuild_server(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.power_off(spec.server_id)
        context.machines.rebuild(spec)
        context.machines.power_on(spec)


def change_server_type(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.resize(spec)
        context.machines.power_on(spec)


def type_not_changed(tx: Transaction, job: Job) -> None:
    if server := tx.get(Server, job.args["server"]):
        old = replace(server, server_type=job.args["previous_type"], primary_disk_size=job.args["previous_disk"])
        tx.put(replace(old, status="off"))


def reset_password(context: Context, job: Job) -> None:
    context.machines.reset_password(job.args["server"], job.args["password"])


def delete_server(context: Context, job: Job) -> None:
    context.machines.power_off(job.args["server"])
    for volume in job.args["volumes"]:
        context.machines.detach_volume(volume, job.args["server"])
    context.machines.delete_host(job.args["server"])


def host_exited(context: Context, job: Job) -> None:
    """A host stopped by itself: start it after a reboot, otherwise record it as off."""
    spec = context.host(job)
    if spec is None or context.machines.state(spec.server_id) is not PowerState.OFF:
        return
    is_reboot = job.args["reason"] == ExitReason.REBOOT
    if is_reboot:
        context.machines.power_on(spec)
    with context.store.transaction() as tx:
        (started if is_reboot else off)(tx, job)


def cut_power(context: Context, job: Job) -> None:
    context.machines.power_off(job.args["server"])


def link_host(context: Context, job: Job) -> None:
    if spec := context.host(job):
        context.machines.set_public_link(spec)


def route_floating_ip(context: Context, job: Job) -> None:
    """First the server that loses the address, then the one that gets it."""
    with context.store.transaction() as tx:
        view = View(tx)
        servers = [tx.get(Server, id) for id in (job.args["previous"], job.args["server"])]
        wanted = [specs.host(view, server) for server in servers if server]
    for spec in wanted:
        context.machines.route_floating_ips(spec)


def floating_ip_not_routed(tx: Transaction, job: Job) -> None:
    if ip := tx.get(FloatingIp, job.args["floating_ip"]):
        tx.put(replace(ip, server=job.args["previous"]))


def filter_host(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        server = tx.get(Server, job.args["server"])
        ids = View(tx).firewalls(server) if server else []
    if server:
        context.machines.set_host_firewalls(server.id, ids)


# Networks


def sync_network(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        network = tx.get(Network, job.args["network"])
    if network:
        context.machines.apply_network(specs.network(network))
    else:
        context.machines.delete_network(job.args["network"])


def sync_attachment(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        server = tx.get(Server, job.args["server"])
    attachment = server.attachment(job.args["network"]) if server else None
    if server and attachment:
        context.machines.attach(specs.attachment(server, attachment))
    else:
        context.machines.detach(job.args["server"], job.args["network"])


def attachment_failed(tx: Transaction, job: Job) -> None:
    server = tx.get(Server, job.args["server"])
    if server and job.args.get("joins"):
        attachments = tuple(other for other in server.attachments if other.network != job.args["network"])
        tx.put(replace(server, attachments=attachments))


# Firewalls


def sync_firewall(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        firewall = tx.get(Firewall, job.args["firewall"])
    if firewall:
        context.machines.apply_firewall(specs.firewall(firewall))
    else:
        context.machines.delete_firewall(job.args["firewall"])


# Volumes


def create_volume(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume:
        context.machines.create_volume(specs.volume(volume))


def volume_created(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, status="available"))


def volume_not_created(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.drop(volume)


def resize_volume(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume:
        context.machines.resize_volume(specs.volume(volume))


def volume_not_resized(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, size=job.args["previous"]))


def attach_volume(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume and volume.server == job.args["server"]:
        context.machines.attach_volume(volume.id, job.args["server"], job.args["automount"])


def volume_not_attached(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, server=None))


def detach_volume(context: Context, job: Job) -> None:
    context.machines.detach_volume(job.args["volume"], job.args["server"])


def volume_not_detached(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, server=job.args["server"]))


def delete_volume(context: Context, job: Job) -> None:
    context.machines.delete_volume(job.args["volume"])


# Snapshots


def create_image(context: Context, job: Job) -> None:
    size_gb = context.machines.create_snapshot(job.args["image"], job.args["server"])
    with context.store.transaction() as tx:
        if snapshot := tx.get(Snapshot, job.args["image"]):
            tx.put(replace(snapshot, size_gb=size_gb))


def image_not_created(tx: Transaction, job: Job) -> None:
    if snapshot := tx.get(Snapshot, job.args["image"]):
        tx.drop(snapshot)


def delete_image(context: Context, job: Job) -> None:
    context.machines.delete_snapshot(job.args["image"])


# Load balancers and certificates


def sync_load_balancer(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        balancer = tx.get(LoadBalancer, job.args["load_balancer"])
        spec = specs.load_balancer(View(tx), balancer) if balancer else None
    if spec:
        context.machines.apply_load_balancer(spec)
    else:
        context.machines.delete_load_balancer(job.args["load_balancer"])


def issue_certificate(context: Context, job: Job) -> None:
    with context.store.transaction() as tx:
        certificate = tx.get(Certificate, job.args["certificate"])
    if certificate:
        chain, key = context.issue(certificate.domain_names)
        with context.store.transaction() as tx:
            if current := tx.get(Certificate, certificate.id):
                certificates.issued(tx, current, chain, key)
                load_balancers.follow(tx)


def reset(context: Context, job: Job) -> None:
    """Remove the hosts and networks of the deleted objects."""
    with context.store.transaction() as tx:
        wanted = specs.desired(View(tx))
    context.machines.reconcile(wanted)


WORK: Mapping[str, Work] = {
    "create_server": Work(create_server, off, server_not_created),
    "start_server": Work(start_server, started, off),
    "stop_server": Work(stop_server, off, status("running")),
    "shutdown_server": Work(shutdown_server),
    "reboot_server": Work(reboot_server),
    "reset_server": Work(reset_server, started, off),
    "rebuild_server": Work(rebuild_server, started, off),
    "change_server_type": Work(change_server_type, started, type_not_changed),
    "reset_password": Work(reset_password),
    "delete_server": Work(delete_server),
    "host_exited": Work(host_exited, failed=off),
    "cut_power": Work(cut_power, off),
    "link_host": Work(link_host),
    "route_floating_ip": Work(route_floating_ip, failed=floating_ip_not_routed),
    "filter_host": Work(filter_host),
    "sync_network": Work(sync_network),
    "sync_attachment": Work(sync_attachment, failed=attachment_failed),
    "sync_firewall": Work(sync_firewall),
    "create_volume": Work(create_volume, volume_created, volume_not_created),
    "resize_volume": Work(resize_volume, failed=volume_not_resized),
    "attach_volume": Work(attach_volume, failed=volume_not_attached),
    "detach_volume": Work(detach_volume, failed=volume_not_detached),
    "delete_volume": Work(delete_volume),
    "create_image": Work(create_image, failed=image_not_created),
    "delete_image": Work(delete_image),
    "sync_load_balancer": Work(sync_load_balancer),
    "issue_certificate": Work(issue_certificate, failed=certificates.not_issued),
    "reset": Work(reset),
}
