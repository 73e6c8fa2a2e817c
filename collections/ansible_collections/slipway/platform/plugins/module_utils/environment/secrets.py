"""Keys and secrets: present, strong, unique, no placeholders."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator

from . import postgresql_backup
from .model import SECRET_NAME, Environment, Fault, Origin, Setting, listed
from .specs import SECRETS_FILE, required_secrets

ISSUED = ("platform_hcloud_token", "gitlab_runner_")
SHORTEST_SECRET = 32
FEWEST_DIFFERENT = 10
"""Distinct characters; a random token of 32 characters has many more, a repeated word fewer."""
# Only patterns that random text does not contain: one token in 500 contains "xxx".
PLACEHOLDER = re.compile(r"replace|change.?me|placeholder|example|\btodo\b|your[-_ ]|secret|password|x{6}|<.*>", re.I)
KEY_PLACEHOLDER = re.compile(r"replace|change.?me|placeholder|your[-_ ]|x{6}|[<>]|\.\.\.|…", re.I)
KEY_TYPES = re.compile(
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com"
)
SHORTEST_RSA_BITS = 3072
PEM = re.compile(r"-----BEGIN (?P<kind>[A-Z ]+)-----\s+[A-Za-z0-9+/=\s]+-----END (?P=kind)-----\s*")


def faults(environment: Environment) -> Iterator[Fault]:
    yield from missing(environment)
    yield from weak(environment)
    yield from same(environment)
    yield from authority(environment)
    yield from admin_keys(environment)


def missing(environment: Environment) -> Iterator[Fault]:
    required = [*required_secrets(environment)]
    if postgresql_backup.enabled(environment):
        required.append("postgresql_backup_passphrase")
    absent = [name for name in dict.fromkeys(required) if name not in environment.settings]
    if absent:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(sorted(absent))} {'is' if len(absent) == 1 else 'are'} missing; create this environment's "
            f"secrets with ansible-playbook playbooks/operations/create_secrets.yml -i {environment.path}.",
        )


def tokens(environment: Environment) -> Iterator[Setting]:
    """Secrets that this project generates; others are as long as their issuer makes them."""
    for name, setting in environment.settings.items():
        checked = SECRET_NAME.search(name) and not name.endswith("private_key") and not name.startswith(ISSUED)
        if checked and isinstance(setting.value, str) and not setting.error:
            yield setting


def weak(environment: Environment) -> Iterator[Fault]:
    for setting in tokens(environment):
        assert isinstance(setting.value, str)
        if PLACEHOLDER.search(setting.value):
            yield Fault(
                setting.origin,
                f"{setting.name} is a placeholder; remove it and run create_secrets, which generates one.",
            )
        elif len(setting.value) < SHORTEST_SECRET or len(set(setting.value)) < FEWEST_DIFFERENT:
            yield Fault(
                setting.origin,
                f"{setting.name} can be guessed ({len(setting.value)} characters, {len(set(setting.value))} of them "
                f"different); use {SHORTEST_SECRET} random characters or more.",
            )


def same(environment: Environment) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for setting in sorted(tokens(environment), key=lambda setting: setting.name):
        other = first.setdefault(str(setting.value), setting.name)
        if other != setting.name:
            yield Fault(setting.origin, f"{setting.name} and {other} are the same; give each its own value.")


def authority(environment: Environment) -> Iterator[Fault]:
    """The platform's certificate authority; whether key and certificate match shows when a certificate is signed."""
    for name, kind in (("platform_ca_certificate", "CERTIFICATE"), ("platform_ca_private_key", "PRIVATE KEY")):
        setting = environment.settings.get(name)
        if setting is None or setting.error:
            continue
        match = PEM.fullmatch(setting.value.strip()) if isinstance(setting.value, str) else None
        if match is None or not match["kind"].endswith(kind):
            yield Fault(setting.origin, f"{name} is no {kind.lower()} in PEM form; remove it and run create_secrets.")
    for number, text in enumerate(environment.texts("platform_trusted_ca_certificates"), 1):
        if not PEM.fullmatch(text.strip() + "\n"):
            yield environment.fault(
                "platform_trusted_ca_certificates",
                f"entry {number} of platform_trusted_ca_certificates is no certificate in PEM form; correct it.",
            )


def admin_keys(environment: Environment) -> Iterator[Fault]:
    name = "platform_admin_public_keys"
    if environment.value(name) == []:
        yield environment.fault(name, f"{name} is empty; add at least one administrator's public key.")
    for number, text in enumerate(environment.texts(name), 1):
        if (reason := key_fault(text)) is not None:
            yield environment.fault(name, f"key {number} of {name} {reason}.")


def key_fault(text: str) -> str | None:
    """The fault of an SSH public key; None if it is valid."""
    if "PRIVATE KEY" in text:
        return "is a private key; set the public one, and create a new pair because this one is exposed"
    parts = text.split()
    if len(parts) < 2 or KEY_PLACEHOLDER.search(parts[1]):
        return "is a placeholder; set an administrator's public key (cat ~/.ssh/id_ed25519.pub)"
    kind, encoded = parts[0], parts[1]
    if not KEY_TYPES.fullmatch(kind):
        return f"is of the type {kind}; use ssh-ed25519, ecdsa or ssh-rsa, and write the line as in the .pub file"
    try:
        fields = _fields(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return "is damaged; copy the whole line of the .pub file"
    if len(fields) < 2 or fields[0] != kind.encode():
        return "is damaged; copy the whole line of the .pub file"
    if kind == "ssh-rsa" and (len(fields) != 3 or int.from_bytes(fields[2]).bit_length() < SHORTEST_RSA_BITS):
        return f"is an RSA key of fewer than {SHORTEST_RSA_BITS} bits; create one with ssh-keygen -t ed25519"
    return None


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed fields of a public key."""
    fields, position = [], 0
    while position < len(blob):
        if position + 4 > len(blob):
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", blob, position)
        position += 4
        if position + length > len(blob):
            raise ValueError("cut off")
        fields.append(blob[position : position + length])
        position += length
    return fields
