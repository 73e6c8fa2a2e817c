apiVersion: v1
kind: ServiceAccount
metadata:
  name: rancher
  labels: { app: rancher, slipway.dev/simulation: "true" }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: rancher
  labels: { app: rancher, slipway.dev/simulation: "true" }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects:
  - { kind: ServiceAccount, name: rancher, namespace: {{ .Release.Namespace }} }
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata:
  name: rancher-critical
  labels: { app: rancher, slipway.dev/simulation: "true" }
value: 1000000000
globalDefault: false
description: Pods critical to Rancher
---
apiVersion: v1
kind: Service
metadata:
  name: rancher
  labels: { app: rancher, slipway.dev/simulation: "true" }
spec:
  selector: { app: rancher }
  ports:
    - { name: http, port: 80, targetPort: 80 }
    - { name: https, port: 443, targetPort: 443 }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: rancher
  labels: { app: rancher, chart: "{{ .Chart.Name }}-{{ .Chart.Version }}", slipway.dev/simulation: "true" }
spec:
  replicas: {{ .Values.replicas }}
  selector:
    matchLabels: { app: rancher }
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxSurge: 1, maxUnavailable: {{ ternary 0 1 (eq (int .Values.replicas) 1) }} }
  template:
    metadata:
      labels: { app: rancher, release: {{ .Release.Name }}, slipway.dev/simulation: "true" }
    spec:
      priorityClassName: {{ .Values.priorityClassName }}
      serviceAccountName: rancher
      affinity:
        podAntiAffinity:
{{- if eq .Values.antiAffinity "required" }}
          requiredDuringSchedulingIgnoredDuringExecution:
            - labelSelector: { matchLabels: { app: rancher } }
              topologyKey: {{ .Values.topologyKey }}
{{- else }}
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                labelSelector: { matchLabels: { app: rancher } }
                topologyKey: {{ .Values.topologyKey }}
{{- end }}
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - { key: kubernetes.io/os, operator: NotIn, values: [windows] }
{{- with .Values.extraNodeSelectorTerms }}
{{ toYaml . | indent 18 }}
{{- end }}
      tolerations:
        - { key: cattle.io/os, value: linux, effect: NoSchedule, operator: Equal }
      containers:
        - name: rancher
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          ports: [{ containerPort: 80 }, { containerPort: 443 }, { containerPort: 6666 }]
          env:
            - { name: CATTLE_NAMESPACE, value: {{ .Release.Namespace }} }
            - { name: IMPERATIVE_API_APP_SELECTOR, value: rancher }
{{- if .Values.agentTLSMode }}
            - { name: CATTLE_AGENT_TLS_MODE, value: {{ .Values.agentTLSMode }} }
{{- end }}
{{- if .Values.auditLog.enabled }}
            - { name: AUDIT_LOG_ENABLED, value: "true" }
            - { name: AUDIT_LEVEL, value: {{ .Values.auditLog.level | quote }} }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . | indent 12 }}
{{- end }}
{{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" }}
          {{ $name }}:
            httpGet: { path: /healthz, port: 80 }
{{ toYaml (index $.Values $name) | indent 12 }}
{{- end }}
{{- with .Values.resources }}
          resources:
{{ toYaml . | indent 12 }}
{{- end }}
          volumeMounts:
{{- if .Values.privateCA }}
            - { name: tls-ca-volume, mountPath: /etc/rancher/ssl/cacerts.pem, subPath: cacerts.pem, readOnly: true }
{{- end }}
            - { name: audit-log, mountPath: /var/log/auditlog }
{{- if and .Values.auditLog.enabled (eq .Values.auditLog.destination "sidecar") }}
        - name: rancher-audit-log
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          command: [tail, -F, /var/log/auditlog/rancher-api-audit.log]
{{- with .Values.auditLog.resources }}
          resources:
{{ toYaml . | indent 12 }}
{{- end }}
          volumeMounts:
            - { name: audit-log, mountPath: /var/log/auditlog }
{{- end }}
      volumes:
        - { name: audit-log, emptyDir: {} }
{{- if .Values.privateCA }}
        - { name: tls-ca-volume, secret: { secretName: tls-ca, defaultMode: 0400 } }
{{- end }}
{{- if and (eq .Values.networkExposure.type "ingress") .Values.ingress.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: rancher
  labels: { app: rancher, slipway.dev/simulation: "true" }
{{- with .Values.ingress.extraAnnotations }}
  annotations:
{{ toYaml . | indent 4 }}
{{- end }}
spec:
{{- with .Values.ingress.ingressClassName }}
  ingressClassName: {{ . }}
{{- end }}
  rules:
    - host: {{ .Values.hostname }}
      http:
        paths:
          - path: {{ .Values.ingress.path }}
            pathType: {{ .Values.ingress.pathType }}
            backend: { service: { name: rancher, port: { number: {{ .Values.ingress.servicePort }} } } }
{{- if eq .Values.tls "ingress" }}
  tls:
    - { hosts: [{{ .Values.hostname }}], secretName: {{ .Values.ingress.tls.secretName }} }
{{- end }}
{{- end }}
