# SPDX-License-Identifier: Apache-2.0
"""Pictures as an agent serves them, an agent that does, and a feed for screens."""

import contextlib
import http.server
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from agent.snapshot.cilium import CiliumAgent, DaemonConfig
from agent.snapshot.sample import Sample
from agent.snapshot.schema import SCHEMA
from agent.views.top.feed import Missed, Seen, Told
from tests.process import free_port, serving

KIB = 1024
EDGES = [
    *(128, 512, 1500, 4096, 9000, 16384, 32768, 49152, 65536, 81920, 98304),
    *(131072, 163840, 196608, 262144, 524288),
]
BEGAN = 1_764_041_000.0
TX, RX, QUEUE = "net_dev_start_xmit", "netif_receive_skb", "net_dev_queue"


@dataclass
class Flow:
    """A row that counts `acks` skbs of 52 bytes, `small` of 1,000 and `big` of 80,000
    a second.
    """

    device: str
    hook: str = TX
    family: str = "ipv4"
    small: int = 0
    big: int = 0
    scope: str = "node"
    ifindex: int = 2
    cookie: int = 7
    peer: int | None = None
    limit: int = 192 * KIB
    acks: int = 0

    def row(self, seconds: float) -> dict[str, Any]:
        acks, small, big = (
            int(count * seconds) for count in (self.acks, self.small, self.big)
        )
        slots = [0] * (len(EDGES) + 1)
        slots[EDGES.index(1500)], slots[EDGES.index(81920)] = small, big
        slots[EDGES.index(128)] = acks
        return {
            "device": self.device,
            "kind": "veth",
            "netns": 4026530000 + self.cookie,
            "cookie": self.cookie,
            "ifindex": self.ifindex,
            "peer": self.peer,
            "scope": self.scope,
            "hook": self.hook,
            "ip_family": self.family,
            "slots": slots,
            "bytes": 52 * acks + 1000 * small + 80_000 * big,
            "big_bytes": 80_000 * big,
            "segments": acks + small + 56 * big,
            "longest": 80_000 if big else 1000 if small else 52 if acks else 0,
            "limit": self.limit,
        }


FINDING = {
    "id": "C09",
    "severity": "critical",
    "families": ["ipv4"],
    "seen": "uplink cuts packets in software; ipv4: 4,614 packets queued above 64 KiB, "
    "0 left whole, limit 65,536 bytes",
    "why": "it is slower than BIG TCP off",
    "remedy": "raise gso_max_size and gso_ipv4_max_size of uplink to 196608",
    "subjects": ["uplink"],
}


def flows() -> list[Flow]:
    """A node with an uplink, two pods and another node on the same kernel."""
    return [
        Flow("eth0", big=12_000, small=9_000),
        Flow("eth0", RX, big=11_000, small=12_000),
        Flow("eth0", family="ipv6", big=400),
        Flow("uplink", ifindex=3, small=700_000, limit=64 * KIB),
        Flow("uplink", QUEUE, ifindex=3, big=4_614, limit=64 * KIB),
        Flow("eth0", scope="pods", cookie=20, ifindex=8, peer=9, big=5_000),
        Flow("eth0", RX, scope="pods", cookie=20, ifindex=8, peer=9, small=800),
        Flow("eth0", scope="pods", cookie=21, ifindex=10, peer=11, small=50),
        Flow("eth1", RX, scope="other", cookie=30, big=10),
        Flow("eth2", RX, scope="other", cookie=31, big=20),
        Flow("dummy0", ifindex=5),
    ]


CILIUM = {
    **dict.fromkeys((each.name for each in fields(CiliumAgent)), ""),
    "read": BEGAN,
    "version": "1.20.2",
    "big_tcp": {"ipv4": {"max_gso": 196608}, "ipv6": {"max_gso": 196608}},
    "pod_sizes": {},
    "devices": [],
    "device_mtu": 1500,
    "config": asdict(DaemonConfig({}, "", "", None, None, None, None)),
}
PODS = {9: "shop/web-6f7c9d4b8-x2x7p", 11: "monitoring/prometheus-0"}


def picture(
    seconds: float, rows: list[Flow], started: float = BEGAN, **more: object
) -> dict[str, Any]:
    """What an agent that was `started` serves after so many seconds."""
    families = {
        "ipv4": ("segmented", "cut in software at uplink", 0.97),
        "ipv6": ("active", "packets above 64 KiB cross this node", 1.0),
    }
    return {
        "schema": SCHEMA,
        "version": "0",
        "taken": started + seconds,
        "started": started,
        "uptime": seconds,
        "node": "node1",
        "kernel": "6.18.44",
        "families": {
            name: {
                "configured": True,
                "enabled": True,
                "state": state,
                "reason": reason,
                "bytes": 1000,
                "big_bytes": int(1000 * share),
            }
            for name, (state, reason, share) in families.items()
        },
        "findings": [FINDING],
        "cilium": CILIUM,
        "devices": [],
        "pods": [
            {"name": name, "interface": f"lxc{at}", "ifindex": at}
            for at, name in PODS.items()
        ],
        "recent": {"seconds": 30.0, "ip6_too_big": 0, "rows": []},
        "sources": {},
        "attached": dict.fromkeys((TX, RX, QUEUE), True),
        "unrecorded": {},
        "edges": EDGES,
        "counters": [row.row(seconds) for row in rows],
        **more,
    }


@dataclass
class FakeFeed:
    """A feed that a test holds in its hand."""

    who: str = "the agent at http://127.0.0.1:19715"
    replay: bool = False
    paused: bool = False
    pace: str = "every 1 s"
    notice: str = ""
    patience: float = 3.0
    asked: list[str] = field(default_factory=list)
    rows: list[Flow] = field(default_factory=flows)
    seconds: float = 0.0

    def start(self, tell: Callable[[Told], object]) -> None:
        self.tell = tell

    def stop(self) -> None:
        self.asked.append("stop")

    def pause(self) -> None:
        self.paused = not self.paused

    def faster(self, step: int) -> None:
        self.asked.append(f"faster {step}")

    def seek(self, step: int | None, *, end: bool = False) -> None:
        self.asked.append(f"seek {step} {end}")

    def sample(self, seconds: float = 1.0, **more: Any) -> Sample:
        """The next one, so many seconds later."""
        self.seconds += seconds
        return Sample.of(picture(self.seconds, self.rows, **more))

    def go(self, seconds: float = 1.0, **more: Any) -> None:
        self.tell(Seen((self.sample(seconds, **more),)))

    def miss(self, error: Missed) -> None:
        self.tell(error)


class FakeAgent:
    """Serves /api/snapshot over HTTP; `answer` may be changed while it runs."""

    def __init__(self, answer: Callable[[], dict[str, Any]], port: int = 0) -> None:
        self.answer = answer
        self.asked = 0
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(agent.answer()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                agent.asked += 1

            def log_message(self, format: str, *args: object) -> None:
                pass

        address = ("127.0.0.1", self.port)
        with serving(http.server.ThreadingHTTPServer(address, Handler)):
            yield


@contextlib.contextmanager
def second_by_second() -> Iterator[str]:
    """The address of an agent on which a second passes from answer to answer."""
    asked = 0

    def answer() -> dict[str, object]:
        nonlocal asked
        asked += 1
        return picture(asked, flows())

    fake = FakeAgent(answer)
    with fake.serving():
        yield fake.url
