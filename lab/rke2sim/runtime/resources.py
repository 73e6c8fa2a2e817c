"""Objects of the Kubernetes API as this program handles them."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
