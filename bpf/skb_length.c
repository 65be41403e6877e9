/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * skb_length: how long is an skb when the stack hands it over?
 *
 *   net_dev_start_xmit      the driver gets it: after tc, after software GSO
 *   netif_receive_skb       GRO has merged, protocols have not seen it
 *   net_dev_queue           before software GSO; big ones only, so that "big
 *                           here, never big at net_dev_start_xmit" is what
 *                           software segmentation looks like
 *   napi_gro_receive_entry  before GRO, every wire packet: off unless asked
 *
 * All are BTF-typed raw tracepoints: `skb->dev->ifindex` below is a plain load
 * which the verifier has checked and a fault turns into zero. A pointer to bytes
 * (head, data) is none of its types and must be made one (read_kernel).
 * Cost: no function is called for an skb whose row is on the fast lane (leaf_of);
 * no event leaves the kernel.
 *
 * The structs of the kernel stand before this text when it is compiled: just
 * the members named here, at the offsets of the running kernel (layout.py).
 */
#include "skb_length.h"

#ifndef MAX_ROWS /* -DMAX_ROWS=n: (device, hook, family), and devices */
#define MAX_ROWS 16384
#endif

#ifndef MAX_POD_ADDRESSES
#define MAX_POD_ADDRESSES 8192
#endif

/* -DOWN_NETNS=cookie: the agent's namespace. A foreign device stands elsewhere, and
 * so does its peer. Only so many of them have rows of their own, at most 7,680 of
 * MAX_ROWS; all others share one row a hook and family, so that whatever other
 * namespaces hold, the node's own devices and its pods find room. */
#ifndef MAX_FOREIGN_DEVICES /* -DMAX_FOREIGN_DEVICES=n: the first that come */
#define MAX_FOREIGN_DEVICES 512
#endif
#ifndef MAX_FOREIGN_BIG_DEVICES /* and then those that queue big skbs: they may be \
				 * segmented there, and it must be told where */
#define MAX_FOREIGN_BIG_DEVICES 128
#endif

#define RECENT_BITS 8 /* 50 KB a CPU */
#define RECENT_ROWS (1 << RECENT_BITS)
#define HOOK_BITS 2 /* each program has its share of them */
#define SPREAD 0x9E3779B1u
#define SLOT_SHIFT (32 - RECENT_BITS + HOOK_BITS)
#define ONE(number, name) +1
_Static_assert((0 SKB_LENGTH_HOOKS(ONE)) <= 1 << HOOK_BITS, "a hook without slots");
#ifndef IDLE_JIFFIES	   /* -DIDLE_JIFFIES=n */
#define IDLE_JIFFIES 16384 /* 16 s to 164 s, by HZ */
#endif
#define MOVING 0 /* no namespace has this cookie */

#define IFF_LOOPBACK 0x8
#define IFF_EBRIDGE (1 << 1) /* priv_flags: a bridge */
#define IFF_OPENVSWITCH (1 << 20)
#define IPV4_HLEN 20
#define IPV4_DESTINATION 16
#define IPV6_HLEN 40
#define IPV6_DESTINATION 24
#define TCP_HLEN 32
#define ETH_HLEN 14
#define PACKET_LOOPBACK 5
#define ARPHRD_ETHER 1
#define VLAN_HLEN 4
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8
#define E2BIG 7
#define ENOMEM 12
#define EEXIST 17

/* BPF_F_NO_PREALLOC: a row takes its 176 bytes a CPU when it is first needed,
 * not MAX_ROWS of them at start (200 MB on 64 CPUs). */
#define NO_PREALLOC 1

BPF_F_TABLE("percpu_hash", struct skb_length_key, struct skb_length_leaf, lengths,
	    MAX_ROWS, NO_PREALLOC);
BPF_TABLE("hash", struct device_id, struct device, devices, MAX_ROWS); /* 2 MB */
BPF_TABLE("hash", struct device_id, struct device, foreign_devices,
	  MAX_FOREIGN_DEVICES);
BPF_TABLE("hash", struct device_id, struct device, foreign_big_devices,
	  MAX_FOREIGN_BIG_DEVICES);
BPF_PERCPU_ARRAY(recent, struct recent_row, RECENT_ROWS);
BPF_PERCPU_ARRAY(unrecorded, u64, SKB_LENGTH_REASON_COUNT);

#ifdef PER_POD
BPF_F_TABLE("hash", struct pod_address, u32, pod_addresses, MAX_POD_ADDRESSES,
	    NO_PREALLOC);
