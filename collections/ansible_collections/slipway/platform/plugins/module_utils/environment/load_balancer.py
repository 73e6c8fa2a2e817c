"""Load balancer: ACME settings, and renewal periods of the certificates of all services."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Environment, Fault, show

GROUP = "load_balancer"


def faults(environment: Environment) -> Iterator[Fault]:
    yield from acme(environment)
    yield from renewal(environment)


def acme(environment: Environment) -> Iterator[Fault]:
    """Settings that an ACME server would reject at the first run."""
    if environment.group_value(GROUP, "load_balancer_certificate_source") != "acme":
        return
    if environment.group_value(GROUP, "load_balancer_mode") != "terminate":
        return
    origin = environment.group_value_origin(GROUP, "load_balancer_certificate_source")
    if not environment.group_value(GROUP, "load_balancer_acme_email"):
        yield Fault(
            origin, "load_balancer_certificate_source is acme, but load_balancer_acme_email is not set", "Add it."
        )
    for name in environment.texts("platform_ingress_names"):
        if name.startswith("*"):
            yield environment.fault(
                "platform_ingress_names",
                f"platform_ingress_names: {show(name)} cannot be validated by ACME over HTTP",
                "Name the hosts one by one, or set load_balancer_certificate_source to ca.",
            )


def renewal(environment: Environment) -> Iterator[Fault]:
    for group, renew, valid in (
        (GROUP, "load_balancer_certificate_renew_days", "load_balancer_certificate_valid_days"),
        ("rke2_server", "rke2_ingress_certificate_renew_days", "rke2_ingress_certificate_days"),
        ("ceph", "ceph_object_gateway_certificate_renew_days", "ceph_object_gateway_certificate_days"),
    ):
        before, days = environment.group_value(group, renew), environment.group_value(group, valid)
        if isinstance(before, int) and isinstance(days, int) and before >= days:
            yield Fault(
                environment.group_value_origin(group, renew, valid),
                f"{renew}: {before}, but a certificate is valid for {days} days ({valid})",
                "Make the first smaller, or every run renews it.",
            )
