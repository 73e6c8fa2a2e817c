from __future__ import annotations

from typing import Any

from lab.cloud.domain.objects import Action


def shape(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "command": action.command,
        "status": action.status,
        "progress": 0 if action.status == "running" else 100,
        "started": action.created,
        "finished": action.finished,
        "resources": [{"id": resource.id, "type": resource.type} for resource in action.resources],
        "error": {"code": action.error.code, "message": action.error.message} if action.error else None,
    }
