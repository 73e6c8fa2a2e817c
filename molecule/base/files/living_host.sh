#!/bin/sh
# Leaves a Debian host as a person may leave it, for the role base to converge.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet=2 update
apt-get --quiet=2 --yes --no-install-recommends install needrestart
apt-get --quiet=2 --yes remove unattended-upgrades
dpkg --force-depends --remove procps
mkdir --parents /etc/needrestart/conf.d
echo "\$nrconf{restart} = 'a';" >/etc/needrestart/conf.d/50-local.conf

# The image's own sources in both forms, and a source that is not Debian's.
sources=/etc/apt/sources.list.d
cat /etc/apt/sources.list $sources/*.sources >/etc/living-host 2>/dev/null || true
awk '/^deb /{print} /^URIs:/{uri=$2} /^Suites:/{for (i=2; i<=NF; i++) print "deb", uri, $i, "main"}' /etc/living-host >$sources/image.list
cp $sources/image.list /etc/apt/sources.list
rm --force $sources/debian.sources
printf 'Types: deb\nURIs: https://deb.example.com/debian\nSuites: trixie\nComponents: main\nEnabled: no\n' >$sources/other.sources

# A package whose script kills dpkg once, which leaves its journal behind.
build=$(mktemp --directory)
mkdir "$build/DEBIAN"
printf 'Package: killer\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: kills dpkg\n' >"$build/DEBIAN/control"
printf '#!/bin/sh\ntest -e /run/killed && exit 0\ntouch /run/killed\nkill -9 $PPID\n' >"$build/DEBIAN/postinst"
chmod 755 "$build/DEBIAN/postinst"
dpkg-deb --build "$build" "$build.deb" >/dev/null
dpkg --install "$build.deb" || true
# What a killed run of Ansible's module apt leaves.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 754 /usr/sbin/policy-rc.d

systemctl disable --now --quiet chrony
systemctl mask --quiet chrony
echo 'Defaults umask=0077' >/etc/sudoers.d/10-umask
mount --types tmpfs --options noexec,nosuid,size=1M tmpfs /tmp

# Another package manager that works for a while.
systemd-run --quiet --unit=package-locks python3 -c "
import fcntl, time
locks = [open(f'/var/lib/{name}', 'w') for name in ('dpkg/lock-frontend', 'dpkg/lock', 'apt/lists/lock')]
for lock in locks:
    fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(40)
"
