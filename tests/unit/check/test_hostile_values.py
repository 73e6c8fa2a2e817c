"""Hostile values of every option: each is reported with the option's name, or listed here as valid with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible.template import trust_as_template
from ansible_collections.slipway.platform.plugins.module_utils.environment import specs
from ansible_collections.slipway.platform.plugins.module_utils.environment.checks import pure_faults
from ansible_collections.slipway.platform.plugins.module_utils.environment.formats import FORMATS
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import (
    Definition,
    Environment,
    Fault,
    Origin,
    Setting,
)
from ansible_collections.slipway.platform.plugins.module_utils.environment.structures import STRUCTURES
from ansible_collections.slipway.platform.plugins.module_utils.environment.values import RANGE, value_faults

from tests.static.repository import REPOSITORY, load
from tests.unit.check.conftest import Inventory

ORIGIN = Origin("inventories/prod/group_vars/all/platform.yml", 3)
LONG = "x" * 300
TEXTS = ["", " ", "\t", "a\nb", "$(id)", "`id`", "'; rm -rf /", '"; drop', "a; b", "../../etc/passwd", LONG, "ü\x00"]
NUMBERS = [0, -1, 10**12]
HOSTILE: dict[str, list[Any]] = {
    "str": [None, *TEXTS, *NUMBERS, True, [], {}, ["a"], {"a": 1}],
    "int": [None, "", " ", "abc", "1\n2", "$(id)", LONG, "1.5", 1.5, *NUMBERS, True, [], {}, [1], {"a": 1}],
    "bool": [None, "", " ", "maybe", "a\nb", "$(id)", LONG, -1, 10**12, [], {}, [True], {"a": True}],
    "list": [None, "", "abc", {}, {"a": 1}, 0, True, *([entry] for entry in (None, [], {}, {"a": 1}, True, *TEXTS))],
    "dict": [None, "", "abc", [], ["a"], 0, True, {"": "a"}, {"$(id)": "a"}, {"a\nb": "a"}, {"a": None}, {"a": []}],
}
HOSTILE["path"] = HOSTILE["str"]
HOSTILE["float"] = [value for value in HOSTILE["int"] if value not in ("1.5", 1.5)]
HOSTILE["list"] += [["a", "a"], [1, 1], [-1], [10**12]]
HOSTILE["dict"] += [{"a": {"b": None}}, {"a": "$(id)"}, {"a": "b\nc"}, {"a": LONG * 4}, {LONG: "a"}, {"a": " "}]

REASONS: list[tuple[list[Any], str, str]] = [
    (
        [""],
        "means none, as by default",
        """
    ceph_clients.filesystem ceph_clients.key_type ceph_clients.namespace ceph_clients.pool
    ceph_clients.subvolume_group ceph_keyrings_dir ceph_pools.application ceph_pools.crush_rule
    ceph_s3_buckets.lock_mode certificate_private_key_path load_balancer_acme_ca_bundle_path
    gitlab_runner_binary_checksum gitlab_runner_build_token gitlab_runner_build_user gitlab_runner_cache_access_key
    gitlab_runner_cache_bucket gitlab_runner_cache_endpoint gitlab_runner_cache_region gitlab_runner_cache_secret_key
    gitlab_runner_deploy_image gitlab_runner_deploy_token
    ceph_csi_encryption_passphrase cert_manager_acme_email load_balancer_acme_email platform_chart_mirror
    platform_chart_mirror_ca_certificate platform_object_storage_ca_certificate
    postgresql_backup_passphrase
    postgresql_backup_second_access_key postgresql_backup_second_secret_key postgresql_standby_password
    postgresql_upgrade_from provision_placement_group rancher_cluster_issuer rke2_containerd_config
    rke2_system_default_registry
    """,
    ),
    ([0, 10**12], "is a number that GitLab assigns", "gitlab_runner_build_id gitlab_runner_deploy_id"),
    ([""], "is checked by the cloud's API, and not needed without it", "platform_hcloud_token"),
    (
        [0],
        "is computed by the role",
        """
    ceph_filesystems.size ceph_osd_memory_target_mb ceph_pools.min_size ceph_pools.pg_num ceph_pools.size
    postgresql_memory_mb postgresql_slot_keep_gb
    """,
    ),
    (
        [0],
        "means no limit",
        """
    ceph_pools.quota_bytes ceph_pools.quota_objects ceph_s3_users.max_buckets ceph_s3_users.quota_gb
    ceph_s3_users.quota_objects load_balancer_connections_per_client load_balancer_max_body_size_mb
    load_balancer_requests_per_second postgresql_roles.idle_in_transaction_timeout_seconds
    postgresql_roles.lock_timeout_seconds postgresql_roles.statement_timeout_seconds
    """,
    ),
    (
        [0],
        "switches it off",
        """
    ceph_s3_buckets.abort_multipart_days ceph_s3_buckets.expire_noncurrent_days ceph_s3_buckets.lock_days
    load_balancer_hsts_seconds load_balancer_requests_burst postgresql_pooler_prepared_statements
    s3_snapshot_drill_days
    verify_settle_seconds verify_storage_settle_seconds
    """,
    ),
    ([0], "is the level without headers and bodies", "rancher_audit_log_level"),
    ([-1], "means none", "ceph_s3_users.max_buckets"),
    (
        [10**12],
        "is a terabyte, or a number of objects that fit into it",
        "ceph_pools.quota_bytes ceph_pools.quota_objects ceph_s3_users.quota_objects",
    ),
    (
        [value for value in HOSTILE["dict"] if isinstance(value, dict) and list(value) == ["a"]],
        "belongs to the schema of the chart",
        "ceph_csi_cephfs_values ceph_csi_rbd_values cert_manager_values rancher_values rke2_ingress_values",
    ),
]
"""Values, why they are valid, and for which options."""
VALID = {(repr(value), name): reason for values, reason, names in REASONS for name in names.split() for value in values}


def options_of(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every option with its path, nested ones too."""
    for name, option in options.items():
        yield f"{above}{name}", option
        yield from options_of(option.get("options") or {}, f"{above}{name}.")


