"""Named formats of dicts and lists whose entries depend on each other or belong to another program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .formats import DURATION, QUANTITY, Problem, address, host
from .kubernetes_fields import ETCD_ARGUMENTS, KUBELET_FIELDS
from .model import listed, suggestion
from .postgresql_settings import SETTINGS

Finding = tuple[str, Any, Problem]
"""Path below the option (`.name`), the value there, and what is wrong with it."""
Structure = Callable[[Any], Iterator[Finding]]

LONGEST_TEXT = 1000
KUBELET_TYPES = {name: kind for kind, names in KUBELET_FIELDS.items() for name in names.split()}
ETCD_TYPES = {name: kind for kind, names in ETCD_ARGUMENTS.items() for name in names.split()}
RKE2_HEARTBEAT_MS, RKE2_ELECTION_MS = 500, 5000
LONGEST_ELECTION_MS = 50000
AUDIT_LEVELS = ("None", "Metadata", "Request", "RequestResponse")
AUDIT_FIELDS = (
    *("level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs"),
    *("omitStages", "omitManagedFields"),
)
CEPH_SECTIONS = re.compile(r"global|(mon|mgr|osd|mds|client)(\.[\w.-]+)?(/[\w:-]+)?")


def scalar(value: Any) -> Problem | None:
    """One line of text, a number or a boolean."""
    if isinstance(value, bool | int | float):
        return None
    if not isinstance(value, str):
        return "is no single value", "Write one line of text, a number or a boolean."
    if not value.strip() or not value.isprintable() or len(value) > LONGEST_TEXT or re.search(r"[`;]|\$\(", value):
        return "is empty, has more than one line, or is a command", "Write one line of text without ; ` and $(."
    return None


def settings(pattern: str, title: str) -> Structure:
    """Names of a pattern, each with a single value."""
    compiled = re.compile(pattern)

    def check(value: Mapping[Any, Any]) -> Iterator[Finding]:
        for name, content in value.items():
            if not compiled.fullmatch(str(name)):
                yield f".{name}", name, (f"is no {title}", "Correct the name, or remove it.")
            elif (problem := scalar(content)) is not None:
                yield f".{name}", content, problem

    return check


def ceph_config(value: Mapping[Any, Any]) -> Iterator[Finding]:
    for section, options in value.items():
        if not CEPH_SECTIONS.fullmatch(str(section)):
            yield f".{section}", section, ("is no section", "Choose global, mon, mgr, osd, mds or client.")
        elif not isinstance(options, Mapping):
            yield f".{section}", options, ("is no dict", "Write names and values of options, like {debug_osd: 1}.")
        else:
            for path, found, problem in ceph_options(options):
                yield f".{section}{path}", found, problem


ceph_options = settings(r"[a-z][a-z0-9_/]{2,63}", "option of Ceph")


def ceph_caps(value: Mapping[Any, Any]) -> Iterator[Finding]:
    for service, caps in value.items():
        if service not in ("mon", "mgr", "osd", "mds"):
            yield f".{service}", service, ("is no service of Ceph", "Choose mon, mgr, osd or mds.")
        elif not isinstance(caps, str) or not re.fullmatch(r"(allow|profile) [\w .,=*/-]+", caps):
            yield f".{service}", caps, ("is no capability", "Write one like allow r or profile rbd pool=kubernetes.")


def bucket_prefixes(value: Mapping[Any, Any]) -> Iterator[Finding]:
    for writer, prefixes in value.items():
        listed_prefixes = isinstance(prefixes, Sequence) and not isinstance(prefixes, str)
        for prefix in (prefixes if listed_prefixes else [prefixes]) or [None]:
            if not isinstance(prefix, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/", prefix, re.A):
                yield f".{writer}", prefix, ("is no prefix of keys", "Write a list of prefixes like [etcd/].")
        if not re.fullmatch(r"[A-Za-z0-9_][\w.:/-]{0,200}", str(writer), re.A):
            yield f".{writer}", writer, ("is no writer", "Name a user of the store, or an ARN.")


def postgresql_settings(value: Mapping[Any, Any]) -> Iterator[Finding]:
    for name, content in value.items():
        text = str(name).lower()
        if text not in SETTINGS and not re.fullmatch(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_.]*", text):
            yield f".{name}", name, ("is no setting of PostgreSQL", suggestion(text, SETTINGS))
        elif isinstance(content, bool):
            yield f".{name}", content, ("is a boolean of YAML", 'Write it in quotes, like "on".')
        elif content != "" and (problem := scalar(content)) is not None:
            yield f".{name}", content, problem


def kubelet_config(value: Mapping[Any, Any], above: str = "") -> Iterator[Finding]:
    """A kubelet does not start with a wrong type, and ignores an unknown field."""
    for name, content in value.items():
        full = f"{above}{name}"
        nested = any(key.startswith(f"{full}.") for key in KUBELET_TYPES)
        kind = "map" if nested else KUBELET_TYPES.get(full, "")
        below = f".{full}"
        if not kind:
            yield below, name, ("is no field of the kubelet's configuration", suggestion(full, KUBELET_TYPES))
        elif kind == "map" and isinstance(content, Mapping):
            yield from kubelet_config(content, f"{full}.")
        elif (remedy := _kubelet_type(kind, content)) is not None:
            yield below, content, ("is of another type", remedy)
        elif full in KUBELET_SIZES:
            for key, size in content.items() if isinstance(content, Mapping) else [("", content)]:
                pattern, remedy = KUBELET_SIZES[full]
                if not re.fullmatch(pattern, size):
                    yield (f"{below}.{key}" if key else below), size, ("is no size or time", remedy)


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_text(entry) for entry in value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and len(value) <= LONGEST_TEXT


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1000 <= value < 2**31


def _map(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(_text(name) and accepts(content) for name, content in value.items())


_SIZE = QUANTITY, "Write a quantity of Kubernetes, like 512Mi."
_SHARE = rf"{QUANTITY}|\d{{1,2}}(\.\d+)?%", "Write a quantity or a share, like 512Mi or 10%."
KUBELET_SIZES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("systemReserved", "kubeReserved", "containerLogMaxSize"), _SIZE),
    **dict.fromkeys(("evictionHard", "evictionSoft", "evictionMinimumReclaim"), _SHARE),
    "evictionSoftGracePeriod": (f"0|{DURATION}", "Write a duration like 1m30s."),
}
"""Fields, or their entries, with a pattern and the remedy."""

KUBELET_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "Write true or false."),
    "int": (_integer, "Write a number."),
    "number": (lambda value: _integer(value) or isinstance(value, float), "Write a number."),
    "text": (_text, "Write one line of text."),
    "duration": (
        lambda value: isinstance(value, str) and re.fullmatch(f"0|{DURATION}", value) is not None,
        "Write a duration like 1m30s.",
    ),
    "list": (_texts, "Write a list of texts."),
    "ints": (lambda value: isinstance(value, list) and all(map(_integer, value)), "Write a list of numbers."),
    "texts": (lambda value: _map(value, _text), 'Write names and texts, like {memory: "512Mi"}.'),
    "switches": (lambda value: _map(value, lambda entry: isinstance(entry, bool)), "Write names with true or false."),
    "lists": (lambda value: _map(value, _texts), "Write names with lists of texts."),
    "entries": (
        lambda value: isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value),
        "Write a list of dicts.",
    ),
    "mapping": (lambda value: isinstance(value, Mapping), "Write a dict."),
    "map": (lambda value: isinstance(value, Mapping), "Write a dict."),
}


def _kubelet_type(kind: str, value: Any) -> str | None:
    accepts, remedy = KUBELET_KINDS[kind]
    return None if accepts(value) else remedy


def etcd_arguments(value: Sequence[Any]) -> Iterator[Finding]:
    numbers = {"heartbeat-interval": RKE2_HEARTBEAT_MS, "election-timeout": RKE2_ELECTION_MS}
    for position, argument in enumerate(value):
        name, _, content = str(argument).partition("=")
        if name not in ETCD_TYPES:
            problem = "is no argument that tunes etcd", suggestion(name, ETCD_TYPES)
            yield f"[{position}]", argument, problem
        elif not _etcd_value(ETCD_TYPES[name], content):
            yield f"[{position}]", argument, ("has another type", f"Write {name}=<{ETCD_TYPES[name]}>.")
        elif name in numbers:
            numbers[name] = int(content)
    heartbeat, election = numbers["heartbeat-interval"], numbers["election-timeout"]
    if not 0 < 5 * heartbeat <= election <= LONGEST_ELECTION_MS:
        yield (
            "",
            value,
            (
                f"means election-timeout {election} and heartbeat-interval {heartbeat}, with which etcd does not start",
                f"Make the first at least 5 times the second and at most {LONGEST_ELECTION_MS}; RKE2 sets "
                f"{RKE2_ELECTION_MS} and {RKE2_HEARTBEAT_MS} where one is left out.",
            ),
        )


def _etcd_value(kind: str, text: str) -> bool:
    patterns = {
        "int": r"\d{1,12}",
        "duration": f"0|{DURATION}",
        "bool": "true|false",
        "text": r"[!-~]([ -~]{0,198}[!-~])?",
    }
    return re.fullmatch(patterns[kind], text) is not None


def audit_rules(value: Sequence[Any]) -> Iterator[Finding]:
    for position, rule in enumerate(value):
        if not isinstance(rule, Mapping):
            continue  # the type of the elements is another fault
        if rule.get("level") not in AUDIT_LEVELS:
            yield f"[{position}].level", rule.get("level"), ("is no level", f"Choose one of {listed(AUDIT_LEVELS)}.")
        for name, content in rule.items():
            where = f"[{position}].{name}"
            if name not in AUDIT_FIELDS:
                yield where, name, ("is no field of a rule", suggestion(str(name), AUDIT_FIELDS))
            elif name == "omitManagedFields":
                if not isinstance(content, bool):
                    yield where, content, ("is no boolean", "Write true or false.")
            elif name == "resources":
                if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
                    yield where, content, ("is no list of dicts", "Write a list like [{group: apps}].")
            elif name != "level" and not _texts(content):
                yield where, content, ("is no list of texts", "Write a list of texts.")


def host_addresses(value: Mapping[Any, Any]) -> Iterator[Finding]:
    """Names for /etc/hosts, each with an address or several."""
    for name, content in value.items():
        if host(str(name)) is not None:
            yield f".{name}", name, ("is no host name", "Write a DNS name.")
        for entry in content if isinstance(content, list) and content else [content]:
            if not isinstance(entry, str) or address(entry) is not None:
                yield f".{name}", entry, ("is no IP address", "Write one like 10.40.1.10, or a list of them.")


def registries(value: Mapping[Any, Any]) -> Iterator[Finding]:
    """registries.yaml of RKE2."""
    for part, entries in value.items():
        if part not in ("mirrors", "configs"):
            yield f".{part}", part, ("is no part of registries.yaml", "Choose mirrors or configs.")
            continue
        if not isinstance(entries, Mapping):
            yield f".{part}", entries, ("is no dict", "Write it by registry, like {docker.io: {…}}.")
            continue
        known = ("endpoint", "rewrite") if part == "mirrors" else ("auth", "tls")
        for name, entry in entries.items():
            where = f".{part}.{name}"
            if name != "*" and host(str(name).partition(":")[0]) is not None:
                yield where, name, ("is no registry", "Write its name, host[:port].")
            elif not isinstance(entry, Mapping) or set(entry) - set(known):
                # The value may hold a password.
                yield where, "its value", ("is no dict of the known keys", f"Use only {listed(known)}.")


def values(value: Mapping[Any, Any]) -> Iterator[Finding]:
    """Values of a chart, whose schema is the chart's own."""
    for name in value:
        if not re.fullmatch(r"[A-Za-z][\w.-]{0,127}", str(name)):
            yield f".{name}", name, ("is no key of a chart's values", "Correct the name, or remove it.")


