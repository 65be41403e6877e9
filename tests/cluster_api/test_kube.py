# SPDX-License-Identifier: Apache-2.0
"""A real API server, with the agent's rights: what changes there is seen in 2 s."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.api import Json
from agent.cluster.kube import Kube, connect
from agent.cluster.wanted import Cluster
from agent.lab.netns import wait_until
from agent.snapshot.cilium import ClusterState, Pod, Wanted
from tests.chart import helm
from tests.cluster_api.manifests import NODE_CONFIGS, definition, node_config, pod
from tests.cluster_api.server import ApiServer

SOON = 2.0
BIG4 = "enable-ipv4-big-tcp"


@contextlib.contextmanager
def following(
    server: ApiServer, user: str = "agent", **more: Any
) -> Iterator[Callable[[], ClusterState]]:
    kubeconfig = str(server.kubeconfig(user))
    connected = more.pop("connect", lambda: connect(kubeconfig))
    with Cluster(connected, "n1", **more) as cluster:
        yield cluster.state


_took: list[tuple[float, str]] = []  # seconds until each change was seen
_late: set[str] = set()  # of the servers before


@pytest.fixture(scope="module", autouse=True)
def _seen_soon(server: ApiServer) -> Iterator[None]:
    """All changes but one, and not the same one: a machine may stop for a moment."""
    assert server
    _took.clear()
    yield
    late = [what for seconds, what in _took if seconds > SOON]
    assert len(late) <= 1, sorted(_took)
    assert not _late.intersection(late), late
    _late.update(late)


@pytest.fixture(autouse=True)
def _clean(server: ApiServer) -> None:
    for kind in ("configmap cilium-config -n kube-system", "pod --all", "node --all"):
        server.kubectl(f"delete {kind} --ignore-not-found --force --grace-period=0")


def create(server: ApiServer, **values: str) -> None:
    data = [f"--from-literal={key.replace('_', '-')}={v}" for key, v in values.items()]
    server.kubectl("create configmap cilium-config -n kube-system", *data)


def patch(server: ApiServer, **values: str) -> None:
    data = {key.replace("_", "-"): value for key, value in values.items()}
    server.kubectl(
        "patch configmap cilium-config -n kube-system --patch",
        json.dumps({"data": data}),
    )


def listed(
    state: Callable[[], ClusterState], condition: Callable[[Wanted], bool], what: str
) -> Wanted:
    """What is wanted, once the condition holds for it."""

    def met() -> Wanted | None:
        wanted = state().wanted
        return wanted if wanted and condition(wanted) else None

    found = wait_until(met, what)
    assert found
    return found


@contextlib.contextmanager
def timed(what: str) -> Iterator[str]:
    """A change that is waited for."""
    begun = time.monotonic()
    yield what
    _took.append((time.monotonic() - begun, what))


def soon(
    state: Callable[[], ClusterState], condition: Callable[[Wanted], bool], what: str
) -> Wanted:
    """The same, after a change."""
    with timed(what):
        return listed(state, condition, what)


def test_created_patched_deleted_recreated(server: ApiServer) -> None:
    with following(server) as state:
        wanted = listed(state, lambda w: not w.found, "the first list")
        assert wanted.changed is None
        create(server, enable_ipv4_big_tcp="false")
        soon(state, lambda w: w.values == {BIG4: "false"}, "the ConfigMap")
        before = time.time()
        patch(server, enable_ipv4_big_tcp="true")
        wanted = soon(state, lambda w: w.flag(BIG4), "the patch")
        assert wanted.changed
        assert before <= wanted.changed <= time.time()
        patch(server, debug="true")
        server.kubectl("delete configmap cilium-config -n kube-system")
        soon(state, lambda w: not w.found and not w.values, "the deletion")
        create(server, enable_ipv4_big_tcp="true")
        soon(state, lambda w: w.flag(BIG4), "the new ConfigMap")
        assert state().sources["configmap"].up
        assert state().sources["configmap"].errors == 0


def test_from_inside_a_pod(server: ApiServer, tmp_path: Path) -> None:
    create(server, enable_ipv4_big_tcp="true")
    certificate = (server.folder / "certs" / "apiserver.crt").read_text()
    (tmp_path / "ca.crt").write_text(certificate)
    (tmp_path / "token").write_text("agent-token")
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    account = str(tmp_path)
    with following(server, connect=lambda: connect("", environ, account)) as state:
        listed(state, lambda w: w.flag(BIG4), "the first list")


def test_other_config_maps_are_none_of_ours(server: ApiServer) -> None:
    """The Role names one ConfigMap; a request for all would be refused."""
    create(server, enable_ipv4_big_tcp="true")
    with following(server) as state:
        listed(state, lambda w: w.flag(BIG4), "the first list")
    with following(server, config_map="other") as state:
        wait_until(lambda: state().sources["configmap"].errors, "the refusal")
        problem = state().problems["configmap"]
    assert "403" in problem
    assert "configmaps is forbidden" in problem or '"other" is forbidden' in problem


def test_killed_and_restarted(server: ApiServer) -> None:
    create(server, enable_ipv4_big_tcp="false")
    with following(server, pods=True) as state:
        listed(state, lambda w: w.found, "the first list")
        server.kill()
        with timed("the loss") as what:
            wait_until(lambda: not state().sources["configmap"].up, what)
        down = state()
        assert down.wanted
        assert down.wanted.values == {BIG4: "false"}
        assert "no API server at https://127.0.0.1:" in down.problems["configmap"]
        server.serve()
        wait_until(
            lambda: all(state().sources[name].up for name in ("configmap", "pods")),
            "the agent to be back",
        )
        patch(server, enable_ipv4_big_tcp="true")
        soon(state, lambda w: w.flag(BIG4), "the patch")


class Forgetful:
    """Watches from a version that etcd has compacted, once."""

    def __init__(self, api: Kube, server: ApiServer) -> None:
        self._api = api
        self._server = server
        self.close = api.close
        self.get = api.get
        self.tried: list[str] = []

    @contextlib.contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> Iterator[Iterator[Json]]:
        asked = dict(query)
        if not self.tried:
            asked["resourceVersion"] = "1"
            self._server.compact()
        self.tried.append(asked["resourceVersion"])
        with self._api.watch(path, asked, seconds) as events:
            yield events


def test_expired_by_compaction(server: ApiServer) -> None:
    create(server, enable_ipv4_big_tcp="false")
    api = connect(str(server.kubeconfig("agent")))
    assert api
    forgetful = Forgetful(api, server)
    with Cluster(lambda: forgetful, "") as cluster:
        wait_until(lambda: len(forgetful.tried) > 1, "a second watch")
        assert cluster.state().sources["configmap"].errors == 0
        patch(server, enable_ipv4_big_tcp="true")
        soon(cluster.state, lambda w: w.flag(BIG4), "the patch")


@pytest.mark.parametrize("user", ["stranger", "nobody"])
def test_without_rights(user: str, server: ApiServer) -> None:
    with following(server, user, pods=True) as state:
        wait_until(
            lambda: all(state().sources[name].errors for name in ("configmap", "pods")),
            "the refusals",
        )
        found = state()
    code = "403" if user == "stranger" else "401"
    assert found.wanted is None
    path = "/api/v1/namespaces/kube-system/configmaps"
    refusal = f"the API server refuses {path} ({code}): "
    assert found.problems["configmap"].startswith(refusal)
    assert f"({code})" in found.problems["pods"]


def test_node_configs(server: ApiServer) -> None:
    """The kind is installed while we run, which is noticed at the next start."""
    create(server, enable_ipv4_big_tcp="false", mtu="1500")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    server.kubectl("create -f -", manifest=node)
    server.kubectl("label node n1 zone=a")
    with following(server) as state:
        wait_until(lambda: "404" in state().problems.get("nodeconfigs", ""), "absence")
        assert state().sources["nodeconfigs"].errors == 0
    server.kubectl("apply -f -", manifest=definition())
    server.kubectl(f"wait --for=condition=Established crd/{NODE_CONFIGS} --timeout=60s")

    def served() -> bool:
        """Its handler hears of it a moment later."""
        with contextlib.suppress(AssertionError):
            server.kubectl(f"get {NODE_CONFIGS} -n kube-system")
            return True
        return False

    wait_until(served, "the kind")
    with following(server) as state:
        wait_until(lambda: state().sources["nodeconfigs"].up, "node configs")
        selector = {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}
        server.kubectl(
            "create -f -", manifest=node_config("b", selector, {BIG4: "true"})
        )
        wanted = soon(state, lambda w: w.flag(BIG4), "the node config")
        assert wanted.overridden == {BIG4: "b"}
        assert wanted.values["mtu"] == "1500"
        assert wanted.changed
        server.kubectl(f"delete {NODE_CONFIGS} b -n kube-system")
        soon(state, lambda w: not w.flag(BIG4), "the deletion")
    server.kubectl(f"delete crd {NODE_CONFIGS}")


def test_pods_of_this_node(server: ApiServer) -> None:
    for name, node in (("mine", "n1"), ("theirs", "n2")):
        server.kubectl("create -f -", manifest=pod(name, node))
    with following(server, pods=True) as state:
        wait_until(lambda: state().pods, "the pods")
        status = {
            "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
            "podIP": "10.0.0.7",
            "startTime": "2026-01-02T03:04:05Z",
        }
        server.kubectl(
            "patch pod mine --subresource=status --patch",
            json.dumps({"status": status}),
        )
        mine = Pod("default", "mine", ("10.0.0.7", "fd00::7"), False, 1767323045.0)
        with timed("the addresses") as what:
            wait_until(lambda: state().pods == (mine,), what)
        server.kubectl("delete pod mine --force --grace-period=0")
        with timed("the end of the pod") as what:
            wait_until(lambda: state().pods == (), what)
        assert state().sources["pods"].errors == 0  # or it was listed, not watched


def test_the_pod_of_cilium_by_the_opt_in_role(server: ApiServer) -> None:
    """kubernetes.ciliumPod is all that it takes: without it 403, with it the last end
    of the agent's container, as a kubelet writes it; not other pods, nor other nodes.
    """
    rights = ("--show-only=templates/rbac.yaml", "--set=kubernetes.ciliumPod=true")
    role = helm.one(helm.template(*rights, "--set=fullnameOverride=reader"), "Role")
    label = {"k8s-app": "cilium"}
    for name, node, labels in (
        ("cilium-n1", "n1", label),
        ("cilium-n2", "n2", label),
        ("other", "n1", {}),
    ):
        metadata = {"name": name, "namespace": "kube-system", "labels": labels}
        server.kubectl("create -f -", manifest=pod(name, node) | {"metadata": metadata})
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": "level=fatal msg=no",
        "finishedAt": "2026-11-30T04:01:00Z",
    }
    container = {
        "name": "cilium-agent",
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": ended},
    }
    status = json.dumps({"status": {"containerStatuses": [container]}})
    patching = "patch pod cilium-n1 -n kube-system --subresource=status --patch"
    server.kubectl(patching, status)
    try:
        with following(server, "stranger", cilium_pods=True) as state:
            wait_until(lambda: "403" in state().problems["cilium_pods"], "a refusal")
            server.kubectl("create -f -", manifest=role)
            name = role["metadata"]["name"]
            server.kubectl(
                f"create rolebinding {name} -n kube-system",
                *(f"--role={name}", "--user=stranger"),
            )
            pods = wait_until(lambda: state().cilium_pods, "Cilium's pod")
            assert pods
            (found,) = pods
    finally:
        server.kubectl("delete pod --all -n kube-system --force --grace-period=0")
        server.kubectl(
            "delete role,rolebinding reader -n kube-system --ignore-not-found"
        )
    assert (found.name, found.waiting, found.restarts) == (
        "cilium-n1",
        "CrashLoopBackOff",
        3,
    )
    assert (found.exit_code, found.message) == (1, "level=fatal msg=no")
