{{/* What both ends have in common: list ROOT (server or client) */}}
{{- define "bigtcp-agent.netperfPod" -}}
{{- $root := index . 0 -}}
{{- $end := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.netperf.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $end.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $end.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp # netperf's logs
    emptyDir:
      medium: Memory
      sizeLimit: 16Mi
{{- end -}}

{{/* list ROOT COMPONENT */}}
{{- define "bigtcp-agent.netperfMetadata" -}}
{{- $netperf := (index . 0).Values.netperf -}}
labels:
  {{- include "bigtcp-agent.podLabels" (append . $netperf.podLabels) | nindent 2 }}
{{- with $netperf.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* From where the agent's comes, as whoever built both has named them. */}}
{{- define "bigtcp-agent.netperfImage" -}}
{{- $agent := .Values.image -}}
{{- $image := merge (dict "tag" (default $agent.tag .Values.netperf.image.tag)) .Values.netperf.image -}}
{{- if not $image.repository -}}
{{- $_ := set $image "registry" (default $agent.registry $image.registry) -}}
{{- $_ := set $image "repository" (printf "%s-netperf" $agent.repository) -}}
{{- end -}}
{{- include "bigtcp-agent.image" (list . $image) -}}
{{- end -}}

{{- define "bigtcp-agent.netperfContainer" -}}
image: {{ include "bigtcp-agent.netperfImage" . | quote }}
imagePullPolicy: {{ default .Values.image.pullPolicy .Values.netperf.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
resources:
  {{- toYaml .Values.netperf.resources | nindent 2 }}
securityContext:
  {{- include "bigtcp-agent.restricted" . | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end -}}

{{/* The client, of a Job or of a CronJob. */}}
{{- define "bigtcp-agent.netperfJob" -}}
{{- $netperf := .Values.netperf -}}
{{- $server := printf "%s-netperf-server.%s.svc:%d" (include "bigtcp-agent.fullname" .) .Release.Namespace (int $netperf.server.port) -}}
{{- $agent := printf "%s://$(HOST_IP):%d" (include "bigtcp-agent.scheme" .) (int .Values.agent.port) -}}
backoffLimit: 2
{{- if not (kindIs "invalid" $netperf.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int $netperf.ttlSecondsAfterFinished }}
{{- end }}
# Twice the time that a run of all takes.
activeDeadlineSeconds: {{ add 300 (mul 2 (add (mul 2 $netperf.repeats $netperf.seconds) $netperf.hold)) }}
template:
  metadata:
    {{- include "bigtcp-agent.netperfMetadata" (list . "netperf-client") | nindent 4 }}
  spec:
    {{- include "bigtcp-agent.netperfPod" (list . $netperf.client) | nindent 4 }}
    restartPolicy: Never
    {{- if not $netperf.server.host }}
    affinity:
      podAntiAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "bigtcp-agent.selector" (list . "netperf-server") | nindent 16 }}
    initContainers:
      - name: wait-for-server
        {{- include "bigtcp-agent.netperfContainer" . | nindent 8 }}
        command:
          - python
          - -c
          - |
            import socket, sys, time
            server = sys.argv[1], int(sys.argv[2])
            deadline = time.monotonic() + 180
            while True:
                try:
                    socket.create_connection(server, 2).close()
                    break
                except OSError as err:
                    if time.monotonic() > deadline:
                        sys.exit(f"no netserver at {server}: {err}")
                    time.sleep(1)
          - {{ printf "%s-netperf-server.%s.svc" (include "bigtcp-agent.fullname" .) .Release.Namespace }}
          - {{ int $netperf.server.port | quote }}
    {{- end }}
    containers:
      - name: netperf
        {{- include "bigtcp-agent.netperfContainer" . | nindent 8 }}
        args:
          - netperf
          - --server={{ default $server $netperf.server.host }}
          - --family={{ $netperf.family }}
          - -r
          - {{ $netperf.message | quote }}
          - -l
          - {{ int $netperf.seconds | quote }}
          - --repeats={{ int $netperf.repeats }}
          - --url={{ default $agent $netperf.agentURL }}
          - --listen=:{{ int $netperf.port }}
          - --hold={{ int $netperf.hold }}
          - --output=json
          {{- with $netperf.extraArgs }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        env:
          - name: HOST_IP
            valueFrom:
              fieldRef:
                fieldPath: status.hostIP
        ports:
          - name: metrics
            containerPort: {{ $netperf.port }}
{{- end -}}
