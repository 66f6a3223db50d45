{{/* The name of the release's objects. */}}
{{- define "stillframe.name" -}}
{{- if contains "stillframe" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-stillframe" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "stillframe.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "stillframe.name" .) }}{{ else }}{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}{{ end -}}
{{- end }}

{{- define "stillframe.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What a pod is selected by: never changes. */}}
{{- define "stillframe.selector" -}}
app.kubernetes.io/name: stillframe
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "stillframe.labels" -}}
{{ include "stillframe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What the values name and this version of the operator does not have. */}}
{{- define "stillframe.refusals" -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}{{ fail "metrics.serviceMonitor.enabled needs metrics.enabled" }}{{ end }}
{{- if and .Values.metrics.alerts.enabled (not .Values.metrics.enabled) }}{{ fail "metrics.alerts.enabled needs metrics.enabled" }}{{ end }}
{{- end }}
