"""Host images: Debian built by mmdebstrap, with the contents of Hetzner's images and some adjustments for the lab.

An image is a folder: the lower layer of the root file systems of all its hosts. A host needs no copy, and all hosts
share one page cache. The name ends in a hash of the recipe: a changed recipe gives a new image, existing hosts keep
the old one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from lab.machines import builds, role_packages
from lab.machines.base import ImageSupport, MachineError
from lab.machines.commands import run
from lab.settings import IMAGES, Settings

Progress = Callable[[str, float], None]
"""(current step, share done from 0 to 1)."""

SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}
RESCUE_IMAGE = "debian-13"
"""The image of the rescue system, for every server."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BUILD_MEGABYTES = 2000
"""Free disk space that a build needs; the finished image takes about a third."""

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "apt-utils",
    "ca-certificates",
    "cloud-init",
    "curl",
    "e2fsprogs",
    "gnupg",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "locales",
    "lsb-release",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "psmisc",
    "python3",
    "python3-apt",
    "sudo",
    "vim-tiny",
    "wget",
    "xfsprogs",
)

MASKED_UNITS = (
    # Every boot triggers events for all devices of the machine, handled by the udevd of every host: 60 hosts take
    # minutes to boot, at load 700. The devices of a host are created before init instead (see containers.py).
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-varlink.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    # A login prompt on a console without users.
    "getty.target",
    "console-getty.service",
    # These maintain all disks of the machine.
    "e2scrub_reap.service",
    "e2scrub_all.timer",
    "xfs_scrub_all.timer",
    "fstrim.timer",
    # These change the kernel, which all hosts share.
    "modprobe@.service",
    "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
)

STOPPED_TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")

_SHIM = '''\
"""The Hetzner data source, made to run where no DMI table names the manufacturer: in a lab host."""

from urllib.request import urlopen

from cloudinit.sources import DataSourceHetzner as hetzner
from cloudinit.sources import DEP_FILESYSTEM, list_from_depends


def _identity():
    with urlopen("http://169.254.169.254/hetzner/v1/metadata/instance-id", timeout=10) as answer:
        return True, answer.read().decode().strip()


hetzner.get_hcloud_data = _identity


class DataSourceHetznerLab(hetzner.DataSourceHetzner):
    # cloud-init writes this name as the platform, as it does on Hetzner.
    dsname = "Hetzner"

    # The addresses are on the links before init runs, whatever the metadata says about them.
    network_config = None

    def check_instance_id(self, sys_cfg):
        return True


def get_datasource_list(depends):
    return list_from_depends(depends, [(DataSourceHetznerLab, (DEP_FILESYSTEM,))])
'''

FILES = {
    # Registers the shim in cloud-init. Network: the addresses are on the links before init runs.
    "etc/cloud/cloud.cfg.d/90-hetzner.cfg": """\
datasource_list: [HetznerLab]
datasource_pkg_list: [cloudinit.sources, slipway_datasource]
network: {config: disabled}
# As Hetzner's images: root logs in by key, there is no further user until user_data makes one.
disable_root: false
users: []
preserve_hostname: false
manage_etc_hosts: true
# RSA keys take longer than the rest of the boot, and nobody needs them beside these.
ssh_genkeytypes: [ed25519, ecdsa]
apt: {preserve_sources_list: true}
growpart: {mode: "off"}
resize_rootfs: false
# Debian's lists without what no Debian server needs (snap, byobu, lxd …) and without printing the host keys on the
# console, which costs as much as the rest together.
cloud_config_modules: [ssh-import-id, keyboard, locale, set-passwords, apt-configure, ntp, timezone, runcmd]
cloud_final_modules:
  - package-update-upgrade-install
  - write-files-deferred
  - scripts-vendor
  - scripts-per-once
  - scripts-per-boot
  - scripts-per-instance
  - scripts-user
  - phone-home
  - final-message
  - power-state-change
""",
    "usr/lib/python3/dist-packages/slipway_datasource/__init__.py": "",
    "usr/lib/python3/dist-packages/slipway_datasource/DataSourceHetznerLab.py": _SHIM,
    # /dev/kmsg is the machine's: every journal would store the kernel messages of all hosts.
    "etc/systemd/journald.conf.d/10-shared-kernel.conf": "[Journal]\nReadKMsg=no\n",
    # Without accounting systemd removes cgroups that containers in a host still use (cgroup v1).
    "etc/systemd/system.conf.d/10-accounting.conf": """\
[Manager]
DefaultCPUAccounting=yes
DefaultIOAccounting=yes
DefaultMemoryAccounting=yes
DefaultTasksAccounting=yes
DefaultBlockIOAccounting=yes
""",
    # The clock is the machine's: chrony runs and serves time in a host, but must not set it.
    "etc/slipway/chrony": 'DAEMON_OPTS="-x -F 1"\n',
    "etc/systemd/system/chrony.service.d/10-shared-clock.conf": "[Service]\nEnvironmentFile=/etc/slipway/chrony\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/fstab": "",
    "etc/machine-id": "",
    "etc/hostname": "debian\n",
}
for _timer in STOPPED_TIMERS:
    # Hetzner's images have these timers. A lab host exists for hours: shortly after its start they would fire during a
    # run and hold the apt lock. They stay enabled, but first fire half a day after the start (not OnBootSec=, which in
    # a host counts from the boot of the machine).
    FILES[f"etc/systemd/system/{_timer}.d/10-not-in-the-first-hours.conf"] = (
        "[Timer]\nOnCalendar=\nOnActiveSec=12h\nOnUnitActiveSec=1d\nRandomizedDelaySec=0\nPersistent=false\n"
    )

