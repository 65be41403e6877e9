# SPDX-License-Identifier: Apache-2.0
"""The few calls of libbpf that the agent makes; nothing else knows ctypes.

libbpf 1.0 or newer. Every failure is an OSError with the kernel's errno.
Layouts mirror include/uapi/linux/btf.h and include/uapi/linux/bpf.h.
"""

import ctypes as c
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

KIND_STRUCT, KIND_TYPEDEF, KIND_FUNC = 4, 8, 12
_PROG_TYPE_TRACING, _TRACE_RAW_TP, _MAP_TYPE_ARRAY = 26, 23, 2
_VERIFIER_LOG_BYTES = 1 << 20
NO_ROOM = (errno.E2BIG, errno.ENOMEM)  # update() in a hash map


class _BtfType(c.Structure):
    _fields_ = (("name_off", c.c_uint32), ("info", c.c_uint32), ("size", c.c_uint32))


class _BtfMember(c.Structure):
    _fields_ = (("name_off", c.c_uint32), ("type", c.c_uint32), ("offset", c.c_uint32))


class _ProgLoadOpts(c.Structure):
    """struct bpf_prog_load_opts of libbpf 1.0; later members stay unset."""

    _fields_ = (
        ("sz", c.c_size_t),
        ("attempts", c.c_int),
        ("expected_attach_type", c.c_int),
        ("prog_btf_fd", c.c_uint32),
        ("prog_flags", c.c_uint32),
        ("prog_ifindex", c.c_uint32),
        ("kern_version", c.c_uint32),
        ("attach_btf_id", c.c_uint32),
        ("attach_prog_fd", c.c_uint32),
        ("attach_btf_obj_fd", c.c_uint32),
        ("fd_array", c.c_void_p),
        ("func_info", c.c_void_p),
        ("func_info_cnt", c.c_uint32),
        ("func_info_rec_size", c.c_uint32),
        ("line_info", c.c_void_p),
        ("line_info_cnt", c.c_uint32),
        ("line_info_rec_size", c.c_uint32),
        ("log_level", c.c_uint32),
        ("log_size", c.c_uint32),
        ("log_buf", c.c_void_p),
    )


class _ProgInfo(c.Structure):
    """struct bpf_prog_info as far as recursion_misses (Linux 5.12)."""

    _fields_ = (
        ("_before", c.c_uint8 * 192),
        ("run_time_ns", c.c_uint64),
        ("run_cnt", c.c_uint64),
        ("recursion_misses", c.c_uint64),
    )


@cache
def _library() -> c.CDLL:
    lib = c.CDLL("libbpf.so.1", use_errno=True)
    # libbpf talks on stderr; errors come back as errno and are told by us.
    lib.libbpf_set_print(None)
    lib.btf__load_vmlinux_btf.restype = c.c_void_p
    lib.btf__load_module_btf.argtypes = [c.c_char_p, c.c_void_p]
    lib.btf__load_module_btf.restype = c.c_void_p
    lib.btf__find_by_name_kind.argtypes = [c.c_void_p, c.c_char_p, c.c_uint32]
    lib.btf__type_by_id.argtypes = [c.c_void_p, c.c_uint32]
    lib.btf__type_by_id.restype = c.POINTER(_BtfType)
    lib.btf__name_by_offset.argtypes = [c.c_void_p, c.c_uint32]
    lib.btf__name_by_offset.restype = c.c_char_p
    return lib


def _fail() -> OSError:
    number = c.get_errno()
    return OSError(number, os.strerror(number))


