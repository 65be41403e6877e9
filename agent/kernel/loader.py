# SPDX-License-Identifier: Apache-2.0
"""Compile, load and attach in a child process; keep only file descriptors.

LLVM stays in a process for ever (123 MB), so it runs in a child: `python -m
agent.kernel.loader` compiles with BCC, loads and attaches with libbpf, sends
the fds over a socket and ends. What BCC and clang print on the way becomes the
detail of the one error. Nothing is pinned: the programs live exactly as long
as somebody holds their fds.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent.errors import KernelError
from agent.kernel import libbpf
from agent.kernel.contract import bpf_directory
from agent.kernel.layout import layout

MAX_ROWS = 16384
DEVICE_MAPS = ("devices", "foreign_devices", "foreign_big_devices")
_MAPS = ("lengths", "recent", *DEVICE_MAPS, "unrecorded")
_POD_MAP = "pod_addresses"  # there with PER_POD only
_DETAIL_LINES = 25
# 0.5 s of one CPU; where an agent gets the hundredth part of one, 76 s were measured.
# The chart's startup probe waits twice as long: the rest of a start takes as much.
PATIENCE_SECONDS = 200.0
_HEARING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the child has left behind: fds, and how to read the maps' bytes.

    `formats` maps a map's name to the numpy formats of its key and leaf, as
    BCC describes the C structs, `limits` to how many entries it has room for.
    `failed` says of hooks that could not be attached why not. `pods_of` is what was
    asked for.
    """

    maps: dict[str, int]
    programs: dict[str, int]
    links: dict[str, int]
    failed: dict[str, KernelError]
    formats: dict[str, tuple[Any, Any]]
    limits: dict[str, int]
    pods_of: int | None
    begun: float
    marks: dict[str, float]

    def close(self) -> None:
        """Detach and free: the last holder of these fds lets go of them."""
        for fd in (*self.links.values(), *self.programs.values(), *self.maps.values()):
            os.close(fd)


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """What Python does on a signal, it does when this is over: it may raise, and then
    nobody would know of a child that has been started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # that one alone does it
        return
    came: list[int] = []
    with contextlib.ExitStack() as stack:  # it goes on where one of them raises
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                stack.callback(_again, number, came)
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: came.append(number))
        yield


def _again(number: int, came: Sequence[int]) -> None:
    if number in came:
        signal.raise_signal(number)


class Loader:
    """A child to be. Start it early: it needs 0.2 s of its own.

    Register close() before you call start(): a signal may raise in there.
    """

    def __init__(
        self,
        hooks: Sequence[str],
        *,
        own_netns: int | None = None,
        pods_of: int | None = None,
        **defines: int,
    ) -> None:
        """`own_netns`: the net_cookie of the agent's namespace; the devices of others
        then have a limited share of the rows. None: all devices are alike. `pods_of`:
        the same, and its pods are counted each by itself. `defines`: what skb_length.c
        lets be defined, MAX_ROWS, IDLE_JIFFIES, MAX_POD_ADDRESSES,
        MAX_FOREIGN_DEVICES, MAX_FOREIGN_BIG_DEVICES.
        """
        self._begun = time.monotonic()
        self._socket, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pods_of = pods_of
        # A file, not a pipe: nobody reads while clang may fill it.
        self._output = os.fdopen(os.memfd_create("loader"), "w+b")
        defines = {"MAX_ROWS": MAX_ROWS} | defines
        if pods_of is not None:
            own_netns = pods_of
            defines["PER_POD"] = 1
        if own_netns is not None:
            defines["OWN_NETNS"] = own_netns
        self._request = json.dumps({"hooks": list(hooks), "defines": defines})
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Fork it; it works on its own from here."""
        # -P: a bcc.py in the working directory must not become our compiler;
        # so the child is told where this package stands.
        root = Path(__file__).resolve().parents[2]
        path = f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        fd = self._its.fileno()
        with _signals_later(), self._its:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(fd), self._request],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=(fd,),
                # Ctrl-C is for us; we end it then, and do not blame it.
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
            )

    def finish(self) -> Loaded:
        """Wait for the fds; KernelError with the child's own reason otherwise."""
        try:
            return self._receive()
        finally:
            self.close()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._socket.close()
        self._its.close()
        if self._child:
            self._child.kill()
            self._child.wait()
        self._output.close()

    def _receive(self) -> Loaded:
        fds: list[int] = []
        try:
            text = b""
            while not text.endswith(b"\n"):
                self._wait()
                part, more, _, _ = socket.recv_fds(self._socket, 1 << 16, 64)
                fds += more
                for fd in more:  # for us alone
                    os.set_inheritable(fd, False)
                if not part:
                    raise self._died()
                text += part
            answer = json.loads(text)
            if "error" in answer:
                message, hint, detail = answer["error"]
                raise KernelError(message, hint, detail or self._said())
            names = answer["fds"]
            if len(fds) != len(names):  # the kernel drops what finds no place
                raise KernelError(
                    "too few file descriptors for the BPF maps and programs",
                    "raise `ulimit -n` to 64 or more",
                )
            found = dict(zip(names, fds, strict=True))
        except TimeoutError as err:
            _close_all(fds)
            raise KernelError(
                f"the loader gave no answer in {PATIENCE_SECONDS:.0f} s",
                "see what the machine is busy with, then try again",
                self._said(),
            ) from err
        except BaseException:
            _close_all(fds)
            raise

        def of(kind: str) -> dict[str, int]:
            return {
                name.removeprefix(kind): fd
                for name, fd in found.items()
                if name.startswith(kind)
            }

        return Loaded(
            maps=of("map:"),
            programs=of("program:"),
            links=of("link:"),
            failed={
                hook: KernelError(*said) for hook, said in answer["failed"].items()
            },
            formats={name: tuple(pair) for name, pair in answer["formats"].items()},
            pods_of=self._pods_of,
            begun=self._begun,
            limits=answer["limits"],
            marks=answer["marks"],
        )

    def _wait(self) -> None:
        """Until there is something to read; TimeoutError where that takes too long."""
        deadline = self._begun + PATIENCE_SECONDS
        # Again and again: where another thread takes a signal (while we fork, ours are
        # blocked), a main thread that waits does not get to hear of it.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(1000 * _HEARING_SECONDS):
            if time.monotonic() > deadline:
                raise TimeoutError

    def _died(self) -> KernelError:
        assert self._child is not None
        code = self._child.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return KernelError(
            f"the loader, which compiles the BPF program, {how}",
            "it needs 150 MiB for a moment: look for an OOM kill (dmesg, memory "
            "limit of the container), then start again",
            self._said(),
        )

    def _said(self) -> str:
        self._output.seek(0)
        return _last_lines(self._output.read().decode(errors="replace"))


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_DETAIL_LINES:])


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


