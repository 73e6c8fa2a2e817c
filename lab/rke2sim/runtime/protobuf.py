"""Reads the Kubernetes protobuf bodies that kubectl's typed commands send (`kubectl create configmap` and the like).

Responses are always JSON, which every client accepts. Each message is described below: field number, JSON name and
type. Fields without a description are an error and never dropped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .store import ApiError

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"

# Types: s text, d bytes, i number, b truth (i and b: zero is kept, for fields that are pointers in Go); I and B: zero
# means absent; t time; x number or text; q quantity; another word: a message. `*` list, `%` map from text; - a status,
# which creation ignores.
MESSAGES = """
ObjectMeta 1 name s 2 generateName s 3 namespace s 4 selfLink s 5 uid s 6 resourceVersion s 7 generation I
  8 creationTimestamp t 9 deletionTimestamp t 10 deletionGracePeriodSeconds i 11 labels %s 12 annotations %s
  13 ownerReferences *OwnerReference 14 finalizers *s
OwnerReference 1 kind s 3 name s 4 uid s 5 apiVersion s 6 controller b 7 blockOwnerDeletion b
LabelSelector 1 matchLabels %s 2 matchExpressions *Requirement
Requirement 1 key s 2 operator s 3 values *s
DeleteOptions 1 gracePeriodSeconds i 2 preconditions Preconditions 3 orphanDependents b 4 propagationPolicy s
  5 dryRun *s
Preconditions 1 uid s 2 resourceVersion s
LocalReference 1 name s
ObjectReference 1 kind s 2 namespace s 3 name s 4 uid s 5 apiVersion s 6 resourceVersion s 7 fieldPath s
ConfigMap 1 metadata ObjectMeta 2 data %s 3 binaryData %d 4 immutable b
Secret 1 metadata ObjectMeta 2 data %d 3 type s 4 stringData %s 5 immutable b
Namespace 1 metadata ObjectMeta 2 spec NamespaceSpec 3 status -
NamespaceSpec 1 finalizers *s
ServiceAccount 1 metadata ObjectMeta 2 secrets *ObjectReference 3 imagePullSecrets *LocalReference
  4 automountServiceAccountToken b
Service 1 metadata ObjectMeta 2 spec ServiceSpec 3 status -
ServiceSpec 1 ports *ServicePort 2 selector %s 3 clusterIP s 4 type s 5 externalIPs *s 7 sessionAffinity s
  8 loadBalancerIP s 10 externalName s 11 externalTrafficPolicy s 12 healthCheckNodePort I
  13 publishNotReadyAddresses B 18 clusterIPs *s
ServicePort 1 name s 2 protocol s 3 port I 4 targetPort x 5 nodePort I 6 appProtocol s
Eviction 1 metadata ObjectMeta 2 deleteOptions DeleteOptions
PodDisruptionBudget 1 metadata ObjectMeta 2 spec BudgetSpec 3 status -
BudgetSpec 1 minAvailable x 2 selector LabelSelector 3 maxUnavailable x 4 unhealthyPodEvictionPolicy s
ResourceQuota 1 metadata ObjectMeta 2 spec QuotaSpec 3 status -
QuotaSpec 1 hard %q 2 scopes *s
PriorityClass 1 metadata ObjectMeta 2 value i 3 globalDefault B 4 description s 5 preemptionPolicy s
Role 1 metadata ObjectMeta 2 rules *PolicyRule
ClusterRole 1 metadata ObjectMeta 2 rules *PolicyRule
PolicyRule 1 verbs *s 2 apiGroups *s 3 resources *s 4 resourceNames *s 5 nonResourceURLs *s
RoleBinding 1 metadata ObjectMeta 2 subjects *Subject 3 roleRef RoleRef
ClusterRoleBinding 1 metadata ObjectMeta 2 subjects *Subject 3 roleRef RoleRef
Subject 1 kind s 2 apiGroup s 3 name s 4 namespace s
RoleRef 1 apiGroup s 2 kind s 3 name s
SelfSubjectReview 1 metadata ObjectMeta 2 status -
SelfSubjectAccessReview 1 metadata ObjectMeta 2 spec AccessSpec 3 status -
SubjectAccessReview 1 metadata ObjectMeta 2 spec AccessSpec 3 status -
SelfSubjectRulesReview 1 metadata ObjectMeta 2 spec NamespaceName 3 status -
NamespaceName 1 namespace s
AccessSpec 1 resourceAttributes ResourceAttributes 2 nonResourceAttributes NonResourceAttributes
ResourceAttributes 1 namespace s 2 verb s 3 group s 4 version s 5 resource s 6 subresource s 7 name s
NonResourceAttributes 1 path s 2 verb s
Deployment 1 metadata ObjectMeta 2 spec DeploymentSpec 3 status -
DeploymentSpec 1 replicas i 2 selector LabelSelector 3 template PodTemplate 4 strategy Strategy 5 minReadySeconds I
  6 revisionHistoryLimit i 7 paused B 9 progressDeadlineSeconds i
