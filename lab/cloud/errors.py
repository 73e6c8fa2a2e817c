"""The errors of the API: one class per code, with Hetzner's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class ApiError(Exception):
    """Response body: `{"error": {"code", "message", "details"}}`."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid_input"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class JsonError(ApiError):
    status, code = 400, "json_error"

    def __init__(self) -> None:
        super().__init__("malformed JSON in the request body")


class Unauthorized(ApiError):
    status, code = 401, "unauthorized"

    @classmethod
    def missing(cls) -> Unauthorized:
        return cls("token is required")

    @classmethod
    def invalid(cls) -> Unauthorized:
        return cls("the token you have provided is invalid")


class ResourceLimitExceeded(ApiError):
    status, code = 403, "resource_limit_exceeded"

    def __init__(self, limit: str, message: str = "project limit exceeded") -> None:
        super().__init__(message, {"limits": [{"name": limit}]})


class NotFound(ApiError):
    status, code = 404, "not_found"

    @classmethod
    def of(cls, noun: str, ref: object) -> NotFound:
        return cls(f"{noun} with ID '{ref}' not found")

    @classmethod
    def route(cls) -> NotFound:
        return cls("api route not found")


class MethodNotAllowed(ApiError):
    status, code = 405, "method_not_allowed"

    def __init__(self) -> None:
        super().__init__("the request method is not allowed")


class UniquenessError(ApiError):
    status, code = 409, "uniqueness_error"


class Conflict(ApiError):
    status, code = 409, "conflict"


class DeprecatedEndpoint(ApiError):
    status, code = 410, "deprecated_api_endpoint"

    def __init__(self, announcement: str) -> None:
        super().__init__("API functionality was removed", {"announcement": announcement})


class ResourceUnavailable(ApiError):
    status, code = 412, "resource_unavailable"

    @classmethod
    def sold_out(cls) -> ResourceUnavailable:
        return cls("we are unable to provision servers for this location, try with a different location or try later")


class PrimaryIpVersionMismatch(ApiError):
    status, code = 412, "primary_ip_version_mismatch"


class InvalidInput(ApiError):
    code = "invalid_input"

    @classmethod
    def field(cls, name: str, message: str) -> InvalidInput:
        return cls.fields([(name, message)])

    @classmethod
    def fields(cls, faults: Iterable[tuple[str, str]]) -> InvalidInput:
        """All faults: one entry per field with all its messages."""
        by_field: dict[str, list[str]] = {}
        for name, message in faults:
            by_field.setdefault(name, []).append(message)
        names = ", ".join(f"'{name}'" for name in by_field)
        details = "; ".join(message for messages in by_field.values() for message in messages)
        text = f"invalid input in field{'s' if len(by_field) > 1 else ''} {names}: {details}"
        return cls(text, {"fields": [{"name": name, "messages": messages} for name, messages in by_field.items()]})


class ServiceError(ApiError):
    code = "service_error"


class UnsupportedError(ApiError):
    """A valid request that this resource or this lab does not support."""

    code = "unsupported_error"


class EndpointNotSupported(ApiError):
    """An endpoint of Hetzner's API that the lab does not implement: always an error, never silently accepted."""

    status, code = 501, "unsupported_error"


class Locked(ApiError):
    status, code = 423, "locked"

    @classmethod
    def of(cls, noun: str) -> Locked:
        return cls(f"{noun} is locked: there is already an action running")


class Protected(ApiError):
    status, code = 423, "protected"


class RateLimitExceeded(ApiError):
    status, code = 429, "rate_limit_exceeded"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Limit of '{limit}' requests per hour for token '***' reached.")


class ServerError(ApiError):
    status, code = 500, "server_error"


class BadGateway(ApiError):
    status, code = 502, "bad_gateway"


class Unavailable(ApiError):
    status, code = 503, "unavailable"


class Timeout(ApiError):
    status, code = 504, "timeout"


# Codes of single operations. Default: status 422.


class PlacementError(ApiError):
    code = "placement_error"


class AlreadyInPlacementGroup(ApiError):
    code = "already_in_placement_group"


class InvalidServerType(ApiError):
    code = "invalid_server_type"


class ServerNotStopped(ApiError):
    code = "server_not_stopped"

    def __init__(self) -> None:
        super().__init__("server must be stopped: power it off first")


class ServerAlreadyAttached(ApiError):
    code = "server_already_attached"


class IpNotAvailable(ApiError):
    code = "ip_not_available"


class NoSubnetAvailable(ApiError):
    code = "no_subnet_available"


class NetworksOverlap(ApiError):
    code = "networks_overlap"


class ResourceInUse(ApiError):
    code = "resource_in_use"


class FirewallResourceNotFound(ApiError):
    status, code = 404, "firewall_resource_not_found"


class FirewallAlreadyApplied(ApiError):
    code = "firewall_already_applied"


class FirewallManagedByLabelSelector(ApiError):
    code = "firewall_managed_by_label_selector"


class PrivateNetOnlyServer(ApiError):
    code = "private_net_only_server"


class ServerAlreadyAdded(ApiError):
    code = "server_already_added"


class VolumeAlreadyAttached(ApiError):
    code = "volume_already_attached"


class MustBeUnassigned(ApiError):
    code = "must_be_unassigned"


class PrimaryIpAssigned(ApiError):
    code = "primary_ip_assigned"


class PrimaryIpAlreadyAssigned(ApiError):
    code = "primary_ip_already_assigned"


class PrimaryIpDatacenterMismatch(ApiError):
    code = "primary_ip_datacenter_mismatch"


class FloatingIpAssigned(ApiError):
    code = "floating_ip_assigned"


class IncorrectZoneMode(ApiError):
    code = "incorrect_zone_mode"


class ServerHasIpv4(ApiError):
    code = "server_has_ipv4"


class ServerHasIpv6(ApiError):
    code = "server_has_ipv6"


class CloudResourceIpNotAllowed(ApiError):
    code = "cloud_resource_ip_not_allowed"


class IpNotAssignedToServer(ApiError):
    code = "ip_not_assigned_to_server"


class NetworkHasNoVswitchSubnet(ApiError):
    code = "network_has_no_vswitch_subnet"


class SourcePortAlreadyUsed(ApiError):
    status, code = 412, "source_port_already_used"


class TargetAlreadyDefined(ApiError):
    code = "target_already_defined"


class LoadBalancerAlreadyAttached(ApiError):
    code = "load_balancer_already_attached"


class LoadBalancerNotAttachedToNetwork(ApiError):
    code = "load_balancer_not_attached_to_network"

    def __init__(self) -> None:
        super().__init__("load balancer is not attached to a network")


class LoadBalancerPublicInterfaceDisabled(ApiError):
    code = "load_balancer_public_interface_disabled"

    def __init__(self) -> None:
        super().__init__("load balancer public interface is disabled, cannot add target using public IP")


class ResolveCloudPrivateTargetsError(ApiError):
    code = "resolve_cloud_private_targets_error"


class ResolveCloudPublicTargetsError(ApiError):
    code = "resolve_cloud_public_targets_error"


class TargetsWithoutUsePrivateIp(ApiError):
    code = "targets_without_use_private_ip"


class InvalidLoadBalancerType(ApiError):
    code = "invalid_load_balancer_type"