#endif

#ifdef KFUNC_bpf_rdonly_cast
/* A kernel function, which the verifier replaces by nothing: the result is the
 * first argument, now of a type that plain loads may read. */
static void *(*bpf_rdonly_cast)(const void *pointer,
				u32 btf_id) = (void *)KFUNC_bpf_rdonly_cast;
#endif

/* Up to 16 bytes. A kernel that is locked down for confidentiality has no
 * bpf_probe_read_kernel(). */
static __always_inline void read_kernel(void *to, u32 size, const void *from)
{
#ifdef KFUNC_bpf_rdonly_cast
	const u32 *bytes = bpf_rdonly_cast(from, TYPE_in6_addr);

	__builtin_memcpy(to, bytes, size);
#else
	bpf_probe_read_kernel(to, size, from);
#endif
}

static __always_inline void count_unrecorded(enum skb_length_reason reason)
{
	u32 index = reason;
	u64 *count = unrecorded.lookup(&index);

	if (count)
		(*count)++;
}

/* netdev_priv() */
static __always_inline void *private_part(struct net_device *dev)
{
	return (void *)dev + NET_DEVICE_PRIVATE;
}

static __always_inline struct net_device *peer_of(struct net_device *dev,
						  const char *kind)
{
	struct net_device *peer = NULL;

	if (*(u32 *)kind == *(u32 *)"veth" && kind[4] == 0)
		read_kernel(&peer, sizeof(peer), private_part(dev) + VETH_PRIV_PEER);
	if (*(u32 *)kind == *(u32 *)"netk" && *(u16 *)(kind + 4) == *(u16 *)"it")
		read_kernel(&peer, sizeof(peer), private_part(dev) + NETKIT_PRIV_PEER);
	return peer;
}

/* Read who a device is. Its peer is where it stands now: one that is moved to
 * another namespace later is not followed. */
static __always_inline void describe(struct device *device, struct net_device *dev,
				     struct net *net)
{
	struct net_device *peer;
	struct net *peer_net = NULL;

	device->netns_inode = net->ns.inum;
	read_kernel(device->name, sizeof(device->name), &dev->name);
	read_kernel(device->mac, sizeof(device->mac), (void *)dev->dev_addr);
	if (dev->rtnl_link_ops) /* and what stands behind its NUL */
		read_kernel(device->kind, sizeof(device->kind),
			    (void *)dev->rtnl_link_ops->kind);
	peer = peer_of(dev, device->kind);
	if (peer) {
		read_kernel(&device->peer.ifindex, sizeof(device->peer.ifindex),
			    &peer->ifindex);
		read_kernel(&peer_net, sizeof(peer_net), &peer->nd_net);
		read_kernel(&device->peer.netns, sizeof(device->peer.netns),
			    &peer_net->net_cookie);
	}
}

static __always_inline bool is_foreign(const struct device_id *id,
				       const struct device *device)
{
#ifdef OWN_NETNS
	return id->netns != OWN_NETNS && device->peer.netns != OWN_NETNS;
#else
	return false;
#endif
}

static __always_inline bool is_shared(const struct skb_length_key *key)
{
	return key->ifindex == SKB_LENGTH_SHARED;
}

/* Give a foreign device a place of its own, or turn the key into that of the row
 * which all others share. By device, not by row: what a device queued is compared
 * with what it sent. */
static __always_inline int admit_foreign(struct skb_length_key *key,
					 struct device_id *id, struct device *device)
{
	int err = foreign_devices.insert(id, device);

	if (err == -E2BIG) {
		if (key->hook == HOOK_net_dev_queue)
			err = foreign_big_devices.insert(id, device);
		else if (foreign_big_devices.lookup(id))
			err = 0;
	}
	if (err == -E2BIG) {
		key->netns = SKB_LENGTH_SHARED;
		key->ifindex = SKB_LENGTH_SHARED;
		return 0;
	}
	return err == -EEXIST ? 0 : err;
}

/* Say who one of our devices is, when its row could not be made: foreign ones have
 * been admitted by then. */
static __always_inline int introduce(struct net_device *dev, struct net *net)
{
	struct device_id id = {.netns = net->net_cookie, .ifindex = dev->ifindex};
	struct device device = {};

	describe(&device, dev, net);
	return is_foreign(&id, &device) ? 0 : devices.update(&id, &device);
}

