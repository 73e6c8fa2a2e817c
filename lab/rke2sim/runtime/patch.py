"""The four patch types of the Kubernetes API, on plain JSON values."""

from __future__ import annotations

import copy
from typing import Any

Obj = dict[str, Any]


class PatchError(Exception):
    """The patch is invalid, or does not match the object."""


MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "taints": ("key",),
    "conditions": ("type",),
    "addresses": ("type",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
}
"""Lists that strategic merge merges by a key of their items. All other lists are replaced."""

SETS = {"finalizers", "podCIDRs"}
"""Lists of plain values that strategic merge merges as sets."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _merge_key(field: str, items: list[Any]) -> str:
    """The merge key of this list; empty when the list is atomic."""
    entries = [item for item in items if isinstance(item, dict) and set(item) - {"$patch"}]
    if not entries:
        return ""
    for key in MERGE_KEYS.get(field, ()):
        if all(key in item for item in entries):
            return key
    return ""


def strategic_merge(target: Any, patch: Any, field: str = "") -> Any:
    """Kubernetes' strategic merge, with the merge keys of the well-known fields and the usual `$` directives."""
    if isinstance(patch, dict):
        return _strategic_map(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, field)
    return patch


def _strategic_map(target: Obj, patch: Obj) -> Obj:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target)
    retain = patch.get("$retainKeys")
    if retain is not None:
        result = {key: value for key, value in result.items() if key in retain}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/") or key in ("$patch", "$retainKeys"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value, key)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.partition("/")[2]
            if isinstance(result.get(name), list):
                result[name] = _ordered(name, result[name], order)
    return result


def _ordered(field: str, items: list[Any], order: list[Any]) -> list[Any]:
    """Items of `order` first, in its sequence; then the others in their own."""
    key = _merge_key(field, items)

    def rank(item: Any) -> int:
        for index, wanted in enumerate(order):
            same = item.get(key) == wanted.get(key) if key and isinstance(wanted, dict) else item == wanted
            if same:
                return index
        return len(order)

    return sorted(items, key=rank)


def _strategic_list(target: list[Any], patch: list[Any], field: str) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" and len(item) == 1 for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    if field in SETS:
        return target + [item for item in patch if item not in target]
    key = _merge_key(field, patch)
    if not key:
        return copy.deepcopy(patch)
    result = list(target)
    for item in patch:
        index = next((i for i, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append(strategic_merge({}, item))
        else:
            result[index] = strategic_merge(result[index], item)
    return result


def _pointer(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise PatchError(f"JSON pointer {path!r} does not start with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _walk(document: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(document, dict):
            if part not in document:
                raise PatchError(f"the path names {part!r}, which does not exist")
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(document, part)]
        else:
            raise PatchError(f"the path goes through a plain value at {part!r}")
    return document


def _index(items: list[Any], part: str, *, end: bool = False) -> int:
    if part == "-" and end:
        return len(items)
    if not part.isdecimal() or int(part) > len(items) - (0 if end else 1):
        raise PatchError(f"list index {part!r} is out of bounds")
    return int(part)


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    result = copy.deepcopy(document)
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise PatchError("each operation of a JSON patch has op and path")
        result = _apply_operation(result, operation)
    return result


def _apply_operation(document: Any, operation: Obj) -> Any:
    kind = operation["op"]
    parts = _pointer(operation["path"])
    if kind == "test":
        if _walk(document, parts) != operation.get("value"):
            raise PatchError(f"testing value at {operation['path']!r} failed")
        return document
    if kind in ("move", "copy"):
        source = _pointer(operation.get("from", ""))
        value = copy.deepcopy(_walk(document, source))
        if kind == "move":
            document = _remove(document, source)
        return _add(document, parts, value)
    if kind == "remove":
        return _remove(document, parts)
    if kind == "add":
        return _add(document, parts, copy.deepcopy(operation.get("value")))
    if kind == "replace":
        _walk(document, parts)
        if not parts:
            return copy.deepcopy(operation.get("value"))
        container = _walk(document, parts[:-1])
        index = _index(container, parts[-1]) if isinstance(container, list) else parts[-1]
        container[index] = copy.deepcopy(operation.get("value"))
        return document
    raise PatchError(f"unknown JSON patch operation {kind!r}")


def _add(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    container = _walk(document, parts[:-1])
    if isinstance(container, list):
        container.insert(_index(container, parts[-1], end=True), value)
    elif isinstance(container, dict):
        container[parts[-1]] = value
    else:
        raise PatchError(f"the path ends in a plain value at {parts[-1]!r}")
    return document


def _remove(document: Any, parts: list[str]) -> Any:
    _walk(document, parts)
    if not parts:
        return None
    container = _walk(document, parts[:-1])
    if isinstance(container, list):
        del container[_index(container, parts[-1])]
    else:
        del container[parts[-1]]
    return document


def fields_of(value: Any, field: str = "") -> Any:
    """The `fieldsV1` set of an applied configuration: `f:` for map keys, `k:` for items of keyed lists."""
    if isinstance(value, dict):
        return {f"f:{key}": fields_of(item, key) for key, item in value.items()}
    if isinstance(value, list):
        key = _merge_key(field, value)
        if key:
            return {f'k:{{"{key}":{_quoted(item[key])}}}': fields_of(item) for item in value}
    return {}


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def drop_unapplied(value: Any, before: Any, now: Any) -> Any:
    """Remove the fields that this manager applied before (`before`) and does not any more (`now`)."""
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            name = f"f:{key}"
            if name in before and name not in now:
                continue
            result[key] = drop_unapplied(item, before[name], now[name]) if before.get(name) and name in now else item
        return result
    if isinstance(value, list):
        kept = []
        for item in value:
            names = [
                name for name in before
                if name.startswith("k:{") and isinstance(item, dict) and _matches(name, item)
            ]  # fmt: skip
            if not names:
                kept.append(item)
            elif names[0] in now:
                kept.append(drop_unapplied(item, before[names[0]], now[names[0]]))
        return kept
    return value


def _matches(name: str, item: Obj) -> bool:
    key = name[4:].partition('"')[0]
    return key in item and name == f'k:{{"{key}":{_quoted(item[key])}}}'