@pytest.fixture(scope="module")
def environment(sound_module: Inventory) -> Environment:
    return sound_module.environment()


def every_option(environment: Environment) -> dict[str, Mapping[str, Any]]:
    """Options that an inventory or the command line may set."""
    found = dict(options_of({**environment.platform_options, **environment.run_options}))
    for role in environment.roles:
        found |= dict(options_of({name: option for name, option in role.options.items() if not role.is_wired(name)}))
    return found


def names(fault: Fault, option: str) -> bool:
    return re.match(rf"{re.escape(option)}(\[\d+\])?[.:\[]", fault.problem) is not None


def test_every_option_names_what_its_program_accepts(environment: Environment) -> None:
    """What is missing is to be added to roles/<role>/meta/formats.yml."""
    missing = []
    for name, option in every_option(environment).items():
        if option.get("choices") or option.get("options") or option["type"] == "bool":
            continue
        form = option.get("format")
        if option["type"] == "list" and not option.get("elements"):
            missing.append(f"{name}: elements")
        named = (
            [form] if not isinstance(form, Mapping) else [value for value in form.values() if isinstance(value, str)]
        )
        for word in named or [None]:
            if option["type"] in ("int", "float") or option.get("elements") == "int":
                good = all(RANGE.fullmatch(part) for part in str(word).split("|"))
            else:
                good = word in {*FORMATS, *STRUCTURES, "scalar"}
            if not good:
                missing.append(f"{name}: a format or range instead of {word}")
    assert missing == []


def test_every_format_is_that_of_an_option() -> None:
    for path in sorted((REPOSITORY / "roles").glob("*/meta/formats.yml")):
        role = path.parts[-3]
        known = dict(options_of(load(path.with_name("argument_specs.yml"))["argument_specs"]["main"]["options"]))
        if role == "check":
            for meta in (REPOSITORY / "playbooks").glob("*.meta.yml"):
                for entry_point in load(meta)["argument_specs"].values():
                    known |= dict(options_of(entry_point["options"]))
        assert set(load(path)) - set(known) == set(), path


def test_every_format_is_used(environment: Environment) -> None:
    used = set()
    for option in every_option(environment).values():
        form = option.get("format")
        used |= {form} if isinstance(form, str) else {str(value) for value in (form or {}).values()}
    assert {*FORMATS, *STRUCTURES} - used == set()


def test_every_hostile_value_is_reported(environment: Environment) -> None:
    total, silent = 0, set()
    for name, option in every_option(environment).items():
        for value in HOSTILE[option["type"]]:
            total += 1
            if not any(names(fault, name) for fault in value_faults(Setting(name, value, ORIGIN), option)):
                silent.add((repr(value), name))
    print(f"{total - len(silent)} of {total} values of {len(every_option(environment))} options are reported")
    assert silent - set(VALID) == set()
    assert set(VALID) - silent == set(), "listed as valid, but reported or unknown"


def test_every_option_that_a_play_sets_is_reported(environment: Environment) -> None:
    wired = {name for role in environment.roles for name in role.options if role.is_wired(name)}
    definitions = tuple(Definition(name, "all", ORIGIN) for name in sorted(wired))
    faults = list(specs.wired(replace(environment, definitions=definitions)))
    assert len(wired) > 50
    assert {fault.problem.partition(":")[0] for fault in faults} == wired


@pytest.mark.parametrize("position", range(max(map(len, HOSTILE.values()))))
def test_all_hostile_values_at_once_end_in_one_list(environment: Environment, position: int) -> None:
    """No check of several values together fails with an exception and hides the faults of the others."""
    settings = {
        name: Setting(name, values[position % len(values)], ORIGIN)
        for name, option in every_option(environment).items()
        if "." not in name
        for values in (HOSTILE[option["type"]],)
    }
    hosts = tuple(replace(host, settings={**host.settings, **settings}) for host in environment.hosts)
    broken = replace(environment, hosts=hosts, settings={**environment.settings, **settings})
    alone = {
        name
        for name, option in every_option(environment).items()
        if name in settings and list(value_faults(settings[name], option))
    }
    faults = pure_faults(broken)
    assert {name for name in alone if not any(names(fault, name) for fault in faults)} == set()


def test_every_unresolvable_expression_is_reported(sound: Inventory, environment: Environment) -> None:
    options = [name for name in every_option(environment) if "." not in name]
    expression = trust_as_template("{{ nothing_defines_this }}")
    broken = sound.environment(extra_variables=dict.fromkeys(options, expression))
    messages = {
        fault.problem.partition(":")[0] for fault in pure_faults(broken) if "cannot be resolved" in fault.problem
    }
    assert set(options) - messages == set()


def test_a_circle_of_expressions_is_reported(sound: Inventory) -> None:
    sound.set("platform_domain", '"{{ platform_api_name }}"')
    messages = [str(fault) for fault in sound.faults()]
    assert any(message.startswith("platform_domain: cannot be resolved") for message in messages)


def test_no_secret_is_shown(environment: Environment) -> None:
    secret = "hunter2-hunter2"
    for name, option in every_option(environment).items():
        if specs.SECRET_NAME.search(name):
            for value in (secret + " ", [secret], {"a": secret}, {"password": secret}):
                shown = [str(fault) for fault in value_faults(Setting(name, value, ORIGIN), option)]
                assert not any(secret in message for message in shown), shown
