{{- define "bigtcp-agent.name" -}}
{{- regexReplaceAll "[-.]+$" (default .Chart.Name .Values.nameOverride | trunc 40) "" -}}
{{- end -}}

{{/*
Good for a Service, whose name is the strictest: a letter, then no dot. (A release may be called 1.2.)
At most 40 characters: what comes behind it (-netperf-server, a CronJob's numbers) must fit into 63.
*/}}
{{- define "bigtcp-agent.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full = regexReplaceAll "^[0-9]" (replace "." "-" $full) "release-${0}" -}}
{{- regexReplaceAll "-+$" (trunc 40 $full) "" -}}
{{- end -}}

{{/*
Of an object that lives in another namespace than the release, or in none: list ROOT NAMESPACE.
Two releases of one name in two namespaces must not have it in common.
*/}}
{{- define "bigtcp-agent.nameIn" -}}
{{- $root := index . 0 -}}
{{- include "bigtcp-agent.fullname" $root -}}
{{- if ne (index . 1) $root.Release.Namespace }}-{{ $root.Release.Namespace }}{{ end -}}
{{- end -}}

{{- define "bigtcp-agent.labels" -}}
{{- include "bigtcp-agent.labelsAnd" (list . dict) -}}
{{- end -}}

{{/* Of an object that has labels of its own, which win over those of all: list ROOT OWN. */}}
{{- define "bigtcp-agent.labelsAnd" -}}
{{- $root := index . 0 -}}
{{- $ours := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/name" (include "bigtcp-agent.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- toYaml (mergeOverwrite $ours (default dict $root.Values.commonLabels) (default dict (index . 1))) -}}
{{- end -}}

{{/* Of pods, by component: list ROOT COMPONENT. */}}
{{- define "bigtcp-agent.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "bigtcp-agent.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Without the chart's version, which alone is no reason to restart a pod: list ROOT COMPONENT OWN. */}}
{{- define "bigtcp-agent.podLabels" -}}
{{- include "bigtcp-agent.selector" . }}
{{- with mergeOverwrite dict (default dict (index . 0).Values.commonLabels) (default dict (index . 2)) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bigtcp-agent.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "bigtcp-agent.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* list ROOT IMAGE */}}
{{- define "bigtcp-agent.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "bigtcp-agent.scheme" -}}
{{- default (ternary "http" "https" (empty .Values.web.tls.secretName)) .Values.web.scheme -}}
{{- end -}}

{{/* The Secret with the web config; empty: there is none. */}}
{{- define "bigtcp-agent.webSecret" -}}
{{- if .Values.web.existingSecret -}}
{{- .Values.web.existingSecret -}}
{{- else if or .Values.web.tls.secretName .Values.web.basicAuthUsers -}}
{{- include "bigtcp-agent.fullname" . }}-web
{{- end -}}
{{- end -}}

{{/* Of containers that need no right at all. */}}
{{- define "bigtcp-agent.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
