// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cilium/cilium/api/v1/models"
)

//go:embed hostrouting.o
var hostrouting []byte

// router leads packets to and from pods: by the kernel's routes alone (legacy
// host routing), or past them by hostrouting.c. Its programs are tc filters, so
// they stay when this process ends and pods lose no packet by a restart.
type router struct {
	pods          *ebpf.Map // nil with legacy host routing
	fromContainer *ebpf.Program
}

func newRouter(s settings) *router {
	uplink, err := netlink.LinkByName(device)
	check(err)
	if s.legacyRouting() {
		check(detach(uplink))
		return &router{}
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(hostrouting))
	check(err)
	check(spec.Variables["uplink"].Set(uint32(uplink.Attrs().Index)))
	loaded, err := ebpf.NewCollection(spec)
	check(err)
	check(attach(uplink, loaded.Programs["from_netdev"]))
	return &router{loaded.Maps["pods"], loaded.Programs["from_container"]}
}

// add makes a pod reachable; again after a restart. gateway6 is the pod's IPv6 gateway.
func (r *router) add(pod *models.EndpointNetworking, gateway6 string) error {
	host, err := netlink.LinkByName(pod.InterfaceName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // the pod went while we were away
	}
	if err != nil {
		return err
	}
	addresses := []net.IP{net.ParseIP(pod.Addressing[0].IPv4), net.ParseIP(pod.Addressing[0].IPv6)}
	for _, ip := range addresses {
		if err := addRoute(host, ip); err != nil {
			return err
		}
	}
	if err := answerForGateway(host, gateway6); err != nil {
		return err
	}
	if r.pods == nil {
		return detach(host)
	}
	mac, err := net.ParseMAC(pod.Mac)
	if err != nil {
		return err
	}
	value := make([]byte, 12) // struct pod of hostrouting.c
	binary.NativeEndian.PutUint32(value, uint32(host.Attrs().Index))
	copy(value[4:], mac)
	for _, ip := range addresses {
		if err := r.pods.Put(mapKey(ip), value); err != nil {
			return err
		}
	}
	return attach(host, r.fromContainer)
}

// remove forgets a pod; its device goes with its namespace, its route with both.
func (r *router) remove(pod *models.EndpointNetworking) {
	if r.pods != nil {
		for _, ip := range []string{pod.Addressing[0].IPv4, pod.Addressing[0].IPv6} {
			_ = r.pods.Delete(mapKey(net.ParseIP(ip)))
		}
	}
	if host, err := netlink.LinkByName(pod.InterfaceName); err == nil {
		_ = netlink.LinkDel(host)
	}
}

func mapKey(ip net.IP) []byte {
	key := make([]byte, 16)
	if four := ip.To4(); four != nil {
		copy(key, four)
	} else {
		copy(key, ip)
	}
	return key
}

// addHostDevice makes cilium_host, which owns the pods' gateway addresses.
func addHostDevice(node int) {
	if _, err := netlink.LinkByName("cilium_host"); err == nil {
		return
	}
	host := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cilium_host"}, PeerName: "cilium_net"}
	check(netlink.LinkAdd(host))
	for _, text := range []string{address4(node, gateway) + "/32", address6(node, gateway) + "/128"} {
		address, err := netlink.ParseAddr(text)
		check(err)
		check(netlink.AddrAdd(host, address))
	}
	peer, err := netlink.LinkByName("cilium_net")
	check(err)
	check(netlink.LinkSetUp(host))
	check(netlink.LinkSetUp(peer))
}

func addRoute(host netlink.Link, ip net.IP) error {
	bits := 8 * len(ip)
	if four := ip.To4(); four != nil {
		ip, bits = four, 32
	}
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: host.Attrs().Index,
		Scope:     netlink.SCOPE_LINK,
		Dst:       &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)},
	})
}

// answerForGateway: Cilium's datapath answers a pod's neighbour discovery; here
// the kernel does. (ARP needs no help: Linux answers for any address it has.)
func answerForGateway(host netlink.Link, gateway string) error {
	knob := "/proc/sys/net/ipv6/conf/" + host.Attrs().Name + "/proxy_ndp"
	if err := os.WriteFile(knob, []byte("1"), 0); err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: host.Attrs().Index,
		Family:    netlink.FAMILY_V6,
		Flags:     netlink.NTF_PROXY,
		IP:        net.ParseIP(gateway),
	})
}

func clsact(link netlink.Link) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscType: "clsact",
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index,
			Handle:    netlink.MakeHandle(0xffff, 0),
			Parent:    netlink.HANDLE_CLSACT,
		},
	}
}

// attach puts a program at a device's ingress, in place of an older one.
func attach(link netlink.Link, program *ebpf.Program) error {
	if err := netlink.QdiscAdd(clsact(link)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link.Attrs().Index,
			Parent:    netlink.HANDLE_MIN_INGRESS,
			Handle:    1,
			Priority:  1,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           program.FD(),
		Name:         "cilium-" + link.Attrs().Name,
		DirectAction: true,
	})
}

func detach(link netlink.Link) error {
	err := netlink.QdiscDel(clsact(link))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // there was none
	}
	return err
}
