// SPDX-License-Identifier: Apache-2.0

// Writes what a Cilium agent of this version answers, by Cilium's own models:
// what is false, 0 or empty is left out there, a list that is not set is null.
package main

import (
	"encoding/json"
	"os"

	"github.com/cilium/cilium/api/v1/models"
	"github.com/cilium/cilium/pkg/option"
)

func pod() *models.Endpoint {
	ready := models.EndpointStateReady
	return &models.Endpoint{ID: 1234, Status: &models.EndpointStatus{
		State: &ready,
		ExternalIdentifiers: &models.EndpointIdentifiers{
			CniAttachmentID: "0123abcd:eth0", ContainerID: "0123abcd",
			K8sNamespace: "default", K8sPodName: "netperf-client", PodName: "default/netperf-client"},
		Networking: &models.EndpointNetworking{
			Addressing: []*models.AddressPair{{IPV4: "10.244.1.7", IPV6: "FD00:244:1:0::7"}},
			Mac:        "5A:00:00:00:00:01", HostMac: "5a:00:00:00:00:02",
			InterfaceIndex: 12, InterfaceName: "lxc0123"},
	}}
}

func host() *models.Endpoint {
	ready := models.EndpointStateReady
	return &models.Endpoint{ID: 1, Status: &models.EndpointStatus{
		State: &ready, ExternalIdentifiers: &models.EndpointIdentifiers{},
		Networking: &models.EndpointNetworking{
			InterfaceName: "cilium_host", Mac: "5a:00:00:00:00:03", HostMac: "5a:00:00:00:00:03"},
	}}
}

func answers(on bool) map[string]any {
	size, routing := int64(65536), models.HostRoutingModeLegacy
	if on {
		size, routing = 196608, models.HostRoutingModeBPF
	}
	mode := models.DatapathModeVeth
	return map[string]any{
		"/v1/healthz": &models.StatusResponse{
			Cilium:      &models.Status{State: models.StatusStateOk, Msg: "1.15.19 (v1.15.19-0123abcd)"},
			CniChaining: &models.CNIChainingStatus{Mode: models.CNIChainingStatusModeNone},
			Encryption:  &models.EncryptionStatus{Mode: models.EncryptionStatusModeDisabled},
			IPV4BigTCP:  &models.IPV4BigTCP{Enabled: on, MaxGSO: size, MaxGRO: size},
			IPV6BigTCP:  &models.IPV6BigTCP{Enabled: false, MaxGSO: 65536, MaxGRO: 65536},
			KubeProxyReplacement: &models.KubeProxyReplacement{
				Mode: models.KubeProxyReplacementModeTrue, Devices: []string{"eth0", "eth1"},
				Features: &models.KubeProxyReplacementFeatures{
					NodePort: &models.KubeProxyReplacementFeaturesNodePort{
						Enabled: true,
						Mode:    models.KubeProxyReplacementFeaturesNodePortModeDSR,
						DsrMode: models.KubeProxyReplacementFeaturesNodePortDsrModeGeneve}}},
			Masquerading: &models.Masquerading{
				Enabled: on, Mode: models.MasqueradingModeBPF,
				EnabledProtocols: &models.MasqueradingEnabledProtocols{IPV4: true}},
			HostRouting: &models.HostRouting{Mode: routing},
		},
		"/v1/config": &models.DaemonConfiguration{Status: &models.DaemonConfigurationStatus{
			DatapathMode: mode, DeviceMTU: 1500,
			GSOMaxSize: 65536, GROMaxSize: 65536, GSOIPV4MaxSize: size, GROIPV4MaxSize: size,
			DaemonConfigurationMap: fields(daemon(!on)),
		}},
		"/v1/endpoint": []*models.Endpoint{pod(), host()},
	}
}

// daemon is what the agent runs with; what pkg/option.StoreInFile writes.
func daemon(legacy bool) *option.DaemonConfig {
	return &option.DaemonConfig{
		DatapathMode: "veth", EnableIPv4: true, EnableIPv6: true, EnableBPFMasquerade: true,
		RoutingMode: option.RoutingModeNative, EnableHostLegacyRouting: legacy,
	}
}

// fields are the same as /v1/config gives them; those only that we read.
func fields(config *option.DaemonConfig) map[string]any {
	return map[string]any{
		"DatapathMode": config.DatapathMode, "EnableBPFMasquerade": config.EnableBPFMasquerade,
		"RoutingMode": config.RoutingMode, "EnableHostLegacyRouting": config.EnableHostLegacyRouting,
	}
}

func main() {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(map[string]any{
		"off": answers(false), "on": answers(true), "runtime": daemon(false)}); err != nil {
		panic(err)
	}
}
