#!/bin/sh
# Removes RKE2 and all its data from this host.
set -e
if [ "$(id -u)" -ne 0 ]; then
    echo "$(basename "$0"): must be run as root" >&2
    exit 1
fi

RKE2_DATA_DIR=${RKE2_DATA_DIR:-/var/lib/rancher/rke2}
INSTALL_RKE2_ROOT=${INSTALL_RKE2_ROOT:-/usr/local}

"$(dirname "$0")/rke2-killall.sh"

for unit in rke2-server rke2-agent; do
    systemctl disable "$unit" || true
    systemctl reset-failed "$unit" || true
done
rm -f "${INSTALL_RKE2_ROOT}"/lib/systemd/system/rke2-*.service "${INSTALL_RKE2_ROOT}"/lib/systemd/system/rke2-*.env
find /etc/systemd/system -name 'rke2-*.service' -delete
systemctl daemon-reload
rm -f "${INSTALL_RKE2_ROOT}/bin/rke2" "${INSTALL_RKE2_ROOT}/bin/rke2-killall.sh"
rm -rf "${INSTALL_RKE2_ROOT}/share/rke2" /etc/rancher/rke2 /etc/rancher/node /etc/cni /opt/cni/bin /var/lib/kubelet
rmdir /etc/rancher 2>/dev/null || true
rm -rf "${RKE2_DATA_DIR}"
rmdir /var/lib/rancher 2>/dev/null || true
rm -f "${INSTALL_RKE2_ROOT}/bin/rke2-uninstall.sh"
