// SPDX-License-Identifier: Apache-2.0

// cilium-node stands in for the Cilium agent on a node of the test cluster.
// It is made of Cilium's own code wherever that can be built: BIG TCP start-up
// (pkg/datapath/linux/bigtcp), API server and models, the file of the runtime
// configuration; and the pods are wired by Cilium's own CNI plugin, which asks
// this API. What is ours: addresses (endpoints.go), routes (routes.go) and, of
// the eBPF datapath, host routing alone (hostrouting.c).
//
// It reads its settings once, when it starts, as Cilium does: a changed
// ConfigMap means nothing until the agent is restarted, and pods keep the
// sizes that they were made with.
package main

import (
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/cilium/cilium/pkg/defaults"
)

const (
	configDir = "/tmp/cilium/config-map" // the ConfigMap cilium-config, mounted
	device    = "eth0"                   // the node's native device
	health    = "127.0.0.1:9879"         // where Cilium tells kubelet that it is there
	cniFile   = "/etc/cni/net.d/05-cilium.conflist"
	cniConfig = `{"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]}`
)

func main() {
	log.SetFlags(0)
	state := filepath.Join(defaults.RuntimePath, defaults.StateDir)
	check(os.MkdirAll(state, defaults.StateDirRights))
	check(os.Chdir(state)) // the runtime configuration is written where Cilium stands

	settings := readSettings(configDir)
	sizes := startBIGTCP(settings)
	settings.store(state)

	number := nodeNumber(os.Getenv("K8S_NODE_NAME"))
	addHostDevice(number)
	pods := loadEndpoints(filepath.Join(state, "endpoints.json"), number)
	path := newRouter(settings)
	for _, endpoint := range pods.List {
		check(path.add(endpoint.Status.Networking, pods.gateway6()))
	}

	_ = os.Remove(defaults.SockPath)
	listener, err := net.Listen("unix", defaults.SockPath)
	check(err)
	// Now pods can be made. A file half written would put the node out for seconds.
	check(replaceFile(cniFile, []byte(cniConfig)))
	go func() { check(http.ListenAndServe(health, nil)) }()
	check(http.Serve(listener, handler(settings, sizes, pods, path)))
}

// replaceFile gives a file new contents at once: nobody reads it half written.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
