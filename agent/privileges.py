# SPDX-License-Identifier: Apache-2.0
"""Drop capabilities and unix sockets for good.

The agent does so as soon as it has started the child process that loads its programs.
Capabilities are of a thread (capabilities(7)) and a new thread inherits its parent's,
so drop_capabilities() runs before the first thread starts.
"""

import ctypes as c
import errno
import os
import socket
from pathlib import Path

from agent.errors import KernelError

# include/uapi/linux/prctl.h and capability.h
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64  # bits of a set; the kernel knows fewer
_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")  # of /proc/PID/status

_LOW_32_BITS = 0xFFFFFFFF  # the kernel takes an int of a 64-bit register
_SOCK_TYPE_MASK = 0xF  # include/linux/net.h; the rest are flags


class _Header(c.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", c.c_uint32), ("pid", c.c_int))


class _Data(c.Structure):
    """struct __user_cap_data_struct; two of them are 64 bits of each set."""

    _fields_ = (
        ("effective", c.c_uint32),
        ("permitted", c.c_uint32),
        ("inheritable", c.c_uint32),
    )


def _check(result: int) -> None:
    if result:
        number = c.get_errno()
        raise OSError(number, os.strerror(number))


def drop_capabilities() -> None:
    """Drop every capability of this thread, for good; no program that it executes
    gets one back, root's and setuid programs included.

    The bounding set is emptied where CAP_SETPCAP allows it; without that no_new_privs
    alone keeps root's execve() from regaining it (cap_bprm_creds_from_file() of
    security/commoncap.c). OSError where the kernel refuses.
    """
    libc = c.CDLL(None, use_errno=True)
    zero = c.c_ulong(0)  # prctl(2) wants unused arguments to be 0
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, c.c_ulong(1), zero, zero, zero))
    for number in range(_CAPABILITIES):
        if libc.prctl(_PR_CAPBSET_DROP, c.c_ulong(number), zero, zero, zero):
            break  # EPERM: no CAP_SETPCAP; EINVAL: there are no more
    clear = c.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL)
    _check(libc.prctl(_PR_CAP_AMBIENT, clear, zero, zero, zero))
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _check(libc.capset(c.byref(header), (_Data * 2)()))


def threads_with_capabilities() -> int:
    """Count this process's threads that hold a capability or could gain one."""
    count = 0
    for status in Path("/proc/self/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        holds = any(int(fields[name], 16) for name in _SETS)
        count += holds or fields["NoNewPrivs"].strip() != "1"
    return count


def deny_unix_sockets() -> None:
    """Refuse unix sockets by path or abstract name to all threads of this process, and
    to what it executes: socket(AF_UNIX) fails with EACCES. Open ones go on working, and
    so do stream pairs (socketpair), which cannot be connected elsewhere.

    A mount that is read-only does not do that: connect(2) writes nothing to the file
    system. Needs no capability, only drop_capabilities() before. KernelError without
    libseccomp's Python module; OSError where the kernel has no seccomp filters.
    """
    try:
        import seccomp
    except ImportError as err:
        raise KernelError(
            f"libseccomp's Python module cannot be imported: {err}",
            "apt install python3-seccomp, and use the distribution's /usr/bin/python3 "
            "(a virtual environment of it needs --system-site-packages)",
        ) from err
    refused = seccomp.ERRNO(errno.EACCES)
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    rules.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # threads that run already
    unix = seccomp.Arg(0, seccomp.MASKED_EQ, _LOW_32_BITS, socket.AF_UNIX)
    rules.add_rule(refused, "socket", unix)
    datagrams = seccomp.Arg(1, seccomp.MASKED_EQ, _SOCK_TYPE_MASK, socket.SOCK_DGRAM)
    rules.add_rule(refused, "socketpair", datagrams)  # they can be connected elsewhere
    rules.add_rule(refused, "io_uring_setup")  # it opens sockets past the filter
    try:
        rules.load()
    except RuntimeError as err:  # from libseccomp's error codes
        raise OSError(errno.ENOSYS, f"no seccomp filter: {err}") from err
