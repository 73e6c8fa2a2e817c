"""Shared by all request bodies: lenient about the form of a value, strict about the value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from lab.cloud import labels
from lab.cloud.errors import InvalidInput, UnsupportedError

Ref = int | str
"""An id, the digits of one, or a name."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
HostName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=253,
        pattern=r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
    ),
]


def _labels(value: dict[str, str]) -> dict[str, str]:
    if found := list(labels.faults(value)):
        raise ValueError("; ".join(found))
    return value


LabelMap = Annotated[dict[str, str], AfterValidator(_labels)]


class Body(BaseModel):
    """Unknown keys are ignored, and a null equals an absent key: both as at Hetzner."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {}
    """Keys that Hetzner has and the lab does not support → message of the error."""


NO_DATACENTER = {"datacenter": "datacenter was removed from the API on 2026-07-01; set a location instead"}


class Update(Body):
    name: Name | None = None
    labels: LabelMap | None = None


class Protection(Body):
    delete: bool | None = None


class DnsPtr(Body):
    ip: str
    dns_ptr: HostName | None = None


def parse[B: Body](model: type[B], data: Any) -> B:
    """The body as `model`; all its faults in one `invalid_input`."""
    if not isinstance(data, dict):
        raise InvalidInput("invalid input: the request body must be a JSON object")
    given = _without_nulls(data)
    for key, message in model.UNSUPPORTED.items():
        if given.get(key):
            raise UnsupportedError(message)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidInput.fields(_faults(error)) from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _faults(error: ValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in fault["loc"] if part not in ("int", "str")) or "body"
        message = fault["msg"].removeprefix("Value error, ")
        yield name, "Missing data for required field." if fault["type"] == "missing" else message
