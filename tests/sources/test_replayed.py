# SPDX-License-Identifier: Apache-2.0
"""`check` on a node whose Cilium answers what the agent of each version has answered,
with devices of the recorded names and indexes.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.lab.netns import namespaces
from tests.process import COMMAND
from tests.sources.agent import VERSIONS, agent, answering, recorded

BIG, LEGACY = 196608, 65536


def devices(answers: dict[str, Any]) -> list[tuple[int, str]]:
    """Index and name of the host side of every pod."""
    found = (each["status"]["networking"] for each in answers["/v1/endpoint"])
    return [
        (each["interface-index"], each["interface-name"])
        for each in found
        if each.get("interface-name", "").startswith("lxc")
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_that_were_not_restarted(version: str, tmp_path: Path) -> None:
    """BIG TCP is on, the uplink is raised; the pods are at 64 KiB."""
    answers = recorded(version)["on-old-pods"]
    pods = devices(answers)
    assert len(pods) == 2
    with namespaces("node", "pods") as (node, inside):
        for number, (index, name) in enumerate(pods):
            node.ip(
                f"link add {name} index {index} type veth peer name eth{number} "
                f"netns {inside.holder.pid}",
                f"link set {name} up",
            )
            node.set_sizes(name, LEGACY)
            inside.set_sizes(f"eth{number}", LEGACY)
        node.ip(
            "link add eth0 type veth peer name peer",
            "addr add 198.18.77.11/24 dev eth0",
            "link set eth0 up",
            "link set peer up",
        )
        node.set_sizes("eth0", BIG)
        socket = tmp_path / "cilium.sock"
        with agent(socket, answering(answers)):
            done = subprocess.run(
                node.command(
                    *(COMMAND, "check", "--seconds", "0.5", "-o", "json"),
                    *("--cilium-socket", str(socket)),
                ),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stdout)
    states = {family: each["state"] for family, each in told["families"].items()}
    assert states == {"ipv4": "partial", "ipv6": "partial"}
    (finding,) = told["findings"]
    assert finding["id"] == "C06"
    assert finding["subjects"] == ["default/p1", "default/p2"]
    assert [pod["name"] for pod in told["pods"]] == finding["subjects"]
