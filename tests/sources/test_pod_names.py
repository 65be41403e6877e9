# SPDX-License-Identifier: Apache-2.0
"""Whose endpoint it is, as each version of Cilium tells it, or has stored it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.cilium import read_applied, read_stored_endpoints
from agent.snapshot.cilium import Endpoint
from tests.sources.agent import agent, answering, recorded

LABELS = ["k8s:app=p1", "k8s:io.kubernetes.pod.namespace=default"]


def endpoint(
    controllers: tuple[str, ...] = ("resolve-labels-default/p1",),
    labels: list[str] | None = None,
    **networking: Any,
) -> dict[str, Any]:
    """As Cilium 1.20 answers; what we read of it."""
    labels = LABELS if labels is None else labels
    return {
        "id": 345,
        "status": {
            "controllers": [{"name": name} for name in controllers],
            "external-identifiers": {"cni-attachment-id": "0123abcd:eth0"},
            "identity": {"id": 55222, "labels": labels},
            "labels": {"realized": {}, "security-relevant": labels},
            "networking": {
                "addressing": [{"ipv4": "10.244.1.54", "ipv6": "fd00:244:1::d151"}],
                "interface-index": 10,
                "interface-name": "lxc423843f786d5",
                **networking,
            },
            "state": "ready",
        },
    }


def store(folder: Path, **fields: Any) -> Path:
    """An endpoint's file in Cilium's state directory."""
    path = folder / "state" / "345" / "ep_config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        "ID": 345,
        "IfName": "lxc423843f786d5",
        "IfIndex": 10,
        "IPv4": "10.244.1.54",
        "IPv6": "fd00:244:1::d151",
        "K8sPodName": "stored",
        "K8sNamespace": "kube-system",
    }
    path.write_text(json.dumps({**stored, **fields}))
    return path


def read(folder: Path, *endpoints: dict[str, Any]) -> tuple[Endpoint, ...]:
    answers = dict(recorded("1.20.2")["on"])
    answers["/v1/endpoint"] = list(endpoints)
    socket = folder / "cilium.sock"
    with agent(socket, answering(answers)):
        found = read_applied(str(socket), seconds=30)
    assert found
    return found.endpoints


def test_a_controller_names_the_pod(tmp_path: Path) -> None:
    """Cilium 1.20 says it nowhere else in its API."""
    store(tmp_path)
    (pod,) = read(tmp_path, endpoint())
    assert (pod.namespace, pod.pod, pod.is_pod) == ("default", "p1", True)
    assert pod.name == "default/p1"


@pytest.mark.parametrize(
    ("controllers", "labels"),
    [
        (("resolve-labels-default/p1",), ["k8s:app=p1"]),
        (("resolve-labels-other/p1",), LABELS),
        (("resolve-labels-default/p1", "resolve-labels-default/p2"), LABELS),
        (("resolve-labels-default/\x1b[31m",), LABELS),
        ((), LABELS),
    ],
    ids=["no label", "another namespace", "two names", "no name", "none"],
)
def test_a_controller_that_no_label_confirms_is_not_believed(
    controllers: tuple[str, ...], labels: list[str], tmp_path: Path
) -> None:
    """Its name is no API. What Cilium has stored is the next to be asked."""
    unknown = endpoint(controllers, labels)
    (pod,) = read(tmp_path, unknown)
    assert (pod.pod, pod.is_pod, pod.name) == ("", True, "lxc423843f786d5")
    store(tmp_path)
    (pod,) = read(tmp_path, unknown)
    assert (pod.namespace, pod.pod) == ("kube-system", "stored")


@pytest.mark.parametrize("fields", [{"IfIndex": 11}, {"IfName": "lxc0"}], ids=str)
def test_a_file_of_an_endpoint_that_had_the_id_before(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    store(tmp_path, **fields)
    assert [pod.pod for pod in read(tmp_path, endpoint((), []))] == [""]


@pytest.mark.parametrize(
    ("labels", "interface", "is_pod"),
    [
        (["reserved:host"], "cilium_host", False),
        ([], "cilium_host", False),
        (["reserved:health"], "lxc_health", False),
        ([], "lxc_health", False),
        (["reserved:ingress"], "lxc1", False),
        (["reserved:init"], "lxc1", True),
        ([], "lxc1", True),
    ],
)
def test_what_is_a_pod(
    labels: list[str], interface: str, is_pod: bool, tmp_path: Path
) -> None:
    (found,) = read(tmp_path, endpoint((), labels, **{"interface-name": interface}))
    assert found.is_pod is is_pod


def test_the_host_without_a_device_is_no_pod(tmp_path: Path) -> None:
    """As Cilium up to 1.19 answers."""
    (found,) = read(tmp_path, endpoint((), [], **{"interface-index": 0}))
    assert not found.is_pod


def test_what_cilium_has_stored(tmp_path: Path) -> None:
    socket = str(tmp_path / "cilium.sock")
    assert read_stored_endpoints(socket) == ()
    path = store(tmp_path)
    (pod,) = read_stored_endpoints(socket)
    assert (pod.id, pod.ifindex, pod.interface) == (345, 10, "lxc423843f786d5")
    assert (pod.name, pod.is_pod) == ("kube-system/stored", True)
    assert pod.addresses == ("10.244.1.54", "fd00:244:1::d151")
    for name in ("345_next_fail", "globals", "99999999999999"):
        (tmp_path / "state" / name).mkdir()
    assert read_stored_endpoints(socket) == (pod,)
    path.rename(path.with_name("ep_config.old"))
    assert read_stored_endpoints(socket) == ()


def _spoil(path: Path, how: str) -> None:
    texts = {
        "cut": "{",
        "list": "[]",
        "text": '{"IfIndex": "ten"}',
        "large": '{"IfIndex": 4294967296, "IfName": "x", "K8sPodName": "x"}',
        "host": '{"IfIndex": 4, "IfName": "cilium_host"}',
        "long": json.dumps({"x": "y" * (1 << 20)}),
    }
    path.unlink()
    if how in texts:
        path.write_text(texts[how])
    elif how == "directory":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(how)


@pytest.mark.parametrize(
    "how",
    [
        *("cut", "list", "text", "large", "host", "long"),
        *("directory", "fifo", "/dev/zero", "/nowhere"),
    ],
)
def test_a_stored_endpoint_that_makes_no_sense(how: str, tmp_path: Path) -> None:
    """It is left out, and nothing waits for it."""
    _spoil(store(tmp_path), how)
    assert read_stored_endpoints(str(tmp_path / "cilium.sock")) == ()
    assert [pod.pod for pod in read(tmp_path, endpoint((), []))] == [""]
