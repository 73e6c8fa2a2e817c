"""Inventories to break: a sound copy of `prod` in a folder of its own, and its faults without starting Ansible."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.slipway.platform.plugins.action.check_environment import check_cloud
from ansible_collections.slipway.platform.plugins.module_utils.environment.checks import pure_faults
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Environment, Fault
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import read_environment
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from tests.lab.cloud.conftest import TOKEN, Lab, serving

REPOSITORY = Path(__file__).resolve().parents[3]
PLATFORM = "group_vars/all/platform.yml"
DEFAULTS = "group_vars/all/defaults.yml"
VAULT = "group_vars/all/vault.yml"
HOSTS = "hosts.yml"
CEPH = "group_vars/ceph.yml"


@dataclass(frozen=True)
class Secrets:
    public_key: str
    private_key: str
    authority: str
    authority_key: str


@pytest.fixture(scope="session")
def material() -> Secrets:
    ssh = Ed25519PrivateKey.generate()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )

    def private(any_key: Any, form: serialization.PrivateFormat) -> str:
        text: bytes = any_key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return text.decode()

    return Secrets(
        public_key=ssh.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode(),
        private_key=private(ssh, serialization.PrivateFormat.OpenSSH),
        authority=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        authority_key=private(key, serialization.PrivateFormat.PKCS8),
    )


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serving(tmp_path_factory.mktemp("cloud")) as lab:
        yield lab


@dataclass
class Inventory:
    """A folder to break. File names are relative to it."""

    folder: Path
    material: Secrets

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace what a pattern finds; it must find something."""
        path = self.folder / file
        text, times = re.subn(old, lambda _: new, path.read_text(), flags=re.M)
        assert times, f"{old!r} is not in {file}"
        path.write_text(text)

    def set(self, name: str, value: str, file: str = PLATFORM) -> None:
        """Give a variable another value, replacing all of its lines, or overriding its default."""
        pattern = re.compile(rf"^{name}:.*\n(?:[ ]+.*\n)*", re.M)
        path = self.folder / file
        text = pattern.sub("", path.read_text())
        path.write_text(f"{text}{name}: {value}\n")

    def tune(self, group: str, name: str, value: str) -> None:
        """Set a variable of a group in the file of the hosts."""
        path = self.folder / HOSTS
        document = yaml.safe_load(path.read_text())
        document["all"]["children"][group].setdefault("vars", {})[name] = yaml.safe_load(value)
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def add(self, file: str, text: str) -> None:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "---\n") + text + "\n")

    def remove(self, name: str, file: str = PLATFORM) -> None:
        self.edit(file, rf"^{name}:.*\n(?:[ ]+.*\n)*", "")

    def beside(self, environment: str, file: str, text: str) -> None:
        """A file of another environment beside this one."""
        path = self.folder.parent / environment / file
        path.parent.mkdir(parents=True)
        path.write_text(text + "\n")

    def environment(self, extra_variables: Mapping[str, Any] | None = None, before: Sequence[Path] = ()) -> Environment:
        """As Ansible reads it, with --extra-vars and inventories given before it."""
        loader = DataLoader()
        hosts = InventoryManager(loader=loader, sources=[*map(str, before), str(self.folder / "hosts.yml")])
        variables = VariableManager(loader=loader, inventory=hosts)
        # Ansible's command line sets this one.
        variables._extra_vars = {**(extra_variables or {}), "ansible_inventory_sources": [str(self.folder)]}
        return read_environment(
            HostVars(hosts, variables, loader),
            folder=self.folder,
            roles_dir=REPOSITORY / "roles",
            playbooks_dir=REPOSITORY / "playbooks",
            shown=f"inventories/{self.folder.name}",
        )

    def faults(self, *, with_cloud: bool = False, **command_line: Any) -> list[Fault]:
        environment = self.environment(**command_line)
        return sorted({*pure_faults(environment), *(check_cloud(environment) if with_cloud else ())})


@pytest.fixture(scope="session", autouse=True)
def ansible() -> None:
    init_plugin_loader()


def copied(folder: Path, name: str, material: Secrets) -> Inventory:
    """An environment of the repository as it is, in a folder of the same name."""
    target = folder / "inventories" / name
    shutil.copytree(REPOSITORY / "inventories" / name, target, ignore=shutil.ignore_patterns(".state", "vault.yml"))
    return Inventory(target, material)


@pytest.fixture
def copy(tmp_path: Path, material: Secrets) -> Callable[[str], Inventory]:
    return lambda name: copied(tmp_path, name, material)


@pytest.fixture
def sound(tmp_path: Path, cloud: Lab, material: Secrets) -> Inventory:
    return completed(copied(tmp_path, "prod", material), cloud)


@pytest.fixture(scope="module")
def sound_module(tmp_path_factory: pytest.TempPathFactory, cloud: Lab, material: Secrets) -> Inventory:
    """The same for tests that only read it."""
    return completed(copied(tmp_path_factory.mktemp("sound"), "prod", material), cloud)


def completed(inventory: Inventory, cloud: Lab) -> Inventory:
    """`prod` made usable: real keys and secrets, the local cloud."""
    material = inventory.material
    inventory.set("platform_admin_public_keys", f'["{material.public_key} admin"]')
    inventory.set("platform_hcloud_endpoint", cloud.endpoint)
    inventory.set("platform_hcloud_token", f'"{TOKEN}"')
    inventory.set("ceph_cephadm_checksum", f"sha256:{'0' * 64}")

    def block(text: str) -> str:
        return "|\n" + "".join(f"  {line}\n" for line in text.splitlines())

    inventory.add(
        VAULT,
        f"rke2_token: {secrets.token_hex(32)}\n"
        f"rke2_agent_token: {secrets.token_hex(32)}\n"
        f"object_storage_access_key: {secrets.token_hex(10).upper()}\n"
        f"object_storage_secret_key: {secrets.token_hex(32)}\n"
        + "".join(
            f"object_storage_{name}_access_key: {secrets.token_hex(10).upper()}\n"
            f"object_storage_{name}_secret_key: {secrets.token_hex(32)}\n"
            for name in ("etcd", "ceph", "config", "reader")
        )
        + f"platform_escrow_public_key: age1{'q' * 58}\n"
        f"rancher_admin_password: {secrets.token_hex(32)}\n"
        f"postgresql_backup_passphrase: {secrets.token_hex(32)}\n"
        "postgresql_role_passwords:\n"
        f"  app: {secrets.token_hex(32)}\n"
        f"  app_migration: {secrets.token_hex(32)}\n"
        f"  app_report: {secrets.token_hex(32)}\n"
        f"platform_ca_certificate: {block(material.authority)}"
        f"platform_ca_private_key: {block(material.authority_key)}",
    )
    return inventory
