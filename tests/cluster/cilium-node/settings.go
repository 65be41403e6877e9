// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/hive"
	"github.com/cilium/hive/cell"
	"github.com/cilium/statedb"

	"github.com/cilium/cilium/pkg/datapath/linux/bigtcp"
	ipsec "github.com/cilium/cilium/pkg/datapath/linux/ipsec/types"
	"github.com/cilium/cilium/pkg/datapath/tables"
	"github.com/cilium/cilium/pkg/datapath/tunnel"
	"github.com/cilium/cilium/pkg/loadbalancer"
	"github.com/cilium/cilium/pkg/option"
)

// settings are the keys of the ConfigMap cilium-config, all values strings.
type settings map[string]string

// readSettings reads a mounted ConfigMap: one file a key.
func readSettings(dir string) settings {
	files, err := filepath.Glob(filepath.Join(dir, "[a-z]*"))
	check(err)
	found := settings{}
	for _, file := range files {
		value, err := os.ReadFile(file)
		check(err)
		found[filepath.Base(file)] = strings.TrimSpace(string(value))
	}
	return found
}

// on tells a flag; one that is not there has Cilium's default.
func (s settings) on(key string, otherwise bool) bool {
	value, ok := s[key]
	if !ok {
		return otherwise
	}
	return value == "true"
}

// daemonConfig is what Cilium makes of these settings, before BIG TCP starts.
func (s settings) daemonConfig() *option.DaemonConfig {
	config := option.Config
	config.EnableIPv4, config.EnableIPv6 = true, true
	config.RoutingMode = option.RoutingModeNative
	config.EnableIPv4Masquerade = s.on(option.EnableIPv4Masquerade, true)
	config.EnableIPv6Masquerade = s.on(option.EnableIPv6Masquerade, true)
	config.EnableBPFMasquerade = s.on(option.EnableBPFMasquerade, false)
	config.UnsafeDaemonConfigOption.EnableHostLegacyRouting = s.on(option.EnableHostLegacyRouting, false)
	return config
}

func (s settings) kubeProxyReplacement() bool { return s.on("kube-proxy-replacement", false) }

// legacyRouting mirrors InitKubeProxyReplacementOptions of pkg/kpr/initializer:
// what is asked for, or what Cilium falls back to, after BIG TCP has agreed.
func (s settings) legacyRouting() bool {
	config := option.Config
	asked := &config.UnsafeDaemonConfigOption.EnableHostLegacyRouting
	missing := ""
	switch {
	case config.IptablesMasqueradingEnabled():
		missing = option.EnableBPFMasquerade
	case !s.kubeProxyReplacement():
		missing = "kube-proxy-replacement"
	}
	if missing != "" && !*asked {
		log.Printf("BPF host routing requires %s. Falling back to legacy host routing (%s=true).",
			missing, option.EnableHostLegacyRouting)
		*asked = true
	}
	return *asked
}

// store writes agent-runtime-config.json, as Cilium does.
func (s settings) store(dir string) {
	s.legacyRouting()
	check(option.Config.StoreInFile(slog.Default(), dir))
}

type noIPsec struct{}

func (noIPsec) Enabled() bool                                         { return false }
func (noIPsec) UseCiliumInternalIP() bool                             { return false }
func (noIPsec) DNSProxyInsecureSkipTransparentModeCheckEnabled() bool { return false }

// startBIGTCP runs Cilium's own cell: it refuses what Cilium refuses, sets the
// node's device and tells the sizes for pods.
func startBIGTCP(s settings) bigtcp.Config {
	var sizes bigtcp.Config
	h := hive.New(
		statedb.Cell,
		bigtcp.Cell,
		cell.Provide(
			s.daemonConfig,
			func() ipsec.Config { return noIPsec{} },
			func() loadbalancer.Config { return loadbalancer.DefaultConfig },
			func() tunnel.Config { return tunnel.NewTestConfig(tunnel.Disabled) },
			nativeDevices,
		),
		cell.Invoke(func(c bigtcp.Config) { sizes = c }),
	)
	for _, key := range []string{"enable-ipv4-big-tcp", "enable-ipv6-big-tcp"} {
		h.Viper().Set(key, s.on(key, false))
	}
	check(h.Start(slog.Default(), context.Background()))
	return sizes
}

// nativeDevices is the table that Cilium fills by looking for devices.
func nativeDevices(db *statedb.DB) (statedb.Table[*tables.Device], error) {
	table, err := tables.NewDeviceTable(db)
	if err != nil {
		return nil, err
	}
	txn := db.WriteTxn(table)
	defer txn.Commit()
	_, _, err = table.Insert(txn, &tables.Device{Index: 1, Name: device, Selected: true})
	return table, err
}