PATHS_EXCLUDED = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"),
    # Compiled at each installation of udev; no udevd runs in a host.
    "/usr/lib/udev/hwdb.d/*",
)
PATHS_KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")

FINISH = r"""
set -eu
rm -f "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub
rm -rf "$1"/var/lib/cloud "$1"/var/log/journal/* "$1"/etc/resolv.conf
# As on Hetzner's images, where a password is mailed when no key is given.
sed -i 's/^#PermitRootLogin .*/PermitRootLogin yes/' "$1"/etc/ssh/sshd_config
# cloud-init makes the host keys; on Debian 13 this unit would make all types once more.
rm -f "$1"/etc/systemd/system/multi-user.target.wants/sshd-keygen.service
# What the build needed of this machine must not point a host to itself.
sed -i '/127\.0\.0\.1\|localhost\|\[::1\]/d' "$1"/etc/apt/apt.conf.d/99mmdebstrap
# Caches and users are up to date: the first start need not check.
chroot "$1" ldconfig
chroot "$1" journalctl --update-catalog
rm -f "$1"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service
touch -r "$1"/usr "$1"/etc/.updated "$1"/var/.updated
"""

LISTS = "var/lib/apt/lists"
"""Emptied at the end of a build. Its mtime is set to the epoch: Ansible's apt module takes it for the lists' age."""


ROLE_PACKAGES = r"""
set -eu
root=$1 work=$2
shift 2
enabled() {
  chroot "$root" systemctl list-unit-files --state=enabled --no-legend --no-pager | cut -d ' ' -f 1 | sort
}
# postgresql-common makes a database of a server package that is installed.
mkdir "$root/etc/postgresql-common" "$root/etc/postgresql-common/createcluster.d"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.d/build.conf"
enabled >"$work/enabled"
env --unset=APT_CONFIG chroot "$root" apt-get --yes --no-install-recommends install "$@"
# As if the packages were not there: a role starts and enables what it has configured.
enabled | comm -13 "$work/enabled" - | xargs --no-run-if-empty chroot "$root" systemctl --quiet disable
rm -r "$root/etc/postgresql-common/createcluster.d"
# A private key that all hosts would share.
rm -f "$root"/etc/ssl/private/ssl-cert-snakeoil.key "$root"/etc/ssl/certs/ssl-cert-snakeoil.pem
"""
"""Installs the packages of the roles, as their apt tasks do, without starting or enabling a service."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The Debian archive and the security archive that apt on this machine is configured with."""

    archive: str | None = None
    security: str | None = None
    keyring: str = str(KEYRING)


def support(image: str) -> ImageSupport:
    if image in SUITES:
        return ImageSupport(image, True)
    return ImageSupport(image, False, f"the lab has no image {image}. Use {' or '.join(SUITES)}.")


