#!/bin/sh
# Stops all processes of the simulated RKE2 on this host, including those that outlive the service.
if [ "$(id -u)" -ne 0 ]; then
    echo "$(basename "$0"): must be run as root" >&2
    exit 1
fi

RKE2_DATA_DIR=${RKE2_DATA_DIR:-/var/lib/rancher/rke2}

set -x
systemctl stop rke2-server.service || true
systemctl stop rke2-agent.service || true
{ set +x; } 2>/dev/null

for cmdline in /proc/[0-9]*/cmdline; do
    pid=${cmdline#/proc/}
    pid=${pid%/cmdline}
    if [ "$pid" != "$$" ] && tr '\0' ' ' <"$cmdline" 2>/dev/null | grep -Eq "^([^ ]*python[^ ]* -IS )?${RKE2_DATA_DIR}/data/[^/ ]*/bin/"; then
        kill -9 "$pid" 2>/dev/null
    fi
done

# As the release's script: without these programs the rules stay.
for save in iptables-save ip6tables-save; do
    if command -v "$save" >/dev/null; then
        "$save" | grep -v -e KUBE- -e CNI- | "${save%-save}-restore"
    fi
done

rm -rf "${RKE2_DATA_DIR}/agent/run" "${RKE2_DATA_DIR}"/agent/pod-manifests/*.yaml
exit 0
