"""A checkout where people have it: in a folder whose path has a blank, and used from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY

PARTS = ("ansible.cfg", "collections", "inventories", "playbooks", "roles", "site.yml")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "my own checkout"
    folder.mkdir()
    for name in PARTS:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, symlinks=True, ignore=shutil.ignore_patterns(".state", "__pycache__")
            )
        else:
            shutil.copy(source, folder / name)
    return folder


def run(checkout: Path, playbook: Path, *options: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/prod", *options, str(playbook)],
        cwd=checkout,
        env=environment
        | {"ANSIBLE_CONFIG": str(checkout / "ansible.cfg"), "SLIPWAY_ARTIFACTS": str(checkout / "artifacts")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout + done.stderr


def test_ssh_gets_each_argument_complete(checkout: Path, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments"
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > "{arguments}"\n')
    program.chmod(0o755)
    play = {"hosts": "prod-lb-1", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "true"}]}
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]))
    given = {"ansible_ssh_executable": str(program), "ansible_ssh_private_key_file": str(tmp_path / "a key")}
    output = run(checkout, playbook, "--extra-vars", json.dumps(given))
    words = arguments.read_text().split("\0")[:-1]
    # OpenSSH itself reads the arguments, up to the host.
    host = words.index("prod-lb-1")
    shown = subprocess.run(["ssh", "-F", "none", "-G", *words[:host], "host"], capture_output=True, text=True)
    assert shown.returncode == 0, output + shown.stderr
    settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines())
    assert settings["userknownhostsfile"] == f"{checkout}/inventories/prod/.state/known_hosts"
    assert settings["identityfile"] == str(tmp_path / "a key")
    assert settings["identitiesonly"] == "yes"
    assert settings["hostkeyalias"] == "prod-lb-1.unknown"


def test_check_reads_the_inventory(checkout: Path) -> None:
    output = run(checkout, Path("playbooks/check.yml"))
    assert "inventories/prod/group_vars/all/platform.yml" in output, output
    assert "was not found" not in output


def test_a_missing_vault_password_is_named_with_its_file_and_remedy(checkout: Path) -> None:
    vault = checkout / "inventories/prod/group_vars/all/vault.yml"
    vault.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    output = " ".join(run(checkout, Path("playbooks/check.yml")).split())
    assert f"{vault}: it is encrypted, and there is no vault password. Set ANSIBLE_VAULT_PASSWORD_FILE" in output
    password = checkout / "password"
    password.write_text("x")
    output = run(checkout, Path("playbooks/check.yml"), "--vault-password-file", str(password))
    assert "there is no vault password" not in output


def test_make_names_the_configuration_from_another_folder(tmp_path: Path) -> None:
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"include {REPOSITORY}/Makefile\nshown:\n\t@echo $(ANSIBLE_CONFIG)\n")
    done = subprocess.run(
        ["make", "-C", str(REPOSITORY), "-f", str(makefile), "shown"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert f"{REPOSITORY}/ansible.cfg" in done.stdout