def find_mirror(sources: str) -> Mirror:
    """The Debian mirror named in apt's sources (one-line or deb822, all files joined); empty when there is none."""
    archive = security = None
    locations = [*re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)", sources, re.M)]
    for line in re.findall(r"^URIs:\s*(.+)$", sources, re.M | re.I):
        locations += line.split()
    for location in locations:
        tail = urlsplit(location).path.rstrip("/").rpartition("/")[2]
        if tail == "debian":
            archive = archive or location
        elif tail == "debian-security":
            security = security or location
    return Mirror(archive, security)


def sources_list(suite: str, mirror: Mirror) -> str:
    """deb822 sources for a suite; empty for mmdebstrap's default."""
    if mirror.archive is None or mirror.security is None:
        return ""
    signed = f"Components: main\nSigned-By: {mirror.keyring}\n"
    return (
        f"Types: deb\nURIs: {mirror.archive}\nSuites: {suite} {suite}-updates\n{signed}\n"
        f"Types: deb\nURIs: {mirror.security}\nSuites: {suite}-security\n{signed}"
    )


def packages_of_roles(settings: Settings, image: str) -> tuple[str, ...]:
    """The packages of the roles in the image; none in a plain one."""
    return role_packages.read(image.rpartition("-")[2]) if settings.images == "prepared" else ()


def recipe_hash(image: str, mirror: Mirror, of_roles: tuple[str, ...] = ()) -> str:
    """A hash of all inputs of the image, except the current contents of the archive."""
    recipe = (SUITES[image], PACKAGES, MASKED_UNITS, sorted(FILES.items()), PATHS_EXCLUDED, PATHS_KEPT, FINISH, LISTS)
    roles = (of_roles, ROLE_PACKAGES) if of_roles else ()
    return hashlib.sha256(repr((recipe, roles, sources_list(SUITES[image], mirror))).encode()).hexdigest()[:12]


def folder(settings: Settings, image: str) -> Path:
    """Folder of the image of the current recipe, built or not."""
    recipe = recipe_hash(image, machine_mirror(), packages_of_roles(settings, image))
    return settings.cache_dir / "images" / f"{image}-{recipe}"


def note(settings: Settings) -> str:
    """One sentence for users about the image of new hosts."""
    if settings.images == "plain":
        return "Host images are plain Debian, as Hetzner's; the roles install every package."
    return "Host images contain the packages that the roles install (SLIPWAY_LAB_IMAGES=plain builds them without)."


def is_built(settings: Settings, image: str) -> bool:
    return folder(settings, image).is_dir()


def machine_mirror() -> Mirror:
    files = [Path("/etc/apt/sources.list")]
    more = Path("/etc/apt/sources.list.d")
    if more.is_dir():
        files += sorted(path for path in more.iterdir() if path.suffix in {".list", ".sources"})
    return find_mirror("\n".join(path.read_text() for path in files if path.is_file()))


def debian_sources(suite: str) -> str:
    """This machine's mirror as a deb822 source of one suite; empty without one, for mmdebstrap's own default."""
    mirror = machine_mirror()
    if mirror.archive is None:
        return ""
    return f"Types: deb\nURIs: {mirror.archive}\nSuites: {suite}\nComponents: main\nSigned-By: {mirror.keyring}\n"


def machine_apt_options() -> dict[str, str]:
    """apt settings of this machine for its mirror: a proxy, or Check-Valid-Until for an old archive."""
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until")
    answer = run(["apt-config", "dump", "--format", "%F=%v%n", *wanted])
    pairs = (line.partition("=") for line in answer.splitlines())
    return {key: value for key, _, value in pairs if value}


def ensure(settings: Settings, image: str, progress: Progress | None = None) -> Path:
    """The image's folder; built first if missing. Of two concurrent callers one builds and the other waits."""
    if image not in SUITES:
        raise MachineError(support(image).reason)
    target = folder(settings, image)
    if target.is_dir():
        return target
    with builds.locked(target.with_suffix(".lock")):
        if not target.is_dir():
            _build(settings, image, target, progress or (lambda text, share: None))
            _prune(settings, image, target)
    return target