/* Once for every row, and for every skb that is counted in a shared one. */
static __always_inline int new_row(struct skb_length_key *key, struct net_device *dev,
				   struct net *net)
{
	struct device_id id = {.netns = net->net_cookie, .ifindex = dev->ifindex};
	struct skb_length_leaf zero = {};
	struct device device = {};
	bool foreign;
	int err;

	describe(&device, dev, net);
	foreign = is_foreign(&id, &device);
	if (foreign) {
		err = admit_foreign(key, &id, &device);
		if (err)
			return err;
		if (is_shared(key) && lengths.lookup(key))
			return 0;
	}
	err = lengths.insert(key, &zero);
	if (err == -EEXIST) /* another CPU was faster, and introduces it */
		return 0;
	if (err || foreign)
		return err;
	err = devices.update(&id, &device);
	if (err) /* nobody could tell whose it is: try again */
		lengths.delete(key);
	return err;
}

static __always_inline bool same_row(const struct skb_length_key *a,
				     const struct skb_length_key *b)
{
	return a->netns == b->netns && a->ifindex == b->ifindex && a->hook == b->hook &&
	       a->family == b->family;
}

/* Add a row of the fast lane to its like in `lengths`. */
static __always_inline bool put_back(struct recent_row *row, struct skb_length_key *key)
{
	struct skb_length_leaf *to = lengths.lookup(key);
	int i;

	if (!to) /* user space has forgotten it: it comes back with its counts */
		return !lengths.insert(key, &row->leaf);
#pragma unroll
	for (i = 0; i < SKB_LENGTH_SLOTS; i++)
		to->slots[i] += row->leaf.slots[i];
	to->bytes += row->leaf.bytes;
	to->big_bytes += row->leaf.big_bytes;
	to->segments += row->leaf.segments;
	if (row->leaf.longest > to->longest)
		to->longest = row->leaf.longest;
	if (row->leaf.seen > to->seen) {
		to->seen = row->leaf.seen;
		to->limit = row->leaf.limit;
	}
	return true;
}

/* An exchange: a reader on another CPU sees what was stored before it as well. */
static __always_inline void own(struct recent_row *row, u64 netns)
{
	__sync_lock_test_and_set(&row->key.netns, netns);
}

/* Is the slot free, or can it be made so? */
static __always_inline bool vacate(struct recent_row *row)
{
	struct skb_length_key old = row->key;

	if (!old.netns)
		return true;
	if (row->leaf.seen + IDLE_JIFFIES > bpf_jiffies64())
		return false;
	own(row, MOVING);
	if (!put_back(row, &old)) {
		row->leaf.seen = bpf_jiffies64(); /* not again for a while */
		own(row, old.netns);
		return false;
	}
	__builtin_memset(&row->leaf, 0, sizeof(row->leaf));
	row->key.ifindex = 0; /* empty, whatever becomes of who wants it */
	return true;
}

/*
 * The CPU's counters of a row.
 *
 * Most skbs belong to few rows. Those are on a fast lane: a per-CPU array, which
 * the JIT reads in place (from 6.10 on), where a hash costs three calls. A slot
 * belongs to whoever came first, until it is idle and another row wants it; then
 * its counts move to `lengths`. So a row is the sum of both. A reader copies
 * `recent`, then `lengths`, then the keys of `recent` again: where a slot has the
 * same key both times, and is not MOVING, no count was seen twice or missed.
 *
 * The kernel refills its stock of per-CPU memory in the background, late on a busy
 * CPU (18,481 skbs, once): until then a new row lives on the fast lane alone.
 */
