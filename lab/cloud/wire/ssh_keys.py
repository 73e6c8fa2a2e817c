from __future__ import annotations

from typing import Any

from pydantic import Field

from lab.cloud.domain.objects import SshKey
from lab.cloud.domain.view import View
from lab.cloud.wire.base import Body, LabelMap, Name


class Create(Body):
    name: Name
    public_key: str
    labels: LabelMap = Field(default_factory=dict)


def shape(view: View, key: SshKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "labels": key.labels,
        "created": key.created,
    }
