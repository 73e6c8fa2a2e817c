"""Options of playbooks (op_*): read from the `.meta.yml` beside each playbook, and validated."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Origin, Setting
from ansible_collections.slipway.platform.plugins.module_utils.environment.renamed import RENAMED
from ansible_collections.slipway.platform.plugins.module_utils.environment.specs import value_faults

PREFIX = "op_"
IMPORT = "ansible.builtin.import_playbook"
EXTRA_VARS = Origin("--extra-vars")


def playbook_options(playbook: Path) -> dict[str, Mapping[str, Any]]:
    """The options of a playbook and of those that it imports, by name; only its own ones can be required."""
    options: dict[str, Mapping[str, Any]] = {}
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")) or []:
        if IMPORT in play:
            imported = playbook_options(playbook.parent / play[IMPORT])
            options |= {name: {**option, "required": False} for name, option in imported.items()}
    return options | _own_options(playbook)


def _own_options(playbook: Path) -> dict[str, Mapping[str, Any]]:
    meta = playbook.with_suffix(".meta.yml")
    if not meta.is_file():
        return {}
    specs = yaml.safe_load(meta.read_text(encoding="utf-8"))["argument_specs"].values()
    return {
        name: option for spec in specs for name, option in spec.get("options", {}).items() if name.startswith(PREFIX)
    }


def option_faults(given: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Missing, unknown and invalid options, one sentence each."""
    for name, option in options.items():
        if option.get("required") and name not in given:
            yield f"{name}: not given. Set it with -e: {_description(option)}"
    for name, value in given.items():
        if name in options:
            for fault in value_faults(Setting(name, value, EXTRA_VARS), options[name]):
                yield fault.message
        elif name in RENAMED:
            yield f"{name}: renamed. Use {RENAMED[name]}."
        else:
            yield f"{name}: not an option of this playbook. {_remedy(name, options)}"


def limit_faults(playbook: Path, groups: Mapping[str, list[str]], hosts: list[str]) -> Iterator[str]:
    """Hosts on which an operation works and which `--limit` leaves out: it would be done in part, or not at all.

    `hosts` are those within the limit. Servers of PostgreSQL are independent of each other: some are enough.
    """
    plays = yaml.safe_load(playbook.read_text(encoding="utf-8")) or []
    named = dict.fromkeys(name for play in plays for name in str(play.get("hosts", "")).split(":"))
    required = {
        "localhost": ["localhost"],
        **{group: members for group, members in groups.items() if group != "postgresql"},
    }
    left_out = [host for name in named if name in required for host in required[name] if host not in hosts]
    if left_out:
        names = ", ".join(left_out)
        yield f"--limit leaves out {names}, where {playbook.stem} works too. Add them, or run without --limit."


def _remedy(name: str, options: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, sorted(options), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Remove it; the options are {', '.join(sorted(options))}." if options else "Remove it; there are none."


def _description(option: Mapping[str, Any]) -> str:
    text = option["description"]
    return text if isinstance(text, str) else " ".join(text)
