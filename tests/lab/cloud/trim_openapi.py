"""Generate `openapi.json.gz` from Hetzner's OpenAPI document (docs.hetzner.cloud, cloud.spec.json).

    python -m tests.lab.cloud.trim_openapi cloud.spec.json

It contains the schemas of the successful responses that the lab implements, each distinct schema once.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

TRIMMED = Path(__file__).with_name("openapi.json.gz")

KEPT = re.compile(
    r"/(actions|certificates|firewalls|floating_ips|images|isos|load_balancers|load_balancer_types|locations|networks"
    r"|placement_groups|pricing|primary_ips|server_types|servers|ssh_keys|volumes|zones)(/|$)"
)
# Prose and annotations that validate nothing.
DROPPED = frozenset({"description", "example", "examples", "title", "deprecated", "x-enumDescriptions", "default"})
UNSUPPORTED = re.compile(r"/(attach_iso|request_console)$|^/servers/.*/metrics$")


def trim(document: dict[str, Any]) -> dict[str, Any]:
    schemas: dict[str, str] = {}

    def shared(schema: Any) -> str:
        text = json.dumps(plain(schema, top=True), sort_keys=True)
        return schemas.setdefault(text, f"s{len(schemas)}")

    def plain(node: Any, top: bool = False, names: bool = False) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        if not top and not names and node.get("type") == "object" and len(node.get("properties", {})) > 2:
            return {"$ref": f"#/$defs/{shared(node)}"}
        kept = {
            key: plain(value, names=key == "properties") for key, value in node.items() if names or key not in DROPPED
        }
        return kept

    answers: dict[str, dict[str, str | None]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not KEPT.match(path) or UNSUPPORTED.search(path) or "responses" not in operation:
                continue
            answers[f"{method.upper()} {path}"] = {
                status: shared(response["content"]["application/json"]["schema"]) if "content" in response else None
                for status, response in operation["responses"].items()
                if status.startswith("2")
            }
    return {"answers": answers, "$defs": {name: json.loads(text) for text, name in schemas.items()}}


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = json.dumps(trim(document), sort_keys=True, separators=(",", ":"))
    TRIMMED.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{TRIMMED}: {TRIMMED.stat().st_size} bytes")
