"""The resources of the API: built-in ones from a table, custom ones from their definitions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Obj = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    custom: Obj | None = field(default=None, compare=False)
    """The version entry of this resource's CustomResourceDefinition."""
    singular_name: str = ""
    virtual: bool = False
    """Reviews: a request without a stored object."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def group_resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def prefix(self, namespace: str = "") -> str:
        base = f"/registry/{self.group or 'core'}/{self.plural}/"
        if not self.namespaced:
            return f"{base}-/"
        return f"{base}{namespace}/" if namespace else base

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix(namespace)}{name}"


_SCALABLE = ("status", "scale")

_TABLE = """
v1 configmaps ConfigMap ns cm
v1 endpoints Endpoints ns ep
v1 events Event ns ev
v1 limitranges LimitRange ns limits
v1 namespaces Namespace - ns status,finalize
v1 nodes Node - no status
v1 persistentvolumeclaims PersistentVolumeClaim ns pvc status
v1 persistentvolumes PersistentVolume - pv status
v1 pods Pod ns po status,eviction,ephemeralcontainers
v1 podtemplates PodTemplate ns
v1 replicationcontrollers ReplicationController ns rc status,scale
v1 resourcequotas ResourceQuota ns quota status
v1 secrets Secret ns
v1 serviceaccounts ServiceAccount ns sa
v1 services Service ns svc status
apps/v1 controllerrevisions ControllerRevision ns
apps/v1 daemonsets DaemonSet ns ds status
apps/v1 deployments Deployment ns deploy status,scale
apps/v1 replicasets ReplicaSet ns rs status,scale
apps/v1 statefulsets StatefulSet ns sts status,scale
batch/v1 cronjobs CronJob ns cj status
batch/v1 jobs Job ns - status
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa status
networking.k8s.io/v1 ingresses Ingress ns ing status
networking.k8s.io/v1 ingressclasses IngressClass -
networking.k8s.io/v1 networkpolicies NetworkPolicy ns netpol
rbac.authorization.k8s.io/v1 clusterroles ClusterRole -
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding -
rbac.authorization.k8s.io/v1 roles Role ns
rbac.authorization.k8s.io/v1 rolebindings RoleBinding ns
policy/v1 poddisruptionbudgets PodDisruptionBudget ns pdb status
storage.k8s.io/v1 storageclasses StorageClass - sc
storage.k8s.io/v1 csidrivers CSIDriver -
storage.k8s.io/v1 csinodes CSINode -
storage.k8s.io/v1 volumeattachments VolumeAttachment - - status
coordination.k8s.io/v1 leases Lease ns
discovery.k8s.io/v1 endpointslices EndpointSlice ns
scheduling.k8s.io/v1 priorityclasses PriorityClass - pc
node.k8s.io/v1 runtimeclasses RuntimeClass -
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition - crd,crds status
apiregistration.k8s.io/v1 apiservices APIService - - status
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration -
admissionregistration.k8s.io/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration -
authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview - - - virtual
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview - - - virtual
authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview - - - virtual
authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview - - - virtual
helm.cattle.io/v1 helmcharts HelmChart ns - status
helm.cattle.io/v1 helmchartconfigs HelmChartConfig ns
k3s.cattle.io/v1 addons Addon ns
k3s.cattle.io/v1 etcdsnapshotfiles ETCDSnapshotFile - - status
"""

_ALL_CATEGORY = {
    "pods", "services", "replicationcontrollers", "daemonsets", "deployments", "replicasets", "statefulsets",
    "cronjobs", "jobs", "horizontalpodautoscalers",
}  # fmt: skip


def _builtin() -> list[Resource]:
    result = []
    for line in _TABLE.strip().splitlines():
        api_version, plural, kind, scope, *rest = line.split()
        group, _, version = api_version.rpartition("/")
        words = [() if word == "-" else tuple(word.split(",")) for word in rest]
        words += [()] * (3 - len(words))
        if "status" in words[0]:  # a row without short names
            words = [(), words[0], ()]
        result.append(
            Resource(
                group, version, plural, kind, scope == "ns", words[0], ("all",) if plural in _ALL_CATEGORY else (),
                words[1], virtual="virtual" in words[2],
            )
        )  # fmt: skip
    return result


BUILTIN = _builtin()


class Catalogue:
    """All resources: built-in ones and those of the current CRDs."""

    def __init__(self) -> None:
        self._custom: dict[str, list[Resource]] = {}
        self._index: dict[tuple[str, str, str], Resource] = {}
        self._kinds: dict[tuple[str, str], Resource] = {}
        self.schemas: dict[tuple[str, str, str], Obj] = {}
        self._rebuild()

    def _rebuild(self) -> None:
        everything = self.all()
        self._index = {(item.group, item.version, item.plural): item for item in everything}
        self._kinds = {(item.api_version, item.kind): item for item in everything}

    def all(self) -> list[Resource]:
        return BUILTIN + [item for items in self._custom.values() for item in items]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._index.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return self._kinds.get((api_version, kind))

    def versions(self) -> dict[str, list[str]]:
        """Group → its versions, in the order of the table; the core group is the empty string."""
        result: dict[str, list[str]] = {}
        for item in self.all():
            versions = result.setdefault(item.group, [])
            if item.version not in versions:
                versions.append(item.version)
        return result

    def of(self, group: str, version: str) -> list[Resource]:
        return [item for item in self.all() if (item.group, item.version) == (group, version)]

    def define(self, name: str, value: bytes | None) -> None:
        """Add, replace or remove the resources of a stored CustomResourceDefinition."""
        if value is None:
            self._custom.pop(name, None)
        else:
            self._custom[name] = list(custom_resources(json.loads(value)))
        self._rebuild()


def custom_resources(definition: Obj) -> Iterable[Resource]:
    spec = definition.get("spec", {})
    names = spec.get("names", {})
    builtin = {(item.group, item.plural) for item in BUILTIN}
    if (spec.get("group"), names.get("plural")) in builtin:
        return
    for version in spec.get("versions", []):
        if version.get("served"):
            yield Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec.get("scope") == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                tuple(version.get("subresources") or {}),
                custom=version,
                singular_name=names.get("singular") or "",
            )