# ---- in the child ------------------------------------------------------------

# The verifier's words of old and of late: a helper that there is no more.
_LOCKED_DOWN = re.compile(r"(unknown func|cannot use helper) bpf_probe_read_kernel\b")
_LOCKDOWN_HINT = (
    "this kernel is locked down for confidentiality: use Linux 6.2 or newer with the "
    "JIT on, or boot with lockdown=integrity"
)
_REPORT_HINT = "run `bigtcp-agent -v` with the same command and report what it says"
_CAP_HINT = (
    "run as root, or give the container the capabilities BPF and PERFMON "
    "(or privileged: true, where the runtime refuses them)"
)


@contextlib.contextmanager
def _telling(message: str, hint: str) -> Iterator[None]:
    """An OSError inside ends the job, told as `message`: and the kernel's reason."""
    try:
        yield
    except OSError as err:
        detail = _last_lines(getattr(err, "log", ""))
        if err.errno == errno.EPERM:  # whatever we were about to do
            hint = _CAP_HINT
        elif _LOCKED_DOWN.search(detail):
            hint = _LOCKDOWN_HINT
        raise KernelError(
            f"{message}: {err.strerror or err}".lower(), hint, detail
        ) from err


def _bcc() -> Any:
    """BCC's Python module, told apart from PyPI's package of the same name."""
    hint = (
        "apt install python3-bpfcc, and use the distribution's /usr/bin/python3 "
        "(a virtual environment of it needs --system-site-packages)"
    )
    try:
        import bcc
    except (ImportError, OSError) as err:  # OSError: its library, libbcc.so
        raise KernelError(f"BCC cannot be imported: {err}", hint) from err
    if bcc.__file__ is None:  # what an uninstalled package left behind
        raise KernelError("BCC cannot be imported: its folder is empty", hint)
    if not hasattr(bcc, "BPF"):
        raise KernelError(
            "the Python package bcc that is installed is not BCC, but PyPI's "
            "package of the same name",
            f"pip uninstall bcc, then {hint}",
        )
    return bcc


