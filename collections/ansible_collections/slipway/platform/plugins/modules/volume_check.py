"""Ansible module: use a Kubernetes volume from its creation to its deletion."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_check
short_description: Create, write, save, restore, expand and delete a volume of a storage class
description:
  - Works in the namespace C(slipway-volume-check), which it removes at its end, and at its start after an interruption.
  - Volumes and snapshots of a class that retains them are deleted too.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Not run; the module returns at once.
options:
  storage_class:
    type: str
    required: true
    description: StorageClass of the volume.
  snapshot_class:
    type: str
    required: true
    description: VolumeSnapshotClass of its snapshot.
  image_of:
    type: str
    required: true
    description: Namespace and name of a DaemonSet whose first image, with a shell, the pods use; every node has it.
  timeout_seconds:
    type: int
    default: 300
    description: Seconds for each step.
"""

EXAMPLES = r"""
- name: Use a volume
  slipway.platform.volume_check:
    storage_class: ceph-block
    snapshot_class: ceph-block
    image_of: ceph-csi-rbd/ceph-csi-rbd-nodeplugin
"""

RETURN = r"""
steps:
  description: The steps that succeeded.
  returned: always
  type: list
  elements: str
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import volume_check as objects
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi, label
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

Json = dict[str, Any]


class Check:
    """The steps, each of which waits for its result."""

    def __init__(self, api: KubernetesApi, timeout_seconds: int) -> None:
        self.api, self.timeout_seconds = api, timeout_seconds

    def wait(self, manifest: Mapping[str, Any], unmet: Callable[[Json | None], list[str]]) -> Json | None:
        return wait_until(
            label(manifest),
            lambda: self.api.live(manifest),
            unmet,
            timeout_seconds=self.timeout_seconds,
            interval_seconds=1,
            passing=ApiError,
        )

    def make(self, manifest: Json, unmet: Callable[[Json | None], list[str]]) -> None:
        self.api.apply(manifest)
        self.wait(manifest, unmet)

    def run_pod(self, manifest: Json) -> None:
        """Run a pod to its end; it releases the volume."""
        self.make(manifest, objects.unfinished)
        self.remove(manifest)

    def remove(self, manifest: Mapping[str, Any]) -> None:
        self.api.delete(manifest)
        self.wait(manifest, lambda item: [] if item is None else ["is still there"])

    def clean(self) -> None:
        """Remove the namespace, and the volumes and snapshots of its claims also where their class retains them."""
        content = {"apiVersion": objects.SNAPSHOTS, "kind": "VolumeSnapshotContent", "metadata": {"name": "any"}}
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "any"}}
        retained = []
        for kind, reference, policy in (
            (content, "volumeSnapshotRef", "deletionPolicy"),
            (volume, "claimRef", "persistentVolumeReclaimPolicy"),
        ):
            path = self.api.path(kind).rpartition("/")[0]
            for item in self.api.items(path):
                if (item["spec"].get(reference) or {}).get("namespace") == objects.NAMESPACE:
                    change = {"spec": {policy: "Delete"}}
                    self.api.call("PATCH", f"{path}/{item['metadata']['name']}", change, "application/merge-patch+json")
                    retained.append({**kind, "metadata": {"name": item["metadata"]["name"]}})
        self.remove(objects.namespace())
        for item in retained:
            self.wait(item, lambda found: [] if found is None else ["is still there"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "storage_class": {"type": "str", "required": True},
            "snapshot_class": {"type": "str", "required": True},
            "image_of": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, steps=[])
    given, steps = module.params, []
    api = KubernetesApi()
    check, text = Check(api, given["timeout_seconds"]), secrets.token_hex(8)
    first, restored = (objects.claim("first", given["storage_class"]), "restored")
    try:
        check.clean()
        namespace, _, name = given["image_of"].partition("/")
        workload = api.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
        if workload is None:
            raise ApiError(f"DaemonSet {given['image_of']} does not exist", permanent=True)
        image = workload["spec"]["template"]["spec"]["containers"][0]["image"]
        api.apply(objects.namespace())
        check.make(first, objects.unbound)
        steps.append("created")
        check.run_pod(objects.pod("write", image, "first", objects.write_script(text)))
        steps.append("written")
        check.make(objects.snapshot("saved", given["snapshot_class"], "first"), objects.unready)
        steps.append("saved")
        check.make(objects.claim(restored, given["storage_class"], snapshot="saved"), objects.unbound)
        check.run_pod(objects.pod("read", image, restored, objects.read_script(text)))
        steps.append("restored")
        api.apply(objects.claim("first", given["storage_class"], objects.LARGE))
        # A file system grows when the volume is mounted.
        check.run_pod(objects.pod("expand", image, "first", objects.read_script(text)))
        check.wait(first, lambda item: objects.unbound(item, objects.LARGE))
        steps.append("expanded")
        check.clean()
        steps.append("deleted")
    except (ApiError, NotMet) as error:
        done = ", ".join(steps) or "nothing"
        module.fail_json(
            msg=f"storage class {given['storage_class']}: {error} (before: {done}). Read its events with kubectl -n "
            f"{objects.NAMESPACE} get events, correct the cause and run again.",
            steps=steps,
        )
    module.exit_json(changed=False, steps=steps)


if __name__ == "__main__":
    main()