def _prune(settings: Settings, image: str, target: Path) -> None:
    """Remove images of older recipes that no server or snapshot uses; both kinds of images are kept side by side."""
    current = {folder(replace(settings, images=kind), image) for kind in IMAGES}
    kinds = ("servers", "snapshots")
    used = {link.resolve() for kind in kinds for link in settings.state_root.glob(f"*/machines/{kind}/*/image")}
    mounts = Path("/proc/self/mountinfo").read_text()
    for old in target.parent.glob(f"{image}-*"):
        if old.is_dir() and not old.suffix and old not in current | used and f"={old}," not in mounts:
            builds.remove_folder(old)
            old.with_suffix(".lock").unlink(missing_ok=True)
    for interrupted in target.parent.glob(f"{image}-*.building"):
        with interrupted.with_suffix(".lock").open("w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            builds.remove_folder(interrupted)


_STEPS = {
    "running apt-get update": ("fetching package lists", 0.05),
    "downloading packages": ("downloading packages", 0.15),
    "extracting archives": ("extracting packages", 0.35),
    "installing essential": ("installing the base system", 0.45),
    "installing remaining": ("installing packages", 0.6),
    "/role-packages": ("installing the roles' packages", 0.75),
    "cleaning package lists": ("cleaning up", 0.95),
}
"""Text in mmdebstrap's messages → (step for the user, share done)."""


def _build(settings: Settings, image: str, target: Path, progress: Progress) -> None:
    free = shutil.disk_usage(target.parent).free // 2**20
    if free < BUILD_MEGABYTES:
        raise MachineError(
            f"{target.parent}: {free} MB are free, building {image} needs {BUILD_MEGABYTES} MB. Free space there "
            "or set SLIPWAY_CACHE_ROOT to a folder on another disk."
        )
    progress(f"building {image}", 0.0)
    with builds.work_folder(target) as work:
        run_with_progress(_arguments(image, packages_of_roles(settings, image), work), image, work, progress)
        root = work / "root"
        root.chmod(0o755)
        os.utime(root / LISTS, (0, 0))
        root.rename(target)
    progress(f"{image} is built", 1.0)


def _arguments(image: str, of_roles: tuple[str, ...], work: Path) -> list[str]:
    """Write the files of the build into the work folder and return the command."""
    overlay = work / "files"
    _write_files(overlay)
    (work / "finish").write_text(FINISH)
    (work / "role-packages").write_text(ROLE_PACKAGES)
    sources = sources_list(SUITES[image], machine_mirror())
    (work / "debian.sources").write_text(sources)
    return [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        # mmdebstrap keeps this option in the image: dpkg need not sync the files of a disk that is discarded.
        "--dpkgopt=force-unsafe-io",
        exclusion_hook(work, PATHS_EXCLUDED),
        *(f"--aptopt={key} {quote(value)}" for key, value in machine_apt_options().items()),
        *([f'--customize-hook=sh {work / "role-packages"} "$1" {work} {" ".join(of_roles)}'] if of_roles else []),
        f'--customize-hook=cp -a --no-preserve=ownership {overlay}/. "$1"/',
        f'--customize-hook=sh {work / "finish"} "$1"',
        SUITES[image],
        str(work / "root"),
        *([str(work / "debian.sources")] if sources else []),
    ]


def exclusion_hook(work: Path, paths: Sequence[str]) -> str:
    """The option of mmdebstrap that excludes paths from an image, except `PATHS_KEPT`."""
    # With --dpkgopt, mmdebstrap pipes each archive that it extracts through a Python filter, which takes longer than
    # the rest of the extraction. With this hook only dpkg filters, when it unpacks the extracted packages again.
    (work / "exclusions").write_text(
        "".join(f"path-exclude={path}\n" for path in paths) + "".join(f"path-include={path}\n" for path in PATHS_KEPT)
    )
    removed = " ".join(f'"$1"{path}' for path in paths)
    return f'--extract-hook=cp {work / "exclusions"} "$1"/etc/dpkg/dpkg.cfg.d/exclusions && rm -rf {removed}'


def run_with_progress(argv: Sequence[str], image: str, work: Path, progress: Progress) -> None:
    def on_line(line: str) -> None:
        for words, (text, share) in _STEPS.items():
            if words in line:
                progress(f"{image}: {text}", share)

    builds.run_build(argv, image, work, on_line)


def _write_files(overlay: Path) -> None:
    for name, content in FILES.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    units = overlay / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).symlink_to("/dev/null")


def quote(value: str) -> str:
    """Quote a value for apt's configuration."""
    return '"' + value.replace('"', "") + '"'
