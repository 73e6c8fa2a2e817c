{{- $driver := .Values.driverName | default (printf "%s.csi.ceph.com" (trimPrefix "ceph-csi-" .Chart.Name)) }}
{{- $image := printf "%s:%s" .Values.nodeplugin.plugin.image.repository (.Values.nodeplugin.plugin.image.tag | default .Chart.AppVersion) }}
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata:
  name: {{ $driver }}
  labels: { app: {{ .Chart.Name }}, slipway.dev/simulation: "true" }
spec:
  attachRequired: false
  fsGroupPolicy: {{ .Values.CSIDriver.fsGroupPolicy }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .Chart.Name }}
  labels: { app: {{ .Chart.Name }}, slipway.dev/simulation: "true" }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .Chart.Name }}
  labels: { app: {{ .Chart.Name }}, slipway.dev/simulation: "true" }
rules:
  - { apiGroups: [""], resources: [nodes, secrets], verbs: [get, list] }
  - { apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, create, patch, delete] }
  - { apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list] }
  - { apiGroups: [""], resources: [persistentvolumeclaims/status], verbs: [patch] }
  - { apiGroups: [storage.k8s.io], resources: [storageclasses], verbs: [get, list] }
  - { apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses, volumesnapshots], verbs: [get, list] }
  - { apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots/status], verbs: [patch] }
  - { apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents], verbs: [get, list, create, delete] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .Chart.Name }}
  labels: { app: {{ .Chart.Name }}, slipway.dev/simulation: "true" }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ .Chart.Name }} }
subjects:
  - { kind: ServiceAccount, name: {{ .Chart.Name }}, namespace: {{ .Release.Namespace }} }
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: ceph-csi-config
  labels: { app: {{ .Chart.Name }}, slipway.dev/simulation: "true" }
data:
  config.json: {{ .Values.csiConfig | toJson | quote }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ .Chart.Name }}-nodeplugin
  labels: { app: {{ .Chart.Name }}, component: nodeplugin, slipway.dev/simulation: "true" }
spec:
  selector:
    matchLabels: { app: {{ .Chart.Name }}, component: nodeplugin }
  template:
    metadata:
      labels: { app: {{ .Chart.Name }}, component: nodeplugin, slipway.dev/simulation: "true" }
      annotations: { checksum/config: {{ .Values.csiConfig | toJson | sha256sum }} }
    spec:
      serviceAccountName: {{ .Chart.Name }}
      priorityClassName: {{ .Values.nodeplugin.priorityClassName }}
      terminationGracePeriodSeconds: 1
{{- with .Values.nodeplugin.tolerations }}
      tolerations:
{{ toYaml . | indent 8 }}
{{- end }}
      containers:
        - name: csi-plugin
          image: "{{ $image }}"
          imagePullPolicy: {{ .Values.nodeplugin.plugin.image.pullPolicy }}
          env:
            - { name: DRIVER_NAME, value: {{ $driver }} }
            - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
{{- with .Values.nodeplugin.plugin.resources }}
          resources:
{{ toYaml . | indent 12 }}
{{- end }}
          volumeMounts:
            - { name: config, mountPath: /etc/ceph-csi-config, readOnly: true }
            - { name: volumes, mountPath: /var/lib/ceph-csi-simulation }
      volumes:
        - { name: config, configMap: { name: ceph-csi-config } }
        - { name: volumes, hostPath: { path: /var/lib/ceph-csi-simulation, type: DirectoryOrCreate } }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Chart.Name }}-provisioner
  labels: { app: {{ .Chart.Name }}, component: provisioner, slipway.dev/simulation: "true" }
spec:
  replicas: {{ .Values.provisioner.replicaCount }}
  selector:
    matchLabels: { app: {{ .Chart.Name }}, component: provisioner }
  template:
    metadata:
      labels: { app: {{ .Chart.Name }}, component: provisioner, slipway.dev/simulation: "true" }
    spec:
      priorityClassName: {{ .Values.provisioner.priorityClassName }}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
        - name: csi-plugin
          image: "{{ $image }}"
          args: [controller]
          env:
            - { name: DRIVER_NAME, value: {{ $driver }} }
