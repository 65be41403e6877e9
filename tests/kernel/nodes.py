# SPDX-License-Identifier: Apache-2.0
"""Two nodes with pods, routed by the kernel or by eBPF, and packets between them.

Neighbours and routes stand from the start, so no packet is the kernel's own but
what IPv6 says to multicast groups, in skbs below 512 bytes.
"""

import contextlib
import ctypes
import os
import socket
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from agent.kernel.contract import bpf_directory
from agent.lab.netns import Namespace, namespaces, veth
from agent.snapshot.model import Family
from tests.stand import write_sysctl

FAMILIES = (Family.IPV4, Family.IPV6)
MTU = 9000
_BPF_TCX_INGRESS = 46
# eBPF host routing as Cilium does it: packets for a pod jump into its namespace
# (its host side never sees them), packets of a pod leave by the uplink.
_HOST_ROUTING = r"""
#include <uapi/linux/bpf.h>
/* BCC's own declaration lacks an argument. */
static long (*redirect_neigh)(u32, void *, int, u64) =
	(void *)BPF_FUNC_redirect_neigh;
struct address { u32 words[4]; };
struct pod { u32 ifindex; u8 mac[6]; u16 pad; };
BPF_TABLE("hash", struct address, struct pod, pods, 64);
BPF_ARRAY(uplink, u32, 1);

static __always_inline int route(struct __sk_buff *skb, int from_pod)
{
	struct address to = {};
	if (skb->protocol == bpf_htons(0x0800)) {
		to.words[2] = bpf_htonl(0xffff);
		bpf_skb_load_bytes(skb, 14 + 16, &to.words[3], 4);
	} else if (skb->protocol == bpf_htons(0x86DD)) {
		bpf_skb_load_bytes(skb, 14 + 24, &to, 16);
		if ((to.words[0] & 0xff) == 0xff)
			return 0;
	} else {
		return 0;
	}
	struct pod *pod = pods.lookup(&to);
	if (pod) {
		bpf_skb_store_bytes(skb, 0, pod->mac, 6, 0);
		return bpf_redirect_peer(pod->ifindex, 0);
	}
	int zero = 0;
	u32 *ifindex = uplink.lookup(&zero);
	return from_pod && ifindex ? redirect_neigh(*ifindex, 0, 0, 0) : 0;
}
int from_pod(struct __sk_buff *skb) { return route(skb, 1); }
int from_uplink(struct __sk_buff *skb) { return route(skb, 0); }
"""


def netkit(left: Namespace, left_name: str, right: Namespace, mode: str) -> None:
    """A pair as Cilium makes it: its host side is the primary one."""
    left.ip(
        f"link add {left_name} mtu {MTU} type netkit mode {mode} peer name eth0 "
        f"netns {right.holder.pid} mtu {MTU}",
        f"link set {left_name} up",
    )
    right.ip("link set eth0 up")


def ifindex_of(namespace: Namespace, device: str) -> int:
    return namespace.call(lambda: socket.if_nametoindex(device))


def mac_of(namespace: Namespace, device: str) -> str:
    """Zeros where there is none: a netkit device of mode l3."""
    link = namespace.run("ip", "-o", "link", "show", device)
    return link.split("link/ether ")[1].split()[0]


@dataclass
class Pod:
    """A pod; `device` and `host` are name and ifindex of its host side."""

    space: Namespace
    node: "Node"
    device: str
    host: int
    addresses: dict[Family, str]


@dataclass
class Node:
    space: Namespace
    number: int
    pair: str = "veth"  # of a pod: veth, netkit l2 or netkit l3
    pods: list[Pod] = field(default_factory=list)

    @property
    def pod_addresses(self) -> dict[str, int]:
        return {a: pod.host for pod in self.pods for a in pod.addresses.values()}

    def add(self, space: Namespace, host: int) -> Pod:
        """Give a namespace the node's `host`-th pod address."""
        device = f"lxc{host}"
        if self.pair == "veth":
            veth(self.space, device, space, "eth0", MTU)
        else:
            netkit(self.space, device, space, self.pair.removeprefix("netkit "))
        v4, v6 = f"10.244.{self.number}.{host}", f"fd00:{self.number}::{host}"
        near, far = mac_of(self.space, device), mac_of(space, "eth0")
        # 8 bytes for the hop-by-hop header, as in agent.lab.netns.chain()
        space.ip(
            f"link set eth0 mtu {MTU - 8}",
            f"addr add {v4}/32 dev eth0",
            f"addr add {v6}/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0",
            f"neigh add 169.254.1.1 lladdr {near} dev eth0 nud permanent",
            "route add default via 169.254.1.1 dev eth0",
            f"neigh add fe80::1 lladdr {near} dev eth0 nud permanent",
            "route add default via fe80::1 dev eth0",
        )
        self.space.ip(
            f"route add {v4}/32 dev {device}",
            f"route add {v6}/128 dev {device}",
            f"neigh add {v4} lladdr {far} dev {device} nud permanent",
            f"neigh add {v6} lladdr {far} dev {device} nud permanent",
        )
        pod = Pod(
            space,
            self,
            device,
            ifindex_of(self.space, device),
            {Family.IPV4: v4, Family.IPV6: v6},
        )
        self.pods.append(pod)
        return pod


