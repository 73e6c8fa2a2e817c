"""Secrets: present and unique; `formats` has what makes one strong."""

from __future__ import annotations

from collections.abc import Iterator

from . import postgresql_backup
from .model import SECRET_NAME, Environment, Fault, Origin, Setting, listed
from .specs import SECRETS_FILE, required_secrets

PASSPHRASE = "postgresql_backup_passphrase"
ISSUED = ("platform_hcloud_token", "gitlab_runner_")
"""Secrets of other issuers, who choose their length."""


def faults(environment: Environment) -> Iterator[Fault]:
    yield from missing(environment)
    yield from same(environment)


def missing(environment: Environment) -> Iterator[Fault]:
    absent = [name for name in dict.fromkeys(required_secrets(environment)) if name not in environment.settings]
    if postgresql_backup.enabled(environment) and not environment.is_set(PASSPHRASE):
        absent.append(PASSPHRASE)
    if absent:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(sorted(absent))}: missing",
            "Create this environment's secrets with ansible-playbook playbooks/operations/create_secrets.yml "
            f"-i {environment.path}.",
            absent=True,
        )


def tokens(environment: Environment) -> Iterator[Setting]:
    """Secrets that this project generates; others are as long as their issuer makes them."""
    for name, setting in environment.settings.items():
        checked = SECRET_NAME.search(name) and not name.endswith("private_key") and not name.startswith(ISSUED)
        if checked and isinstance(setting.value, str) and setting.value.strip():
            yield setting


def same(environment: Environment) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for setting in sorted(tokens(environment), key=lambda setting: setting.name):
        other = first.setdefault(str(setting.value), setting.name)
        if other != setting.name:
            yield Fault(setting.origin, f"{setting.name}, {other}: have the same value", "Give each its own value.")
