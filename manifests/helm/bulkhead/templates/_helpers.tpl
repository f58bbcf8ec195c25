{{/* Labels of everything. */}}
{{- define "bulkhead.labels" -}}
{{ include "bulkhead.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels by which its pods are found. They can never change. */}}
{{- define "bulkhead.selector" -}}
app.kubernetes.io/name: bulkhead
app.kubernetes.io/component: {{ ternary "uninstall" "agent" .Values.uninstall }}
{{- end }}

{{- define "bulkhead.name" -}}
{{ ternary "bulkhead-uninstall" "bulkhead" .Values.uninstall }}
{{- end }}

{{- define "bulkhead.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{/* Where things are on a node, for the daemon and for what takes it away again. */}}
{{- define "bulkhead.places" -}}
- name: BULKHEAD_RUN_DIR
  value: {{ .Values.node.runDir | quote }}
- name: BULKHEAD_STATE_DIR
  value: {{ .Values.node.stateDir | quote }}
- name: BULKHEAD_CNI_BIN_DIR
  value: {{ .Values.cni.binDir | quote }}
- name: BULKHEAD_CNI_CONF_DIR
  value: {{ .Values.cni.confDir | quote }}
{{- end }}

{{- define "bulkhead.mounts" -}}
- name: run
  mountPath: {{ .Values.node.runDir | quote }}
- name: state
  mountPath: {{ .Values.node.stateDir | quote }}
- name: bpf
  mountPath: /sys/fs/bpf
- name: plugins
  mountPath: {{ .Values.cni.binDir | quote }}
- name: networks
  mountPath: {{ .Values.cni.confDir | quote }}
# Pods' namespaces come and go while we run. Runtimes name them by either of these.
- name: netns
  mountPath: /run/netns
  mountPropagation: HostToContainer
- name: netns
  mountPath: /var/run/netns
  mountPropagation: HostToContainer
# A container's own /proc/sys cannot be written.
- name: sysctl
  mountPath: /host/proc/sys/net
{{- end }}

{{- define "bulkhead.volumes" -}}
- name: run
  hostPath: {path: {{ .Values.node.runDir | quote }}, type: DirectoryOrCreate}
- name: state
  hostPath: {path: {{ .Values.node.stateDir | quote }}, type: DirectoryOrCreate}
- name: bpf
  hostPath: {path: /sys/fs/bpf, type: Directory}
- name: plugins
  hostPath: {path: {{ .Values.cni.binDir | quote }}, type: DirectoryOrCreate}
- name: networks
  hostPath: {path: {{ .Values.cni.confDir | quote }}, type: DirectoryOrCreate}
- name: netns
  hostPath: {path: {{ .Values.node.netnsDir | quote }}, type: DirectoryOrCreate}
- name: sysctl
  hostPath: {path: /proc/sys/net, type: Directory}
{{- end }}

{{/* Root, with these rights and no more; docs/kubernetes.md says what each is for. */}}
{{- define "bulkhead.security" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
capabilities:
  drop: [ALL]
  add: [BPF, NET_ADMIN, PERFMON, SYS_ADMIN]
# The profiles of runtimes forbid to write below /sys/fs/bpf, and bpf(2) to some.
seccompProfile: {type: Unconfined}
appArmorProfile: {type: Unconfined}
seLinuxOptions: {type: spc_t}
{{- end }}

{{/* Of a pod's specification, what does not depend on what it does. */}}
{{- define "bulkhead.placement" -}}
hostNetwork: true
# The node's own names: cluster DNS is pods, which wait for us.
dnsPolicy: Default
priorityClassName: {{ .Values.priorityClassName }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
