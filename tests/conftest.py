# SPDX-License-Identifier: Apache-2.0
"""Tests need root: they count real packets, and a skipped test proves nothing."""

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from agent.kernel.probes import Probes
from agent.snapshot.model import Hook

# How long an example takes is the machine's affair.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


def pytest_sessionstart() -> None:
    if os.geteuid():
        pytest.exit("the tests need root: use `make test`", returncode=1)
    # A shell starts what it runs in the background deaf to Ctrl-C, and so would be
    # all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def probes() -> Iterator[Probes]:
    with Probes.load(list(Hook)) as loaded:
        assert loaded.failures == {}
        yield loaded


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Once more, where a test fails and the kernel could not record an skb meanwhile:
    that is told, and then nothing can be exact. Only the suite as a whole makes so many
    rows that a new one, for which there is no memory, finds no room on the fast lane.
    """
    probes = pyfuncitem.funcargs.get("probes")
    if not isinstance(probes, Probes):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in wanted}
    before = _lost(probes)
    try:
        pyfuncitem.obj(**given)
    except Exception:
        lost = _lost(probes) - before
        if not lost:
            raise
        told = f"not recorded: {dict(lost)}; once more"
        pyfuncitem.add_report_section("call", "probes", told)
        pyfuncitem.obj(**given)
    return True


def _lost(probes: Probes) -> Counter[str]:
    """Skbs that another moment would have recorded, by reason."""
    unrecorded = probes.read().unrecorded
    reasons = ("no_memory", "busy", "recursion")
    return Counter({reason: unrecorded[reason] for reason in reasons})
