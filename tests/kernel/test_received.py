# SPDX-License-Identifier: Apache-2.0
"""Rows of dead pods, a part of which may stay on the fast lane."""

from agent.kernel.pods import Received
from agent.snapshot.model import Family
from tests.snapshot.fakes import lengths

KEY = (5, Family.IPV4)


def test_a_pod_that_lives_again_begins_at_zero() -> None:
    received = Received()
    assert received.split({KEY: lengths(100)}, {5}) == ({KEY: lengths(100)}, [])
    assert received.split({KEY: lengths(100)}, set()) == ({}, [KEY])
    received.deleted(KEY, lengths(40))  # stands on the fast lane
    assert received.split({KEY: lengths(40)}, {5}) == ({}, [])
    assert received.split({KEY: lengths(43)}, {5}) == ({KEY: lengths(3)}, [])


def test_what_could_not_be_deleted_is_tried_again() -> None:
    received = Received()
    for _ in range(2):
        assert received.split({KEY: lengths(100)}, set()) == ({}, [KEY])
    received.deleted(KEY, lengths(40))
    assert received.split({KEY: lengths(40)}, set()) == ({}, [KEY])
    received.deleted(KEY, None)
    assert received.split({KEY: lengths(1)}, {5}) == ({KEY: lengths(1)}, [])
