# SPDX-License-Identifier: Apache-2.0
"""Values of flags become what they mean, or one sentence."""

from pathlib import Path

import pytest
import yaml

from agent.errors import BadValueError
from agent.settings import (
    DEFAULT_HOOKS,
    DEFAULT_INTERFACES,
    DEFAULT_MAX_INTERFACES,
    Interfaces,
    Server,
    parse_messages,
)
from agent.snapshot.naming import Naming
from tests.snapshot.fakes import link

VALUES = Path(__file__).parent.parent / "charts/bigtcp-agent/values.yaml"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("netserver", "netserver", 12865),
        ("netperf-server.lab.svc:9", "netperf-server.lab.svc", 9),
        ("192.0.2.2:65535", "192.0.2.2", 65535),
        ("2001:db8::2", "2001:db8::2", 12865),
        ("[2001:db8::2]", "2001:db8::2", 12865),
        ("[2001:db8::2]:7", "2001:db8::2", 7),
        ("fe80::1%eth0", "fe80::1%eth0", 12865),
        ("::ffff:192.0.2.2", "::ffff:192.0.2.2", 12865),
    ],
)
def test_servers(text: str, host: str, port: int) -> None:
    server = Server.parse(text, 12865)
    assert server == Server(host, port)
    assert Server.parse(str(server), 1) == server


@pytest.mark.parametrize(
    "text", ["", ":1", "a:0", "a:65536", "a:b", "a b", "[a]", "[::1", "-H:x", "a/b"]
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(BadValueError, match="is no server"):
        Server.parse(text, 12865)


def test_messages() -> None:
    assert parse_messages("80000:1") == (80000, 1)
    for text in ("80000", "1:0", "-1:1", "1:1:1", "1,1", "1:99999999", "", "1:1 "):
        with pytest.raises(BadValueError, match="is no pair of sizes"):
            parse_messages(text)


def test_what_comes_and_goes_takes_no_place() -> None:
    """A name keeps its place until the agent ends, so hosts of virtual machines,
    too, have to have some left.
    """
    named = Interfaces.parse(DEFAULT_INTERFACES, DEFAULT_MAX_INTERFACES)
    naming = Naming(named.wants, named.most)
    names = ("lxc1", "veth2", "cali3", "eni4", "vnet5", "tap6", "eth0", "bond0")
    naming.see(link(2 + at, name) for at, name in enumerate(names))
    assert naming.shown == {"eth0", "bond0"}


def test_the_chart_has_the_same_defaults() -> None:
    agent = yaml.safe_load(VALUES.read_text())["agent"]
    assert ",".join(agent["interfaces"]) == DEFAULT_INTERFACES
    assert ",".join(agent["hooks"]) == DEFAULT_HOOKS
    assert agent["maxInterfaces"] == DEFAULT_MAX_INTERFACES