class Btf:
    """Types of the running kernel, or of one of its modules."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def vmlinux(cls) -> "Btf":
        """Types of the kernel itself; OSError where it was built without BTF."""
        handle = _library().btf__load_vmlinux_btf()
        if not handle:
            raise _fail()
        return cls(handle)

    def module(self, name: str) -> "Btf":
        """Types of a loaded module; OSError(ENOENT) where it is not loaded."""
        handle = _library().btf__load_module_btf(name.encode(), self._handle)
        if not handle:
            raise _fail()
        return Btf(handle)

    def find(self, name: str, kind: int) -> int | None:
        """Id of the type with this name and kind; None where there is none."""
        found: int = _library().btf__find_by_name_kind(
            self._handle, name.encode(), kind
        )
        return found if found > 0 else None

    def size(self, type_id: int) -> int:
        """Size of a struct in bytes."""
        return int(self._type(type_id).contents.size)

    def offset(self, type_id: int, member: str) -> int | None:
        """Byte offset of a struct's member, anonymous structs and unions included."""
        bits = self._bits(type_id, member, 0)
        return None if bits is None else bits // 8

    def _type(self, type_id: int) -> "c._Pointer[_BtfType]":
        found: c._Pointer[_BtfType] = _library().btf__type_by_id(self._handle, type_id)
        return found

    def _bits(self, type_id: int, member: str, base: int) -> int | None:
        header = self._type(type_id).contents
        first = c.addressof(header) + c.sizeof(header)
        count, has_bitfields = header.info & 0xFFFF, header.info >> 31
        for entry in (_BtfMember * count).from_address(first):
            offset = entry.offset & 0xFFFFFF if has_bitfields else entry.offset
            name = _library().btf__name_by_offset(self._handle, entry.name_off)
            if name == member.encode():
                return int(base + offset)
            if not name:
                inside = self._bits(entry.type, member, base + offset)
                if inside is not None:
                    return inside
        return None


# A call in BPF: helpers by number, kernel functions by BTF id. Our C can only
# name a number, so ids get a mark which no helper has, and become calls of
# kernel functions before the program is loaded (as libbpf does by relocation).
_CALL, _PSEUDO_KFUNC_CALL, _KFUNC_MARK = 0x85, 2, 1 << 30
_INSTRUCTION = struct.Struct("<BBhi")  # code, registers, offset, immediate
_MOVE_IMMEDIATE, _EXIT = 0xB7, 0x95


def kfunc_number(type_id: int) -> int:
    """What C calls to call the kernel function with this BTF id."""
    return _KFUNC_MARK | type_id


def _link_kfuncs(code: bytes) -> bytes:
    linked = bytearray(code)
    for at in range(0, len(code), _INSTRUCTION.size):
        opcode, registers, offset, number = _INSTRUCTION.unpack_from(code, at)
        helper = opcode == _CALL and not registers and number > 0
        if helper and number & _KFUNC_MARK:
            _INSTRUCTION.pack_into(
                linked,
                at,
                opcode,
                _PSEUDO_KFUNC_CALL << 4,
                offset,
                number & ~_KFUNC_MARK,
            )
    return bytes(linked)


def can_call(btf: Btf, function: int, struct_id: int) -> bool:
    """Does the kernel take a program that calls bpf_rdonly_cast() (BTF id
    `function`) on a struct (`struct_id`)? It refuses where the JIT is off.
    """
    tracepoint = btf.find("btf_trace_netif_receive_skb", KIND_TYPEDEF)
    code = b"".join(
        _INSTRUCTION.pack(*fields)
        for fields in (
            (_MOVE_IMMEDIATE, 1, 0, 0),
            (_MOVE_IMMEDIATE, 2, 0, struct_id),
            (_CALL, 0, 0, kfunc_number(function)),
            (_MOVE_IMMEDIATE, 0, 0, 0),
            (_EXIT, 0, 0, 0),
        )
    )
    try:
        os.close(load_raw_tracepoint("can_call", code, tracepoint or 0))
    except OSError:
        return False
    return True


class VerifierError(OSError):
    """The kernel refused a program; `log` is what its verifier said."""

    log = ""


