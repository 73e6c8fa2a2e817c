"""Unit tests of the parts that need no root."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab.machines import disks, images, namespaces, resolver
from lab.machines.base import AttachmentSpec, HostSpec, NetworkSpec, Route
from lab.machines.commands import CommandError
from lab.machines.containers import (
    Boot,
    Facts,
    engine_configuration,
    init_arguments,
    read_console,
    run_arguments,
)
from lab.machines.images import Mirror, find_mirror, recipe_hash, sources_list
from lab.machines.networks import host_lines, parse_routes, routes
from lab.machines.router import PublicLink, host_routes, route_changes
from lab.machines.sysctl import NEEDED, WRITTEN_BY_HOSTS, Sysctls
from lab.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[3]
SPEC = HostSpec(12, "web", "debian-13", 4, 7.5, 80, "198.18.0.5", "2001:db8:0:c::/64")


def test_systemd_on_cgroup_v1_gets_a_private_namespace() -> None:
    arguments = init_arguments(1)
    assert "--systemd=false" in arguments
    assert any("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE" in item for item in arguments)
    assert "--stop-signal=37" in arguments


def test_systemd_on_cgroup_v2_uses_podmans_option() -> None:
    arguments = init_arguments(2)
    assert "--systemd=always" in arguments and "--cgroupns=private" in arguments
    assert not any("SYSTEMD_" in item for item in arguments)


def test_a_start_requests_at_most_the_machines_resources() -> None:
    boot = Boot("lab", "lab-h12", Path("/run/netns/lab-h12"), SPEC, Path("/s/12"), Path("/s/12/root"), ())
    arguments = run_arguments(boot, Facts(1, "runc", cores=2, open_files=20000, processes=32768))
    assert arguments[:4] == ["podman", "--runtime", "runc", "run"]
    for wanted in ("--cpus=2", "--memory=7680m", "--ulimit=nofile=20000:20000", "--network=ns:/run/netns/lab-h12"):
        assert wanted in arguments
    assert arguments[-3:] == ["--rootfs", "/s/12/root", "/run/machine/init"]
    assert "--runtime" not in run_arguments(boot, Facts(2, None, 2, 1024, 1024))


def test_containers_in_a_host_get_at_most_the_limits_of_the_host() -> None:
    text = engine_configuration(Facts(1, "runc", cores=2, open_files=20000, processes=32768))
    found = tomllib.loads(text)
    assert found["containers"]["default_ulimits"] == ["nofile=20000:20000", "nproc=32768:32768"]
    assert found["engine"]["env"] == ["PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
    assert "engine" not in tomllib.loads(engine_configuration(Facts(2, None, 2, 1024, 1024)))


def test_public_link() -> None:
    link = PublicLink.of(SPEC)
    assert link is not None
    assert link.routed == ["198.18.0.5/32", "2001:db8:0:c::/64"]
    assert "addr replace 2001:db8:0:c::1/64 dev eth0 nodad" in link.host_lines()
    assert PublicLink.of(HostSpec(12, "web", "debian-13", 1, 1, 1, None, None)) is None


def test_floating_ips_are_routed_beside_the_primary_ones() -> None:
    floating = ("198.18.0.200", "2001:db8:0:f::/64")
    link = PublicLink.of(dataclasses.replace(SPEC, floating_ips=floating))
    assert link is not None
    assert link.routed == ["198.18.0.5/32", "2001:db8:0:c::/64", "198.18.0.200/32", "2001:db8:0:f::/64"]
    assert not any(address in line for line in link.host_lines() for address in floating), "the host's own work"
    # A host without public addresses has no link that they could be routed to.
    assert PublicLink.of(dataclasses.replace(SPEC, ipv4=None, ipv6_network=None, floating_ips=floating)) is None


@pytest.mark.parametrize("command", ["true", "false"])
def test_a_file_system_is_frozen_only_during_the_copy(tmp_path: Path, command: str) -> None:
    tool = tmp_path / "fsfreeze"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n')
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", disks.FROZEN, "sh", "/a disk", command], env=environment, check=False)
    assert (done.returncode == 0) is (command == "true")
    assert (tmp_path / "log").read_text() == "--freeze /a disk\n--unfreeze /a disk\n"


def test_images_that_snapshots_need_are_kept(tmp_path: Path) -> None:
    settings = Settings(state_root=tmp_path / "state", cache_root=tmp_path / "cache")
    used, unused = (settings.cache_dir / "images" / f"debian-13-{name}" for name in ("used", "unused"))
    for image in (used, unused):
        image.mkdir(parents=True)
    link = settings.state_root / "other/machines/snapshots/7/image"
    link.parent.mkdir(parents=True)
    link.symlink_to(used)
    images._prune(settings, "debian-13", images.folder(settings, "debian-13"))
    assert used.is_dir() and not unused.exists()


def test_a_host_without_ipv4_reaches_metadata_by_link_local() -> None:
    sources = set()
    for server_id in (1, 2, 0xA8FD, 0xA8FE, 100_000_001):
        link = PublicLink.of(HostSpec(server_id, "web", "debian-13", 1, 1, 1, None, "2001:db8::/64"))
        assert link is not None and link.source.startswith("169.254.") and link.source != "169.254.169.254"
        sources.add(link.source)
    assert len(sources) == 5


def test_routes_of_a_network_depend_on_plugged_members() -> None:
    network = NetworkSpec(
        1,
        "n",
        "10.0.0.0/16",
        (Route("0.0.0.0/0", "10.0.1.2"), Route("10.9.0.0/24", "10.0.1.3"), Route("10.8.0.0/24", "10.0.9.9")),
    )
    members = [
        AttachmentSpec(2, 1, "10.0.1.2", "m", "enp7s0", ("10.0.1.20",)),
        AttachmentSpec(3, 1, "10.0.1.3", "m", "enp7s0"),
    ]
    assert routes(network, members, {2}) == {
        "10.0.0.0/16": "unreachable",
        "10.0.1.2/32": "dev v2",
        "10.0.1.20/32": "dev v2",
        "10.0.1.3/32": "blackhole",
        "0.0.0.0/0": "via 10.0.1.2 dev v2 onlink",
        "10.9.0.0/24": "blackhole",
        "10.8.0.0/24": "unreachable",
    }


def test_parsed_routes_equal_rendered_routes() -> None:
    rows = json.loads(
        '[{"type":"unreachable","dst":"10.0.0.0/16","flags":[]},{"dst":"10.0.1.2","dev":"v2","scope":"link","flags":[]},'
        '{"type":"blackhole","dst":"10.0.1.3","flags":[]},'
        '{"dst":"default","gateway":"10.0.1.2","dev":"v2","flags":["onlink"]}]'
    )
    assert parse_routes(rows) == {
        "10.0.0.0/16": "unreachable",
        "10.0.1.2/32": "dev v2",
        "10.0.1.3/32": "blackhole",
        "0.0.0.0/0": "via 10.0.1.2 dev v2 onlink",
    }


def test_only_differences_are_changed() -> None:
    current = {"10.0.1.1/32": "dev v1", "10.0.1.2/32": "dev v2", "10.0.1.4/32": "blackhole"}
    wanted = {"10.0.1.1/32": "dev v1", "10.0.1.2/32": "blackhole", "10.0.1.3/32": "dev v3"}
    assert route_changes(current, wanted) == [
        "route replace blackhole 10.0.1.2/32",
        "route replace 10.0.1.3/32 dev v3",
        "route flush exact 10.0.1.4/32",
    ]
    assert route_changes(wanted, wanted) == []


def test_the_routers_own_routes_are_ignored() -> None:
    rows = json.loads(
        '[{"dst":"default","gateway":"198.19.255.1","dev":"uplink"},{"dst":"198.18.0.5","dev":"p12"},'
        '{"type":"unreachable","dst":"198.18.0.0/19"},{"dst":"fe80::/64","dev":"p12"},'
        '{"type":"blackhole","dst":"2001:db8:0:c::/64","dev":"lo"},{"dst":"2001:db8:0:ffff::/64","dev":"uplink"}]'
    )
    assert host_routes(rows) == {"198.18.0.5/32": "dev p12", "2001:db8:0:c::/64": "blackhole"}


def test_a_member_without_public_link_reaches_metadata_in_its_network() -> None:
    member = AttachmentSpec(2, 1, "10.0.1.2", "m", "enp7s0")
    network = NetworkSpec(1, "n", "10.0.0.0/16")
    assert "route replace 169.254.169.254 via 10.0.0.1 dev enp7s0" in host_lines(network, member, private_only=True)
    assert not any("169.254" in line for line in host_lines(network, member, private_only=False))


@pytest.mark.parametrize(
    "sources",
    [
        "deb [arch=amd64] http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main\n# deb http://old.example/debian x main\n",
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security/\nSuites: trixie-security\n",
    ],
)
def test_the_machines_mirror_is_found(sources: str) -> None:
    mirror = find_mirror(sources)
    assert mirror.archive == "http://mirror.example/debian"
    assert (mirror.security or "").rstrip("/") == "http://mirror.example/debian-security"
    text = sources_list("trixie", mirror)
    assert "Suites: trixie trixie-updates\n" in text and "Suites: trixie-security\n" in text


def test_without_a_debian_mirror_the_default_is_used() -> None:
    assert find_mirror("deb http://mirror.example/other stable main\n") == Mirror()
    assert sources_list("trixie", Mirror()) == ""


def test_the_image_name_depends_on_the_recipe() -> None:
    assert recipe_hash("debian-12", Mirror()) != recipe_hash("debian-13", Mirror())
    assert recipe_hash("debian-13", Mirror()) == recipe_hash("debian-13", Mirror())
    assert recipe_hash("debian-13", Mirror(), ("nginx",)) != recipe_hash("debian-13", Mirror())
    assert images.support("debian-13").supported
    image = images.support("rocky-10")
    assert not image.supported and "rocky-10" in image.reason


def test_excluded_paths_are_removed_from_extracted_packages(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("etc/dpkg/dpkg.cfg.d/x", "usr/share/man/man1/ls.1", "usr/share/doc/apt/README", "usr/bin/ls"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    option, _, hook = images.exclusion_hook(tmp_path, ("/usr/share/doc/*", "/usr/share/man/*")).partition("=")
    assert option == "--extract-hook"
    subprocess.run(["sh", "-c", hook, "exec", str(root)], check=True)
    assert sorted(path.name for path in (root / "usr").rglob("*") if path.is_file()) == ["ls"]
    configuration = (root / "etc/dpkg/dpkg.cfg.d/exclusions").read_text().splitlines()
    assert configuration[:2] == ["path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*"]
    assert "path-include=/usr/share/doc/*/copyright" in configuration[2:], "the last line that matches counts"


def test_resolvers_a_host_can_reach() -> None:
    text = "search x\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n"
    assert resolver.reachable(resolver.servers(text)) == ["192.0.2.53"]


def test_console_without_podmans_columns(tmp_path: Path) -> None:
    file = tmp_path / "console.log"
    file.write_text("2026-01-01T00:00:00.0+00:00 stdout F Welcome\r\n2026-01-01T00:00:00.0+00:00 stdout F \r\n")
    assert read_console(file) == "Welcome"
    assert read_console(tmp_path / "none") == ""


def test_kernel_settings_are_restored_with_the_last_lab(tmp_path: Path) -> None:
    root, folder = tmp_path / "sys", tmp_path / "run"
    for key in (*NEEDED, "kernel/panic"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_text("0\n")
    (root / "fs/inotify/max_user_instances").write_text("99999\n")
    one, two = Sysctls("one", root, folder), Sysctls("two", root, folder)
    assert "set net.ipv4.ip_forward to 1" in one.acquire()
    assert (root / "fs/inotify/max_user_instances").read_text() == "99999\n", "high enough"
    assert two.acquire() == []
    (root / "kernel/panic").write_text("10\n")
    assert one.release(alive=lambda lab: True) == []
    assert (root / "net/ipv4/ip_forward").read_text() == "1"
    restored = two.release(alive=lambda lab: True)
    assert "restored kernel.panic to 0" in restored
    assert (root / "net/ipv4/ip_forward").read_text() == "0"
    assert two.release(alive=lambda lab: True) == []


def test_every_sysctl_that_hosts_set_is_restored() -> None:
    """Every sysctl of a role, RKE2 or cephadm except `net.*`, which each host has for itself."""
    files = [*(REPOSITORY / "roles").glob("*/vars/main.yml"), *REPOSITORY.glob("roles/*/templates/etc/sysctl.d/*")]
    text = "\n".join(path.read_text() for path in files)
    text += (REPOSITORY / "lab/rke2sim/release/rke2-cis-sysctl.conf").read_text()
    written = set(re.findall(r"^\s*((?:fs|kernel|vm)(?:\.[a-z_-]+)+)\s*[:=]", text, re.M))
    assert {"kernel.panic", "vm.overcommit_memory", "fs.protected_fifos"} <= written
    # These cannot be reset at run time, so the role base skips them where the kernel is shared.
    final = {"kernel.kexec_load_disabled", "kernel.unprivileged_bpf_disabled"}
    by_cephadm = {"fs.aio-max-nr", "kernel.pid_max"}
    known = {key.replace("/", ".") for key in (*NEEDED, *WRITTEN_BY_HOSTS)}
    assert (written - final) | by_cephadm <= known


def test_a_dead_lab_does_not_keep_the_settings(tmp_path: Path) -> None:
    root, folder = tmp_path / "sys", tmp_path / "run"
    (root / "net/ipv4").mkdir(parents=True)
    (root / "net/ipv4/ip_forward").write_text("0")
    Sysctls("dead", root, folder).acquire()
    last = Sysctls("last", root, folder)
    last.acquire()
    assert last.release(alive=lambda lab: lab != "dead") == ["restored net.ipv4.ip_forward to 0"]


@pytest.mark.parametrize(("after", "raises"), [(set(), False), ({"gone-up"}, True)])
def test_a_link_may_disappear_while_it_is_deleted(
    after: set[str], raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespace of its other end ended between the check and the command; an existing link is an error."""
    checks = iter([{"gone-up"}, after])

    def fail(namespace: str | None, lines: list[str], family: str = "") -> None:
        raise CommandError(["ip", *lines], "Cannot find device", 1)

    monkeypatch.setattr(namespaces, "links", lambda namespace: next(checks))
    monkeypatch.setattr(namespaces, "batch", fail)
    with pytest.raises(CommandError) if raises else nullcontext():
        namespaces.clear_link(None, "gone-up")