@contextlib.contextmanager
def two_nodes(pair: str = "veth") -> Iterator[tuple[Node, Node, Pod, Pod, Pod]]:
    """node1 with the pods a and b, node2 with the pod c; routed by the kernel."""
    with namespaces("node1", "node2", "a", "b", "c") as spaces:
        for space in spaces:
            for knob in ("accept_ra", "accept_dad", "router_solicitations"):
                write_sysctl(space, f"ipv6/conf/default/{knob}", "0")
        node1, node2 = Node(spaces[0], 1, pair), Node(spaces[1], 2, pair)
        veth(node1.space, "eth0", node2.space, "eth0", MTU)
        for node, other in ((node1, node2), (node2, node1)):
            write_sysctl(node.space, "ipv4/ip_forward", "1")
            write_sysctl(node.space, "ipv6/conf/all/forwarding", "1")
            mac = mac_of(other.space, "eth0")
            far = (f"192.0.2.{other.number}", f"2001:db8::{other.number}")
            node.space.ip(
                f"addr add 192.0.2.{node.number}/24 dev eth0",
                f"addr add 2001:db8::{node.number}/64 dev eth0 nodad",
                f"neigh add {far[0]} lladdr {mac} dev eth0 nud permanent",
                f"neigh add {far[1]} lladdr {mac} dev eth0 nud permanent",
                f"route add 10.244.{other.number}.0/24 via {far[0]}",
                f"route add fd00:{other.number}::/64 via {far[1]}",
            )
        a, b = node1.add(spaces[2], 11), node1.add(spaces[3], 12)
        yield node1, node2, a, b, node2.add(spaces[4], 11)


@contextlib.contextmanager
def ebpf_host_routing(*nodes: Node) -> Iterator[None]:
    """Routed by eBPF meanwhile. TCX (Linux 6.6): a link, gone with its fd."""
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "headers")
    from bcc import BPF

    from agent.kernel.pods import packed

    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)

    def attach(program: int, ifindex: int) -> int:
        fd = int(libbpf.bpf_link_create(program, ifindex, _BPF_TCX_INGRESS, None))
        if fd < 0:
            raise OSError(ctypes.get_errno(), "bpf_link_create")
        return fd

    with contextlib.ExitStack() as stack:
        # Older BCCs warn of text that is no bytes, newer ones want no other.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)
        for node in nodes:
            bpf = BPF(text=_HOST_ROUTING)
            stack.callback(bpf.cleanup)
            pods = bpf["pods"]
            for pod in node.pods:
                mac = bytes.fromhex(mac_of(pod.space, "eth0").replace(":", ""))
                value = pods.Leaf(pod.host, (ctypes.c_ubyte * 6)(*mac), 0)
                for address in pod.addresses.values():
                    pods[pods.Key.from_buffer_copy(packed(address))] = value
            uplink = ifindex_of(node.space, "eth0")
            bpf["uplink"][0] = ctypes.c_uint32(uplink)
            for name, indexes in (
                (b"from_pod", [pod.host for pod in node.pods]),
                (b"from_uplink", [uplink]),
            ):
                program = bpf.load_func(name, BPF.SCHED_CLS).fd
                for ifindex in indexes:
                    fd = node.space.call(partial(attach, program, ifindex))
                    stack.callback(os.close, fd)
        yield


def send(sender: Pod, receiver: Pod, family: Family, sizes: list[int]) -> None:
    """UDP packets with these L3 lengths, each of which arrives at the pod."""
    kind = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
    headers = 48 if family is Family.IPV6 else 28

    def opened() -> socket.socket:
        return socket.socket(kind, socket.SOCK_DGRAM)

    with receiver.space.call(opened) as there, sender.space.call(opened) as here:
        there.bind(("", 5000))
        there.settimeout(10)
        for size in sizes:
            here.sendto(bytes(size - headers), (receiver.addresses[family], 5000))
            assert len(there.recv(1 << 16)) == size - headers


def transfer(sender: Pod, receiver: Pod, family: Family, size: int) -> None:
    """So many bytes by TCP."""
    kind = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
    with receiver.space.call(lambda: socket.socket(kind)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", 5001))
        listener.listen()
        with sender.space.call(lambda: socket.socket(kind)) as here:
            here.connect((receiver.addresses[family], 5001))
            there, _ = listener.accept()
            with there:
                here.setblocking(False)
                there.setblocking(False)
                block, sent, got = bytes(1 << 20), 0, 0
                deadline = time.monotonic() + 60
                while got < size:
                    assert time.monotonic() < deadline
                    with contextlib.suppress(BlockingIOError):
                        if sent < size:
                            sent += here.send(block[: size - sent])
                    with contextlib.suppress(BlockingIOError):
                        got += len(there.recv(1 << 20))
