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
{{- if .Values.metrics.enabled }}{{ fail "metrics.enabled: the operator serves no metrics yet" }}{{ end }}
{{- if or .Values.metrics.serviceMonitor.enabled .Values.metrics.alerts.enabled }}{{ fail "metrics.serviceMonitor and metrics.alerts: the operator serves no metrics yet" }}{{ end }}
{{- if .Values.allowEphemeralContainers }}{{ fail "allowEphemeralContainers: not there yet" }}{{ end }}
{{- end }}