def container_resources(value: Mapping[Any, Any]) -> Iterator[Finding]:
    """Requests and limits of a container."""
    for part, amounts in value.items():
        if part not in ("requests", "limits"):
            yield (
                f".{part}",
                part,
                ("is neither requests nor limits", "Write {requests: {cpu: 250m}, limits: {memory: 1Gi}}."),
            )
        elif not isinstance(amounts, Mapping):
            yield f".{part}", amounts, ("is no dict", "Write quantities, like {cpu: 250m, memory: 1Gi}.")
        else:
            for name, amount in amounts.items():
                if name not in ("cpu", "memory", "ephemeral-storage"):
                    yield f".{part}.{name}", name, ("is no resource", "Choose cpu, memory or ephemeral-storage.")
                elif not re.fullmatch(QUANTITY, str(amount)):
                    yield f".{part}.{name}", amount, ("is no quantity", "Write one like 250m or 1Gi.")


STRUCTURES: dict[str, Structure] = {
    "audit_rules": audit_rules,
    "bucket_prefixes": bucket_prefixes,
    "ceph_caps": ceph_caps,
    "ceph_config": ceph_config,
    "ceph_options": ceph_options,
    "chart_values": values,
    "container_resources": container_resources,
    "etcd_arguments": etcd_arguments,
    "host_addresses": host_addresses,
    "kubelet_config": kubelet_config,
    "postgresql_settings": postgresql_settings,
    "rancher_settings": settings(r"[a-z][a-z0-9-]{1,62}", "setting of Rancher"),
    "registries": registries,
    "sysctls": settings(r"[a-z][a-z0-9_]*([./][A-Za-z0-9_-]+)+", "kernel setting"),
}
