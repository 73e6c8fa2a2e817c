#!/bin/sh
# Stops RKE2 and all pods of this host, which outlive the service.
if [ "$(id -u)" -ne 0 ]; then
    echo "$(basename "$0"): must be run as root" >&2
    exit 1
fi

RKE2_DATA_DIR=${RKE2_DATA_DIR:-/var/lib/rancher/rke2}

set -x
systemctl stop rke2-server.service || true
systemctl stop rke2-agent.service || true
{ set +x; } 2>/dev/null

# The programs of the release (containerd, kubelet, the shims of the pods), and all that the shims started.
tree() {
    for pid in "$@"; do
        echo "$pid"
        tree $(ps --no-headers -o pid --ppid "$pid")
    done
}

programs=
for cmdline in /proc/[0-9]*/cmdline; do
    pid=${cmdline#/proc/}
    pid=${pid%/cmdline}
    if [ "$pid" != "$$" ] && tr '\0' ' ' <"$cmdline" 2>/dev/null | grep -Eq "^([^ ]*python[^ ]* -IS )?${RKE2_DATA_DIR}/(data/[^/ ]*/)?bin/"; then
        programs="$programs $pid"
    fi
done
kill -9 $(tree $programs) 2>/dev/null

# Mounts of pods and the network namespaces of their sandboxes.
unmount() {
    awk -v prefix="$1" 'index($2, prefix) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount "$mount" 2>/dev/null || umount --lazy "$mount"
    done
}
unmount /run/k3s
unmount /var/lib/kubelet/pods
unmount /run/netns/cni-
rm -rf /run/k3s/containerd /run/flannel /run/cni /var/lib/kubelet/pods
# It holds the subnet that otherwise is in /run/flannel. Empty, not removed: no pod starts on the former network, nor on another one
# that is configured on this host (podman's), until flannel writes it.
[ -e /etc/cni/net.d/10-canal.conflist ] && : >/etc/cni/net.d/10-canal.conflist
for namespace in /run/netns/cni-*; do
    [ -e "$namespace" ] && rm -f "$namespace"
done
ip link delete flannel.1 2>/dev/null
ip link delete cni0 2>/dev/null

# As the release's script: without these programs the rules stay.
for save in iptables-save ip6tables-save; do
    if command -v "$save" >/dev/null; then
        "$save" | grep -v -e KUBE- -e CNI- -e FLANNEL -e flannel | "${save%-save}-restore"
    fi
done

rm -rf "${RKE2_DATA_DIR}"/agent/pod-manifests/*.yaml
exit 0
