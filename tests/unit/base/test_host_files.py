"""Lists of files of a host."""

from __future__ import annotations

import base64
import struct

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.host_files import account_folder, account_keys, trusted_files


def public_key(kind: str, *fields: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(field)) + field for field in (kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()}"


ONE, TWO = (public_key("ssh-ed25519", letter * 32) for letter in (b"1", b"2"))
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"


def test_an_account_has_exactly_its_keys() -> None:
    account = {"name": "anna", "public_keys": [f"{ONE} anna ", TWO]}
    assert account_keys(account) == {
        "path": "/home/anna/.ssh/authorized_keys",
        "content": f"{ONE} anna\n{TWO}\n",
        "mode": "0600",
        "owner": "anna",
        "group": "anna",
    }
    restricted = f'from="198.51.100.0/24" {ONE} anna'
    assert account_keys(account | {"public_keys": [restricted]})["content"] == f"{restricted}\n"
    assert account_folder(account)["path"] == "/home/anna/.ssh"
    assert account_folder({"name": "root"})["path"] == "/root/.ssh"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "is a placeholder"),
        ("AAAA", "is a placeholder"),
        ("ssh-ed25519 AAAA", "is damaged"),
        (f"{ONE}\n{TWO}", "has more than one line"),
        ("-----BEGIN PRIVATE KEY----- x", "is a private key"),
        (public_key("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 256), "is an RSA key of fewer than 3072 bits"),
    ],
)
def test_keys_that_sshd_ignores_are_rejected(key: str, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"key 2 of the account 'anna' {message}"):
        account_keys({"name": "anna", "public_keys": [ONE, key]})


def test_certificates_are_named_by_content() -> None:
    other = CA.replace("AAAA", "BBBB")
    files = trusted_files([CA, other, CA + "\n"], "/ca")
    assert len(files) == 2
    assert files == trusted_files([other, CA], "/ca")
    assert all(file["path"].startswith("/ca/") and file["path"].endswith(".crt") for file in files)


@pytest.mark.parametrize("text", ["", "AAAA", CA + "\n" + CA])
def test_other_text_than_one_certificate_is_rejected(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match="set PEM text with one certificate in each entry"):
        trusted_files([text], "/ca")
