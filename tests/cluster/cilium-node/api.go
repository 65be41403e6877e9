// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/go-openapi/loads"
	"github.com/go-openapi/runtime/middleware"

	"github.com/cilium/cilium/api/v1/models"
	"github.com/cilium/cilium/api/v1/server"
	"github.com/cilium/cilium/api/v1/server/restapi"
	"github.com/cilium/cilium/api/v1/server/restapi/daemon"
	"github.com/cilium/cilium/api/v1/server/restapi/endpoint"
	"github.com/cilium/cilium/api/v1/server/restapi/ipam"
	"github.com/cilium/cilium/pkg/datapath/linux/bigtcp"
	"github.com/cilium/cilium/pkg/option"
)

const (
	version = "1.20.2"
	mtu     = 1500
)

// handler serves the part of Cilium's API that its CNI plugin and bigtcp-agent
// ask. As in Cilium, status and configuration are those of the start: a device
// that changes later does not change the answer.
func handler(s settings, sizes bigtcp.Config, pods *endpoints, path *router) http.Handler {
	spec, err := loads.Analyzed(server.SwaggerJSON, "")
	check(err)
	api := restapi.NewCiliumAPIAPI(spec)
	serveDaemon(api, status(s, sizes), configuration(sizes, pods))
	servePods(api, pods, path)
	served := server.NewServer(api)
	served.ConfigureAPI()
	return served.GetHandler()
}

func status(s settings, sizes bigtcp.Config) *models.StatusResponse {
	config := option.Config
	replaced, masquerading, routing := "False", models.MasqueradingModeBPF, models.RoutingIntraHostRoutingModeBPF
	if s.kubeProxyReplacement() {
		replaced = "True"
	}
	if config.IptablesMasqueradingEnabled() {
		masquerading = models.MasqueradingModeIptables
	}
	if !config.MasqueradingEnabled() {
		masquerading = ""
	}
	if s.legacyRouting() {
		routing = models.RoutingIntraHostRoutingModeLegacy
	}
	return &models.StatusResponse{
		Cilium:       &models.Status{State: models.StatusStateOk, Msg: version + " (v" + version + "-00000000)"},
		DatapathMode: models.DatapathModeVeth,
		AttachMode:   models.AttachModeTc,
		IPv4BigTCP: &models.IPV4BigTCP{
			Enabled: sizes.IsIPv4Enabled(),
			MaxGRO:  int64(sizes.GetGROIPv4MaxSize()),
			MaxGSO:  int64(sizes.GetGSOIPv4MaxSize()),
		},
		IPv6BigTCP: &models.IPV6BigTCP{
			Enabled: sizes.IsIPv6Enabled(),
			MaxGRO:  int64(sizes.GetGROIPv6MaxSize()),
			MaxGSO:  int64(sizes.GetGSOIPv6MaxSize()),
		},
		Encryption: &models.EncryptionStatus{Mode: models.EncryptionStatusModeDisabled},
		KubeProxyReplacement: &models.KubeProxyReplacement{
			Mode:                replaced,
			Devices:             []string{device},
			DeviceList:          []*models.KubeProxyReplacementDeviceListItems0{{Name: device}},
			DirectRoutingDevice: device,
			Features:            &models.KubeProxyReplacementFeatures{},
		},
		Kubernetes: &models.K8sStatus{State: models.StatusStateOk, Msg: "1.34"},
		Masquerading: &models.Masquerading{
			Enabled: config.MasqueradingEnabled(),
			Mode:    masquerading,
			EnabledProtocols: &models.MasqueradingEnabledProtocols{
				IPv4: config.EnableIPv4Masquerade,
				IPv6: config.EnableIPv6Masquerade,
			},
		},
		Routing: &models.Routing{
			IntraHostRoutingMode: routing,
			InterHostRoutingMode: models.RoutingInterHostRoutingModeNative,
		},
	}
}

