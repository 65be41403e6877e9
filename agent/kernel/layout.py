# SPDX-License-Identifier: Apache-2.0
"""C definitions of the kernel's structs, written from the running kernel's BTF.

Each struct gets just the members that bpf/skb_length.c touches, each behind a
pad of its real offset, all in one anonymous union. So the C says
`skb->dev->ifindex` and means this kernel's offsets, without any kernel header.
The structs are not `packed`: clang would load byte by byte and the verifier
refuse it.
"""

import contextlib

from agent.errors import OldKernelError
from agent.kernel import libbpf
from agent.kernel.libbpf import KIND_FUNC, KIND_STRUCT, Btf

# Members, with the type they get in our C. Pointers to bytes are numbers here:
# to the verifier they are scalars, and the program does arithmetic with them.
_NEEDED: dict[str, tuple[tuple[str, str], ...]] = {
    "ns_common": (("u32", "inum"),),
    "net": (("struct ns_common", "ns"), ("u64", "net_cookie")),
    "rtnl_link_ops": (("u64", "kind"),),
    "net_device": (
        ("int", "ifindex"),
        ("u32", "flags"),
        ("u16", "type"),
        ("u32", "priv_flags"),
        ("u32", "gso_max_size"),
        ("u32", "gro_max_size"),
        ("struct net *", "nd_net"),
        ("struct rtnl_link_ops *", "rtnl_link_ops"),
        ("u64", "dev_addr"),
        ("u64", "name"),
    ),
    "sk_buff": (
        ("struct net_device *", "dev"),
        ("u32", "len"),
        ("u32", "data_len"),
        ("u32", "end"),
        ("u64", "head"),
        ("u64", "data"),
        ("u16", "protocol"),
        ("u16", "network_header"),
        ("u8", "pkt_type"),  # three bits of it
    ),
    "skb_shared_info": (("u16", "gso_segs"), ("u16", "gso_size")),
}

# Members that some kernels lack: no error, HAVE_<struct>_<member> tells.
_OPTIONAL: dict[str, tuple[tuple[str, str], ...]] = {
    # 9eefedd58ae1 ("net: add gso_ipv4_max_size and gro_ipv4_max_size per
    # device"), first in 6.3
    "net_device": (("u32", "gso_ipv4_max_size"), ("u32", "gro_ipv4_max_size")),
}

# What bytes become; in6_addr stands for any 16 of them.
_CAST_TO = ("skb_shared_info", "in6_addr")

# net_device's private part is aligned to NETDEV_ALIGN where it is no member.
_NETDEV_ALIGN = 32


def _struct(btf: Btf, name: str) -> str:
    type_id = btf.find(name, KIND_STRUCT)
    body, flags = "", ""
    for ctype, member in _NEEDED[name] + _OPTIONAL.get(name, ()):
        offset = btf.offset(type_id, member) if type_id is not None else None
        if offset is None:
            if (ctype, member) in _NEEDED[name]:
                raise OldKernelError(
                    f"this kernel's struct {name} has no member {member}"
                )
            continue
        pad = f"char pad_{member}[{offset}]; " if offset else ""
        body += f"struct {{ {pad}{ctype} {member}; }}; "
        if (ctype, member) not in _NEEDED[name]:
            flags += f"#define HAVE_{name}_{member} 1\n"
    return f"struct {name} {{ union {{ {body}}}; }};\n{flags}"


def _private_part(btf: Btf) -> int:
    """Offset of what a driver keeps behind its net_device, as netdev_priv().

    A member of newer kernels ("netdevice: define and allocate &net_device
    _properly_"); before, the struct's size rounded up.
    """
    type_id = btf.find("net_device", KIND_STRUCT)
    assert type_id is not None  # _struct() has found it
    member = btf.offset(type_id, "priv")
    if member is not None:
        return member
    return -(-btf.size(type_id) // _NETDEV_ALIGN) * _NETDEV_ALIGN


def _peer(btf: Btf, driver: str) -> int:
    """Offset of `peer` in the private part of a veth or netkit device.

    The driver may be a module with BTF of its own, loaded or not yet loaded.
    Then the offset is 0: `peer` is the first member of struct veth_priv since
    e314dbdc1c0d ("[NET]: Virtual ethernet device driver.") and of struct
    netkit since 35dfaad7188c ("netkit, bpf: Add bpf programmable net device").
    """
    struct = {"veth": "veth_priv", "netkit": "netkit"}[driver]
    sources = [btf]
    with contextlib.suppress(OSError):  # built in, or not loaded
        sources.append(btf.module(driver))
    for source in sources:
        type_id = source.find(struct, KIND_STRUCT)
        if type_id is not None:
            offset = source.offset(type_id, "peer")
            if offset is not None:
                return offset
    return 0


def _cast(btf: Btf) -> str:
    """How to read what a pointer to bytes points to by plain loads; nothing where
    that cannot be.

    bpf_rdonly_cast() is new in 6.2 and needs the JIT: the kernel is asked.
    """
    function = btf.find("bpf_rdonly_cast", KIND_FUNC)
    types = {name: btf.find(name, KIND_STRUCT) for name in _CAST_TO}
    known = {name: number for name, number in types.items() if number is not None}
    if function is None or len(known) < len(types):
        return ""
    if not libbpf.can_call(btf, function, known["in6_addr"]):
        return ""
    return f"#define KFUNC_bpf_rdonly_cast {libbpf.kfunc_number(function)}\n" + "".join(
        f"#define TYPE_{name} {number}\n" for name, number in known.items()
    )


def layout(btf: Btf) -> str:
    """The C text to put before skb_length.c; OldKernelError where it cannot be."""
    return (
        "".join(_struct(btf, name) for name in _NEEDED)
        + _cast(btf)
        + f"#define NET_DEVICE_PRIVATE {_private_part(btf)}\n"
        + f"#define VETH_PRIV_PEER {_peer(btf, 'veth')}\n"
        + f"#define NETKIT_PRIV_PEER {_peer(btf, 'netkit')}\n"
    )
