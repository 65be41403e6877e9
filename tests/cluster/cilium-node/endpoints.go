// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/cilium/cilium/api/v1/models"
)

const (
	gateway  = 1   // host number of cilium_host, where the pods' default routes point
	lastHost = 254 // of a pod's /24
)

// endpoints are the pods of this node. They are kept in a file: a restart of
// the agent must not forget a pod that runs.
type endpoints struct {
	mutex  sync.Mutex
	path   string
	number int // of the node

	Last int64 // host number given last: an address rests before it comes again
	Used map[int64]bool
	List []*models.Endpoint
}

// nodeNumber tells pods' subnets: 10.244.N.0/24 and fd00:244:N::/64 on nodeN.
func nodeNumber(name string) (number int) {
	_, err := fmt.Sscanf(name, "node%d", &number)
	check(err)
	return
}

func address4(node int, host int64) string { return fmt.Sprintf("10.244.%d.%d", node, host) }
func address6(node int, host int64) string { return fmt.Sprintf("fd00:244:%d::%x", node, host) }

func loadEndpoints(path string, number int) *endpoints {
	e := &endpoints{path: path, number: number, Last: gateway, Used: map[int64]bool{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e
	}
	check(err)
	check(json.Unmarshal(data, e))
	return e
}

func (e *endpoints) save() {
	data, err := json.Marshal(e)
	check(err)
	check(replaceFile(e.path, data))
}

// allocate gives the host number of a pod to be.
func (e *endpoints) allocate() (int64, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for range int64(lastHost) {
		e.Last = e.Last%lastHost + 1
		if e.Last != gateway && !e.Used[e.Last] {
			e.Used[e.Last] = true
			e.save()
			return e.Last, nil
		}
	}
	return 0, errors.New("no free address on this node")
}

func (e *endpoints) release(ip string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for host := range e.Used {
		if ip == address4(e.number, host) || ip == address6(e.number, host) {
			delete(e.Used, host)
		}
	}
	e.save()
}

// attachment names an interface of a container, as Cilium does.
func attachment(container, device string) string { return container + ":" + device }

// add makes an endpoint of what the CNI plugin asks for.
func (e *endpoints) add(request *models.EndpointChangeRequest) *models.Endpoint {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	ready := models.EndpointStateReady
	labels := models.Labels{
		"k8s:io.cilium.k8s.policy.cluster=default",
		"k8s:io.kubernetes.pod.namespace=" + request.K8sNamespace,
	}
	made := &models.Endpoint{
		ID: request.InterfaceIndex, // unique here, as the endpoint's id must be
		Status: &models.EndpointStatus{
			State: &ready,
			// Cilium 1.20 fills nothing else, and names the pod in a controller's name alone.
			ExternalIdentifiers: &models.EndpointIdentifiers{
				CniAttachmentID: attachment(request.ContainerID, request.ContainerInterfaceName),
			},
			Controllers: models.ControllerStatuses{
				{Name: "resolve-labels-" + request.K8sNamespace + "/" + request.K8sPodName},
			},
			Identity: &models.Identity{ID: 20000 + request.InterfaceIndex, Labels: labels},
			Labels: &models.LabelConfigurationStatus{
				Realized:         &models.LabelConfigurationSpec{},
				SecurityRelevant: labels,
			},
			Networking: &models.EndpointNetworking{
				Addressing:             []*models.AddressPair{request.Addressing},
				ContainerInterfaceName: request.ContainerInterfaceName,
				HostMac:                request.HostMac,
				InterfaceIndex:         request.InterfaceIndex,
				InterfaceName:          request.InterfaceName,
				Mac:                    request.Mac,
			},
		},
	}
	e.List = append(e.List, made)
	e.save()
	return made
}

// remove forgets the endpoints that match and returns them.
func (e *endpoints) remove(match func(*models.EndpointIdentifiers) bool) []*models.Endpoint {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var kept, gone []*models.Endpoint
	for _, endpoint := range e.List {
		if match(endpoint.Status.ExternalIdentifiers) {
			gone = append(gone, endpoint)
		} else {
			kept = append(kept, endpoint)
		}
	}
	e.List = kept
	e.save()
	return gone
}

func (e *endpoints) all() []*models.Endpoint {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return slices.Clone(e.List)
}

func (e *endpoints) gateway6() string { return address6(e.number, gateway) }

func (e *endpoints) hostAddressing() *models.NodeAddressing {
	return &models.NodeAddressing{
		IPv4: &models.NodeAddressingElement{
			Enabled: true, IP: address4(e.number, gateway), AllocRange: address4(e.number, 0) + "/24",
		},
		IPv6: &models.NodeAddressingElement{
			Enabled: true, IP: e.gateway6(), AllocRange: address6(e.number, 0) + "/64",
		},
	}
}