def _compile(btf: libbpf.Btf, defines: dict[str, int], marks: dict[str, float]) -> Any:
    directory = bpf_directory()
    # Before the import: BCC reads it when its library is loaded.
    os.environ["BCC_KERNEL_SOURCE"] = str(directory / "headers")
    text = layout(btf) + '#line 1 "skb_length.c"\n'
    text += (directory / "skb_length.c").read_text()
    marks["btf"] = time.monotonic()
    bcc = _bcc()
    marks["bcc"] = time.monotonic()
    try:
        flags = [f"-D{name}={value}" for name, value in defines.items()]
        return bcc.BPF(text=text, cflags=[f"-I{directory}", *flags])
    except Exception as err:  # BCC raises nothing narrower
        raise KernelError(
            f"BCC cannot compile skb_length.c: {err}",
            _REPORT_HINT,
        ) from err


def _attach(bpf: Any, btf: libbpf.Btf, hook: str) -> tuple[int, int]:
    type_id = btf.find(f"btf_trace_{hook}", libbpf.KIND_TYPEDEF)
    if type_id is None:
        msg = f"this kernel has no tracepoint {hook}"
        raise KernelError(msg, "leave it out of --hooks")
    code = bpf.dump_func(hook.encode())
    with _telling(f"cannot load {hook}", _REPORT_HINT):
        program = libbpf.load_raw_tracepoint(hook, code, type_id)
    with _telling(f"cannot attach {hook}", _CAP_HINT):
        return program, libbpf.attach_raw_tracepoint(program)


def _load(
    hooks: Sequence[str], defines: dict[str, int]
) -> tuple[dict[str, Any], list[int]]:
    marks = {"python": time.monotonic()}
    try:
        libbpf.possible_cpus()
    except OSError as err:
        raise KernelError(
            f"libbpf cannot be loaded: {err}", "apt install libbpf1"
        ) from err
    with _telling(
        "the kernel's types (BTF) cannot be read",
        "use a kernel with CONFIG_DEBUG_INFO_BTF (/sys/kernel/btf/vmlinux), as every "
        "current distribution has",
    ):
        btf = libbpf.Btf.vmlinux()
    # BCC would print the kernel's reason and raise a text without it.
    with _telling("this process may not use BPF", _CAP_HINT):
        os.close(libbpf.create_map())
    bpf = _compile(btf, defines, marks)
    marks["compile"] = time.monotonic()
    maps = (*_MAPS, _POD_MAP) if "PER_POD" in defines else _MAPS
    fds = {f"map:{name}": bpf[name].map_fd for name in maps}
    failed: dict[str, KernelError] = {}
    for hook in hooks:
        try:
            fds[f"program:{hook}"], fds[f"link:{hook}"] = _attach(bpf, btf, hook)
        except KernelError as err:
            failed[hook] = err
    if len(failed) == len(hooks):
        raise next(iter(failed.values()))
    marks["attach"] = time.monotonic()
    formats = {
        # sLeaf is one CPU's share; Leaf of a per-CPU table is that of them all
        name: (_format(table.Key), _format(getattr(table, "sLeaf", table.Leaf)))
        for name in ("lengths", "recent", *DEVICE_MAPS)
        for table in (bpf[name],)
    }
    answer = {
        "fds": list(fds),
        "failed": {hook: _told(err) for hook, err in failed.items()},
        "formats": formats,
        "limits": {name: bpf[name].max_entries for name in formats},
        "marks": marks,
    }
    return answer, list(fds.values())


def _told(error: KernelError) -> tuple[str, str, str]:
    """What the parent needs to raise it again."""
    return error.message, error.hint, error.detail


def _format(ctype: Any) -> Any:
    """A numpy format of what BCC made of a C type, in plain JSON.

    A struct is numpy's dict of fields, an array the pair [format, length].
    """
    if issubclass(ctype, ctypes.Structure):
        names = [field[0] for field in ctype._fields_]
        return {
            "names": names,
            "formats": [_format(field[1]) for field in ctype._fields_],
            "offsets": [getattr(ctype, name).offset for name in names],
            "itemsize": ctypes.sizeof(ctype),
        }
    if issubclass(ctype, ctypes.Array):
        if ctype._type_ is ctypes.c_char:
            return f"S{ctype._length_}"
        return [_format(ctype._type_), ctype._length_]
    return f"u{ctypes.sizeof(ctype)}"  # the contract has unsigned numbers only


def main(argv: Sequence[str]) -> NoReturn:
    """Do what the request on the command line says and send what came of it."""
    with socket.socket(fileno=int(argv[1])) as parent:
        request = json.loads(argv[2])
        fds: list[int] = []
        try:
            answer, fds = _load(request["hooks"], request["defines"])
        except KernelError as err:
            answer = {"error": _told(err)}
        sys.stdout.flush()
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: so are we
            socket.send_fds(parent, [json.dumps(answer).encode() + b"\n"], fds)
    # Not through BCC's atexit handlers: the parent holds the programs now.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