func configuration(sizes bigtcp.Config, pods *endpoints) *models.DaemonConfiguration {
	encoded, err := json.Marshal(option.Config)
	check(err)
	var values map[string]any // by the names of Go's fields
	check(json.Unmarshal(encoded, &values))
	delete(values, "Opts") // the real agent does not answer it
	return &models.DaemonConfiguration{
		Status: &models.DaemonConfigurationStatus{
			Addressing:             pods.hostAddressing(),
			ConfiguredDatapathMode: models.ConfiguredDatapathModeVeth,
			DaemonConfigurationMap: values,
			DatapathMode:           models.DatapathModeVeth,
			DeviceMTU:              mtu,
			RouteMTU:               mtu,
			GROMaxSize:             int64(sizes.GetGROIPv6MaxSize()),
			GSOMaxSize:             int64(sizes.GetGSOIPv6MaxSize()),
			GROIPv4MaxSize:         int64(sizes.GetGROIPv4MaxSize()),
			GSOIPv4MaxSize:         int64(sizes.GetGSOIPv4MaxSize()),
			IpamMode:               "cluster-pool",
			Masquerade:             option.Config.MasqueradingEnabled(),
			Realized:               &models.DaemonConfigurationSpec{},
		},
	}
}

func serveDaemon(api *restapi.CiliumAPIAPI, status *models.StatusResponse, config *models.DaemonConfiguration) {
	api.DaemonGetHealthzHandler = daemon.GetHealthzHandlerFunc(
		func(daemon.GetHealthzParams) middleware.Responder {
			return daemon.NewGetHealthzOK().WithPayload(status)
		})
	api.DaemonGetConfigHandler = daemon.GetConfigHandlerFunc(
		func(daemon.GetConfigParams) middleware.Responder {
			return daemon.NewGetConfigOK().WithPayload(config)
		})
}

func servePods(api *restapi.CiliumAPIAPI, pods *endpoints, path *router) {
	api.IpamPostIpamHandler = ipam.PostIpamHandlerFunc(
		func(ipam.PostIpamParams) middleware.Responder {
			host, err := pods.allocate()
			if err != nil {
				return ipam.NewPostIpamFailure().WithPayload(models.Error(err.Error()))
			}
			four, six := address4(pods.number, host), address6(pods.number, host)
			return ipam.NewPostIpamCreated().WithPayload(&models.IPAMResponse{
				Address:        &models.AddressPair{IPv4: four, IPv6: six},
				HostAddressing: pods.hostAddressing(),
				IPv4:           &models.IPAMAddressResponse{IP: four},
				IPv6:           &models.IPAMAddressResponse{IP: six},
			})
		})
	api.IpamDeleteIpamIPHandler = ipam.DeleteIpamIPHandlerFunc(
		func(p ipam.DeleteIpamIPParams) middleware.Responder {
			pods.release(p.IP)
			return ipam.NewDeleteIpamIPOK()
		})
	api.EndpointGetEndpointHandler = endpoint.GetEndpointHandlerFunc(
		func(endpoint.GetEndpointParams) middleware.Responder {
			return endpoint.NewGetEndpointOK().WithPayload(pods.all())
		})
	api.EndpointPutEndpointIDHandler = endpoint.PutEndpointIDHandlerFunc(
		func(p endpoint.PutEndpointIDParams) middleware.Responder {
			made := pods.add(p.Endpoint)
			if err := path.add(made.Status.Networking, pods.gateway6()); err != nil {
				return endpoint.NewPutEndpointIDFailed().WithPayload(models.Error(err.Error()))
			}
			return endpoint.NewPutEndpointIDCreated().WithPayload(made)
		})
	forget := func(match func(*models.EndpointIdentifiers) bool) {
		for _, gone := range pods.remove(match) {
			path.remove(gone.Status.Networking)
			pods.release(gone.Status.Networking.Addressing[0].IPv4)
		}
	}
	api.EndpointDeleteEndpointHandler = endpoint.DeleteEndpointHandlerFunc(
		func(p endpoint.DeleteEndpointParams) middleware.Responder {
			forget(func(of *models.EndpointIdentifiers) bool {
				return strings.HasPrefix(of.CniAttachmentID, attachment(p.Endpoint.ContainerID, ""))
			})
			return endpoint.NewDeleteEndpointOK()
		})
	api.EndpointDeleteEndpointIDHandler = endpoint.DeleteEndpointIDHandlerFunc(
		func(p endpoint.DeleteEndpointIDParams) middleware.Responder {
			forget(func(of *models.EndpointIdentifiers) bool {
				return strings.HasSuffix(p.ID, of.CniAttachmentID)
			})
			return endpoint.NewDeleteEndpointIDOK()
		})
}
