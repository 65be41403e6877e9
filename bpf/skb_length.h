/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the program (skb_length.c) and whoever reads its maps.
 *
 * Lists are X-macros: C expands them, agent/kernel/contract.py reads the same
 * lines, and key and leaf reach Python as BCC describes them, so nothing here
 * is written a second time.
 */
#ifndef BIGTCP_SKB_LENGTH_H
#define BIGTCP_SKB_LENGTH_H

/*
 * Upper edges in bytes, inclusive as Prometheus' `le` is. Two of them are the
 * subject itself: 65536 is where BIG TCP begins, 196608 is Cilium's ceiling;
 * 1500 and 9000 are the usual MTUs, 524288 lies above veth's tso_max_size.
 */
#define SKB_LENGTH_EDGES(X) \
	X(0, 128)           \
	X(1, 512)           \
	X(2, 1500)          \
	X(3, 4096)          \
	X(4, 9000)          \
	X(5, 16384)         \
	X(6, 32768)         \
	X(7, 49152)         \
	X(8, 65536)         \
	X(9, 81920)         \
	X(10, 98304)        \
	X(11, 131072)       \
	X(12, 163840)       \
	X(13, 196608)       \
	X(14, 262144)       \
	X(15, 524288)
#define SKB_LENGTH_LAST 16 /* the slot of everything longer */
#define SKB_LENGTH_SLOTS 17
#define SKB_LENGTH_BIG 65536 /* an skb above this is big */

/* A hook is called what its tracepoint is called. */
#define SKB_LENGTH_HOOKS(X)      \
	X(0, net_dev_start_xmit) \
	X(1, netif_receive_skb)  \
	X(2, net_dev_queue)      \
	X(3, napi_gro_receive_entry)

/* Rows that no tracepoint has of its own: netif_receive_skb writes them, by the
 * address that the packet goes to, in a program compiled with -DPER_POD. */
#define SKB_LENGTH_PSEUDO_HOOKS(X) X(128, pod_receive)

#define SKB_LENGTH_FAMILIES(X) \
	X(0, other)            \
	X(4, ipv4)             \
	X(6, ipv6)

/* Why an skb could not be recorded. no_address: it stands in its device's row, but
 * whose pod's is it? busy: another CPU kept a lock of the map for too long. */
#define SKB_LENGTH_REASONS(X) \
	X(0, map_full)        \
	X(1, no_memory)       \
	X(2, no_device)       \
	X(3, no_address)      \
	X(4, busy)
#define SKB_LENGTH_REASON_COUNT 5

#define SKB_LENGTH_HOOK(number, name) HOOK_##name = number,
#define SKB_LENGTH_FAMILY(number, name) FAMILY_##name = number,
#define SKB_LENGTH_REASON(number, name) REASON_##name = number,
enum skb_length_hook {
	SKB_LENGTH_HOOKS(SKB_LENGTH_HOOK) SKB_LENGTH_PSEUDO_HOOKS(SKB_LENGTH_HOOK)
};
enum skb_length_family { SKB_LENGTH_FAMILIES(SKB_LENGTH_FAMILY) };
enum skb_length_reason { SKB_LENGTH_REASONS(SKB_LENGTH_REASON) };

/*
 * A device for as long as the machine runs. net_cookie, not the inode of
 * /proc/PID/ns/net: the kernel gives a freed inode number to the very next
 * namespace, and a new pod would go on counting in the row of a dead one.
 */
struct device_id {
	__u64 netns; /* net->net_cookie */
	__u32 ifindex;
	__u32 pad;
};

/* Where the cookie and the ifindex stand in the key of a row that foreign devices
 * share: see admit_foreign() in skb_length.c. Of a real device neither is 0. */
#define SKB_LENGTH_SHARED 0

struct skb_length_key {
	__u64 netns; /* net->net_cookie; they begin at 1 */
	__u32 ifindex;
	__u8 hook;
	__u8 family;
	__u16 pad;
};

/* A pod's address: IPv4 as ::ffff:a.b.c.d. The value in `pod_addresses` is the
 * ifindex under which the pod is counted, the host side of its device. */
struct pod_address {
	__u32 words[4];
};

/* One CPU's share of a row; lengths are L3 lengths in bytes. */
struct skb_length_leaf {
	__u64 slots[SKB_LENGTH_SLOTS]; /* skbs per edge, not cumulative */
	__u64 bytes;
	__u64 big_bytes; /* bytes in skbs above SKB_LENGTH_BIG */
	__u64 segments;	 /* wire packets these skbs stand for */
	__u64 seen;	 /* jiffies of the last one: whose `limit` is newest? */
	__u32 longest;
	__u32 limit; /* the device's gso (sending) or gro (receiving) max size */
};

/* A row on the fast lane of one CPU: see leaf_of() in skb_length.c. */
struct recent_row {
	struct skb_length_key key;
	struct skb_length_leaf leaf;
};

/* What is read once, when a device's first skb of a kind passes. */
struct device {
	struct device_id peer; /* other end of a veth or netkit pair, or 0 */
	__u32 netns_inode;     /* as in /proc/PID/ns/net: the name people know */
	__u8 mac[6];
	__u16 pad;
	char name[16];
	char kind[16]; /* rtnl_link_ops->kind; empty: no software device */
};

#define SKB_LENGTH_SLOT(slot, edge) length <= edge ? slot:
static inline __attribute__((always_inline)) __u32 skb_length_slot(__u32 length)
{
	return SKB_LENGTH_EDGES(SKB_LENGTH_SLOT) SKB_LENGTH_LAST;
}

#endif
