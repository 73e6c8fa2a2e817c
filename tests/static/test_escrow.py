"""The escrow holds every secret that a lost site needs: its decrypted file is the vault of the restore."""

from __future__ import annotations

import re

import yaml

from tests.support.labs import REPOSITORY

ENTRIES = yaml.safe_load((REPOSITORY / "playbooks/operations/vars/escrow.yml").read_text())["escrow_entries"]


def test_every_secret_of_a_site_is_in_the_escrow() -> None:
    """The lab has every service, and names its secrets as a vault does."""
    secrets = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/all/secrets.yml").read_text())
    assert set(secrets) - {"lab_secrets"} <= {entry["name"] for entry in ENTRIES}


def test_the_runbook_lists_the_entries() -> None:
    text = (REPOSITORY / "docs/runbooks/export_escrow.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M)
    assert rows == [(entry["name"], entry["reason"]) for entry in ENTRIES]
