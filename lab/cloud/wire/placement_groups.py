from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.cloud.domain.objects import PlacementGroup
from lab.cloud.domain.view import View
from lab.cloud.wire.base import Body, LabelMap, Name


class Create(Body):
    name: Name
    type: Literal["spread"]
    labels: LabelMap = Field(default_factory=dict)


def shape(view: View, group: PlacementGroup) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "labels": group.labels,
        "type": group.type,
        "created": group.created,
        "servers": view.members(group),
    }
