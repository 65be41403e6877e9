# SPDX-License-Identifier: Apache-2.0
"""What Helm makes of the chart: every ci values file, by both Helms, and its README."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from agent import __version__, settings
from tests.chart import helm
from tests.cluster.cluster import CACHE

BY_NAME = {path.name.removesuffix("-values.yaml"): path for path in helm.VALUES}


@pytest.mark.parametrize("version", helm.VERSIONS)
@pytest.mark.parametrize("name", [None, *BY_NAME])
def test_lint(name: str | None, version: str) -> None:
    flags = [f"--values={BY_NAME[name]}"] if name else []
    done = helm.lint(*flags, version=version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("name", BY_NAME)
def test_both_helms_make_the_same(name: str) -> None:
    flag = f"--values={BY_NAME[name]}"
    ours = [helm.template(flag, version=version) for version in helm.VERSIONS]
    assert ours[0] == ours[1]
    assert len(ours[0]) > 2


def test_chart_and_agent_are_of_one_version() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_the_readme_is_what_helm_docs_writes(tmp_path: Path) -> None:
    copy = tmp_path / "bigtcp-agent"
    copy.mkdir()
    for name in ("Chart.yaml", "values.yaml", "README.md.gotmpl"):
        (copy / name).write_bytes((helm.CHART / name).read_bytes())
    subprocess.run(
        [CACHE / "bin/helm-docs", "--sort-values-order=file", "--log-level=warn"],
        cwd=copy,
        check=True,
    )
    written = (copy / "README.md").read_text()
    assert (helm.CHART / "README.md").read_text() == written, "run `make chart-docs`"


def test_what_is_said_twice_is_the_same() -> None:
    """Values and the agent's own defaults; in the environment of a pod."""
    said = helm.environment(helm.one(helm.template(), "DaemonSet"))
    assert said == {
        "BIGTCP_LISTEN": settings.DEFAULT_LISTEN,
        "BIGTCP_HOOKS": settings.DEFAULT_HOOKS,
        "BIGTCP_INTERFACES": settings.DEFAULT_INTERFACES,
        "BIGTCP_MAX_INTERFACES": str(settings.DEFAULT_MAX_INTERFACES),
        "BIGTCP_MAX_PODS": "0",
        "BIGTCP_LOG_FORMAT": "auto",
        "BIGTCP_CILIUM_SOCKET": settings.CILIUM_SOCKET,
        "BIGTCP_CILIUM_NAMESPACE": "kube-system",
        "BIGTCP_CILIUM_CONFIG_MAP": "cilium-config",
    }


def test_what_looks_like_a_number_stays_text() -> None:
    objects = helm.template("--set-string=cilium.namespace=1,cilium.configMap=0x1f")
    said = helm.environment(helm.one(objects, "DaemonSet"))
    assert said["BIGTCP_CILIUM_NAMESPACE"] == "1"
    assert said["BIGTCP_CILIUM_CONFIG_MAP"] == "0x1f"
    role = helm.one(objects, "Role")
    assert role["metadata"]["namespace"] == "1"
    assert role["rules"][0]["resourceNames"] == ["0x1f"]


