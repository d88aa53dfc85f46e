{{/* Name of the release's objects: the release's, with "sluice" in it. */}}
{{- define "sluice.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-sluice" .Release.Name) (contains "sluice" .Release.Name) -}}
{{- trunc 50 $name | trimSuffix "-" -}}
{{- end }}

{{- define "sluice.controller" -}}
{{ include "sluice.fullname" . }}-controller
{{- end }}

{{/* Name of the release's cluster-wide objects. */}}
{{- define "sluice.clusterName" -}}
{{ .Release.Namespace }}:{{ include "sluice.controller" . }}
{{- end }}

{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: sluice-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sluice.rateLimit" -}}
{{ include "sluice.fullname" . }}-ratelimit
{{- end }}

{{- define "sluice.rateLimitSelectorLabels" -}}
app.kubernetes.io/name: sluice-ratelimit
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.rateLimitLabels" -}}
{{ include "sluice.rateLimitSelectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
