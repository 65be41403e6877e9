# SPDX-License-Identifier: Apache-2.0
"""A dump that changed while it was read is asked for again; a fake kernel answers."""

import struct

import pytest

from agent.kernel.links import Rtnetlink

DONE, MULTI, CHANGED = 3, 0x2, 0x10
HEADER = struct.Struct("=IHHII")


class FakeKernel:
    """A netlink socket. A dump has no link, and `changed` says at its end whether it
    is of one moment, as the kernel does for a list that is in one message.
    """

    def __init__(self, *changed: bool) -> None:
        self.changed = list(changed)
        self.sequence = 0

    def send(self, request: bytes) -> None:
        _, _, _, self.sequence, _ = HEADER.unpack_from(request)

    def recv(self, _: int) -> bytes:
        flags = MULTI | (CHANGED if self.changed.pop(0) else 0)
        return HEADER.pack(20, DONE, flags, self.sequence, 0) + bytes(4)


def links_of(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> int:
    rtnetlink = Rtnetlink()
    rtnetlink.close()
    monkeypatch.setattr(rtnetlink, "_socket", kernel)
    return len(rtnetlink.links())


def test_it_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel(True, True, False, False)  # links thrice, addresses once
    assert links_of(kernel, monkeypatch) == 0
    assert not kernel.changed


def test_one_that_never_stands_still_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is missing in it would look gone."""
    with pytest.raises(InterruptedError):
        links_of(FakeKernel(*[True] * 10), monkeypatch)
