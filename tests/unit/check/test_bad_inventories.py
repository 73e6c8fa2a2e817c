"""Inventories broken in one point each: every one ends in a readable list of faults, and nothing is changed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Fault

from tests.lab.cloud.conftest import Lab
from tests.unit.check.conftest import CEPH, DEFAULTS, HOSTS, PLATFORM, REPOSITORY, VAULT, Inventory

SERVERS = "group_vars/rke2_server.yml"
BALANCER = "group_vars/load_balancer.yml"
DATABASE = "group_vars/postgresql.yml"
TWO_DATABASES = """\
        prod-postgresql-1: { provision_private_ip: 10.40.1.71 }
        prod-postgresql-2: { provision_private_ip: 10.40.1.72 }"""
SHARED_HOST = "    ceph: {vars: {provision_server_types: [cx23]}, hosts: {prod-rke2-server-1: {}}}\n"
STANDBY = TWO_DATABASES.replace("72 }", "72, postgresql_standby: true }")


@dataclass(frozen=True)
class Case:
    name: str
    breaks: Callable[[Inventory], Any]
    file: str
    messages: tuple[str, ...]
    needs_cloud: bool = False
    """Whether the fault needs the data of the cloud."""


def case(name: str, breaks: Callable[[Inventory], Any], file: str, *messages: str, needs_cloud: bool = False) -> Any:
    return pytest.param(Case(name, breaks, file, messages, needs_cloud), id=name.replace(" ", "-"))


CASES = [
    # backups of databases
    case(
        "backups without a passphrase",
        lambda i: i.remove("postgresql_backup_passphrase", VAULT),
        VAULT,
        "postgresql_backup_passphrase: missing",
        "create_secrets.yml",
    ),
    case(
        "backups without keys",
        lambda i: [i.remove(f"object_storage_{word}_key", VAULT) for word in ("access", "secret")],
        VAULT,
        "object_storage_access_key, object_storage_secret_key: missing",
        "postgresql_backup_enabled",
    ),
    case(
        "backups that reach back too little",
        lambda i: i.add(DATABASE, "postgresql_backup_retention_days: 3"),
        DATABASE,
        "postgresql_backup_retention_days: 3 is out of range. Choose 7 to 9999.",
    ),
    case(
        "backups whose schedule leaves one out",
        lambda i: i.add(
            DATABASE, "postgresql_backup_schedule: {full: Sun 01:00, diff: daily, incr: hourly, verify: Sat}"
        ),
        DATABASE,
        "no time for drill",
    ),
    case(
        "backups whose schedule knows more than there is",
        lambda i: i.add(
            DATABASE,
            "postgresql_backup_schedule: {full: Sun, diff: daily, incr: '6:00', verify: Sat, drill: Sun, snapshot: a}",
        ),
        DATABASE,
        '"snapshot" is no job',
    ),
    case(
        "backups whose schedule is empty",
        lambda i: i.add(
            DATABASE, "postgresql_backup_schedule: {full: Sun, diff: daily, incr: hourly, verify: Sat, drill: ''}"
        ),
        DATABASE,
        'postgresql_backup_schedule.drill: "" is empty',
    ),
    case(
        "second bucket without a name",
        lambda i: i.add(DATABASE, "postgresql_backup_second_bucket: {endpoint: https://s3.example.net, region: a}"),
        DATABASE,
        "postgresql_backup_second_bucket: has no name",
    ),
    case(
        "second bucket in clear text and without keys",
        lambda i: i.add(
            DATABASE, "postgresql_backup_second_bucket: {endpoint: http://s3.example.net, region: abc, name: backup}"
        ),
        DATABASE,
        'postgresql_backup_second_bucket.endpoint: "http://s3.example.net"',
    ),
    case(
        "second bucket without keys",
        lambda i: i.add(
            DATABASE, "postgresql_backup_second_bucket: {endpoint: https://s3.example.net, region: abc, name: backup}"
        ),
        VAULT,
        "postgresql_backup_second_access_key, postgresql_backup_second_secret_key: missing",
    ),
    case(
        "second bucket that is the first",
        lambda i: i.add(
            DATABASE,
            "postgresql_backup_second_bucket: {endpoint: '{{ platform_object_storage_endpoint }}', region: a, "
            "name: '{{ platform_object_storage_bucket }}'}",
        ),
        DATABASE,
        "is the same as the first",
    ),
    case(
        "versions that expire while they are locked",
        lambda i: i.set("platform_object_storage_expire_days", "14"),
        PLATFORM,
        "platform_object_storage_expire_days: 14 is not more than the 14 days of the lock",
    ),
    case(
        "bucket with half a lock",
        lambda i: i.add(CEPH, "ceph_s3_buckets: [{ name: app, owner: app, lock_mode: GOVERNANCE }]"),
        CEPH,
        'ceph_s3_buckets: "app": only one of lock_mode and lock_days is set',
    ),
    # databases
    case(
        "database without a volume",
        lambda i: i.tune("postgresql", "provision_volumes", "[]"),
        HOSTS,
        "host prod-postgresql-1: has no volume called data",
    ),
    case(
        "two databases side by side",
        lambda i: i.edit("hosts.yml", "^.*prod-postgresql-1.*$", TWO_DATABASES),
        "hosts.yml",
        "group postgresql: has 2 hosts and 2 primaries (prod-postgresql-1, prod-postgresql-2)",
    ),
    case(
        "standby without a password",
        lambda i: i.edit("hosts.yml", "^.*prod-postgresql-1.*$", STANDBY),
        "group_vars/all/vault.yml",
        "postgresql_standby_password: is missing, which prod-postgresql-2 needs for replication",
    ),
    case(
        "no primary",
        lambda i: i.edit(
            "hosts.yml", "^.*prod-postgresql-1.*$", STANDBY.replace("71 }", "71, postgresql_standby: true }")
        ),
        "hosts.yml",
        "group postgresql: has 2 hosts and 0 primaries (none)",
    ),
    case(
        "synchronous without a standby",
        lambda i: i.add(DATABASE, "postgresql_synchronous: true"),
        DATABASE,
        "postgresql_synchronous: true, but group postgresql has no host with postgresql_standby: true",
    ),
    case(
        "version that the distribution has not",
        lambda i: i.add(DATABASE, "postgresql_source: distro"),
        PLATFORM,
        'postgresql_version: "18", but debian-13 itself has 17',
    ),
    case(
        "database certificate that is renewed at once",
        lambda i: i.add(DATABASE, "postgresql_certificate_renew_days: 365"),
        DATABASE,
        "postgresql_certificate_renew_days: 365",
    ),
    case(
        "database whose name needs quotes",
        lambda i: i.edit(DATABASE, "^postgresql_databases: \\[", "postgresql_databases: [{ name: my-app }, "),
        DATABASE,
        'postgresql_databases[0].name: "my-app" is no usable name',
    ),
    case(
        "extension whose package nothing installs",
        lambda i: i.edit(DATABASE, "extensions: \\[pg_trgm\\]", "extensions: [pg_trgm, vector]"),
        DATABASE,
        'postgresql_databases: app has the extension "vector", which PostgreSQL itself does not contain',
    ),
    case(
        "role for a database that nobody declared",
        lambda i: i.edit(DATABASE, "database: app, access: ro", "database: shop, access: ro"),
        DATABASE,
        'postgresql_roles: app_report is for the database "shop", which postgresql_databases does not declare. It has',
    ),
    case(
        "role that the platform makes itself",
        lambda i: i.edit(DATABASE, "name: app_report", "name: app_ro"),
        DATABASE,
        "postgresql_roles: app_ro is reserved, because the platform itself creates it",
    ),
    case(
        "role that is declared twice",
        lambda i: i.edit(DATABASE, "name: app_report", "name: app"),
        DATABASE,
        'postgresql_roles[2]: "app" is listed twice',
    ),
    case(
        "role that comes from elsewhere",
        lambda i: i.edit(DATABASE, "access: rw }", "access: rw, cidrs: [0.0.0.0/0] }"),
        DATABASE,
        "postgresql_roles: app may connect from 0.0.0.0/0, outside of platform_network_cidr 10.40.0.0/16",
    ),
    case(
        "role that comes from no range",
        lambda i: i.edit(DATABASE, "access: rw }", "access: rw, cidrs: [10.40.1.7/24] }"),
        DATABASE,
        'postgresql_roles[0].cidrs[0]: "10.40.1.7/24" has bits beyond its mask. Write 10.40.1.0/24.',
    ),
    case(
        "role without a password",
        lambda i: i.edit(VAULT, "^  app_report: .*\n", ""),
        VAULT,
        "postgresql_role_passwords: has none for app_report",
    ),
    case(
        "role with a password to guess",
        lambda i: i.edit(VAULT, "^  app_report: .*$", "  app_report: secretsecret"),
        VAULT,
        "postgresql_role_passwords.app_report: (a secret) can be guessed",
    ),
    # network plan
    case(
        "range that is none",
        lambda i: i.set("platform_network_cidr", "10.40.0.0/33"),
        PLATFORM,
        'platform_network_cidr: "10.40.0.0/33" is no IPv4 range',
        "Write one like",
    ),
    case(
        "range with bits beyond its mask",
        lambda i: i.set("platform_network_cidr", "10.40.1.0/16"),
        PLATFORM,
        "bits beyond its mask. Write 10.40.0.0/16.",
    ),
    case(
        "range that is public",
        lambda i: i.set("platform_network_cidr", "8.40.0.0/16"),
        PLATFORM,
        "platform_network_cidr: 8.40.0.0/16 is not private",
    ),
    case(
        "network too small for Hetzner",
        lambda i: i.set("platform_network_cidr", "10.40.1.0/25"),
        PLATFORM,
        "Hetzner's networks are /24 or wider",
    ),
    case(
        "subnet outside the network",
        lambda i: i.set("platform_subnet_cidr", "10.50.1.0/24"),
        PLATFORM,
        "platform_subnet_cidr: 10.50.1.0/24 lies outside of platform_network_cidr 10.40.0.0/16",
    ),
    case(
        "network that hides services",
        lambda i: (i.edit(PLATFORM, r"10\.40\.", "10.43."), i.edit("hosts.yml", r"10\.40\.", "10.43.")),
        PLATFORM,
        "rke2_service_cidr: 10.43.0.0/16 overlaps platform_network_cidr",
    ),
    case(
        "address twice",
        lambda i: i.edit("hosts.yml", r"10\.40\.1\.22", "10.40.1.21"),
        "hosts.yml",
        "provision_private_ip of prod-rke2-server-2: 10.40.1.21 is that of prod-rke2-server-1 too",
    ),
    case(
        "address outside the subnet",
        lambda i: i.edit("hosts.yml", r"10\.40\.1\.22", "10.40.2.22"),
        "hosts.yml",
        "provision_private_ip of prod-rke2-server-2: 10.40.2.22 lies outside of platform_subnet_cidr",
    ),
    case(
        "address of the gateway",
        lambda i: (
            i.set("platform_subnet_cidr", "10.40.0.0/23"),
            i.edit("hosts.yml", r"10\.40\.1\.10", "10.40.0.1"),
        ),
        "hosts.yml",
        "provision_private_ip of prod-lb-1: 10.40.0.1 is the gateway of the network",
    ),
    case(
        "address that ends the subnet",
        lambda i: i.edit("hosts.yml", r"10\.40\.1\.22", "10.40.1.255"),
        "hosts.yml",
        "the broadcast address",
    ),
    case(
        "address that is none",
        lambda i: i.edit("hosts.yml", r"10\.40\.1\.22", "10.40.1.222222"),
        "hosts.yml",
        'provision_private_ip: "10.40.1.222222" is no IPv4 address',
    ),
    case(
        "host without an address",
        lambda i: i.edit("hosts.yml", r"prod-lb-1: .*", "prod-lb-1: {}"),
        "hosts.yml",
        "host prod-lb-1: has no provision_private_ip",
    ),
    case(
        "administrators everywhere",
        lambda i: i.set("platform_admin_cidrs", "[0.0.0.0/0]"),
        PLATFORM,
        "platform_admin_cidrs: 0.0.0.0/0 opens SSH",
        "check_world_admins_allowed",
    ),
    case(
        "administrator's address without its mask",
        lambda i: i.set("platform_admin_cidrs", "[198.51.100.7]"),
        PLATFORM,
        'platform_admin_cidrs[0]: "198.51.100.7" is no CIDR range',
    ),
    case(
        "administrators nowhere",
        lambda i: i.set("platform_admin_cidrs", "[]"),
        PLATFORM,
        "platform_admin_cidrs: [] has too few entries",
    ),
    case(
        "endpoint without its version",
        lambda i: i.set("platform_hcloud_endpoint", "https://api.hetzner.cloud"),
        PLATFORM,
        "does not end in /v1",
    ),
    # hosts, groups, quorum
    case(
        "even servers",
        lambda i: i.edit("hosts.yml", r"^ +prod-rke2-server-3.*\n", ""),
        "hosts.yml",
        "group rke2_server: has 2 hosts. Make it 1 or 3",
    ),
    case(
        "no server",
        lambda i: i.edit("hosts.yml", r"^    rke2_server:.*\n(?: {6,}.*\n)+", "    rke2_server: {}\n"),
        "hosts.yml",
        "group rke2_server: has no host",
    ),
    case(
        "two load balancers",
        lambda i: i.edit(
            "hosts.yml",
            r"^ +prod-lb-1.*\n",
            "        prod-lb-1: {provision_private_ip: 10.40.1.10}\n"
            "        prod-lb-2: {provision_private_ip: 10.40.1.11}\n",
        ),
        "hosts.yml",
        "group load_balancer: has 2 hosts. Name exactly one",
    ),
    case(
        "group misspelt",
        lambda i: i.edit("hosts.yml", r"^    rke2_agent:", "    rke2_agents:"),
        "hosts.yml",
        "group rke2_agents: is used by no play. Did you mean rke2_agent?",
    ),
    case(
        "tuning for no group",
        lambda i: i.add("group_vars/rke2_servers.yml", "provision_image: debian-13"),
        "group_vars/rke2_servers.yml",
        "rke2_servers: is no group of this inventory. Did you mean rke2_server?",
    ),
    case(
        "host of another environment",
        lambda i: i.edit("hosts.yml", "prod-lb-1", "stage-lb-1"),
        "hosts.yml",
        "host stage-lb-1: does not begin with prod-",
    ),
    case(
        "host with a name that is none",
        lambda i: i.edit("hosts.yml", "prod-lb-1", "prod_lb_1"),
        "hosts.yml",
        "host prod_lb_1: is no valid server name",
    ),
    case(
        "environment of another folder",
        lambda i: i.set("platform_environment", "stage"),
        PLATFORM,
        'platform_environment: "stage" is not the name of the inventory\'s folder, "prod"',
    ),
    case(
        "more than one placement group holds",
        lambda i: i.edit(
            "hosts.yml",
            r"^ +prod-rke2-agent-1.*\n",
            "".join(f"        prod-rke2-agent-{n}: {{provision_private_ip: 10.40.1.{100 + n}}}\n" for n in range(4, 14))
            + "        prod-rke2-agent-1: {provision_private_ip: 10.40.1.41}\n",
        ),
        HOSTS,
        "more than 10 hosts",
    ),
    # variables
    case(
        "input misspelt",
        lambda i: i.add(SERVERS, "provision_server_type: [cx23]"),
        SERVERS,
        "provision_server_type: is no input of the role provision. Did you mean provision_server_types?",
    ),
    case(
        "shared value misspelt",
        lambda i: i.add(PLATFORM, "platform_domian: example.org"),
        PLATFORM,
        "platform_domian: is no shared value of the platform. Did you mean platform_domain?",
    ),
    case(
        "prefix misspelt",
        lambda i: i.add(SERVERS, "provsion_image: debian-12"),
        SERVERS,
        "provsion_image: is read by nothing. Did you mean provision_image?",
    ),
    case("shared value missing", lambda i: i.remove("platform_domain"), PLATFORM, "platform_domain: is not set. Add"),
    case(
        "user that Ansible needs missing",
        lambda i: i.remove("platform_admin_user", DEFAULTS),
        PLATFORM,
        "platform_admin_user: is not set. Add it",
    ),
    case(
        "expression of nothing",
        lambda i: i.set("platform_api_name", '"api.{{ platform_domian }}"'),
        PLATFORM,
        "platform_api_name: cannot be resolved ('platform_domian' is undefined)",
    ),
    case(
        "one text for a list",
        lambda i: i.set("platform_locations", "fsn1"),
        PLATFORM,
        'platform_locations: "fsn1" is no list',
    ),
    case(
        "number that is none",
        lambda i: i.add(SERVERS, "provision_wait_seconds: soon"),
        SERVERS,
        'provision_wait_seconds: "soon" is no whole number',
    ),
    case(
        "nested key misspelt",
        lambda i: i.tune("rke2_server", "provision_volumes", "[{name: data, size: 20}]"),
        HOSTS,
        "provision_volumes",
        "size",
    ),
    case(
        "value set twice",
        lambda i: i.add("group_vars/all/more.yml", "platform_domain: example.org"),
        PLATFORM,
        "platform_domain: set for all in inventories/prod/group_vars/all/more.yml:2 too",
    ),
    case(
        "shared value for one group",
        lambda i: i.add(SERVERS, "platform_domain: example.org"),
        SERVERS,
        "platform_domain: is set for rke2_server only",
    ),
    case(
        "value that a play sets",
        lambda i: i.add(SERVERS, "provision_network_zone: us-east"),
        SERVERS,
        "provision_network_zone: has no effect here, because playbooks/provision.yml sets it",
    ),
    case(
        "value that a play for all hosts sets",
        lambda i: i.add(SERVERS, "base_domain: example.org"),
        SERVERS,
        "base_domain: has no effect here, because playbooks/base.yml sets it",
    ),
    case(
        "value that the play of the database sets",
        lambda i: i.add(DATABASE, "postgresql_volume_gb: 5"),
        DATABASE,
        "postgresql_volume_gb: has no effect here, because playbooks/postgresql.yml sets it",
    ),
    case(
        "domain that is none",
        lambda i: i.set("platform_domain", "example_com"),
        PLATFORM,
        'platform_domain: "example_com" is no DNS name',
    ),
    case("root as the user", lambda i: i.set("platform_admin_user", "root"), PLATFORM, '"root" is the superuser'),
    case(
        "volume too small",
        lambda i: i.tune("rke2_server", "provision_volumes", "[{name: data, size_gb: 5}]"),
        HOSTS,
        "provision_volumes[0].size_gb: 5 is out of range. Choose 10 to 10240.",
    ),
    # versions
    case("version too old", lambda i: i.set("rke2_version", "v1.34.10+rke2r1"), PLATFORM, "1.34 is not supported"),
    case("version of something else", lambda i: i.set("rke2_version", "1.36.3"), PLATFORM, "is no release of RKE2"),
    case(
        "image that is not supported",
        lambda i: i.add(SERVERS, "provision_image: ubuntu-24.04"),
        SERVERS,
        'provision_image: "ubuntu-24.04" is not supported. Choose one of debian-13, debian-12.',
    ),
    # snapshots
    case(
        "writer of no part",
        lambda i: i.set("platform_object_storage_writers", "{ backups: writer }"),
        PLATFORM,
        'platform_object_storage_writers.backups: "backups" is no part of the platform',
    ),
    case(
        "no key for a part",
        lambda i: i.remove("object_storage_ceph_secret_key", VAULT),
        VAULT,
        "object_storage_ceph_secret_key: missing, and snapshots are written and listed with them",
    ),
    case(
        "public key of another program",
        lambda i: i.edit(VAULT, "^platform_escrow_public_key: .*$", "platform_escrow_public_key: ssh-ed25519 AAAA"),
        VAULT,
        "platform_escrow_public_key: ",
        "is no public key of age",
    ),
    # secrets
    case(
        "no secrets",
        lambda i: (i.folder / VAULT).unlink(),
        VAULT,
        "platform_ca_certificate, platform_ca_private_key, platform_escrow_public_key, postgresql_backup_passphrase",
        "rke2_agent_token, rke2_token",
        "missing",
        "create_secrets.yml",
    ),
    case(
        "no passwords of databases",
        lambda i: i.remove("postgresql_role_passwords", VAULT),
        VAULT,
        "postgresql_role_passwords: missing",
    ),
    case("one secret missing", lambda i: i.remove("rke2_agent_token", VAULT), VAULT, "rke2_agent_token: missing"),
    case(
        "one secret twice",
        lambda i: (
            i.set("rke2_token", "a1b2c3d4e5f6g7h8" * 4, VAULT),
            i.set("rke2_agent_token", "a1b2c3d4e5f6g7h8" * 4, VAULT),
        ),
        VAULT,
        "rke2_token, rke2_agent_token: have the same value",
    ),
    case(
        "secret that can be guessed",
        lambda i: i.set("rke2_token", "hunter2", VAULT),
        VAULT,
        "rke2_token: (a secret) can be guessed (7 characters",
    ),
    case(
        "secret that is a placeholder",
        lambda i: i.set("rke2_token", "CHANGE-ME-" + "0123456789abcdef" * 3, VAULT),
        VAULT,
        "rke2_token: (a secret) is a placeholder",
    ),
    case(
        "authority that is no certificate",
        lambda i: i.set("platform_ca_certificate", "MIIB", VAULT),
        VAULT,
        'platform_ca_certificate: "MIIB" is no certificate in PEM form',
    ),
    case(
        "placeholder as a key",
        lambda i: i.set("platform_admin_public_keys", "[ssh-ed25519 REPLACE-WITH-YOURS me]"),
        PLATFORM,
        "platform_admin_public_keys[0]",
        "is a placeholder",
    ),
    case(
        "private key for a public one",
        lambda i: i.set("platform_admin_public_keys", '["-----BEGIN OPENSSH PRIVATE KEY-----"]'),
        PLATFORM,
        "platform_admin_public_keys[0]: (a private key) is a private key",
    ),
    case(
        "key cut off",
        lambda i: i.set("platform_admin_public_keys", f'["{i.material.public_key[:50]}"]'),
        PLATFORM,
        "platform_admin_public_keys[0]",
        "is damaged",
    ),
    # certificates
    case(
        "wildcard with ACME",
        lambda i: i.add(BALANCER, "load_balancer_certificate_source: acme\nload_balancer_acme_email: ops@example.com"),
        DEFAULTS,
        'platform_ingress_names: "*.apps.example.com" cannot be validated',
    ),
    case(
        "ACME without an address",
        lambda i: (
            i.add(BALANCER, "load_balancer_certificate_source: acme"),
            i.set("platform_ingress_names", "[rancher.example.com]"),
        ),
        BALANCER,
        "load_balancer_acme_email is not set",
    ),
    case(
        "certificate renewed at every run",
        lambda i: i.add(BALANCER, "load_balancer_certificate_valid_days: 20"),
        BALANCER,
        "load_balancer_certificate_renew_days: 180, but a certificate is valid for 20 days",
    ),
    case(
        "gateway certificate renewed at every run",
        lambda i: i.add(CEPH, "ceph_object_gateway_certificate_days: 90"),
        CEPH,
        "ceph_object_gateway_certificate_renew_days: 180, but a certificate is valid for 90 days",
    ),
    # the cloud
    case(
        "token that is wrong",
        lambda i: i.set("platform_hcloud_token", "wrong"),
        PLATFORM,
        "does not accept the token",
        "HCLOUD_TOKEN",
        needs_cloud=True,
    ),
    case(
        "token that is not there",
        lambda i: i.set("platform_hcloud_token", '""'),
        PLATFORM,
        "platform_hcloud_token is empty",
        needs_cloud=True,
    ),
    case(
        "token sent unencrypted",
        lambda i: i.set("platform_hcloud_endpoint", "http://api.hetzner.cloud/v1"),
        PLATFORM,
        "sends the token unencrypted",
    ),
    case(
        "cloud that is not there",
        lambda i: i.set("platform_hcloud_endpoint", "http://127.0.0.1:9/v1"),
        PLATFORM,
        "cannot be reached",
        needs_cloud=True,
    ),
    case(
        "type that is none",
        lambda i: i.tune("rke2_server", "provision_server_types", "[ccx24]"),
        HOSTS,
        "provision_server_types: ccx24 does not exist at Hetzner. Did you mean ccx",
        needs_cloud=True,
    ),
    case(
        "type of another architecture",
        lambda i: i.tune("rke2_server", "provision_server_types", "[cax21]"),
        HOSTS,
        "cax21 is arm",
        needs_cloud=True,
    ),
    case(
        "type not sold there",
        lambda i: (
            i.tune("rke2_server", "provision_server_types", "[cx23]"),
            i.set("platform_locations", "[ash]"),
            i.set("platform_network_zone", "us-east"),
        ),
        HOSTS,
        "provision_server_types: cx23 is not sold in ash",
        needs_cloud=True,
    ),
    case(
        "location that is none",
        lambda i: i.set("platform_locations", "[fsn1, nbg2]"),
        PLATFORM,
        "platform_locations: nbg2 does not exist at Hetzner. Did you mean nbg1?",
        needs_cloud=True,
    ),
    case(
        "location in another zone",
        lambda i: i.set("platform_locations", "[fsn1, ash]"),
        PLATFORM,
        "platform_locations: ash lies in us-east",
        needs_cloud=True,
    ),
    # storage
    case(
        "two hosts for storage",
        lambda i: i.edit("hosts.yml", r"^ +prod-ceph-3.*\n", ""),
        "hosts.yml",
        "group ceph: has 2 hosts. Make it 3 or more",
    ),
    case(
        "cluster's number that is none",
        lambda i: i.set("ceph_fsid", "prod"),
        PLATFORM,
        'ceph_fsid: "prod" is no UUID',
    ),
    case(
        "cluster's number of another environment",
        lambda i: i.beside("stage", PLATFORM, "ceph_fsid: fe94d781-67a9-44c0-bef8-f96df8775826 # copied"),
        PLATFORM,
        "is that of stage too",
    ),
    case(
        "storage release with a hole",
        lambda i: i.set("ceph_version", "20.2.3"),
        PLATFORM,
        'ceph_version: "20.2.3"',
        "CVE-2025-30156",
    ),
    case(
        "storage image that moves",
        lambda i: i.set("ceph_image", "quay.io/ceph/ceph:v20"),
        PLATFORM,
        'ceph_image: "quay.io/ceph/ceph:v20" is no image by digest',
    ),
    case(
        "program without a checksum",
        lambda i: i.set("ceph_cephadm_checksum", "sha256:REPLACE-ME"),
        PLATFORM,
        "ceph_cephadm_checksum:",
        "is no checksum",
    ),
    case(
        "storage host without a disk",
        lambda i: i.tune("ceph", "provision_volumes", "[{ name: data, size_gb: 20 }]"),
        HOSTS,
        "is in group ceph, but has no volume for it",
    ),
    case(
        "storage hosts of different sizes",
        lambda i: i.edit(
            "hosts.yml",
            r"prod-ceph-2: .*",
            "prod-ceph-2: { provision_private_ip: 10.40.1.52, provision_volumes: [{ name: ceph, size_gb: 100 }] }",
        ),
        HOSTS,
        "prod-ceph-1 brings 200 GB to Ceph and prod-ceph-2 brings 100",
    ),
    case(
        "pool with two copies",
        lambda i: i.set("ceph_pools", "[{ name: kubernetes, application: rbd, size: 2 }]", CEPH),
        CEPH,
        'ceph_pools: "kubernetes" has 2 copies',
    ),
    case(
        "pool that goes on with one copy",
        lambda i: i.set("ceph_pools", "[{ name: kubernetes, application: rbd, min_size: 1 }]", CEPH),
        CEPH,
        'ceph_pools: "kubernetes" has min_size 1',
    ),
    case(
        "confirmation for a pool that is none",
        lambda i: i.add(CEPH, "ceph_pool_confirm: [kubernets]"),
        CEPH,
        'ceph_pool_confirm: "kubernets"',
    ),
    case(
        "too little memory for an OSD",
        lambda i: i.add(CEPH, "ceph_osd_memory_target_mb: 512"),
        CEPH,
        "ceph_osd_memory_target_mb: 512 is out of range. Choose 0 or 896 to",
    ),
    case(
        "shared hosts about which two groups speak",
        lambda i: i.edit("hosts.yml", r"^    ceph:.*\n(?: {6,}.*\n)+", SHARED_HOST),
        HOSTS,
        "provision_server_types: set for each of ceph, rke2_server",
    ),
    case(
        "more servers than allowed",
        lambda i: i.add("group_vars/all/check.yml", "check_servers_limit: 5"),
        "group_vars/all/check.yml",
        "needs 11 more, but its limit is 5",
        needs_cloud=True,
    ),
]


def files(faults: list[Fault]) -> list[str]:
    return [fault.origin.file.removeprefix("inventories/prod/") for fault in faults]


def untouched(cloud: Lab) -> bool:
    kinds = ("servers", "networks", "volumes", "firewalls", "placement_groups", "ssh_keys")
    return not cloud.machines.calls and all(cloud.api.get(f"/{kind}")[kind] == [] for kind in kinds)


def test_the_unchanged_inventory_has_no_faults(sound: Inventory) -> None:
    assert [str(fault) for fault in sound.faults(with_cloud=True)] == []


@pytest.mark.parametrize("broken", CASES)
def test_an_invalid_inventory_ends_in_readable_faults(broken: Case, sound: Inventory, cloud: Lab) -> None:
    broken.breaks(sound)
    faults = sound.faults(with_cloud=broken.needs_cloud)
    ours = [fault for fault in faults if all(part in fault.message for part in broken.messages)]
    assert ours, "\n".join(map(str, faults)) or "no fault was found"
    assert set(files(ours)) == {broken.file}
    # One fault causes at most a few others.
    assert len(faults) <= 5, "\n".join(map(str, faults))
    for fault in faults:
        assert fault.message.endswith((".", "?")) and "\n" not in fault.message
        assert fault.message[0].islower() and fault.remedy[0].isupper()
    assert untouched(cloud)


def play(inventory: Inventory, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command: check, then what would make machines."""
    return subprocess.run(
        [
            REPOSITORY / ".venv/bin/ansible-playbook",
            *("playbooks/check.yml", "playbooks/provision.yml", "-i", inventory.folder),
            *arguments,
        ],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_lists_every_fault_by_file_and_stops(sound: Inventory, cloud: Lab) -> None:
    sound.edit("hosts.yml", r"^ +prod-rke2-server-3.*\n", "")
    sound.set("platform_subnet_cidr", "10.50.1.0/24")
    sound.remove("rke2_agent_token", VAULT)
    sound.add(SERVERS, "provision_imagee: debian-13")
    sound.set("rke2_version", "v1.30.0+rke2r1")
    sound.set("platform_hcloud_token", "wrong")
    run = play(sound)
    assert run.returncode == 2
    # Ansible messages it twice: as an error, and as the task's result.
    listed = [
        line for line in run.stdout.split("fatal:")[1].splitlines() if line.strip().startswith("- ") and "prod/" in line
    ]
    named = [re.split(r"[:,]|\. ", line.split(f"/{sound.folder.name}/")[1])[0] for line in listed]
    for file in ("hosts.yml", PLATFORM, VAULT, SERVERS):
        assert file in named
    assert named == sorted(named), run.stdout
    assert "nothing has been changed" in run.stdout
    assert "Provision the machines" not in run.stdout
    assert untouched(cloud)


def test_a_wrong_token_is_reported_as_one_fault(sound: Inventory, cloud: Lab) -> None:
    sound.set("platform_hcloud_token", "wrong")
    run = play(sound)
    assert run.returncode == 2
    assert run.stdout.count("\n        - ") <= 1 and "1 fault in" in run.stdout
    assert "does not accept the token" in run.stdout
    assert untouched(cloud)


def test_an_inventory_without_hosts_fails(sound: Inventory) -> None:
    (sound.folder / "hosts.yml").write_text("---\nall: {}\n")
    run = play(sound)
    assert run.returncode == 2
    assert "group rke2_server: has no host" in run.stdout


def test_a_sound_inventory_passes_and_check_mode_plans(sound: Inventory, cloud: Lab) -> None:
    run = play(sound, "--check", "--diff")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "+create server prod-rke2-server-1" in run.stdout
    assert untouched(cloud)


@pytest.mark.parametrize("environment", ["dev", "stage", "prod"])
def test_what_is_delivered_lacks_only_keys_and_secrets(environment: str, copy: Callable[[str], Inventory]) -> None:
    sentences = "\n".join(fault.message for fault in copy(environment).faults())
    assert len(sentences.splitlines()) == 5
    assert "platform_admin_public_keys[0]" in sentences and "is a placeholder" in sentences
    assert "ceph_cephadm_checksum" in sentences
    assert "object_storage_access_key" in sentences
    assert "create_secrets.yml" in sentences
