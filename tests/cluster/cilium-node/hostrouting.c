// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* hostrouting: eBPF host routing reduced to the two moves that Cilium makes.
 * to a pod of this node   bpf_redirect_peer: straight into its namespace, the
 *                         host side of its veth never sees the packet
 * from a pod, elsewhere   bpf_redirect_neigh: out by the node's device, past
 *                         the forwarding of the kernel
 * Whatever else arrives (ARP, neighbour discovery, the gateway's own address)
 * is the stack's. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10

struct address {
	__u8 bytes[16]; /* IPv4 stands in the first four */
};

struct pod {
	__u32 ifindex; /* of the host side of its veth */
	__u8 mac[ETH_ALEN];
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, struct pod);
} pods SEC(".maps");

const volatile __u32 uplink = 0; /* ifindex of the node's device */

/* Would the kernel forward to the uplink? Then nothing is lost by a shortcut. */
static __always_inline int leaves_node(struct __sk_buff *skb, int family,
				       const struct address *to)
{
	struct bpf_fib_lookup fib = {.family = family, .ifindex = skb->ifindex};

	if (family == AF_INET)
		__builtin_memcpy(&fib.ipv4_dst, to, sizeof(fib.ipv4_dst));
	else
		__builtin_memcpy(fib.ipv6_dst, to, sizeof(fib.ipv6_dst));
	switch (bpf_fib_lookup(skb, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh asks for it */
		return fib.ifindex == uplink;
	default:
		return 0;
	}
}

static __always_inline int route(struct __sk_buff *skb, int from_pod)
{
	struct address to = {};
	struct pod *pod;
	int family, failed;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		family = AF_INET;
		failed = bpf_skb_load_bytes(
		    skb, ETH_HLEN + offsetof(struct iphdr, daddr), to.bytes, 4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		family = AF_INET6;
		failed = bpf_skb_load_bytes(
		    skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), to.bytes, 16);
	} else {
		return TC_ACT_OK;
	}
	if (failed)
		return TC_ACT_OK;
	pod = bpf_map_lookup_elem(&pods, &to);
	if (pod) {
		bpf_skb_store_bytes(skb, 0, pod->mac, ETH_ALEN, 0);
		return bpf_redirect_peer(pod->ifindex, 0);
	}
	if (from_pod && leaves_node(skb, family, &to))
		return bpf_redirect_neigh(uplink, NULL, 0, 0);
	return TC_ACT_OK;
}

SEC("tc")
int from_container(struct __sk_buff *skb)
{
	return route(skb, 1);
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	return route(skb, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