static __always_inline struct skb_length_leaf *
leaf_of(struct skb_length_key *key, struct net_device *dev, struct net *net)
{
	/* The hook, too: else a pod's two rows, sent and received, would always
	 * want the same slot; now they never do. */
	_Static_assert(((((HOOK_pod_receive - HOOK_netif_receive_skb) << 18) * SPREAD >>
			 SLOT_SHIFT) +
			1) % (RECENT_ROWS >> HOOK_BITS) >
			   1,
		       "a pod's rows meet");
	u32 hash = (u32)key->netns * 31 + key->ifindex + ((u32)key->hook << 16);
	u32 at = (hash << 2 | key->family >> 1) * SPREAD >> SLOT_SHIFT;
	struct skb_length_leaf *leaf;
	struct recent_row *row;
	u32 program = key->hook;
	int err = 0;

	/* A program has slots of its own: no two meet in one, not even where one may
	 * interrupt another (PREEMPT_RT). */
	if (key->hook == HOOK_pod_receive)
		program = HOOK_netif_receive_skb;
	at |= program << (RECENT_BITS - HOOK_BITS);
	row = recent.lookup(&at);

	if (row && same_row(&row->key, key))
		return &row->leaf;
	leaf = lengths.lookup(key);
	if (!leaf) {
		err = new_row(key, dev, net);
		if (!err)
			leaf = lengths.lookup(key);
	}
	/* A slot with a shared row would never be found: by the device's key it is. */
	if (row && !is_shared(key) && (leaf || err == -ENOMEM) && vacate(row) &&
	    (leaf || !introduce(dev, net))) {
		row->key.ifindex = key->ifindex;
		row->key.hook = key->hook;
		row->key.family = key->family;
		own(row, key->netns);
		return &row->leaf;
	}
	if (!leaf)
		count_unrecorded(err == -E2BIG	  ? REASON_map_full
				 : err == -ENOMEM ? REASON_no_memory
						  : REASON_busy);
	return leaf;
}

/* skb_shinfo(skb)->gso_segs, or what gso_size makes of the payload where a
 * hypervisor or its guest (virtio, tap) left it unset; their headers are taken to be
 * TCP's with timestamps. Both unset: the skb is one packet. */
static __always_inline u32 segments_of(struct sk_buff *skb, u32 length, u8 family)
{
	struct skb_shared_info *shinfo = (void *)(skb->head + skb->end);
	u32 headers = (family == FAMILY_ipv6 ? IPV6_HLEN : IPV4_HLEN) + TCP_HLEN;
	u16 segments = 0, size = 0;

#ifdef KFUNC_bpf_rdonly_cast
	shinfo = bpf_rdonly_cast(shinfo, TYPE_skb_shared_info);
	segments = shinfo->gso_segs;
	if (!segments)
		size = shinfo->gso_size;
#else
	bpf_probe_read_kernel(&segments, sizeof(segments), &shinfo->gso_segs);
	if (!segments)
		bpf_probe_read_kernel(&size, sizeof(size), &shinfo->gso_size);
#endif
	if (!segments && size && length > headers)
		return (length - headers + size - 1) / size;
	return segments ? segments : 1;
}

static __always_inline bool eth_type_vlan(u16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) ||
	       protocol == bpf_htons(ETH_P_8021AD);
}

/* vlan_get_protocol_and_depth(): step over the tags that are still in the
 * data, two at the most. */
static __always_inline u16 step_over_vlan(struct sk_buff *skb, u16 protocol,
					  u32 *offset)
{
	int i;

#pragma unroll
	for (i = 0; i < 2; i++) {
		if (!eth_type_vlan(protocol))
			break;
		read_kernel(&protocol, sizeof(protocol),
			    (void *)skb->data + *offset + 2);
		*offset += VLAN_HLEN;
	}
	return protocol;
}

static __always_inline u32 limit_of(struct net_device *dev, u8 family, bool tx)
{
#ifdef HAVE_net_device_gso_ipv4_max_size
	if (family == FAMILY_ipv4)
		return tx ? dev->gso_ipv4_max_size : dev->gro_ipv4_max_size;
#else /* 9eefedd58ae1 ("net: add gso_ipv4_max_size and gro_ipv4_max_size per \
	 device"), 6.3: IPv4 cannot be big before it */
	if (family == FAMILY_ipv4)
		return SKB_LENGTH_BIG;
#endif
	if (family == FAMILY_ipv6)
		return tx ? dev->gso_max_size : dev->gro_max_size;
	return 0;
}

static __always_inline void add(struct skb_length_key *key, struct sk_buff *skb,
				struct net_device *dev, struct net *net, u32 length,
				bool tx)
{
	struct skb_length_leaf *leaf = leaf_of(key, dev, net);
	u32 slot = skb_length_slot(length);

	if (!leaf)
		return;
	if (slot < SKB_LENGTH_SLOTS) /* for the verifier */
		leaf->slots[slot]++;
	leaf->bytes += length;
	if (length > SKB_LENGTH_BIG)
		leaf->big_bytes += length;
	if (length > leaf->longest)
		leaf->longest = length;
	leaf->segments += segments_of(skb, length, key->family);
	leaf->limit = limit_of(dev, key->family, tx);
	leaf->seen = bpf_jiffies64();
}

