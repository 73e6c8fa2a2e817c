"""The packages of the roles that the image's recipe contains."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lab.machines import images, role_packages
from lab.machines.base import MachineError
from lab.settings import Settings


def test_every_role_that_installs_is_read() -> None:
    by_apt = {
        path.parents[1].name
        for path in role_packages.ROLES.glob("*/tasks/install.yml")
        if "ansible.builtin.apt:" in path.read_text()
    }
    assert by_apt == set(role_packages.LISTS)


@pytest.mark.parametrize(("release", "server"), [("12", "postgresql-15"), ("13", "postgresql-17")])
def test_lists_of_all_roles_are_joined(release: str, server: str) -> None:
    packages = role_packages.read(release)
    assert {"unattended-upgrades", "podman", "libnginx-mod-stream", "certbot", "pgbouncer", server} <= set(packages)
    assert len(packages) == len(set(packages))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package) for package in packages), (
        "they are part of a shell command"
    )


def test_a_changed_list_changes_the_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(cache_root=tmp_path)
    before = images.folder(settings, "debian-13")
    plain = images.folder(replace(settings, images="plain"), "debian-13")
    monkeypatch.setitem(role_packages.LISTS, "base", ())
    assert images.folder(settings, "debian-13") not in (before, plain)
    assert images.folder(replace(settings, images="plain"), "debian-13") == plain
    assert images.packages_of_roles(replace(settings, images="plain"), "debian-13") == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "has no list __base_own_packages"),
        ("__base_own_packages: ['{{ base_extra }}']", "{{ base_extra }} in __base_own_packages cannot be resolved"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, text: str, fault: str) -> None:
    for role in role_packages.LISTS:
        shutil.copytree(role_packages.ROLES / role / "vars", tmp_path / role / "vars")
    (tmp_path / "base/vars/main.yml").write_text(text)
    with pytest.raises(MachineError, match=re.escape(fault)):
        role_packages.read("13", tmp_path)
