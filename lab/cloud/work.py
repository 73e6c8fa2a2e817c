"""What the jobs do on the machines.

A job carries ids, never a copy of the state: it reads what is wanted at the moment it runs and brings the machine in
line, so that doing it again after a kill is right. `run` blocks and happens outside of any transaction; `done` or
`failed` then changes the state in the transaction that ends the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lab.cloud import specs
from lab.cloud.domain import actions
from lab.cloud.domain.objects import ActionError, Firewall, Job, Network, Server, Volume
from lab.cloud.domain.view import View
from lab.cloud.store import Store, Transaction
from lab.machines.base import ExitReason, HostSpec, Machines, PowerState


@dataclass(frozen=True, slots=True)
class Hands:
    """What a job works with."""

    store: Store
    machines: Machines

    def host(self, job: Job) -> HostSpec | None:
        with self.store.transaction() as tx:
            server = tx.get(Server, job.args["server"])
            return specs.host(View(tx), server) if server else None


def nothing(tx: Transaction, job: Job) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Work:
    run: Callable[[Hands, Job], None]
    done: Callable[[Transaction, Job], None] = nothing
    failed: Callable[[Transaction, Job], None] = nothing


def status(value: str) -> Callable[[Transaction, Job], None]:
    def change(tx: Transaction, job: Job) -> None:
        if server := tx.get(Server, job.args["server"]):
            tx.put(replace(server, status=value))

    return change


off = status("off")


# Servers


def create_server(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.create_host(spec)


def not_created(tx: Transaction, job: Job) -> None:
    """Nothing that was to follow can happen."""
    status("unknown")(tx, job)
    key = f"server:{job.args['server']}"
    for later in tx.all(Job):
        if later.action is not None and key in later.keys and later.id > job.id:
            actions.finish(tx, later, ActionError("action_failed", "the server could not be created"))
            WORK[later.work].failed(tx, later)
    status("unknown")(tx, job)


def start_server(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.power_on(spec)


def started(tx: Transaction, job: Job) -> None:
    """The first boot uses up the rescue system and, made once, the password is the host's own."""
    if server := tx.get(Server, job.args["server"]):
        tx.put(replace(server, status="running", rescue=None, root_password=None))


def stop_server(hands: Hands, job: Job) -> None:
    hands.machines.power_off(job.args["server"])


def shutdown_server(hands: Hands, job: Job) -> None:
    hands.machines.shutdown(job.args["server"])


def reboot_server(hands: Hands, job: Job) -> None:
    hands.machines.reboot(job.args["server"])


def reset_server(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.power_off(spec.server_id)
        hands.machines.power_on(spec)


def rebuild_server(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.power_off(spec.server_id)
        hands.machines.rebuild(spec)
        hands.machines.power_on(spec)


def change_server_type(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.resize(spec)
        hands.machines.power_on(spec)


def type_not_changed(tx: Transaction, job: Job) -> None:
    if server := tx.get(Server, job.args["server"]):
        old = replace(server, server_type=job.args["previous_type"], primary_disk_size=job.args["previous_disk"])
        tx.put(replace(old, status="off"))


def reset_password(hands: Hands, job: Job) -> None:
    hands.machines.reset_password(job.args["server"], job.args["password"])


def delete_server(hands: Hands, job: Job) -> None:
    hands.machines.power_off(job.args["server"])
    for volume in job.args["volumes"]:
        hands.machines.detach_volume(volume, job.args["server"])
    hands.machines.delete_host(job.args["server"])


def host_exited(hands: Hands, job: Job) -> None:
    """A host stopped by itself: after a reboot it is started again, else it stays off."""
    spec = hands.host(job)
    if spec is None or hands.machines.state(spec.server_id) is not PowerState.OFF:
        return
    back = job.args["reason"] == ExitReason.REBOOT
    if back:
        hands.machines.power_on(spec)
    with hands.store.transaction() as tx:
        (started if back else off)(tx, job)


def cut_power(hands: Hands, job: Job) -> None:
    hands.machines.power_off(job.args["server"])


def link_host(hands: Hands, job: Job) -> None:
    if spec := hands.host(job):
        hands.machines.set_public_link(spec)


def filter_host(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        server = tx.get(Server, job.args["server"])
        ids = View(tx).firewalls(server) if server else []
    if server:
        hands.machines.set_host_firewalls(server.id, ids)


# Networks


def sync_network(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        network = tx.get(Network, job.args["network"])
    if network:
        hands.machines.apply_network(specs.network(network))
    else:
        hands.machines.delete_network(job.args["network"])


def sync_leg(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        server = tx.get(Server, job.args["server"])
    leg = server.attachment(job.args["network"]) if server else None
    if server and leg:
        hands.machines.attach(specs.attachment(server, leg))
    else:
        hands.machines.detach(job.args["server"], job.args["network"])


def leg_failed(tx: Transaction, job: Job) -> None:
    server = tx.get(Server, job.args["server"])
    if server and job.args.get("joins"):
        legs = tuple(leg for leg in server.attachments if leg.network != job.args["network"])
        tx.put(replace(server, attachments=legs))


# Firewalls


def sync_firewall(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        firewall = tx.get(Firewall, job.args["firewall"])
    if firewall:
        hands.machines.apply_firewall(specs.firewall(firewall))
    else:
        hands.machines.delete_firewall(job.args["firewall"])


# Volumes


def create_volume(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume:
        hands.machines.create_volume(specs.volume(volume))


def volume_created(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, status="available"))


def volume_not_created(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.drop(volume)


def resize_volume(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume:
        hands.machines.resize_volume(specs.volume(volume))


def volume_not_resized(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, size=job.args["previous"]))


def attach_volume(hands: Hands, job: Job) -> None:
    with hands.store.transaction() as tx:
        volume = tx.get(Volume, job.args["volume"])
    if volume and volume.server == job.args["server"]:
        hands.machines.attach_volume(volume.id, job.args["server"], job.args["automount"])


def volume_not_attached(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, server=None))


def detach_volume(hands: Hands, job: Job) -> None:
    hands.machines.detach_volume(job.args["volume"], job.args["server"])


def volume_not_detached(tx: Transaction, job: Job) -> None:
    if volume := tx.get(Volume, job.args["volume"]):
        tx.put(replace(volume, server=job.args["server"]))


def delete_volume(hands: Hands, job: Job) -> None:
    hands.machines.delete_volume(job.args["volume"])


def reset(hands: Hands, job: Job) -> None:
    """After everything was forgotten: remove what is left of it."""
    with hands.store.transaction() as tx:
        wanted = specs.desired(View(tx))
    hands.machines.reconcile(wanted)


WORK: Mapping[str, Work] = {
    "create_server": Work(create_server, off, not_created),
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
    "filter_host": Work(filter_host),
    "sync_network": Work(sync_network),
    "sync_leg": Work(sync_leg, failed=leg_failed),
    "sync_firewall": Work(sync_firewall),
    "create_volume": Work(create_volume, volume_created, volume_not_created),
    "resize_volume": Work(resize_volume, failed=volume_not_resized),
    "attach_volume": Work(attach_volume, failed=volume_not_attached),
    "detach_volume": Work(detach_volume, failed=volume_not_detached),
    "delete_volume": Work(delete_volume),
    "reset": Work(reset),
}