def load_raw_tracepoint(name: str, code: bytes, attach_btf_id: int) -> int:
    """Load bytecode as a BTF-typed raw tracepoint; the program's fd.

    The verifier's log is asked for only after a refusal: writing it costs.
    """
    code = _link_kfuncs(code)
    log = c.create_string_buffer(_VERIFIER_LOG_BYTES)
    number = 0
    for level in (0, 1):
        options = _ProgLoadOpts(
            sz=c.sizeof(_ProgLoadOpts),
            expected_attach_type=_TRACE_RAW_TP,
            attach_btf_id=attach_btf_id,
            log_level=level,
            log_size=len(log) if level else 0,
            log_buf=c.addressof(log) if level else None,
        )
        fd: int = _library().bpf_prog_load(
            _PROG_TYPE_TRACING,
            name.encode()[:15],
            b"GPL",
            code,
            len(code) // 8,
            c.byref(options),
        )
        if fd >= 0:
            return fd
        # The first reason counts: a log that is too long for us would be another.
        number = number or c.get_errno()
    error = VerifierError(number, os.strerror(number))
    error.log = log.value.decode(errors="replace")
    raise error


def attach_raw_tracepoint(program: int) -> int:
    """Attach; the link's fd, whose closing detaches."""
    fd: int = _library().bpf_raw_tracepoint_open(None, program)
    if fd < 0:
        raise _fail()
    return fd


def create_map() -> int:
    """Create the smallest array map: may this process use BPF at all? Its fd."""
    fd: int = _library().bpf_map_create(_MAP_TYPE_ARRAY, None, 4, 4, 1, None)
    if fd < 0:
        raise _fail()
    return fd


def possible_cpus() -> int:
    """CPUs that a per-CPU value has room for (those that may be plugged in too)."""
    count = int(_library().libbpf_num_possible_cpus())
    if count <= 0:
        raise OSError(-count, os.strerror(-count))
    return count


def batches(
    fd: int, key_size: int, value_size: int, room: int
) -> Iterator[tuple[memoryview, memoryview]]:
    """Read a whole map, so many entries at a time: keys and values as packed bytes,
    which are good until the next ones are asked for.

    A value of a per-CPU map is `value_size` bytes for all possible CPUs together.
    """
    lib = _library()
    cursor, started = c.c_uint32(), False
    key_room = c.create_string_buffer(room * key_size)
    value_room = c.create_string_buffer(room * value_size)
    while True:
        count = c.c_uint32(room)
        result = lib.bpf_map_lookup_batch(
            fd,
            c.byref(cursor) if started else None,
            c.byref(cursor),
            key_room,
            value_room,
            c.byref(count),
            None,
        )
        number = c.get_errno() if result else 0
        if number == errno.ENOSPC:  # one bucket holds more than there is room for
            room *= 2
            key_room = c.create_string_buffer(room * key_size)
            value_room = c.create_string_buffer(room * value_size)
            continue
        if number not in (0, errno.ENOENT):
            raise OSError(number, os.strerror(number))
        yield (
            memoryview(key_room)[: count.value * key_size],
            memoryview(value_room)[: count.value * value_size],
        )
        started = True
        if number == errno.ENOENT:
            return


def lookup(fd: int, key: bytes, value_size: int) -> bytes:
    """Value of one key; OSError(ENOENT) where there is none."""
    value = c.create_string_buffer(value_size)
    if _library().bpf_map_lookup_elem(fd, key, value):
        raise _fail()
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set the value of a key; OSError(E2BIG) where the map is full."""
    if _library().bpf_map_update_elem(fd, key, value, c.c_uint64(0)):
        raise _fail()


def remove(fd: int, key: bytes) -> None:
    """Delete a key; one that is gone already is no error."""
    if _library().bpf_map_delete_elem(fd, key) and c.get_errno() != errno.ENOENT:
        raise _fail()


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel knows of a loaded program.

    `recursion_misses`: runs that were skipped because the program was running
    on that CPU already. The other two stay 0 unless BPF statistics are on.
    """

    recursion_misses: int
    run_time_ns: int
    run_count: int


def program_info(fd: int) -> ProgramInfo:
    """BPF_OBJ_GET_INFO_BY_FD of a program."""
    info = _ProgInfo()
    size = c.c_uint32(c.sizeof(info))
    if _library().bpf_obj_get_info_by_fd(fd, c.byref(info), c.byref(size)):
        raise _fail()
    return ProgramInfo(info.recursion_misses, info.run_time_ns, info.run_cnt)