def test_rights_of_the_container() -> None:
    daemon = helm.one(helm.template(), "DaemonSet")
    spec = daemon["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is True
    assert not {"hostPID", "hostIPC"} & set(spec)
    assert helm.container(daemon)["securityContext"] == {
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    mounts = helm.container(daemon)["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts] == ["/var/run/cilium"]
    assert mounts[0]["readOnly"] is True
    privileged = helm.template("--set=securityContext.privileged=true")
    context = helm.container(helm.one(privileged, "DaemonSet"))["securityContext"]
    assert context == {
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
        "privileged": True,
    }


def rules(*flags: str) -> dict[str, list[helm.Object]]:
    objects = helm.template(*flags)
    return {
        each["kind"]: each["rules"]
        for each in objects
        if each["kind"] in ("Role", "ClusterRole")
    }


def test_rbac() -> None:
    role = [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["cilium-config"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["cilium.io"],
            "resources": ["ciliumnodeconfigs"],
            "verbs": ["get", "list", "watch"],
        },
    ]
    node = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    assert rules() == {"Role": role, "ClusterRole": [node]}
    watching = rules("--set=kubernetes.watchPods=true")
    assert watching == {"Role": role, "ClusterRole": [node, pods]}
    listing = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
    asking = rules("--set=kubernetes.ciliumPod=true")
    assert asking == {"Role": [*role, listing], "ClusterRole": [node]}
    assert rules("--set=kubernetes.enabled=false") == {}
    assert rules("--set=rbac.create=false") == {}
    without = helm.template("--set=kubernetes.enabled=false")
    spec = helm.one(without, "DaemonSet")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False


def test_bindings_give_the_roles_to_the_account_of_the_pods() -> None:
    objects = helm.template("--set=serviceAccount.name=me,cilium.namespace=cilium")
    account = {"kind": "ServiceAccount", "name": "me", "namespace": "agents"}
    for kind in ("Role", "ClusterRole"):
        binding = helm.one(objects, f"{kind}Binding")
        assert binding["roleRef"]["name"] == helm.one(objects, kind)["metadata"]["name"]
        assert binding["subjects"] == [account]
    assert helm.one(objects, "Role")["metadata"]["namespace"] == "cilium"
    assert helm.one(objects, "RoleBinding")["metadata"]["namespace"] == "cilium"
    daemon = helm.one(objects, "DaemonSet")
    assert daemon["spec"]["template"]["spec"]["serviceAccountName"] == "me"


def test_single_pods_need_honor_labels() -> None:
    flags = ("--set=serviceMonitor.enabled=true",)
    for most, honours in ((0, False), (128, True)):
        objects = helm.template(*flags, f"--set=agent.maxPods={most}")
        (endpoint,) = helm.one(objects, "ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["honorLabels"] is honours


def test_the_monitor_has_the_node_from_the_endpoint() -> None:
    """Where it tells one, in whichever role of the discovery; else from the pod."""
    objects = helm.template("--set=serviceMonitor.enabled=true")
    (endpoint,) = helm.one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [
        {"sourceLabels": [source], "regex": "(.+)", "targetLabel": "node"}
        for source in (
            "__meta_kubernetes_pod_node_name",
            "__meta_kubernetes_endpoint_node_name",
            "__meta_kubernetes_endpointslice_endpoint_node_name",
        )
    ]


def test_the_monitor_selects_the_services_that_there_are() -> None:
    objects = helm.template(
        "--set=serviceMonitor.enabled=true,netperf.enabled=true", "--set=nameOverride=a"
    )
    monitor = helm.one(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    ports = {
        port["name"]
        for each in objects
        if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()
        for port in each["spec"]["ports"]
    }
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports
    for each in objects:
        if each["kind"] == "Service":
            assert each["metadata"].get("annotations") is None


def test_every_selector_finds_the_pods_it_means() -> None:
    objects = helm.template("--set=netperf.enabled=true")
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"].items()
        for each in objects
        if each["kind"] in ("DaemonSet", "Deployment", "Job")
    }
    found = {
        each["metadata"]["name"]: [
            name
            for name, labels in pods.items()
            if each["spec"]["selector"].items() <= labels
        ]
        for each in objects
        if each["kind"] == "Service"
    }
    assert found == {
        "try-bigtcp-agent": ["try-bigtcp-agent"],
        "try-bigtcp-agent-netperf": ["try-bigtcp-agent-netperf-1"],
        "try-bigtcp-agent-netperf-server": ["try-bigtcp-agent-netperf-server"],
    }
    job = helm.one(objects, "Job")["spec"]["template"]["spec"]
    affinity = job["affinity"]["podAntiAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    apart = term["labelSelector"]["matchLabels"].items()
    assert [name for name, labels in pods.items() if apart <= labels] == [
        "try-bigtcp-agent-netperf-server"
    ]


def test_the_policy_opens_the_agents_port_to_who_asks() -> None:
    flags = ("--set=ciliumNetworkPolicy.enabled=true,agent.port=29715",)
    kind = "CiliumClusterwideNetworkPolicy"
    spec = helm.one(helm.template(*flags), kind)["spec"]
    ports = [{"ports": [{"port": "29715", "protocol": "TCP"}]}]
    assert spec["ingress"] == [{"toPorts": ports, "fromEntities": ["cluster"]}]
    assert spec["enableDefaultDeny"] == {"ingress": False, "egress": False}
    assert spec["nodeSelector"] == {"matchLabels": {}}
    peer = "ciliumNetworkPolicy.fromEndpoints[0].matchLabels.app"
    node = "ciliumNetworkPolicy.nodeSelector.role"
    more = (f"--set={peer}=prometheus,{node}=worker,netperf.enabled=true",)
    objects = helm.template(*flags, *more)
    spec = helm.one(objects, kind)["spec"]
    assert spec["nodeSelector"] == {"matchLabels": {"role": "worker"}}
    (rule,) = spec["ingress"]
    assert set(rule) == {"toPorts", "fromEndpoints"}
    assert rule["toPorts"] == ports
    prometheus, ours = rule["fromEndpoints"]
    assert prometheus == {"matchLabels": {"app": "prometheus"}}
    labels = ours["matchLabels"]
    assert labels.pop("k8s:io.kubernetes.pod.namespace") == "agents"
    (among,) = ours["matchExpressions"]
    assert among["operator"] == "In"
    client = helm.one(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    test = helm.one(objects, "Pod")["metadata"]["labels"]
    for asking in (client, test):
        assert labels.items() <= asking.items()
        assert asking[among["key"]] in among["values"]


def test_netperf_is_off_and_needs_no_right() -> None:
    kinds = {each["kind"] for each in helm.template()}
    assert not kinds & {"Job", "CronJob", "Deployment"}
    objects = helm.template("--set=netperf.enabled=true")
    for kind in ("Job", "Deployment"):
        context = helm.container(helm.one(objects, kind))["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("flags", "image", "policy"),
    [
        ([], f"localhost/bigtcp-agent-netperf:{__version__}", "IfNotPresent"),
        (
            [
                "image.registry=r:5,image.repository=a,image.tag=v2,image.pullPolicy=Always"
            ],
            "r:5/a-netperf:v2",
            "Always",
        ),
        (
            [f"image.repository=r/a,image.digest=sha256:{'0' * 64}"],
            f"r/a-netperf:{__version__}",
            "IfNotPresent",
        ),
        (
            ["image.registry=r,image.tag=v2", "netperf.image.repository=s/n"],
            "s/n:v2",
            "IfNotPresent",
        ),
        (
            ["netperf.image.registry=s", "netperf.image.tag=v3"],
            "s/localhost/bigtcp-agent-netperf:v3",
            "IfNotPresent",
        ),
    ],
)
def test_the_image_of_netperf_comes_from_where_the_agents_does(
    flags: list[str], image: str, policy: str
) -> None:
    objects = helm.template(f"--set={','.join(['netperf.enabled=true', *flags])}")
    for kind in ("Job", "Deployment"):
        found = helm.container(helm.one(objects, kind))
        assert (found["image"], found["imagePullPolicy"]) == (image, policy)
    agent = helm.container(helm.one(objects, "DaemonSet"))["image"]
    assert "netperf" not in agent


def test_pods_of_netperf_take_what_is_given() -> None:
    flags = "netperf.podLabels.a=b,netperf.podAnnotations.c=d"
    more = "netperf.enabled=true,netperf.priorityClassName=low"
    objects = helm.template(f"--set={flags},{more}")
    for kind in ("Job", "Deployment"):
        pod = helm.one(objects, kind)["spec"]["template"]
        assert pod["metadata"]["labels"]["a"] == "b"
        assert pod["metadata"]["annotations"] == {"c": "d"}
        assert pod["spec"]["priorityClassName"] == "low"


@pytest.mark.parametrize("version", helm.VERSIONS)
def test_what_is_given_for_one_object_wins(version: str) -> None:
    """Over what is given for all, and over what the chart would say itself."""
    scrape, container = (
        "prometheus.io/scrape",
        "kubectl.kubernetes.io/default-container",
    )
    values = {
        "commonLabels": {"team": "all", "release": "all"},
        "podLabels": {"team": "agent"},
        "podAnnotations": {container: "mine"},
        "service": {"annotations": {scrape: ""}},
        "netperf": {"enabled": True, "podLabels": {"team": "netperf"}},
        "dashboards": {"enabled": True, "label": "team", "labelValue": "grafana"},
    }
    operated = {
        **values,
        "serviceMonitor": {"enabled": True, "labels": {"release": "monitor"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "rule"}},
    }

    def rendered(values: dict[str, object]) -> list[helm.Object]:
        flags = [f"--set-json={key}={json.dumps(its)}" for key, its in values.items()]
        return helm.template(*flags, version=version)

    def labels(owner: helm.Object) -> dict[str, str]:
        found: dict[str, str] = owner["metadata"]["labels"]
        return found

    objects = rendered(values)
    agent = helm.one(objects, "DaemonSet")
    pod = agent["spec"]["template"]
    assert labels(agent)["team"] == "all"
    assert labels(pod)["team"] == "agent"
    assert labels(pod)["release"] == "all"
    assert pod["metadata"]["annotations"] == {container: "mine"}
    job = helm.one(objects, "Job")["spec"]["template"]
    assert labels(job)["team"] == "netperf"
    service = helm.one(objects, "Service", "try-bigtcp-agent")
    annotations = service["metadata"]["annotations"]
    assert annotations[scrape] == ""
    assert annotations["prometheus.io/port"] == "19715"
    config_maps = [each for each in objects if each["kind"] == "ConfigMap"]
    assert {labels(each)["team"] for each in config_maps} == {"grafana"}

    objects = rendered(operated)
    for monitor in (each for each in objects if each["kind"].endswith("Monitor")):
        assert labels(monitor)["release"] == "monitor"
    assert labels(helm.one(objects, "PrometheusRule"))["release"] == "rule"


@pytest.mark.parametrize("version", helm.VERSIONS)
def test_null_is_nothing(version: str) -> None:
    """It takes a value's default away."""
    names = (
        *("commonLabels", "podLabels", "podAnnotations", "service.annotations"),
        *("serviceMonitor.labels", "prometheusRule.labels", "netperf.podLabels"),
    )
    parts = ("serviceMonitor", "prometheusRule", "netperf", "dashboards")
    flags = [f"{each}.enabled=true" for each in parts]
    taken = [f"{each}=null" for each in names]

    def rendered(*values: str) -> list[helm.Object]:
        return helm.template(f"--set={','.join(values)}", version=version)

    assert rendered(*flags, *taken, "dashboards.labelValue=null") == rendered(
        *flags, "dashboards.labelValue="
    )


def test_a_tenth_of_the_agents_at_a_time() -> None:
    """Kubernetes rounds up: with two nodes that is one after the other."""
    strategy = helm.one(helm.template(), "DaemonSet")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": "10%"}


@pytest.mark.parametrize("schedule", ["", "@hourly"])
@pytest.mark.parametrize(("given", "seconds"), [("", None), ("0", 0), ("3600", 3600)])
def test_a_job_of_netperf_goes_when_it_is_told(
    schedule: str, given: str, seconds: int | None
) -> None:
    values = f"netperf.enabled=true,netperf.schedule={schedule}"
    more = [f"--set=netperf.ttlSecondsAfterFinished={given}"] if given else []
    objects = helm.template(f"--set={values}", *more)
    job = helm.one(objects, "CronJob" if schedule else "Job")["spec"]
    job = job["jobTemplate"]["spec"] if schedule else job
    assert job.get("ttlSecondsAfterFinished") == seconds
    # Twice what three runs of two families and two scrapes of a minute take, and more.
    assert job["activeDeadlineSeconds"] == 300 + 2 * (2 * 3 * 10 + 150)


def test_a_quota_that_takes_the_agents_takes_the_test() -> None:
    flags = "--set=resources.limits.cpu=1,resources.requests.memory=200Mi"
    objects = helm.template(flags)
    ours = helm.container(helm.one(objects, "DaemonSet"))["resources"]
    (test,) = helm.one(objects, "Pod")["spec"]["containers"]
    assert test["resources"] == ours
    assert ours["limits"]["cpu"] == 1


def test_dashboards_and_rules_come_as_they_are(tmp_path: Path) -> None:
    """With the braces of Grafana and Prometheus, which are Helm's, too."""
    copy = tmp_path / "chart"
    subprocess.run(["cp", "-r", str(helm.CHART), str(copy)], check=True)
    dashboard = {"title": "{{ .Values.x }}", "legend": '{{interface}} ü \\ "'}
    (copy / "dashboards").mkdir(exist_ok=True)
    (copy / "dashboards/of-a-test.json").write_text(json.dumps(dashboard, indent=1))
    group = {
        "name": "of-a-test",
        "rules": [
            {
                "alert": "A",
                "expr": "up == 0",
                "annotations": {"summary": "{{ $labels.node }} is {{ $value }}"},
            }
        ],
    }
    (copy / "rules").mkdir(exist_ok=True)
    (copy / "rules/of-a-test.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    done = helm.run(
        *("helm4", "template", "try", str(copy), "--kube-version=1.34.4"),
        "--set=dashboards.enabled=true,prometheusRule.enabled=true",
    )
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    config = helm.one(objects, "ConfigMap", "try-bigtcp-agent-of-a-test")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["bigtcp-agent-of-a-test.json"]) == dashboard
    groups = helm.one(objects, "PrometheusRule")["spec"]["groups"]
    assert [each for each in groups if each["name"] == "of-a-test"] == [group]


@pytest.mark.parametrize("url", ["", "https://wiki.example/bigtcp"])
def test_alerts_link_their_runbook_where_it_can_be_read(url: str) -> None:
    flags = "--set=prometheusRule.enabled=true,prometheusRule.runbookURL="
    found = helm.one(helm.template(f"{flags}{url}"), "PrometheusRule")
    alerts = [
        rule
        for group in found["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert alerts
    for alert in alerts:
        link = f"{url}#{alert['alert'].lower()}" if url else None
        assert alert["annotations"].get("runbook_url") == link


def test_two_releases_of_one_name_have_no_object_in_common() -> None:
    """Each in a namespace of its own, all that is optional in a third."""
    flags = [
        *("netperf.enabled=true", "ciliumNetworkPolicy.enabled=true"),
        *("serviceMonitor.enabled=true", "serviceMonitor.namespace=monitoring"),
        *("prometheusRule.enabled=true", "prometheusRule.namespace=monitoring"),
        *("dashboards.enabled=true", "dashboards.namespace=monitoring"),
    ]
    ours, theirs = (
        {
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in helm.template(f"--set={','.join(flags)}", f"--namespace={name}")
        }
        for name in ("agents", "others")
    )
    assert len(ours) == len(theirs) > 15
    assert not ours & theirs