Strategy 1 type s 2 rollingUpdate Rolling
Rolling 1 maxUnavailable x 2 maxSurge x
PodTemplate 1 metadata ObjectMeta 2 spec PodSpec
PodSpec 2 containers *Container 3 restartPolicy s 4 terminationGracePeriodSeconds i 6 dnsPolicy s 7 nodeSelector %s
  8 serviceAccountName s 9 serviceAccount s 10 nodeName s 11 hostNetwork B 12 hostPID B 13 hostIPC B 16 hostname s
  17 subdomain s 19 schedulerName s 24 priorityClassName s
Container 1 name s 2 image s 3 command *s 4 args *s 5 workingDir s 6 ports *ContainerPort 7 env *EnvVar
  8 resources Resources 13 terminationMessagePath s 14 imagePullPolicy s 16 stdin B 17 stdinOnce B 18 tty B
  20 terminationMessagePolicy s
ContainerPort 1 name s 2 hostPort I 3 containerPort I 4 protocol s 5 hostIP s
EnvVar 1 name s 2 value s
Resources 1 limits %q 2 requests %q
Job 1 metadata ObjectMeta 2 spec JobSpec 3 status -
JobSpec 1 parallelism i 2 completions i 3 activeDeadlineSeconds i 4 selector LabelSelector 5 manualSelector b
  6 template PodTemplate 7 backoffLimit i 8 ttlSecondsAfterFinished i 10 suspend b
CronJob 1 metadata ObjectMeta 2 spec CronJobSpec 3 status -
CronJobSpec 1 schedule s 2 startingDeadlineSeconds i 3 concurrencyPolicy s 4 suspend b 5 jobTemplate JobTemplate
  6 successfulJobsHistoryLimit i 7 failedJobsHistoryLimit i 8 timeZone s
JobTemplate 1 metadata ObjectMeta 2 spec JobSpec
"""


def _table() -> dict[str, dict[int, tuple[str, str]]]:
    table: dict[str, dict[int, tuple[str, str]]] = {}
    for line in MESSAGES.strip().replace("\n  ", " ").splitlines():
        name, *words = line.split()
        fields = zip(words[0::3], words[1::3], words[2::3], strict=True)
        table[name] = {int(number): (field, kind) for number, field, kind in fields}
    return table


TABLE = _table()


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers with a number or bytes each."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
                yield tag >> 3, _signed(value)
            case 2:
                length, position = _varint(data, position)
                if position + length > len(data):
                    raise IndexError
                yield tag >> 3, data[position : position + length]
                position += length
            case other:
                raise ValueError(f"wire type {other}")


def _map_entry(kind: str, data: bytes) -> tuple[str, Any]:
    entry = dict(_fields(data))
    raw = entry.get(2, b"")
    return entry.get(1, b"").decode(), "" if kind in "sd" and not raw else _value(kind, raw)


def _value(kind: str, raw: Any) -> Any:
    """One value; None for an absent one."""
    match kind:
        case "s":
            return raw.decode() or None
        case "d":
            return base64.b64encode(raw).decode()
        case "i" | "I":
            return raw if raw or kind == "i" else None
        case "b" | "B":
            return bool(raw) if raw or kind == "b" else None
        case "t":
            seconds = dict(_fields(raw)).get(1, 0)
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds > 0 else None
        case "x":
            parts = dict(_fields(raw))
            return parts.get(3, b"").decode() if parts.get(1) else parts.get(2, 0)
        case "q":
            return dict(_fields(raw)).get(1, b"").decode()
    return _message(kind, raw) or None


def _message(name: str, data: bytes) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, raw in _fields(data):
        found = TABLE[name].get(number)
        if found is None:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f"the simulation of RKE2 cannot read field {number} of {name} in protobuf. Send it as YAML.",
            )
        field, kind = found
        if kind == "-":
            continue
        if kind.startswith("*"):
            value = _value(kind[1:], raw)
            result.setdefault(field, []).append(({} if kind[1:] in TABLE else "") if value is None else value)
        elif kind.startswith("%"):
            key, value = _map_entry(kind[1:], raw)
            result.setdefault(field, {})[key] = value
        else:
            value = _value(kind, raw)
            if value is not None:
                result[field] = value
    return result


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body that starts with the Kubernetes envelope."""
    if not body.startswith(MAGIC):
        raise ApiError(400, "BadRequest", "the body is not Kubernetes protobuf: its first bytes are not k8s\\0")
    try:
        envelope = dict(_fields(body[4:]))
        types = dict(_fields(envelope.get(1, b"")))
        api_version, kind = types.get(1, b"").decode(), types.get(2, b"").decode()
        if kind not in TABLE:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f"the simulation of RKE2 cannot read {kind} in protobuf. Send it as YAML (kubectl apply).",
            )
        return {"apiVersion": api_version, "kind": kind, **_message(kind, envelope.get(2, b""))}
    except (IndexError, ValueError, AttributeError) as fault:
        raise ApiError(400, "BadRequest", f"the protobuf body is malformed: {fault}") from fault
