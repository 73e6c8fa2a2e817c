"""A host that was in use before its first run: molecule/base/files/living_host.sh says how it was left."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://postgresql"]
pytestmark = pytest.mark.scenario("its hosts are new")


def test_no_package_is_unfinished_and_what_was_removed_is_back(host: Host) -> None:
    assert host.check_output("dpkg --audit") == ""
    host.check_output("apt-get check")
    assert host.package("killer").is_installed
    assert host.package("unattended-upgrades").is_installed
    assert host.package("procps").is_installed


def test_packages_may_start_services_again(host: Host) -> None:
    assert not host.file("/usr/sbin/policy-rc.d").exists


def test_the_mirror_replaces_the_sources_of_the_image_alone(host: Host) -> None:
    folder = "/etc/apt/sources.list.d"
    assert not host.file(f"{folder}/image.list").exists and not host.file("/etc/apt/sources.list").exists
    assert host.file(f"{folder}/image.list.disabled").contains("^deb ")
    assert host.file(f"{folder}/other.sources").contains("deb.example.com")
    targets = host.check_output("apt-get indextargets --format '$(METAKEY) $(REPO_URI) $(RELEASE)'").splitlines()
    assert targets and len(targets) == len(set(targets))
    shown = host.run("apt-get --quiet=2 update")
    assert shown.rc == 0 and "configured multiple times" not in shown.stderr


def test_needrestart_restarts_no_service(host: Host) -> None:
    code = "our %nrconf; do '/etc/needrestart/needrestart.conf'; print $nrconf{restart}"
    assert host.check_output(f'perl -e "{code.replace("$", chr(92) + "$")}"') == "l"


def test_a_masked_service_runs(host: Host) -> None:
    assert host.service("chrony").is_running and host.service("chrony").is_enabled


def test_files_have_their_modes_under_a_strict_umask(host: Host) -> None:
    assert host.file("/etc/sudoers.d/10-umask").contains("umask=0077")
    for path, mode in (("/etc/slipway", 0o755), ("/etc/needrestart/conf.d", 0o755), ("/etc/ssl/certs", 0o755)):
        assert host.file(path).mode == mode, path
    assert host.file("/etc/ssl/certs/ca-certificates.crt").mode == 0o644
    unreadable = "find /etc/apt /usr/share/unattended-upgrades /usr/lib/python3/dist-packages ! -perm -o=r ! -type l"
    assert host.check_output(f"{unreadable} ! -path '*/partial*' ! -path '*/auth.conf*'") == ""


def test_the_small_tmp_is_still_there(host: Host) -> None:
    assert "noexec" in host.check_output("findmnt --noheadings --output OPTIONS /tmp")
