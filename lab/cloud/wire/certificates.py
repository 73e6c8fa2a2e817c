from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from lab.cloud.domain import targets
from lab.cloud.domain.objects import Certificate
from lab.cloud.domain.view import View
from lab.cloud.wire.base import Body, LabelMap, Name

DomainName = Annotated[
    str,
    StringConstraints(
        max_length=253,
        to_lower=True,
        pattern=r"^(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]$",
    ),
]


class Create(Body):
    name: Name
    labels: LabelMap = Field(default_factory=dict)
    type: Literal["uploaded", "managed"] = "uploaded"
    certificate: str | None = None
    private_key: str | None = None
    domain_names: Annotated[tuple[DomainName, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _require_fields(self) -> Create:
        needed = ("domain_names",) if self.type == "managed" else ("certificate", "private_key")
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"type {self.type} requires {' and '.join(missing)}")
        return self


def shape(view: View, certificate: Certificate) -> dict[str, Any]:
    return {
        "id": certificate.id,
        "name": certificate.name,
        "labels": certificate.labels,
        "type": certificate.type,
        "certificate": certificate.certificate,
        "created": certificate.created,
        "not_valid_before": certificate.not_valid_before,
        "not_valid_after": certificate.not_valid_after,
        "domain_names": certificate.domain_names,
        "fingerprint": certificate.fingerprint,
        "status": _status(certificate) if certificate.type == "managed" else None,
        "used_by": [{"id": id, "type": "load_balancer"} for id in targets.balancers_with(view, certificate)],
    }


def _status(certificate: Certificate) -> dict[str, Any]:
    error = certificate.error
    return {
        "issuance": certificate.issuance,
        "renewal": "scheduled" if certificate.certificate else "unavailable",
        "error": {"code": error.code, "message": error.message} if error else None,
    }
