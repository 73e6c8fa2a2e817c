"""Files of a host that come in numbers."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.host_files import account_folder, account_keys, trusted_files

CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"


def test_an_account_knows_its_keys_and_no_others() -> None:
    account = {"name": "anna", "public_keys": ["ssh-ed25519 AAAA anna ", "ssh-ed25519 BBBB"]}
    assert account_keys(account) == {
        "path": "/home/anna/.ssh/authorized_keys",
        "content": "ssh-ed25519 AAAA anna\nssh-ed25519 BBBB\n",
        "mode": "0600",
        "owner": "anna",
        "group": "anna",
    }
    assert account_folder(account)["path"] == "/home/anna/.ssh"
    assert account_folder({"name": "root"})["path"] == "/root/.ssh"


@pytest.mark.parametrize("key", ["", "AAAA", "ssh-ed25519 AAAA\nssh-ed25519 BBBB", "-----BEGIN PRIVATE KEY----- x"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(AnsibleFilterError, match="a key of the account 'anna' is no public key"):
        account_keys({"name": "anna", "public_keys": [key]})


def test_certificates_are_named_by_content() -> None:
    other = CA.replace("AAAA", "BBBB")
    files = trusted_files([CA, other, CA + "\n"], "/ca")
    assert len(files) == 2
    assert files == trusted_files([other, CA], "/ca")
    assert all(file["path"].startswith("/ca/") and file["path"].endswith(".crt") for file in files)


@pytest.mark.parametrize("text", ["", "AAAA", CA + "\n" + CA])
def test_what_is_no_single_certificate_is_refused(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match="give PEM text with one certificate in each entry"):
        trusted_files([text], "/ca")