#ifdef PER_POD
/*
 * The ifindex of the pod that a received packet goes to, or 0.
 *
 * With eBPF host routing (bpf_redirect_peer) no event names the pod's device,
 * so its address does, where the packet enters the agent's own namespace, which
 * it does once. A bridge hands on what a port of it has received already.
 */
static __always_inline u32 pod_of(struct sk_buff *skb, struct net_device *dev,
				  u32 offset, u8 family)
{
	struct pod_address to = {};
	/* The network header is not yet set at this hook: data is where it will be. */
	void *header = (void *)skb->data + offset;
	u32 *ifindex;

	if (dev->priv_flags & (IFF_EBRIDGE | IFF_OPENVSWITCH))
		return 0;
	if (skb->len - skb->data_len <
	    offset + (family == FAMILY_ipv4 ? IPV4_HLEN : IPV6_HLEN)) {
		count_unrecorded(REASON_no_address); /* its header is in a fragment */
		return 0;
	}
	if (family == FAMILY_ipv4) {
		to.words[2] = bpf_htonl(0xffff);
		read_kernel(&to.words[3], 4, header + IPV4_DESTINATION);
	} else {
		read_kernel(&to, sizeof(to), header + IPV6_DESTINATION);
	}
	ifindex = pod_addresses.lookup(&to);
	return ifindex ? *ifindex : 0;
}
#endif

/* Three bits, the first ones of their byte (PKT_TYPE_MAX). */
static __always_inline u8 pkt_type(struct sk_buff *skb)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return skb->pkt_type & 7;
#else
	return skb->pkt_type >> 5;
#endif
}

static __always_inline int record(struct sk_buff *skb, struct net_device *dev, u8 hook,
				  bool tx)
{
	struct skb_length_key key = {.hook = hook};
	u16 protocol = skb->protocol;
	u32 length = skb->len, offset = 0;
	struct net *net;

	if (!dev) {
		count_unrecorded(REASON_no_device);
		return 0;
	}
	if (dev->flags & IFF_LOOPBACK)
		return 0; /* 131,032-byte skbs without any BIG TCP */
	if (!tx && pkt_type(skb) == PACKET_LOOPBACK)
		return 0; /* a copy of what this device sends to a group */
	/* Loaded once, and never NULL: to the verifier of a kernel built by clang,
	 * whose types tell that it is an __rcu pointer, each load may be. */
	net = dev->nd_net;
	if (!net)
		return 0;

	/* A sender's skb begins at its MAC header, a receiver's behind it. */
	if (tx)
		offset = skb->head + skb->network_header - skb->data;
	if (eth_type_vlan(protocol)) {
		offset = tx ? ETH_HLEN : 0;
		protocol = step_over_vlan(skb, protocol, &offset);
	}
	if (offset > length) /* a network header that nobody has set */
		offset = tx && dev->type == ARPHRD_ETHER ? ETH_HLEN : 0;
	if (offset > length)
		offset = 0;
	length -= offset;
	if (hook == HOOK_net_dev_queue && length <= SKB_LENGTH_BIG)
		return 0;

	if (protocol == bpf_htons(ETH_P_IP))
		key.family = FAMILY_ipv4;
	else if (protocol == bpf_htons(ETH_P_IPV6))
		key.family = FAMILY_ipv6;
	key.netns = net->net_cookie;
	key.ifindex = dev->ifindex;
	add(&key, skb, dev, net, length, tx);
#ifdef PER_POD /* and -DOWN_NETNS=cookie */
	if (hook == HOOK_netif_receive_skb && key.netns == OWN_NETNS && key.family) {
		key.ifindex = pod_of(skb, dev, offset, key.family);
		key.hook = HOOK_pod_receive;
		if (key.ifindex)
			add(&key, skb, dev, net, length, tx);
	}
#endif
	return 0;
}

int net_dev_start_xmit(u64 *ctx)
{
	return record((struct sk_buff *)ctx[0], (struct net_device *)ctx[1],
		      HOOK_net_dev_start_xmit, true);
}

int netif_receive_skb(u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	return record(skb, skb->dev, HOOK_netif_receive_skb, false);
}

int net_dev_queue(u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	if (skb->len <= SKB_LENGTH_BIG)
		return 0;
	return record(skb, skb->dev, HOOK_net_dev_queue, true);
}

int napi_gro_receive_entry(u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	return record(skb, skb->dev, HOOK_napi_gro_receive_entry, false);
}
