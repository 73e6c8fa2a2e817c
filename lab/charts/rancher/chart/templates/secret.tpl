{{- /* As Rancher's own: an existing password stays, and without one there is no Secret. */}}
{{- $password := .Values.bootstrapPassword }}
{{- with lookup "v1" "Secret" .Release.Namespace "bootstrap-secret" }}
{{- with .data }}{{ $password = .bootstrapPassword | default "" | b64dec }}{{ end }}
{{- end }}
{{- if $password }}
apiVersion: v1
kind: Secret
metadata:
  name: bootstrap-secret
  labels: { slipway.dev/simulation: "true" }
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: "-5"
    helm.sh/resource-policy: keep
type: Opaque
data:
  bootstrapPassword: {{ $password | b64enc | quote }}
{{- end }}
