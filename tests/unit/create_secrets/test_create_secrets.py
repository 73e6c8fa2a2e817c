"""The play that makes an environment's secrets, run as a person runs it, on a file of the test's own."""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

REPOSITORY = Path(__file__).resolve().parents[3]
ANSIBLE = REPOSITORY / ".venv/bin"
NAMES = {
    "rke2_token",
    "rke2_agent_token",
    "platform_ca_certificate",
    "platform_ca_private_key",
    "platform_escrow_public_key",
    "postgresql_backup_passphrase",
    "postgresql_standby_password",
    "rancher_admin_password",
    "ceph_csi_encryption_passphrase",
    "postgresql_role_passwords",
}
ROLES = {"app", "app_migration", "app_report"}
"""What the inventory declares."""
UNCHANGED = "changed=0 "


def escrow(path: Path) -> Path:
    """Path of the escrow's private key for secrets at a path."""
    return path.parent / "escrow" / f"{path.name}.identity"


def create(path: Path, *arguments: str | Path, password: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_VAULT")}
    if password is not None:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(password)
    return subprocess.run(
        [
            ANSIBLE / "ansible-playbook",
            *("playbooks/operations/create_secrets.yml", "-i", "inventories/prod"),
            *("-e", f"op_create_secrets_path={path}", "-e", f"op_create_secrets_escrow_path={escrow(path)}"),
            *arguments,
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


PLAIN = ("-e", "op_create_secrets_plain=true")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "vault.yml"
    run = create(path, *PLAIN)
    assert run.returncode == 0, run.stdout
    secrets = yaml.safe_load(path.read_text())
    passwords = secrets.pop("postgresql_role_passwords")
    shown = {"platform_escrow_public_key"}
    for secret in [*(value for name, value in secrets.items() if name not in shown), *passwords.values()]:
        assert secret[:40] not in run.stdout + run.stderr
    return path


def test_all_secrets_are_made_strong_and_for_the_owner_alone(made: Path) -> None:
    secrets = yaml.safe_load(made.read_text())
    assert set(secrets) == NAMES
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    tokens = [secrets["rke2_token"], secrets["rke2_agent_token"]]
    assert all(len(token) == 64 and token.isalnum() for token in tokens)
    assert tokens[0] != tokens[1]
    passwords = secrets["postgresql_role_passwords"]
    assert set(passwords) == ROLES
    assert all(len(password) == 64 and password.isalnum() for password in passwords.values())
    assert len(set(passwords.values())) == len(passwords)


def test_the_authority_is_one_for_ten_years(made: Path) -> None:
    secrets = yaml.safe_load(made.read_text())
    certificate = x509.load_pem_x509_certificate(secrets["platform_ca_certificate"].encode())
    key = serialization.load_pem_private_key(secrets["platform_ca_private_key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    assert certificate.public_key() == key.public_key()
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=3640)
    certificate.verify_directly_issued_by(certificate)


def test_the_private_key_of_the_escrow_is_in_a_file_of_its_own(made: Path) -> None:
    secrets = yaml.safe_load(made.read_text())
    path = escrow(made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "AGE-SECRET-KEY" not in made.read_text()
    identity = pyrage.x25519.Identity.from_str(path.read_text().splitlines()[-1])
    assert str(identity.to_public()) == secrets["platform_escrow_public_key"]
    encrypted = pyrage.encrypt(b"secret", [pyrage.x25519.Recipient.from_str(secrets["platform_escrow_public_key"])])
    assert pyrage.decrypt(encrypted, [identity]) == b"secret"


def test_a_private_key_of_the_escrow_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    escrow(path).parent.mkdir()
    escrow(path).write_text("kept")
    run = create(path, *PLAIN)
    assert run.returncode == 2
    assert "has no platform_escrow_public_key" in " ".join(run.stdout.split())
    assert (escrow(path).read_text(), path.exists()) == ("kept", False)


def test_nothing_is_made_twice(made: Path) -> None:
    before = made.read_bytes()
    run = create(made, *PLAIN)
    assert UNCHANGED in run.stdout and "nothing was missing" in run.stdout
    assert made.read_bytes() == before


def test_only_what_is_missing_is_added(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    before = yaml.safe_load(made.read_text())
    del before["rke2_agent_token"], before["platform_ca_certificate"]
    path.write_text(yaml.safe_dump(before | {"other": "kept"}))
    run = create(path, *PLAIN)
    assert "generated platform_ca_certificate, rke2_agent_token" in " ".join(run.stdout.split())
    after = yaml.safe_load(path.read_text())
    assert set(after) == NAMES | {"other"}
    assert before.items() <= after.items()
    certificate = x509.load_pem_x509_certificate(after["platform_ca_certificate"].encode())
    key = serialization.load_pem_private_key(before["platform_ca_private_key"].encode(), None)
    assert certificate.public_key() == key.public_key()


def test_a_new_role_gets_a_password_and_the_others_keep_theirs(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    before = yaml.safe_load(made.read_text())
    del before["postgresql_role_passwords"]["app_report"]
    before["postgresql_role_passwords"]["of_before"] = "kept"
    path.write_text(yaml.safe_dump(before))
    run = create(path, *PLAIN)
    assert "generated postgresql_role_passwords" in " ".join(run.stdout.split())
    after = yaml.safe_load(path.read_text())["postgresql_role_passwords"]
    assert set(after) == ROLES | {"of_before"}
    assert before["postgresql_role_passwords"].items() <= after.items()


def test_a_store_of_our_own_gets_its_keys(tmp_path: Path) -> None:
    path, hosts = tmp_path / "vault.yml", tmp_path / "hosts.yml"
    hosts.write_text("object_storage: {hosts: {prod-store-1: {}}}\n")
    assert create(path, *PLAIN, "-i", hosts).returncode == 0
    secrets = yaml.safe_load(path.read_text())
    names = {name for name in secrets if name.startswith("object_storage_")}
    users = ("", "owner_", "etcd_", "ceph_", "config_", "reader_")
    assert names == {f"object_storage_{user}{word}_key" for user in users for word in ("access", "secret")}
    assert all(len(secrets[name]) == (20 if "access" in name else 64) for name in names)
    assert len({secrets[name] for name in names}) == len(names)
    assert secrets["object_storage_access_key"].isupper()


def test_a_certificate_without_its_key_is_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_text(yaml.safe_dump({"platform_ca_certificate": "x"}))
    run = create(path, *PLAIN)
    assert run.returncode == 2
    assert "holds platform_ca_certificate without platform_ca_private_key" in " ".join(run.stdout.split())


def test_without_a_password_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    run = create(path)
    assert run.returncode == 2
    assert "there is no vault password" in " ".join(run.stdout.split())
    assert not path.exists()


def test_with_a_password_the_file_is_encrypted_and_can_be_added_to(tmp_path: Path) -> None:
    path, password = tmp_path / "vault.yml", tmp_path / "password"
    password.write_text("correct horse\n")
    assert create(path, password=password).returncode == 0
    first = path.read_bytes()
    assert first.startswith(b"$ANSIBLE_VAULT;")
    assert UNCHANGED in create(path, password=password).stdout
    assert path.read_bytes() == first
    shown = subprocess.run(
        [ANSIBLE / "ansible-vault", "view", "--vault-password-file", password, path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(yaml.safe_load(shown.stdout)) == NAMES
    # A token that a later version needs would be added, and the file be encrypted again.
    path.write_text(yaml.safe_dump({"rke2_token": "kept" * 16, "platform_escrow_public_key": "age1kept"}))
    assert create(path, password=password).returncode == 0
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;")


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    run = create(path, *PLAIN, "--check")
    assert run.returncode == 0, run.stdout
    assert not path.exists()


def test_an_unreadable_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault.yml"
    path.write_text(yaml.safe_dump({"platform_ca_private_key": "x"}))
    run = create(path, *PLAIN)
    assert run.returncode == 2
    assert "platform_ca_private_key is not an unencrypted private key" in " ".join(run.stdout.split())
    assert yaml.safe_load(path.read_text()) == {"platform_ca_private_key": "x"}


def test_check_mode_with_nothing_missing_reports_no_change(made: Path) -> None:
    assert UNCHANGED in create(made, *PLAIN, "--check").stdout
