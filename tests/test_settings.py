# SPDX-License-Identifier: Apache-2.0
"""Values of flags become what they mean, or one sentence."""

import pytest

from agent.errors import BadValueError
from agent.settings import Server, parse_messages


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
