"""Sources of apt that an image brings along, beside those that a role writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

ONE_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")
ARCHIVES = frozenset({"debian", "debian-security"})
"""Last part of the address of Debian's archives and of their mirrors."""
ALIASES = ("oldstable", "stable", "testing")
KEYRING = "debian-archive-"
DISABLED = ".disabled"
"""Suffix of files that apt ignores silently."""


def _is_archive(uri: str) -> bool:
    # mirror+file:/etc/apt/mirrors/debian.list names a file with addresses.
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2].removesuffix(".list") in ARCHIVES


def _is_suite(suite: str, release: str) -> bool:
    base, _, part = suite.replace("/", "-").partition("-")
    known = {"", "updates", "security", "backports", "proposed-updates", "backports-sloppy"}
    return base in {release, *ALIASES} and part in known


def _is_debian(uris: list[str], suites: list[str], signed_by: str, release: str) -> bool:
    return (
        any(map(_is_archive, uris))
        and any(_is_suite(suite, release) for suite in suites)
        and (not signed_by or KEYRING in signed_by)
    )


def _line_is_debian(line: str, release: str) -> bool:
    if (found := ONE_LINE.match(line)) is None:
        return False
    signed_by = re.search(r"signed-by=(\S+)", found["options"] or "", re.IGNORECASE)
    return _is_debian([found["uri"]], [found["suite"]], signed_by[1] if signed_by else "", release)


def _stanza_is_debian(stanza: str, release: str) -> bool:
    text = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
    text = re.sub(r"\n\s+", " ", text)
    fields = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    if fields.get("enabled", "yes").lower() in {"no", "false", "0"}:
        return False
    uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
    return _is_debian(uris, suites, fields.get("signed-by", ""), release)


def _remaining(path: str, content: str, release: str) -> str:
    """The content without the entries of Debian's archive."""
    if path.endswith(".sources"):
        stanzas = [stanza.strip("\n") for stanza in re.split(r"\n[ \t]*\n", content)]
        kept = [stanza for stanza in stanzas if not _stanza_is_debian(stanza, release)]
        return content if len(kept) == len(stanzas) else "".join(f"{stanza}\n\n" for stanza in kept if stanza.strip())
    return "".join(line for line in content.splitlines(keepends=True) if not _line_is_debian(line, release))


def _has_entries(content: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in content.splitlines())


def _disabled(files: Mapping[str, str | None], release: str, own: str) -> Iterator[dict[str, Any]]:
    for path, content in sorted(files.items()):
        if (
            content is None
            or path == own
            or not re.fullmatch(r"/etc/apt/sources\.list(?:\.d/[^/]+\.(?:list|sources))?", path)
        ):
            continue
        remaining = _remaining(path, content, release)
        if remaining == content:
            continue
        yield {"path": f"{path}{DISABLED}", "content": content}
        yield {"path": path, "content": remaining} if _has_entries(remaining) else {"path": path, "state": "absent"}


def apt_sources_disabled(files: Mapping[str, str | None], release: str, own: str) -> list[dict[str, Any]]:
    """Files for the module configuration that leave one source of Debian's archive: `own`, the role's.

    `files` are apt's sources by path. A file with Debian's archive is saved as `<path>.disabled`, which apt ignores;
    its other entries remain.
    """
    return list(_disabled(files, release, own))


class FilterModule:
    """Filters for apt's sources."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"apt_sources_disabled": apt_sources_disabled}
